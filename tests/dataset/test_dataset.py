"""The dataset file: what goes in comes out, in chunks, and damage is named."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import Dataset, InputError
from paretofit.core import atomic_path, remove_file, write_text
from paretofit.dataset import (
    LevelData,
    assign_groups,
    describe_dataset,
    format_dataset_info,
    split_configurations,
    write_dataset,
)
from paretofit.dataset.quality import has_close_atoms
from paretofit.dataset.quality.close_atoms import measure_shortest_distance
from paretofit.dataset.stored_dataset import MAX_CHUNK_CONFIGURATIONS


def test_shipped_data_is_what_its_readme_says(beryllium):
    assert len(beryllium) == 197
    assert beryllium.n_atoms.sum() == 963
    assert beryllium.levels == ["1", "2", "3", "4", "5"]
    reference = beryllium.labels("5")
    rmsd = [
        1000 * np.sqrt(np.mean(((beryllium.labels(level).energy - reference.energy) / beryllium.n_atoms) ** 2))
        for level in beryllium.levels
    ]
    assert rmsd == pytest.approx([4217.7, 120.2, 37.2, 22.4, 0.0], abs=0.05)
    force = [
        1000 * np.sqrt(np.mean((beryllium.labels(level).forces - reference.forces) ** 2)) for level in beryllium.levels
    ]
    assert force == pytest.approx([918.1, 171.4, 94.7, 41.3, 0.0], abs=0.05)
    assert np.mean(reference.seconds) == pytest.approx(32.61, abs=0.005)


def test_round_trip_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    configurations = [
        Atoms(
            "BeW"[: 2 * (k % 2) + 1] if k % 2 else "Be",
            positions=rng.normal(size=(2 if k % 2 else 1, 3)),
            cell=rng.normal(size=(3, 3)),
            pbc=[True, k % 2 == 0, False],
        )
        for k in range(5)
    ]
    labels = [
        {
            "energy": rng.normal(),
            "forces": rng.normal(size=(len(atoms), 3)),
            "stress": rng.normal(size=6),
            "seconds": k + 0.25,
        }
        for k, atoms in enumerate(configurations)
    ]
    labels[3] = None
    configurations[1].info.update(config_type="rattled", parent=7, note=np.float64(1.5))
    write_dataset(
        tmp_path / "d.h5", configurations, {"a": LevelData(labels, {"cutoff_ev": 300, "k": None})}, [9, 8, 7, 6, 5]
    )
    with Dataset(tmp_path / "d.h5") as data:
        assert data.ids.tolist() == [9, 8, 7, 6, 5]
        assert data.settings("a") == {"cutoff_ev": 300, "k": None}
        for ours, theirs in zip(data, configurations, strict=True):
            assert (ours.positions == theirs.positions).all()
            assert (ours.cell[:] == theirs.cell[:]).all()
            assert (ours.pbc == theirs.pbc).all()
            assert (ours.numbers == theirs.numbers).all()
        assert data[1].info == {"config_type": "rattled", "parent": 7, "note": 1.5, "config_id": 8}
        stored = data.labels("a")
        assert stored.is_complete.tolist() == [True, True, True, False, True]
        assert np.isnan(stored.energy[3])
        assert stored.status.tolist() == [1, 1, 1, 0, 1]
        atoms_of_second = stored.offsets[1:3]
        assert (stored.forces[atoms_of_second[0] : atoms_of_second[1]] == labels[1]["forces"]).all()
        assert (stored.stress[4] == labels[4]["stress"]).all()


@given(st.lists(st.integers(0, 196), min_size=1, max_size=40))
@settings(max_examples=25)
def test_a_selection_is_the_same_as_picking_one_by_one(positions):
    from conftest import ROOT

    with Dataset(ROOT / "data" / "beryllium.h5") as data:
        view = data.select(positions)
        assert view.ids.tolist() == [int(data.ids[k]) for k in positions]
        whole, part = data.labels("3"), view.labels("3")
        assert (part.energy == whole.energy[positions]).all()
        expected = np.concatenate([whole.forces[whole.offsets[k] : whole.offsets[k + 1]] for k in positions])
        assert (part.forces == expected).all()
        assert [len(atoms) for atoms in view] == view.n_atoms.tolist()


def test_reading_crosses_chunks(tmp_path):
    n = MAX_CHUNK_CONFIGURATIONS + 7
    configurations = [Atoms("Be", positions=[[k, 0, 0]]) for k in range(n)]
    write_dataset(
        tmp_path / "d.h5",
        configurations,
        {"a": LevelData([{"energy": float(k), "forces": [[0, 0, k]]} for k in range(n)])},
    )
    with Dataset(tmp_path / "d.h5") as data:
        assert [atoms.positions[0, 0] for atoms in data] == list(range(n))
        assert (data.labels("a").energy == np.arange(n)).all()


def test_missing_level_is_named_with_a_suggestion(beryllium):
    with pytest.raises(InputError, match="no convergence level 'cheap'.*1, 2, 3, 4, 5"):
        beryllium.labels("cheap")
    with pytest.raises(InputError, match="no configuration with id 4711"):
        beryllium.select_ids([4711])


def test_what_is_not_a_dataset_is_said_in_one_sentence(tmp_path):
    text = tmp_path / "a.h5"
    text.write_text("hello")
    with pytest.raises(InputError, match="not an HDF5 file"):
        Dataset(text)
    with pytest.raises(InputError, match="no dataset at"):
        Dataset(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="not a paretofit dataset"):
        Dataset(tmp_path / "other.h5")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_named(tmp_path, share, beryllium):
    content = beryllium.path.read_bytes()
    broken = tmp_path / "broken.h5"
    broken.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"broken\.h5"):
        describe_dataset(Dataset(broken))


def test_flipped_bits_are_noticed(tmp_path, beryllium):
    content = bytearray(beryllium.path.read_bytes())
    with h5py.File(beryllium.path) as file:
        chunk = file["levels/5/forces"].id.get_chunk_info(0)
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    broken = tmp_path / "broken.h5"
    broken.write_bytes(content)
    with Dataset(broken) as data, pytest.raises(InputError, match="levels/5/forces"):
        data.labels("5")


def test_newer_schema_is_refused(tmp_path, beryllium):
    newer = tmp_path / "newer.h5"
    newer.write_bytes(beryllium.path.read_bytes())
    with h5py.File(newer, "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(InputError, match="schema version 99"):
        Dataset(newer)


def test_writing_leaves_nothing_half_done(tmp_path, small_dataset):
    before = small_dataset.read_bytes()
    with pytest.raises(InputError, match="forces must have the shape"):
        write_dataset(small_dataset, [Atoms("Be")], {"a": LevelData([{"energy": 1.0, "forces": np.zeros((2, 3))}])})
    assert small_dataset.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["small.h5"]
    with pytest.raises(InputError, match="at least one configuration"):
        write_dataset(small_dataset, [], {})
    with pytest.raises(InputError, match="unique; 3 appears"):
        write_dataset(small_dataset, [Atoms("Be")] * 2, {}, [3, 3])


def test_close_atoms_are_those_of_a_neighbour_list(monkeypatch):
    """In skewed cells, sheets, chains and clusters of both elements; every second one has close atoms."""
    rng, verdicts = np.random.default_rng(0), []
    for k in range(60):
        n = 2 + k % 5
        cell = np.eye(3) * (2.6 * n ** (1 / 3)) + rng.normal(size=(3, 3)) * 0.6
        atoms = Atoms(rng.choice([4, 74], n), scaled_positions=rng.random((n, 3)), cell=cell, pbc=np.arange(3) < k % 4)
        atoms.positions += rng.integers(-2, 3, size=(n, 3)) @ cell * atoms.pbc
        verdicts.append(has_close_atoms(atoms, 0.4))
        with monkeypatch.context() as patch:
            patch.setattr("paretofit.dataset.quality.close_atoms.MAX_DISTANCE_MATRIX_ATOMS", 0)
            assert has_close_atoms(atoms, 0.4) == verdicts[-1]
        distances = neighbor_list("d", atoms, 4.0)
        if len(distances):
            assert measure_shortest_distance(atoms) == pytest.approx(distances.min())
    assert 10 < sum(verdicts) < 50


def test_info_warns_of_trouble(tmp_path):
    good = Atoms("Be2", positions=[[0, 0, 0], [2.2, 0, 0]], cell=[6, 6, 6], pbc=True)
    shifted = good.copy()
    shifted.positions += 0.7
    close = Atoms("Be2", positions=[[0, 0, 0], [0.8, 0, 0]], cell=[6, 6, 6], pbc=True)
    image = Atoms("Be2", positions=[[0, 0, 0], [0, 3, 3]], cell=[1.0, 6, 6], pbc=True)
    pushed = np.array([[0.1, 0, 0], [0.1, 0, 0]])
    labels = [
        {"energy": -7.0, "forces": pushed},
        {"energy": -2.0},
        {"energy": -3.0, "forces": np.zeros((2, 3))},
        {"energy": -1.0, "forces": [[np.nan] * 3] * 2},
    ]
    write_dataset(tmp_path / "d.h5", [good, shifted, close, image], {"low": LevelData(labels)}, [10, 11, 12, 13])
    with Dataset(tmp_path / "d.h5") as data:
        info = describe_dataset(data)
    text = " | ".join(info.warnings)
    assert "1 duplicate configuration: 11 = 10" in text
    assert (
        "the labels of 1 duplicate contradict those of the same structure, by up to 2500 meV/atom and 0 meV/Å" in text
    )
    assert "2 configurations have atoms closer" in text
    assert "12, 13; the smallest distance is 0.8 Å, in configuration 12" in text
    assert "2 labels are missing or incomplete: 11, 13" in text
    assert "do not sum to zero in 1 label (" in text
    assert "configuration 10" in text
    assert info.levels[0].n_energies == 4
    assert info.levels[0].n_forces == 2
    assert all(line.startswith(("warning: ", "")) for line in format_dataset_info(info).splitlines())


def test_info_warns_of_labels_in_mev_and_without_forces(tmp_path):
    structures = [Atoms("Be2", positions=[[0, 0, 0], [2.2 + 0.1 * k, 0, 0]]) for k in range(3)]
    labels = [{"energy": -7000.0, "forces": [[300.0, 0, 0], [-300.0, 0, 0]]}] * 3
    levels = {"mev": LevelData(labels), "energies": LevelData([{"energy": -7.0}] * 3)}
    write_dataset(tmp_path / "d.h5", structures, levels)
    with Dataset(tmp_path / "d.h5") as data:
        info = describe_dataset(data)
    large_forces, no_forces = info.warnings
    assert large_forces.startswith("level mev: the largest force of a configuration is 300 eV/Å in the median")
    assert no_forces == "level energies: no label has both an energy and forces"
    assert "nan" not in format_dataset_info(info)


def test_the_cost_of_many_cores_has_its_own_column(tmp_path):
    label = {"energy": -1.0, "forces": np.zeros((1, 3)), "seconds": 576 * 22038.26}
    write_dataset(tmp_path / "d.h5", [Atoms("Be", cell=[3, 3, 3], pbc=True)], {"a": LevelData([label])})
    with Dataset(tmp_path / "d.h5") as data:
        (row,) = (line for line in format_dataset_info(describe_dataset(data)).splitlines() if line.startswith("a "))
    assert row.split()[4:6] == ["0", "12694037.76"]


def test_shipped_data_have_no_warnings(beryllium):
    assert describe_dataset(beryllium).warnings == []


def test_relatives_follow_chains():
    records = [
        {},
        {"parent": 0},
        {"parent": 1},
        {"trajectory": "a"},
        {"trajectory": "a", "parent": 9},
        {"parent": 9},
        {},
    ]
    assert assign_groups(range(7), records, ["parent", "trajectory"]).tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert assign_groups(range(7), records, ["parent"]).tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert assign_groups(range(7), records, []).tolist() == list(range(7))


@given(st.lists(st.integers(0, 9), min_size=4, max_size=60), st.floats(0.2, 0.8), st.integers(0, 99))
def test_a_split_keeps_families_together(group, fraction, seed):
    group = np.array(group)
    if len(set(group.tolist())) < 4:
        return
    try:
        split = split_configurations(group, fraction, seed)
    except InputError:
        return
    assert sorted([*split.train, *split.test]) == list(range(len(group)))
    assert not set(group[split.train].tolist()) & set(group[split.test].tolist())
    again = split_configurations(group, fraction, seed)
    assert (again.train == split.train).all()


def test_an_impossible_split_is_refused():
    with pytest.raises(InputError, match="leaves the training or the test set empty"):
        split_configurations(np.zeros(5, dtype=int), 0.5, 1)


def test_configuration_info_is_plain_json(small_dataset):
    with h5py.File(small_dataset) as file:
        assert json.loads(file["configurations/info"][3]) == {"parent": "crystal-1"}


@pytest.mark.parametrize("version", ["one", [1, 2], 1.5])
def test_a_schema_version_that_is_no_version_is_named(tmp_path, version, beryllium):
    odd = tmp_path / "odd.h5"
    odd.write_bytes(beryllium.path.read_bytes())
    with h5py.File(odd, "a") as file:
        file.attrs["schema_version"] = version
    with pytest.raises(InputError, match=r"odd\.h5: its schema_version must be a whole number"):
        Dataset(odd)


def read_all(path):
    with Dataset(path) as data:
        data.settings("good")
        describe_dataset(data)


def test_what_does_not_fit_together_in_a_file_is_damage(tmp_path, small_dataset):
    def broken(name, change):
        path = tmp_path / "broken.h5"
        path.write_bytes(small_dataset.read_bytes())
        with h5py.File(path, "a") as file:
            change(file)
        with pytest.raises(InputError, match=rf"broken\.h5: '{name}' cannot be read"):
            read_all(path)

    def replace(file, name, values):
        del file[name]
        file[name] = values

    broken("configurations/offsets", lambda file: replace(file, "configurations/offsets", np.arange(3)))
    broken("configurations/id", lambda file: (file.pop("configurations/id"), file.create_group("configurations/id")))
    broken("configurations/info", lambda file: replace(file, "configurations/info", ["{"] * 12))
    broken("levels/good/energy", lambda file: replace(file, "levels/good/energy", np.zeros(5)))
    broken("levels/good/forces", lambda file: replace(file, "levels/good/forces", np.zeros((5, 3))))
    broken("levels/good", lambda file: file.pop("levels/good"))


def test_positions_and_slices(beryllium):
    assert beryllium[-1].info["config_id"] == beryllium.ids[-1]
    with pytest.raises(IndexError, match=r"beryllium\.h5 has no configuration at position 500; it has 197"):
        beryllium[500]
    assert beryllium[0:3].ids.tolist() == beryllium.ids[:3].tolist()
    assert beryllium[::-50].ids.tolist() == beryllium.ids[::-50].tolist()
    assert len(beryllium[300:]) == 0
    for wrong in (["a"], [1.5], [[1]], np.array([True, False])):
        with pytest.raises(InputError, match=r"beryllium\.h5: (positions|a mask) must"):
            beryllium.select(wrong)
    with pytest.raises(InputError, match="whole number; got 'x'"):
        beryllium.select_ids(["x"])


def test_a_failed_label_is_not_complete(tmp_path):
    label = {"energy": -1.0, "forces": np.zeros((1, 3))}
    labels = [label, {**label, "status": "failed"}]
    write_dataset(tmp_path / "d.h5", [Atoms("Be")] * 2, {"a": LevelData(labels)})
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").is_complete.tolist() == [True, False]


@pytest.mark.parametrize("name", ["", "  ", ".", "..", "a/b", "a\0", "a\nb", 3])
def test_names_that_no_level_can_have(tmp_path, name):
    with pytest.raises(InputError, match="is not a valid name for a convergence level"):
        write_dataset(tmp_path / "d.h5", [Atoms("Be")], {name: LevelData([None])})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("identity", [1.5, "x", None, 2**63, float("nan")])
def test_ids_that_are_no_ids(tmp_path, identity):
    with pytest.raises(InputError, match="id must be a whole number"):
        write_dataset(tmp_path / "d.h5", [Atoms("Be")], {}, [identity])


def test_info_names_cells_without_volume_and_negative_costs(tmp_path):
    flat = Atoms("Be", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True)
    none = Atoms("Be", cell=[[3, 0, 0], [0, 3, 0], [0, 0, 0]], pbc=True)
    good = Atoms("Be", cell=[3, 3, 3], pbc=True)
    chain = Atoms("Be", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 0]], pbc=[True, False, False])
    label = {"energy": -1.0, "forces": np.zeros((1, 3)), "seconds": -2.0}
    write_dataset(tmp_path / "d.h5", [flat, none, good, chain], {"a": LevelData([label] * 4)}, [5, 6, 7, 8])
    with Dataset(tmp_path / "d.h5") as data:
        info = describe_dataset(data)
    text = " | ".join(info.warnings)
    assert "2 configurations are periodic along vectors that span no volume: 5, 6" in text
    assert "level a: 4 labels have a negative cost: 5, 6, 7, 8" in text
    assert info.volume_range == pytest.approx((27.0, 27.0))


# Writing: one sentence wherever nothing can be written, and nothing is left behind.


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    for target in (tmp_path, tmp_path / "file" / "d.h5", "/proc/d.h5", tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be written: .*; choose another path") as caught:
            write_dataset(target, [Atoms("Be")], {})
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="cannot be written"):
            write_text(target, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder cannot be removed"):
        remove_file(tmp_path / "folder")


def test_another_files_trouble_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        (tmp_path / "b").read_bytes()
    assert not list(tmp_path.iterdir())


FULL_DISK = """
import resource, signal, sys
import numpy as np
from ase import Atoms
from paretofit import DesignMatrix, InputError
from paretofit.dataset import LevelData, write_dataset
from paretofit.descriptors import DesignBlock
from paretofit.core import write_text

def design(path):
    blocks = (DesignBlock(np.random.rand(500, 50), ["energy"] * 500, np.arange(500)) for _ in range(20))
    DesignMatrix.from_blocks(blocks, path)

def dataset(path):
    labels = [{"energy": x} for x in np.random.rand(2000)]
    write_dataset(path, [Atoms("Be", positions=np.random.rand(1, 3)) for _ in labels], {"a": LevelData(labels)})

def text(path):
    write_text(path, "x" * 1_000_000)

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    globals()[sys.argv[1]](sys.argv[3])
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(("writer", "limit"), [("design", 10), ("design", 900_000), ("dataset", 60_000), ("text", 9)])
def test_a_disk_that_fills_up_is_said_in_one_sentence(tmp_path, writer, limit):
    """A limit on the size of files fails in the same call; HDF5 on its own ends in a segmentation fault."""
    target = tmp_path / "out"
    command = [sys.executable, "-c", FULL_DISK, writer, str(limit), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == f"{target} cannot be written: File too large; choose another path"
    assert done.returncode == 1
    assert not list(tmp_path.iterdir())
