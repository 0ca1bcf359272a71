"""What a study takes from its dataset, and what it leaves out and says so."""

import numpy as np
import pytest
from ase.build import bulk

from paretofit import InputError
from paretofit.dataset import LevelData, write_dataset
from paretofit.study import Study, prepare_study


@pytest.fixture
def dataset(tmp_path):
    """Twelve cells of Cu, of which the DFT of two did not converge."""
    structures = [bulk("Cu", a=3.5 + 0.02 * k, cubic=True) for k in range(12)]
    labels = [
        {"energy": -1.0, "forces": np.zeros((4, 3)), "seconds": 1.0, "info": {"scf_converged": k not in {3, 7}}}
        for k in range(12)
    ]
    write_dataset(tmp_path / "d.h5", structures, {"a": LevelData(labels)})
    return tmp_path / "d.h5"


def make_study(dataset, **changes):
    return Study.model_validate({"dataset": dataset, "basis": {"elements": ["Cu"]}, "twojmax": [2], **changes})


def test_unconverged_labels_are_excluded_and_counted(dataset):
    prepared = prepare_study(make_study(dataset))
    assert prepared.unconverged_ids == [3, 7]
    assert len(prepared.dataset) == 10
    prepared = prepare_study(make_study(dataset, unconverged_labels="keep"))
    assert prepared.unconverged_ids == []
    assert len(prepared.dataset) == 12


def test_no_converged_label_is_refused(tmp_path):
    labels = [{"energy": -1.0, "forces": np.zeros((4, 3)), "info": {"scf_converged": False}, "seconds": 1.0}] * 3
    structures = [bulk("Cu", a=3.5 + 0.02 * k, cubic=True) for k in range(3)]
    write_dataset(tmp_path / "d.h5", structures, {"a": LevelData(labels)})
    with pytest.raises(InputError, match="no configuration has converged labels .* 'unconverged_labels: keep'"):
        prepare_study(make_study(tmp_path / "d.h5"))
