"""Run ``mace_run_train`` in a process that ends with its parent: ``-m ...training_worker PARENT_ID OPTIONS``."""

import sys

from paretofit.execution import exit_with_parent


def main() -> None:
    """Train a network with the arguments of the command line, and end with the parent process.

    The first argument is the id of the parent process, and the others are options of mace_run_train.
    """
    exit_with_parent(int(sys.argv.pop(1)))
    from mace.cli.run_train import main as train  # noqa: PLC0415  (the import takes seconds, and MACE is optional)

    train()


if __name__ == "__main__":
    main()
