"""Entry point of ``python -m paretofit.cli``."""

from paretofit.cli import main

if __name__ == "__main__":
    main()
