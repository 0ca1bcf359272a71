"""Descriptors: LAMMPS's own quadratic rows are the oracle, and physics the second one."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, molecule
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from paretofit import Dataset, DesignMatrix, InputError, SnapBasis, compute_design
from paretofit.core import RowKind
from paretofit.core.lammps_library import SHARED_MEMORY_FOLDER
from paretofit.dataset import LevelData, write_dataset
from paretofit.descriptors import DesignBlock, compute_configuration_rows, format_lammps_error
from paretofit.descriptors import compute as descriptor_compute


def cells(symbols):
    """Triclinic, tiny, left-handed, skewed and dense cells."""
    rng = np.random.default_rng(7)

    def random(cell, n):
        return Atoms((symbols * n)[:n], cell=cell, pbc=True, scaled_positions=rng.random((n, 3)))

    tiny = np.eye(3) * 2.1 + rng.normal(size=(3, 3)) * 0.1
    left_handed = np.array([[0, 3.1, 0], [3.3, 0, 0.2], [0.1, 0.3, 3.6]])
    skewed = np.array([[2.9, 0, 0], [8.7, 3.0, 0], [-5.5, 6.1, 3.2]])
    return {
        "triclinic": random(np.eye(3) * 4.5 + rng.normal(size=(3, 3)) * 0.8, 6),
        "tiny": Atoms(symbols * (2 // len(symbols)), cell=tiny, pbc=True, positions=[[0, 0, 0], [1.0, 1.2, 1.1]]),
        "one atom": random(tiny, 1),
        "left-handed": random(left_handed, 4),
        "skewed": random(skewed, 3),
    }


def relative_difference(ours, theirs):
    """Largest difference in units of each column's largest entry."""
    scale = np.abs(theirs).max(axis=0)
    return float((np.abs(ours - theirs) / np.where(scale > 0, scale, 1)).max())


@pytest.mark.parametrize("twojmax", [4, 6, 8, 10])
@pytest.mark.parametrize("elements", [["Be"], ["W", "Be"]])
@pytest.mark.parametrize("shape", ["triclinic", "tiny", "one atom", "left-handed", "skewed"])
def test_rows_equal_lammps_quadratic_rows(lammps, twojmax, elements, shape):
    basis = SnapBasis(elements=elements, twojmax=twojmax, radelem=[0.5, 0.417][: len(elements)])
    atoms = cells(elements)[shape]
    energy, forces = compute_configuration_rows(lammps, basis, atoms)
    lammps_energy, lammps_forces = compute_configuration_rows(lammps, basis, atoms, use_lammps_products=True)
    assert relative_difference(energy[None], lammps_energy[None]) < 1e-10
    if shape == "one atom":  # no force on it by symmetry: only rounding is left to compare
        forces, lammps_forces = (np.vstack([energy, rows]) for rows in (forces, lammps_forces))
    assert relative_difference(forces, lammps_forces) < 1e-10


def test_direct_rows_are_what_compute_snap_prints(lammps):
    """The reordering of LAMMPS's own columns, checked against the bare command by column names."""
    basis = SnapBasis(elements=["Be"], twojmax=3)
    atoms = Atoms("Be2", cell=np.diag([3.0, 3.5, 4.0]), pbc=True, positions=[[0.1, 0.2, 0.3], [1.4, 1.9, 2.2]])
    energy_row, force_rows = compute_configuration_rows(lammps, basis, atoms)
    lammps.commands_string(
        "uncompute rows\ncompute raw all snap 4.812302818 0.99363 3 0.5 1.0 rmin0 0 bzeroflag 1 quadraticflag 1\n"
        "thermo_style custom step c_raw[1][1]\nrun 0 post no"
    )
    raw = np.array(lammps.numpy.extract_compute("raw", 0, 2))
    components = [f"B({','.join(map(str, component))})" for component in basis.lammps_components]
    names = components + [f"{a}*{b}" for k, a in enumerate(components) for b in components[k:]]
    for k, name in enumerate(names):
        swapped = "*".join(name.split("*")[::-1])
        column = basis.column_names.index(next(n for n in (f"{name}[Be]", f"{swapped}[Be]") if n in basis.column_names))
        assert energy_row[column] == pytest.approx(raw[0, k] / 2, rel=1e-10, abs=1e-12)
        assert force_rows[:, column] == pytest.approx(raw[1:7, k], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "settings", [{}, {"quadratic": False}, {"chemflag": True}, {"bzeroflag": False, "switchflag": False}]
)
def test_smaller_models_are_leading_columns(lammps, settings):
    elements = ["W", "Be"]
    atoms = cells(elements)["triclinic"]
    largest = SnapBasis(elements=elements, twojmax=4 if settings.get("chemflag") else 8, **settings)
    full = compute_configuration_rows(lammps, largest, atoms)[1]
    for twojmax in range(largest.twojmax):
        small = SnapBasis(elements=elements, twojmax=twojmax, **settings)
        p = largest.count_columns_up_to(twojmax)
        assert p == small.n_features
        assert largest.column_names[:p] == small.column_names
        rows = compute_configuration_rows(lammps, small, atoms)[1]
        assert relative_difference(full[:, :p], rows) < 1e-10


def test_counts_of_features():
    for twojmax, components in {4: 14, 6: 30, 8: 55, 10: 91}.items():
        basis = SnapBasis(elements=["Be"], twojmax=twojmax)
        assert basis.n_components == components
        assert basis.n_features == components + components * (components + 1) // 2 + 1
        assert len(set(basis.column_names)) == basis.n_features


@pytest.mark.parametrize("elements", [["Be"], ["W", "Be"]])
@pytest.mark.parametrize("chemflag", [False, True])
def test_force_rows_are_minus_the_gradient_of_the_energy_row(lammps, elements, chemflag):
    basis = SnapBasis(
        elements=elements, twojmax=4 if not chemflag else 2, chemflag=chemflag, wj=[1.0, 0.9][: len(elements)]
    )
    atoms = cells(elements)["left-handed"]
    energy_row, force_rows = compute_configuration_rows(lammps, basis, atoms)
    step = 1e-4
    for atom, axis in ((0, 0), (2, 1), (3, 2)):
        moved = []
        for sign in (1, -1):
            displaced = atoms.copy()
            displaced.positions[atom, axis] += sign * step
            moved.append(compute_configuration_rows(lammps, basis, displaced)[0] * len(atoms))
        numeric = -(moved[0] - moved[1]) / (2 * step)
        scale = np.abs(force_rows).max(axis=0) + 1e-3 * np.abs(energy_row)
        assert (np.abs(numeric - force_rows[3 * atom + axis]) / np.where(scale > 0, scale, 1)).max() < 1e-5


def test_invariance_under_rotation_translation_and_permutation(lammps):
    basis = SnapBasis(elements=["W", "Be"], twojmax=6)
    atoms = cells(basis.elements)["triclinic"]
    energy_row, force_rows = compute_configuration_rows(lammps, basis, atoms)
    turn = Rotation.from_rotvec([0.3, -1.2, 0.7]).as_matrix()
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = Atoms(
        atoms.numbers[order], cell=atoms.cell[:] @ turn.T, pbc=True, positions=((atoms.positions + 1.7) @ turn.T)[order]
    )
    turned_energy, turned_forces = compute_configuration_rows(lammps, basis, moved)
    assert relative_difference(turned_energy[None], energy_row[None]) < 1e-9
    expected = np.einsum("ab,nbk->nak", turn, force_rows.reshape(6, 3, -1))[order].reshape(18, -1)
    assert relative_difference(turned_forces, expected) < 1e-9


def test_a_supercell_has_the_same_energy_row(lammps):
    basis = SnapBasis(elements=["Be"], twojmax=6)
    atoms = bulk("Be", "hcp", a=2.27, c=3.57)
    small, _ = compute_configuration_rows(lammps, basis, atoms)
    large, _ = compute_configuration_rows(lammps, basis, atoms.repeat((3, 2, 2)))
    assert relative_difference(large[None], small[None]) < 1e-10


def test_directions_that_are_not_periodic(lammps):
    """A molecule and a sheet see no images; a box of vacuum around them changes nothing."""
    basis = SnapBasis(elements=["C", "H"], twojmax=4)
    ethane = molecule("C2H6")
    energy_row, force_rows = compute_configuration_rows(lammps, basis, ethane)
    boxed = ethane.copy()
    boxed.set_cell(np.eye(3) * 30)
    boxed.center()
    boxed.pbc = True
    same = compute_configuration_rows(lammps, basis, boxed)
    assert relative_difference(energy_row[None], same[0][None]) < 1e-10
    assert relative_difference(force_rows, same[1]) < 1e-9
    sheet = graphene(vacuum=None)
    assert sheet.pbc.tolist() == [True, True, False]
    thick = sheet.copy()
    thick.cell[2] = [0, 0, 25]
    thick.pbc = True
    assert (
        relative_difference(
            *(compute_configuration_rows(lammps, basis, structure)[0][None] for structure in (sheet, thick))
        )
        < 1e-10
    )


def test_many_atoms_take_lammps_rows(lammps, monkeypatch):
    basis = SnapBasis(elements=["Be"], twojmax=2)
    atoms = bulk("Be", "hcp", a=2.27, c=3.57).repeat((6, 6, 5))
    assert len(atoms) == 360
    energy_row, force_rows = compute_configuration_rows(lammps, basis, atoms)
    small, _ = compute_configuration_rows(lammps, basis, bulk("Be", "hcp", a=2.27, c=3.57))
    assert relative_difference(energy_row[None], small[None]) < 1e-9
    assert force_rows.shape == (1080, basis.n_features)


def test_wrong_input_names_the_configuration(lammps, tmp_path, beryllium):
    with pytest.raises(InputError, match="configuration 5 has W, an element that the basis lacks"):
        compute_configuration_rows(
            lammps, SnapBasis(elements=["Be"]), Atoms("W", cell=np.eye(3) * 3, pbc=True, info={"config_id": 5})
        )
    flat = Atoms("Be", cell=[[3, 0, 0], [0, 3, 0], [0, 0, 0]], pbc=True, info={"config_id": 6})
    with pytest.raises(InputError, match="configuration 6 is periodic along a cell vector of length zero"):
        compute_configuration_rows(lammps, SnapBasis(elements=["Be"]), flat)
    with pytest.raises(InputError, match="has Be, an element that the basis lacks; the basis has W"):
        compute_design(beryllium, SnapBasis(elements=["W"], twojmax=2), tmp_path / "d.h5")
    with pytest.raises(ValidationError, match="'Bee' is not a chemical symbol"):
        SnapBasis(elements=["Bee"])
    with pytest.raises(ValidationError, match="radelem must have one value for each of the 2 elements"):
        SnapBasis(elements=["W", "Be"], radelem=[0.5])


def test_design_of_the_shipped_data_is_the_same_for_any_number_of_processes(tmp_path, beryllium):
    basis = SnapBasis(elements=["Be"], twojmax=4)
    subset = beryllium.select(np.arange(0, 197, 4))
    serial = compute_design(subset, basis, tmp_path / "one.h5")
    parallel = compute_design(subset, basis, tmp_path / "two.h5", jobs=2)
    assert (serial.read_all_rows() == parallel.read_all_rows()).all()
    assert serial.ids.tolist() == subset.ids.tolist()
    labelled = serial.with_labels(subset, ["1", "5"])
    energy = labelled.kind == RowKind.ENERGY
    assert labelled.targets["5"][energy] == pytest.approx(subset.labels("5").energy / subset.n_atoms)
    assert (labelled.targets["1"][~energy] == subset.labels("1").forces.ravel()).all()
    assert labelled.seconds["1"].tolist() == subset.labels("1").seconds.tolist()
    assert not labelled.find_missing_labels("5").any()


def test_a_stopped_design_resumes(tmp_path, beryllium, monkeypatch, capsys):
    basis, subset = SnapBasis(elements=["Be"], twojmax=2), beryllium.select(np.arange(0, 197, 4))
    expected = compute_design(subset, basis, tmp_path / "whole.h5")
    compute, ids = descriptor_compute._compute_block, []

    def stop_after_two(batch, **options):
        if len(ids) == 2:
            raise KeyboardInterrupt
        ids.append(batch)
        return compute(batch, **options)

    monkeypatch.setattr(descriptor_compute, "_compute_block", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        compute_design(subset, basis, tmp_path / "d.h5")
    assert not (tmp_path / "d.h5").exists()

    def record(batch, **options):
        ids.append(batch)
        return compute(batch, **options)

    monkeypatch.setattr(descriptor_compute, "_compute_block", record)
    design = compute_design(subset, basis, tmp_path / "d.h5", progress=True)
    assert [config_id for batch in ids for config_id in batch] == subset.ids.tolist()  # none is computed twice
    assert (design.read_all_rows() == expected.read_all_rows()).all()
    assert np.array_equal(design.kind, expected.kind)
    assert "descriptors: 2 of" in capsys.readouterr().err
    assert not (tmp_path / "d.partial").exists()


def test_design_from_arrays_and_blocks_agree(tmp_path):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(7, 3))
    kind = ["energy", "force", "force", "energy", "force", "stress", "energy"]
    owner, targets = [4, 4, 4, 2, 2, 2, 9], {"a": rng.normal(size=7), "b": rng.normal(size=7)}
    design = DesignMatrix.from_arrays(
        rows, kind, owner, targets=targets, seconds={"a": [1, 2, 3]}, column_levels=[0, 2, 4]
    )
    saved = design.save(tmp_path / "d.h5")
    for candidate in (design, saved):
        assert candidate.ids.tolist() == [4, 2, 9]
        assert candidate.configuration.tolist() == [0, 0, 0, 1, 1, 1, 2]
        assert (candidate.read_all_rows() == rows).all()
        assert candidate.count_columns_up_to(2) == 2
        assert (candidate.targets["b"] == targets["b"]).all()
        assert candidate.seconds["a"].tolist() == [1, 2, 3]
        assert np.vstack([block for _, block in candidate.iterate_blocks(2)]).tolist() == rows.tolist()


def test_designs_that_cannot_be(tmp_path):
    rows = np.ones((2, 2))
    with pytest.raises(InputError, match="'energy', 'force' or 'stress'"):
        DesignMatrix.from_arrays(rows, ["energy", "virial"], [0, 0])
    with pytest.raises(InputError, match="row 1 contains a value that is not finite"):
        DesignMatrix.from_arrays([[1, 2], [3, np.nan]], ["energy"] * 2, [0, 1])
    with pytest.raises(InputError, match="ascending"):
        DesignMatrix.from_arrays(rows, ["energy"] * 2, [0, 1], column_levels=[4, 2])
    with pytest.raises(InputError, match=r"targets of level 'a' must have the shape \(2,\)"):
        DesignMatrix.from_arrays(rows, ["energy"] * 2, [0, 1], targets={"a": [1.0]})
    with pytest.raises(InputError, match="at least one block"):
        DesignMatrix.from_blocks([], tmp_path / "d.h5")
    (tmp_path / "d.h5").write_text("no")
    with pytest.raises(InputError, match="corrupt or truncated"):
        DesignMatrix.open(tmp_path / "d.h5")


def test_two_elements_through_a_dataset(tmp_path):
    atoms = bulk("W", "bcc", a=3.17, cubic=True)
    atoms.symbols[1] = "Be"
    label = {"energy": -15.0, "forces": np.zeros((2, 3)), "seconds": 1.0}
    write_dataset(
        tmp_path / "d.h5",
        [atoms, bulk("W", "bcc", a=3.2)],
        {"x": LevelData([label, {**label, "forces": np.zeros((1, 3))}])},
    )
    basis = SnapBasis(elements=["W", "Be"], twojmax=2, radelem=[0.5, 0.417], wj=[1.0, 0.96])
    with Dataset(tmp_path / "d.h5") as data:
        rows = compute_design(data, basis, tmp_path / "design.h5").read_all_rows()
    assert rows[0, :2].tolist() == [0.5, 0.5]
    assert rows[7, :2].tolist() == [1.0, 0.0]
    assert not rows[1:7, :2].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [[1, 2], [3]]}, "rows must be real numbers in rows of equal length"),
        ({"rows": [["1", "2"], ["3", "4"]]}, "rows must be real numbers"),
        ({"rows": np.array([[1, "2"], [3, 4]], dtype=object)}, "rows must be real numbers"),
        ({"rows": np.ones((2, 2)) * 1j}, "rows must be real numbers"),
        ({"rows": [1.0, 2.0]}, r"\(n_rows, n_features\)"),
        ({"kind": None}, "kind must be a list .* for each of the 2 rows; got None"),
        ({"kind": "energy"}, "kind must be a list .* got 'energy'"),
        ({"kind": [["energy"], []]}, "kind must be a list"),
        ({"configuration": [[0], []]}, "configuration must be a whole number for each of the 2 rows"),
        ({"configuration": [0.5, 1]}, "configuration must be a whole number"),
        ({"targets": "dft"}, "targets must be a mapping of level to 2 numbers.* got 'dft'"),
        ({"targets": {"a": ["x", "y"]}}, "targets of level 'a' must be real numbers"),
        ({"targets": {"a": [[1], []]}}, "targets of level 'a' must be real numbers"),
        ({"targets": {1: [1, 2], "1": [1, 2]}}, "targets has the level '1' twice"),
        ({"seconds": [1.0, 2.0]}, "seconds must be a mapping"),
        ({"column_levels": [0, 1.5]}, "column_levels must be 2 ascending whole numbers"),
        ({"column_levels": [0, np.nan]}, "column_levels must be 2 ascending whole numbers"),
        ({"column_levels": ["0", "1"]}, "column_levels must be real numbers"),
        ({"column_names": "ab"}, "column_names must be a list"),
        ({"column_names": ["a", "b\0"]}, "NUL"),
        *(
            ({"targets": {name: [1, 2]}}, "is not a valid name for a convergence level")
            for name in (".", "a/b", "a\0", "  ", "")
        ),
    ],
)
def test_arrays_that_are_no_design_are_refused_in_one_sentence(change, message):
    arguments = {"rows": np.ones((2, 2)), "kind": ["energy"] * 2, "configuration": [0, 1]} | change
    with pytest.raises(InputError, match=message) as caught:
        DesignMatrix.from_arrays(**arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_lists_are_arrays_and_none_is_a_missing_label():
    design = DesignMatrix.from_arrays([[1, 2]], ["energy"], [3], targets={"a": [None]}, column_levels=[0.0, 2.0])
    assert design.find_missing_labels("a").tolist() == [True]
    assert design.column_levels.dtype == np.int64
    with pytest.raises(InputError, match="no level 'b'; available: a"):
        design.find_missing_labels("b")


def test_saving_keeps_what_made_a_design(tmp_path):
    block = DesignBlock(np.ones((2, 2)), ["energy"] * 2, [0, 1])
    design = DesignMatrix.from_blocks([block], tmp_path / "a.h5", attributes={"basis": "{}", "structures": "x"})
    assert design.attributes == {"basis": "{}", "structures": "x"}
    assert design.save(tmp_path / "b.h5").attributes == design.attributes
    assert design.load_into_memory().save(tmp_path / "a.h5").read_all_rows().tolist() == [[1, 1], [1, 1]]


def test_a_failed_label_is_a_missing_one(tmp_path):
    label = {"energy": -1.0, "forces": np.zeros((1, 3))}
    crystals = [bulk("Be", "bcc", a=2.5), bulk("Be", "bcc", a=2.6)]
    write_dataset(tmp_path / "d.h5", crystals, {"x": LevelData([{**label, "status": "failed"}, label])})
    with Dataset(tmp_path / "d.h5") as data:
        basis = SnapBasis(elements=["Be"], twojmax=1)
        design = compute_design(data, basis, tmp_path / "design.h5")
        assert design.with_labels(data, ["x"]).find_missing_labels("x").tolist() == [True, False]
        with pytest.raises(InputError, match="jobs must be at least 1"):
            compute_design(data, basis, tmp_path / "design.h5", jobs=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rcutfac": 0.01}, "cutoff, .*, must lie between 0.5 and 25 Å; got 0.01"),
        ({"rcutfac": 1000}, "must lie between 0.5 and 25 Å; got 1000"),
        ({"rmin0": 4.9}, "rmin0 must be smaller than the shortest cutoff, .* = 4.8123 Å; got 4.9"),
        ({"wj": [np.nan]}, "finite"),
        ({"wj": np.inf}, "finite"),
        ({"radelem": {"Be": 0.5}}, "radelem must be a list with one entry for each element, .* not a mapping"),
        ({"elements": ["X"]}, "'X' is not a chemical symbol"),
    ],
)
def test_settings_that_no_basis_can_have(settings, message):
    with pytest.raises(ValidationError, match=message):
        SnapBasis(**{"elements": ["Be"]} | settings)


def test_tuples_and_arrays_are_lists():
    basis = SnapBasis(elements=("W", "Be"), radelem=(0.5, 0.4), wj=np.array([1.0, 0.9]))
    assert basis == SnapBasis(elements=["W", "Be"], radelem=[0.5, 0.4], wj=[1.0, 0.9])
    assert SnapBasis(elements=("W", "Be"), radelem=0.5, wj=()) == SnapBasis(elements=["W", "Be"])


def test_lammps_is_quoted_without_its_source_lines(lammps):
    noisy = (
        "ERROR on proc 0: Too many bins\nFor more information see https://docs.lammps.org/err0009 "
        "(src/src/nbin_standard.cpp:213)\nLast input line: run 0 post no"
    )
    assert format_lammps_error(Exception(noisy)) == "Too many bins"
    dense = Atoms("Be", cell=np.eye(3) * 0.02, pbc=True, info={"config_id": 4})
    with pytest.raises(InputError, match="configuration 4: LAMMPS stopped with: ") as caught:
        compute_configuration_rows(lammps, SnapBasis(elements=["Be"], twojmax=1), dense)
    assert not any(part in str(caught.value) for part in ("http", "src/", "Last input", "\n"))


def test_structures_that_lammps_must_not_see(lammps):
    basis = SnapBasis(elements=["Be"], twojmax=1)
    flat = Atoms("Be", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True, info={"config_id": 6})
    with pytest.raises(InputError, match="configuration 6: its cell has no volume"):
        compute_configuration_rows(lammps, basis, flat)
    nowhere = Atoms("Be", positions=[[np.nan, 0, 0]], cell=np.eye(3) * 3, pbc=True, info={"config_id": 6})
    with pytest.raises(InputError, match="configuration 6 has positions or cell vectors that are not finite"):
        compute_configuration_rows(lammps, basis, nowhere)


LEFTOVERS = """
import sys
from pathlib import Path
from paretofit import Dataset, InputError, SnapBasis, compute_design

if __name__ == "__main__":
    with Dataset(sys.argv[1]) as data:
        try:
            compute_design(data, SnapBasis(elements=["Be"], twojmax=1), sys.argv[2], jobs=int(sys.argv[3]))
        except InputError as error:
            print(error)
"""


@pytest.mark.skipif(not SHARED_MEMORY_FOLDER.is_dir(), reason=f"no {SHARED_MEMORY_FOLDER}")
@pytest.mark.parametrize(
    ("jobs", "fails"),
    [
        (1, False),
        (2, True),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(2, False, marks=pytest.mark.slow),
    ],
)
def test_no_process_leaves_shared_memory_behind(tmp_path, jobs, fails):
    """Also where joblib kills its workers, because one of them could not describe a configuration."""
    crystals = [bulk("Be", "bcc", a=2.5).repeat(3) for _ in range(12)]
    if fails:
        crystals[9] = Atoms("Be", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True)
    write_dataset(tmp_path / "d.h5", crystals, {})
    (tmp_path / "main.py").write_text(LEFTOVERS)
    before = {path.name for path in SHARED_MEMORY_FOLDER.glob("mpich_shm_*")}
    command = [sys.executable, "main.py", "d.h5", "design.h5", str(jobs)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("no volume" in done.stdout) == fails
    time.sleep(0.5)  # for workers that are still on their way out
    others = [path for path in SHARED_MEMORY_FOLDER.glob("mpich_shm_*") if path.name not in before]
    assert not [path for path in others if not Path("/proc", str(int(path.name.split("_")[2], 16))).exists()]


def test_a_dataset_that_is_written_anew_is_described_anew(tmp_path):
    basis, rows = SnapBasis(elements=["Be"], twojmax=2), []
    for length in (2.3, 2.6):
        atoms = bulk("Be", "hcp", a=length, c=1.57 * length)
        write_dataset(tmp_path / "d.h5", [atoms], {})
        with Dataset(tmp_path / "d.h5") as data:
            rows.append(compute_design(data, basis, tmp_path / f"{length}.h5").read_all_rows())
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
