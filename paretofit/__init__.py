"""Choose DFT convergence, training data, model and weights for an interatomic potential from one Pareto front.

Public names are imported on first use, so that reading results, fronts and plans requires neither LAMMPS nor MPI nor
torch.
"""

import sys

# The arguments of the interpreter: worker processes inherit those of the command in sys.argv.
if any(argument == "paretofit.cli" or argument.endswith("/paretofit") for argument in sys.orig_argv[1:3]):
    from paretofit.early_signals import catch_early_signals  # before slower imports, such as that of lazy_loader

    catch_early_signals()

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

try:
    __version__ = version("paretofit")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
