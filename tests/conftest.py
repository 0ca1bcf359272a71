"""Shared fixtures: the shipped data, the shared data where it is, and one LAMMPS for the session."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from helpers.pictures import empty_pictures, rendered_pictures
from hypothesis import settings
from threadpoolctl import threadpool_limits

from paretofit.dataset import Dataset, LevelData, write_dataset
from paretofit.dataset.io import read_labels

settings.register_profile("paretofit", deadline=None, derandomize=True)  # machines are shared, and slow at times
settings.load_profile("paretofit")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("PARETOFIT_SHARED", ROOT.parent / "shared"))


LONGEST_FIRST = (
    "test_notebooks.py", "test_faults.py", "test_explorer.py", "test_uncertainty.py", "test_mace.py",
    "test_learning.py", "test_study.py", "test_cluster.py", "test_fitsnap_engine.py", "test_md_engines.py",
    "test_validation.py", "test_low_dimensions.py", "test_fast_engine.py", "test_gpaw.py", "test_slurm.py",
    "test_run_report.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest files first, as at the end one process would wait for them alone; and time for what is slow."""
    order = {name: k for k, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(7200))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small matrices gain nothing from threads, and lose much where cores are few."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session", autouse=True)
def _empty_pictures():
    """Figures are drawn, but not rendered, except where `rendered_figures` is used."""
    with empty_pictures():
        yield


@pytest.fixture(scope="module")
def rendered_figures():
    """Figures are rendered in this module."""
    with rendered_pictures():
        yield


@pytest.fixture(scope="session", autouse=True)
def _signing_key(tmp_path_factory):
    """The key that signs networks is not that of the user who runs the tests."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data_home"))


FIRST = 197  # configurations of the shipped dataset that tests work with: numbers in them are measured on these


@cache
def first_configurations():
    """A file of the first configurations of the shipped dataset, at the levels that all of them have."""
    folder = Path(tempfile.mkdtemp(prefix="paretofit-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with Dataset(ROOT / "data" / "beryllium.h5") as shipped:
        selected = shipped[:FIRST]
        levels = {
            name: LevelData(read_labels(selected, name), selected.settings(name))
            for name in selected.levels
            if selected.labels(name).is_complete.all()
        }
        write_dataset(folder / "beryllium.h5", list(selected), levels, selected.ids)
    return folder / "beryllium.h5"


@pytest.fixture(scope="session")
def beryllium():
    """The first configurations of the shipped beryllium dataset, see `first_configurations`."""
    with Dataset(first_configurations()) as data:
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
    from paretofit.core import create_lammps

    return create_lammps()


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
