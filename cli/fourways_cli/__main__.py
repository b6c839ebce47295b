"""``python -m fourways_cli``: the command line if its script is not on the PATH."""

from .main import main

main()
