"""A small study on the shipped data, and the input of a small sweep."""

import numpy as np
from conftest import first_configurations
from ruamel.yaml import YAML

from paretofit import SnapBasis, compute_design
from paretofit.dataset import split_configurations
from paretofit.sweep import SweepInput

SMALL = {
    "dataset": str(first_configurations()),
    "basis": {"elements": ["Be"]},
    "levels": [2, 4, 5],
    "twojmax": [2, 4],
    "weights": [1, 12.25],
    "sizes": [20, 60, "all"],
    "sampling_methods": ["random", "leverage", "block-leverage"],
    "repetitions": 3,
    "confidence": {"splits": 2, "bootstrap": 50},
    "cost": {"measure_md": False},  # what is timed differs from run to run
}


def study_file(folder, **changes):
    path = folder / "study.yaml"
    content = {key: value for key, value in {**SMALL, **changes}.items() if value is not None}
    with path.open("w") as stream:
        YAML().dump(content, stream)
    return path


def sweep_input(beryllium, folder, basis=None):
    """Compute the rows of 66 configurations, with a train/test split."""
    subset = beryllium.select(np.arange(0, 197, 3))
    design = compute_design(subset, basis or SnapBasis(elements=["Be"], twojmax=4), folder / "design.h5")
    design = design.with_labels(subset, subset.levels)
    split = split_configurations(np.arange(len(subset)), 0.6, 3)
    return SweepInput(design, split.train, split.test, (150.0, 1.0))
