"""Choose DFT convergence, training data, model and weights for an interatomic potential from one Pareto front.

Public names are imported on first use, so that reading results, fronts and plans requires neither LAMMPS nor MPI nor
torch.
"""

import sys

if sys.argv[:1] == ["-m"] and "paretofit.cli" in sys.orig_argv or sys.argv and sys.argv[0].endswith("/paretofit"):
    from paretofit.cli.early_signals import catch_early_signals  # before slower imports

    catch_early_signals()

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

try:
    __version__ = version("paretofit")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
