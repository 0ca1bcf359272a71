"""``mace_run_train`` in a process that does not outlive the one that started it: ``-m ...worker PARENT OPTIONS``."""

import sys

from paretofit.execution import exit_with_parent


def main() -> None:
    """Train; the first argument is the process to follow, all others are mace_run_train's."""
    exit_with_parent(int(sys.argv.pop(1)))
    from mace.cli.run_train import main as train  # noqa: PLC0415  (seconds of import, and the extra)

    train()


if __name__ == "__main__":
    main()
