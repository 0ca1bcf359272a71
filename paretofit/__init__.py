"""paretofit: decide how to make an interatomic potential before paying for it.

Public names are loaded on first use, so that reading results, fronts and plans needs neither
LAMMPS nor MPI nor torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paretofit.dataset import Dataset
    from paretofit.descriptors import DesignMatrix, SnapBasis, compute_design
    from paretofit.errors import InputError
    from paretofit.linear import Reduction, fit_wls, leverage_scores, sample_configurations
    from paretofit.pareto import pareto_front
    from paretofit.study import Study, run_study
    from paretofit.study.augment import augment_study
    from paretofit.study.evaluate import evaluate_dataset
    from paretofit.study.fit_dataset import fit_dataset
    from paretofit.study.learn import learn
    from paretofit.study.plan import plan
    from paretofit.study.select import select_structures

try:
    __version__ = version("paretofit")
except PackageNotFoundError:  # used from a source tree that is not installed
    __version__ = "0+unknown"

_HOME = {
    "Dataset": "paretofit.dataset",
    "DesignMatrix": "paretofit.descriptors",
    "InputError": "paretofit.errors",
    "Reduction": "paretofit.linear",
    "SnapBasis": "paretofit.descriptors",
    "Study": "paretofit.study",
    "augment_study": "paretofit.study.augment",
    "compute_design": "paretofit.descriptors",
    "evaluate_dataset": "paretofit.study.evaluate",
    "fit_dataset": "paretofit.study.fit_dataset",
    "fit_wls": "paretofit.linear",
    "learn": "paretofit.study.learn",
    "leverage_scores": "paretofit.linear",
    "pareto_front": "paretofit.pareto",
    "plan": "paretofit.study.plan",
    "run_study": "paretofit.study",
    "sample_configurations": "paretofit.linear",
    "select_structures": "paretofit.study.select",
}

__all__ = [
    "Dataset",
    "DesignMatrix",
    "InputError",
    "Reduction",
    "SnapBasis",
    "Study",
    "__version__",
    "augment_study",
    "compute_design",
    "evaluate_dataset",
    "fit_dataset",
    "fit_wls",
    "learn",
    "leverage_scores",
    "pareto_front",
    "plan",
    "run_study",
    "sample_configurations",
    "select_structures",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its room on first use (PEP 562)."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'paretofit' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted(__all__)
