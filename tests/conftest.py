"""Shared fixtures: the shipped data, the shared data where it is, and one LAMMPS for the session."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from threadpoolctl import threadpool_limits

from paretofit.dataset import Dataset, LevelData, write_dataset

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("PARETOFIT_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small matrices gain nothing from threads, and lose much where cores are few."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def beryllium():
    """The shipped beryllium dataset."""
    with Dataset(ROOT / "data" / "beryllium.h5") as data:
        yield data


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data beside the checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder


@pytest.fixture(scope="session")
def lammps():
    """One LAMMPS instance for the session."""
    from paretofit.lammps_library import lammps_instance

    return lammps_instance()


@pytest.fixture
def small_dataset(tmp_path):
    """Twelve random beryllium cells with made-up labels at two levels."""
    rng = np.random.default_rng(5)
    configurations, cheap, good = [], [], []
    for k in range(12):
        cell = np.eye(3) * 4.2 + rng.normal(size=(3, 3)) * 0.2
        atoms = Atoms("Be4", cell=cell, pbc=True, scaled_positions=_spread(rng))
        atoms.info["parent"] = f"crystal-{k // 2}"
        configurations.append(atoms)
        forces = rng.normal(size=(4, 3))
        good.append({"energy": -14.0 + rng.normal() * 0.1, "forces": forces, "seconds": 10.0 + k})
        cheap.append({"energy": -13.5 + rng.normal() * 0.2, "forces": forces * 1.1, "seconds": 1.0})
    path = tmp_path / "small.h5"
    write_dataset(path, configurations, {"cheap": LevelData(cheap), "good": LevelData(good, {"cutoff_ev": 500})})
    return path


def _spread(rng):
    """Four sites of an fcc cell, shaken."""
    sites = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return sites + rng.uniform(-0.06, 0.06, size=(4, 3))
