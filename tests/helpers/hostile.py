"""Readers of input files, each with a small valid file, for `test_hostile` and `tests/fuzz`.

A reader takes a path and reads the whole file. For any bytes, it must return or raise an InputError.
"""

import io
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ruamel.yaml import YAML

from helpers.file_texts import SECTIONS, VASPRUN, fitsnap, outcar
from paretofit import Dataset, DesignMatrix, InputError
from paretofit.commands import load_label_study
from paretofit.dataset import LevelData, describe_dataset, import_dataset, read_level_settings, write_dataset
from paretofit.dataset import dataset_html as html
from paretofit.fitsnap import read_fitsnap_input
from paretofit.pareto import extract_front_from_csv
from paretofit.study import load_study
from paretofit.uncertainty import EnvironmentGrade, read_committee

STUDIES = Path(__file__).parents[2] / "studies"
XYZ = (
    '2\nLattice="2.2 0 0 0 3.3 0 0 0 3.5" Properties=species:S:1:pos:R:3:forces:R:3 energy=-7.5 pbc="T T T" '
    'config_id=3 config_type="bulk [1]" stress="1 0 0 0 1 0 0 0 1" nested={"a": [1, 2]}\n'
    "Be 0 0 0 0.1 -0.2 0.3\nBe 1.1 1.65 1.75 -0.1 0.2 -0.3\n"
)


@dataclass(frozen=True)
class Reader:
    """Reader of a kind of file, with the file's name and valid content."""

    name: str
    read: Callable[[Path], object]
    valid: Callable[[], bytes]


def imported(path: Path) -> None:
    """Import one file and read the resulting dataset."""
    with tempfile.TemporaryDirectory() as folder:
        import_dataset(Path(folder) / "out.h5", {"a": path})
        whole_dataset(Path(folder) / "out.h5")


def whole_dataset(path: Path) -> None:
    """Read everything that a dataset holds."""
    with Dataset(path) as data:
        list(data)
        data.hash_structures()
        for level in data.levels:
            data.labels(level)
            data.label_records(level)
            data.settings(level)
        describe_dataset(data)
        html.render_dataset(data)


def whole_design(path: Path) -> None:
    """Read everything that a design matrix holds."""
    design = DesignMatrix.open(path)
    design.read_all_rows()
    assert design.n_constant >= 0
    list(design.iterate_blocks(4))


def whole_study(path: Path) -> None:
    """Load a study, and the parts of it that other verbs read."""
    load_study(path)
    load_label_study(path)


@cache
def _read_shipped_studies() -> dict[str, Any]:
    content: dict[str, Any] = {}
    for path in sorted(STUDIES.glob("*.yaml")):
        content.update(YAML(typ="safe").load(path))
    del content["mixtures"]  # they exclude the ridge penalties and the leave-one-out errors of another study
    return content


def study_content() -> dict[str, Any]:
    """Return a study with every section of the shipped studies."""
    return deepcopy(_read_shipped_studies())


def yaml_text(content: Any) -> str:
    """Return the content as YAML."""
    stream = io.StringIO()
    YAML(typ="safe").dump(content, stream)
    return stream.getvalue()


def front(path: Path) -> None:
    """Extract the front of a table."""
    extract_front_from_csv(path, ["energy", "force"], ["level"], drop_missing=True)


def structure(shift: float = 0.0) -> Atoms:
    """Return two atoms with labels."""
    atoms = Atoms("Be2", positions=[[0, 0, 0], [1.1, 1.65, 1.75 + shift]], cell=[2.2, 3.3, 3.5], pbc=True)
    forces = np.array([[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]])
    atoms.calc = SinglePointCalculator(atoms, energy=-7.5, forces=forces, stress=np.arange(6.0))
    return atoms


def _create_file_content(name: str, make: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def make_dataset(path: Path) -> None:
    """Write two configurations at two levels."""
    labels = [{"energy": -7.5, "forces": np.ones((2, 3)), "seconds": 2.0, "info": {"mesh": [1, 2]}}, None]
    levels = {"a": LevelData(labels, {"cutoff_ev": 300, "kind": [1, 2]}), "b": LevelData(labels[::-1])}
    write_dataset(path, [structure(), structure(0.1)], levels)


def make_design(path: Path) -> None:
    """Write eight rows of three columns."""
    rows = np.random.default_rng(0).normal(size=(8, 3))
    kinds, owners = ["energy", "force", "force", "force"] * 2, [0] * 4 + [7] * 4
    targets, seconds = {"a": np.arange(8.0)}, {"a": np.ones(2)}
    DesignMatrix.from_arrays(rows, kinds, owners, targets=targets, seconds=seconds).save(path)


def make_committee(path: Path) -> None:
    """Write three members of four coefficients."""
    from paretofit.core import RowKind
    from paretofit.uncertainty import CalibrationData, Uncertainty, write_committee
    from paretofit.uncertainty.extrapolation import TrainingLeverage

    held = CalibrationData(
        *(np.arange(4) if name == "configuration" else np.ones(4) for name in CalibrationData._fields)
    )
    grade = EnvironmentGrade(False, np.ones(4), np.ones((4, 4)), np.ones((4, 2)))
    selected = Uncertainty(
        "bootstrap", {RowKind.ENERGY: held}, {"Be": grade}, TrainingLeverage(np.arange(4), np.eye(4)), 1.0,
        {"0" * 16: "train"}, 0.9, "a",
    )  # fmt: skip
    write_committee(path, np.random.default_rng(0).normal(size=(3, 4)), selected)


def _database(path: Path) -> None:
    with ase.db.connect(path, serial=True) as database:
        database.write(structure(), kind="bulk", data={"list": [1, 2]})


def _input() -> bytes:
    return "\n".join(f"[{name}]\n{content}" for name, content in SECTIONS.items()).encode()


HDF5 = ("dataset", "design", "committee")
READERS = {
    "study": Reader("s.yaml", whole_study, lambda: yaml_text(study_content()).encode()),
    "levels": Reader("l.yaml", read_level_settings, lambda: b"code: pw.x\nlevels:\n- {name: 1, cutoff_ev: 300}\n"),
    "extxyz": Reader("a.extxyz", imported, XYZ.encode),
    "vasprun": Reader("vasprun.xml", imported, VASPRUN.encode),
    "outcar": Reader("OUTCAR", imported, outcar().encode),
    "fitsnap_json": Reader("a.json", imported, fitsnap().encode),
    "fitsnap_input": Reader("a.in", read_fitsnap_input, _input),
    "ase_json": Reader("a.json", imported, lambda: _create_file_content("a.json", _database)),
    "ase_db": Reader("a.db", imported, lambda: _create_file_content("a.db", _database)),
    "traj": Reader("a.traj", imported, lambda: _create_file_content("a.traj", lambda path: structure().write(path))),
    "dataset": Reader("a.h5", whole_dataset, lambda: _create_file_content("a.h5", make_dataset)),
    "design": Reader("a.h5", whole_design, lambda: _create_file_content("a.h5", make_design)),
    "committee": Reader("a.h5", read_committee, lambda: _create_file_content("a.h5", make_committee)),
    "csv": Reader("a.csv", front, lambda: b'level,energy,force\n01,1.5,nan\n2,"3",1e3\n'),
}


@cache
def valid(kind: str) -> bytes:
    """Return the bytes of a valid file of this kind."""
    return READERS[kind].valid()


def feed(kind: str, content: bytes, folder: Path) -> None:
    """Read a file of these bytes."""
    path = folder / READERS[kind].name
    path.write_bytes(content)
    READERS[kind].read(path)


def refused(call: Callable[..., object], *arguments: object) -> str:
    """Return the error message with which a call refuses its arguments."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)
