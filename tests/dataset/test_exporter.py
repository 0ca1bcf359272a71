"""Export and import again: the same dataset to the last bit, whatever is in it."""

import json
from functools import partial
from io import StringIO

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from conftest import ROOT
from helpers import command_line
from helpers.importing import import_dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paretofit import Dataset, InputError
from paretofit.dataset import LevelData, export_dataset, read_level_settings, write_dataset
from paretofit.dataset.io import format_extxyz
from paretofit.dataset.writer import dump_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=4), inner, max_size=2),
    max_leaves=4,
)


def again(path, folder, end="extxyz", **options):
    """Export a dataset, import the files, and return the path of the new dataset."""
    summary = export_dataset(path, folder, format=end)
    import_dataset(folder / "d.h5", summary.paths, settings=read_level_settings(summary.settings_path), **options)
    return folder / "d.h5"


def assert_same(first, second):
    with Dataset(first) as expected, Dataset(second) as actual:
        assert expected.ids.tolist() == actual.ids.tolist()
        assert expected.hash_structures() == actual.hash_structures(), "geometries, to the last bit"
        assert expected.info_records == actual.info_records
        assert expected.levels == actual.levels
        for level in expected.levels:
            assert expected.settings(level) == actual.settings(level)
            assert expected.label_records(level) == actual.label_records(level)
            expected_labels, actual_labels = expected.labels(level), actual.labels(level)
            for name in ("energy", "forces", "stress", "seconds", "status"):
                np.testing.assert_array_equal(
                    getattr(expected_labels, name), getattr(actual_labels, name), err_msg=f"{level} {name}"
                )


@pytest.mark.parametrize(
    ("name", "end"), [("beryllium", "extxyz"), ("beryllium_far", "extxyz"), ("beryllium_far", "db")]
)
def test_shipped_data_come_back_to_the_last_bit(tmp_path, name, end):
    path = ROOT / "data" / f"{name}.h5"
    assert_same(path, again(path, tmp_path, end))


def random_dataset(path, seed=0, info=None):
    """Numbers with all their digits, in cells of every kind, and labels that are missing, failed or incomplete."""
    rng = np.random.default_rng(seed)
    configurations, labels = [], []
    for k in range(6):
        cell = rng.normal(size=(3, 3)) * 5 if k else np.zeros((3, 3))
        pbc = [bool(k), k > 1, k > 2]
        atoms = Atoms("BeOW", positions=rng.normal(size=(3, 3)) * 1e3 ** (k - 3), cell=cell, pbc=pbc)
        atoms.info.update(info or {}, number=k)
        configurations.append(atoms)
        label = {"energy": rng.normal() * 1e5, "forces": rng.normal(size=(3, 3)), "seconds": rng.uniform()}
        labels.append({**label, "stress": rng.normal(size=6), "info": {"mesh": [k, 2, 3], "engine": "T"}})
    labels[1] = None
    labels[2] = {"status": "failed", "seconds": 3.5, "info": {"error": "no convergence, at all = 1"}}
    labels[3].update(stress=None, seconds=None)
    labels[4].update(forces=None)
    levels = {"a b": LevelData(labels, {"cutoff_ev": 1 / 3, "mesh": None, "smearing": {"width_ev": 0.2}})}
    write_dataset(path, configurations, levels, [7, 3, 2**40, 0, -5, 11])
    return path


@pytest.mark.parametrize("end", ["extxyz", "db"])
def test_what_is_missing_or_failed_comes_back_as_such(tmp_path, end):
    path = random_dataset(tmp_path / "first.h5")
    summary = export_dataset(path, tmp_path / "out", format=end)
    assert summary.n_configurations == 6
    assert summary.unlabelled_ids == {"a b": [3, 2**40, -5]}
    assert_same(path, again(path, tmp_path / "again", end))


@settings(max_examples=150)
@given(info=st.dictionaries(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6), JSON, max_size=4))
@example({"": None, "b": "007", "c": "T", "d": "a, b", "e": "_JSON 1", "f": '\\"', "g": [[1], [1, 2]], "h": "1 2"})
@example({"0": chr(34) + chr(10)})  # a line break ends the comment line of extended XYZ
def test_whatever_is_known_of_a_configuration_comes_back(info):
    """Text that looks like a number, a list, a flag or nothing at all; quotes, brackets and line breaks."""
    atoms = Atoms("Be", positions=[[1 / 3, 0, 0]], info={f"x{key}": value for key, value in info.items()})
    read = ase.io.read(StringIO(format_extxyz(atoms)), format="extxyz")
    known = json.loads(dump_json(read.info))
    aside = known.pop("config_info", {})
    assert known | aside == atoms.info
    assert read.positions.tolist() == atoms.positions.tolist()


def test_stress_keeps_its_order_and_sign(tmp_path):
    """Checked with ASE's own reader, which knows nothing of the export."""
    atoms = Atoms("Be", cell=np.eye(3) * 3, pbc=True)
    stress = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) / 3
    label = {"energy": -1.0, "forces": [[0.1, 0.2, 0.3]], "stress": stress}
    write_dataset(tmp_path / "d.h5", [atoms], {"a": LevelData([label])}, [4])
    plain = ase.io.read(export_dataset(tmp_path / "d.h5", tmp_path).paths["a"])
    assert plain.get_stress().tolist() == stress.tolist()
    assert plain.get_potential_energy() == plain.get_potential_energy(force_consistent=True) == -1.0
    mace = ase.io.read(export_dataset(tmp_path / "d.h5", tmp_path, keys="mace", overwrite=True).paths["a"])
    assert mace.calc is None, "nothing stands where MACE would take it for results of ASE"
    assert mace.info["REF_energy"] == -1.0
    assert mace.arrays["REF_forces"].tolist() == [[0.1, 0.2, 0.3]]
    xx, yy, zz, yz, xz, xy = stress
    assert mace.info["REF_stress"].reshape(3, 3).tolist() == [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
    with ase.db.connect(
        export_dataset(tmp_path / "d.h5", tmp_path, format="db", overwrite=True).paths["a"]
    ) as database:
        row = database.get(config_id=4)
        assert row.stress.tolist() == stress.tolist()
        assert row.energy == row.free_energy == -1.0


def test_mace_keys_come_back_too(tmp_path):
    path = random_dataset(tmp_path / "first.h5")
    summary = export_dataset(path, tmp_path, keys="mace")
    result = import_dataset(tmp_path / "d.h5", summary.paths, settings=read_level_settings(summary.settings_path))
    assert f"{summary.paths['a b']}: labels were taken from REF_energy, REF_forces, REF_stress" in result.notes
    assert_same(path, tmp_path / "d.h5")


def test_info_that_looks_like_a_label_is_set_aside(tmp_path):
    atoms = Atoms("Be", cell=np.eye(3) * 3, pbc=True, info={"energy": 5.0, 'a "b"=': 1, "REF_forces": [[1], [1, 2]]})
    write_dataset(tmp_path / "d.h5", [atoms], {"a": LevelData([{"energy": -1.0, "forces": np.zeros((1, 3))}])})
    for options in ({}, {"keys": "mace"}, {"format": "db"}):
        summary = export_dataset(tmp_path / "d.h5", tmp_path, overwrite=True, **options)
        import_dataset(tmp_path / "again.h5", summary.paths)
        assert_same(tmp_path / "d.h5", tmp_path / "again.h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xyz"}, "format must be one of extxyz, db; got 'xyz'; did you mean 'extxyz'"),
        ({"keys": "nequip"}, "keys must be one of plain, mace"),
        ({"levels": ["chep"]}, "did you mean 'cheap'"),
        ({"keys": "mace", "format": "db"}, "use 'plain'"),
    ],
)
def test_what_cannot_be_exported(small_dataset, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_dataset(small_dataset, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"small\.h5 is a file; choose a directory"):
        export_dataset(small_dataset, small_dataset)


def test_the_command_line_exports_and_imports(small_dataset, tmp_path):
    call = partial(command_line.call, cwd=tmp_path)
    done = call("export", small_dataset, "-o", "out", "--level", "good")
    assert done.returncode == 0, done.stderr
    assert "level_good.extxyz: 12 configurations\n" in done.stdout
    assert not (tmp_path / "out" / "level_cheap.extxyz").exists()
    done = call("import", "new.h5", "--level", "good=out/level_good.extxyz", "--level-settings", "out/levels.yaml")
    assert done.returncode == 0, done.stderr
    assert "level good: 12 labels" in done.stdout
    assert call("export", "none.h5", "-o", "out").returncode == 2
    for verb in ("export", "import"):
        assert f"paretofit {verb}" in call(verb, "--help").stdout
