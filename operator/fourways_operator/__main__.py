"""``python -m fourways_operator``."""

from .main import main

main()
