"""The dataset file: what goes in comes out, in chunks, and damage is named."""

import json

import h5py
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import Dataset, InputError
from paretofit.dataset import LevelData, describe_dataset, format_info, relatives, split_configurations, write_dataset
from paretofit.dataset.dataset import CHUNK


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
        assert stored.complete.tolist() == [True, True, True, False, True]
        assert np.isnan(stored.energy[3])
        assert stored.status.tolist() == [1, 1, 1, 0, 1]
        own = stored.offsets[1:3]
        assert (stored.forces[own[0] : own[1]] == labels[1]["forces"]).all()
        assert (stored.stress[4] == labels[4]["stress"]).all()


@given(st.lists(st.integers(0, 196), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
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
    n = CHUNK + 7
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
        Dataset(broken).info()


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


def test_info_warns_of_trouble(tmp_path):
    good = Atoms("Be2", positions=[[0, 0, 0], [2.2, 0, 0]], cell=[6, 6, 6], pbc=True)
    shifted = good.copy()
    shifted.positions += 0.7
    close = Atoms("Be2", positions=[[0, 0, 0], [0.8, 0, 0]], cell=[6, 6, 6], pbc=True)
    image = Atoms("Be", cell=[1.0, 6, 6], pbc=True)
    pushed = np.array([[0.1, 0, 0], [0.1, 0, 0]])
    labels = [
        {"energy": -7.0, "forces": pushed},
        None,
        {"energy": -3.0, "forces": np.zeros((2, 3))},
        {"energy": -1.0, "forces": [[np.nan] * 3]},
    ]
    write_dataset(tmp_path / "d.h5", [good, shifted, close, image], {"low": LevelData(labels)}, [10, 11, 12, 13])
    with Dataset(tmp_path / "d.h5") as data:
        info = describe_dataset(data)
    text = " | ".join(info.warnings)
    assert "1 duplicate configurations: 11 = 10" in text
    assert "2 configurations have atoms closer" in text
    assert "12, 13" in text
    assert "2 labels are missing or incomplete: 11, 13" in text
    assert "do not sum to zero in 1 labels" in text
    assert "configuration 10" in text
    assert info.levels[0].n_energies == 3
    assert info.levels[0].n_forces == 2
    assert all(line.startswith(("warning: ", "")) for line in format_info(info).splitlines())


def test_shipped_data_have_no_warnings(beryllium):
    assert beryllium.info().warnings == []


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
    assert relatives(range(7), records, ["parent", "trajectory"]).tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert relatives(range(7), records, ["parent"]).tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert relatives(range(7), records, []).tolist() == list(range(7))


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
