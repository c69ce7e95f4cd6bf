"""``python -m lightmuseg.cli``."""

from . import main

main()
