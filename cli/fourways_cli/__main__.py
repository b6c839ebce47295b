"""``python -m fourways_cli``: the command line if its script is not on the PATH."""

import sys

if not sys.flags.safe_path:
    # The folder that the command is called in: a module there must not replace one of ours.
    del sys.path[0]

from .main import main

main()
