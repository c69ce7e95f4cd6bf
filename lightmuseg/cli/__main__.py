"""``python -m lightmuseg.cli``."""

from lightmuseg.cli import main

main()
