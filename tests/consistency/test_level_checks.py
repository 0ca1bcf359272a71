"""What cannot be right, or stands out, in the differences between neighbouring levels."""

import numpy as np
import pytest
from ase.build import bulk
from conftest import ROOT

from paretofit import Dataset
from paretofit.consistency import compare_labels
from paretofit.consistency.level_checks import find_level_warnings
from paretofit.dataset import LevelData, write_dataset

SETTINGS = {"cutoff_ev": 300.0, "kspacing_per_angstrom": 0.5, "functional": "PBE"}


def warnings_of(tmp_path, change, upper=None, n=20):
    """Warnings for labels whose upper level lies 5 to 7 meV/atom lower, after `change` of them."""
    rng = np.random.default_rng(1)
    atoms = [bulk("Be", "hcp", a=2.2 + 0.01 * k, c=3.5) for k in range(n)]
    pull = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    low, high = [], []
    for _ in atoms:
        known = {"info": {"kpts": [8, 8, 5]}}
        error = 0.01 * np.array([[1], [-1]]) * rng.normal(size=3)
        low.append({"energy": -7.0, "forces": pull, **known})
        high.append({"energy": -7.0 - 2 * rng.uniform(0.005, 0.007), "forces": pull + error, **known})
    change(low, high)
    finer = {**SETTINGS, "cutoff_ev": 500.0, **(upper or {})}
    write_dataset(tmp_path / "d.h5", atoms, {"a": LevelData(low, SETTINGS), "b": LevelData(high, finer)})
    with Dataset(tmp_path / "d.h5") as data:
        assert set(find_level_warnings(data)) <= set(compare_labels(data))
        return list(find_level_warnings(data))


def test_labels_in_order_give_no_warning(tmp_path):
    assert warnings_of(tmp_path, lambda low, high: None) == []


@pytest.mark.parametrize("name", ["beryllium", "beryllium_far"])
def test_the_shipped_labels_give_no_warning(name):
    with Dataset(ROOT / "data" / f"{name}.h5") as data:
        assert list(find_level_warnings(data)) == []


def test_an_energy_that_rises_with_the_cutoff_is_named(tmp_path):
    def swap(low, high):
        low[3]["energy"], high[3]["energy"] = high[3]["energy"], low[3]["energy"]

    (text,) = (text for text in warnings_of(tmp_path, swap) if "rises" in text)
    assert "levels a and b" in text
    assert "in configuration 3" in text


@pytest.mark.parametrize("upper", [{"functional": "LDA"}, {"cutoff_ev": 300.0}])
def test_energies_may_rise_where_more_than_the_cutoff_changes(tmp_path, upper):
    def lift(low, high):
        for label in high:
            label["energy"] += 0.1

    assert warnings_of(tmp_path, lift, upper) == []


def test_energies_may_rise_where_the_mesh_changes(tmp_path):
    def lift(low, high):
        for label in high:
            label["energy"] += 0.1
            label["info"] = {"kpts": [9, 9, 6]}

    assert warnings_of(tmp_path, lift) == []


def test_outliers_in_energy_and_force_are_named(tmp_path):
    def disturb(low, high):
        high[5]["energy"] -= 0.2
        high[7]["forces"] = high[7]["forces"] + np.array([[1.0, 0, 0], [-1.0, 0, 0]])

    energy, force = warnings_of(tmp_path, disturb)
    assert energy.startswith("levels a and b: the energy differences of 1 configuration")
    assert energy.endswith(": 5")
    assert force.startswith("levels a and b: the force differences of 1 configuration")
    assert force.endswith(": 7")


def test_failed_and_missing_labels_are_not_compared(tmp_path):
    def remove(low, high):
        low[2] = None
        high[4] = {"status": "failed", "energy": 100.0}

    assert warnings_of(tmp_path, remove) == []
