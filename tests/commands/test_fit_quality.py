"""Errors of default fits on public data, with all settings chosen on the training set."""

import os
from pathlib import Path

import pytest
from conftest import ROOT

from paretofit.commands import evaluate_dataset, fit_dataset
from paretofit.dataset import import_dataset

MLEARN = Path(os.environ.get("PARETOFIT_SHARED", ROOT.parent / "shared")) / "data" / "mlearn"
# Test errors of qSNAP, meV/atom and meV/Å: Y. Zuo et al., J. Phys. Chem. A 124, 731 (2020).
PUBLISHED_ERRORS = {"Mo": (4.04, 333.0), "Si": (5.51, 177.0)}


@pytest.mark.slow
@pytest.mark.skipif(not MLEARN.is_dir(), reason="the mlearn sets are not available")
@pytest.mark.parametrize("element", PUBLISHED_ERRORS)
def test_a_default_fit_has_lower_test_errors_than_the_published_quadratic_model(tmp_path, element):
    for name in ("training", "test"):
        import_dataset(tmp_path / f"{name}.h5", {"dft": MLEARN / element / f"{name}.json"})
    fit_dataset(tmp_path / "training.h5", tmp_path / "potential")
    evaluation = evaluate_dataset(tmp_path / "potential", tmp_path / "test.h5")
    table = evaluation.components  # of all configurations: a few are equivalent to training configurations by symmetry
    energy, force = PUBLISHED_ERRORS[element]
    for quantity, limit in (("energy", energy), ("force", force)):
        error = table.loc[table["quantity"] == quantity, "error"]
        assert (error**2).mean() ** 0.5 < limit, evaluation.text
