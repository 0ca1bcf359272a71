"""Import: labels are taken as they stand, matched by id, and refused with a reason."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.importing import import_dataset

from paretofit import Dataset, InputError
from paretofit.core import read_yaml
from paretofit.dataset import LevelData, read_level_settings, write_dataset


def frames(n=4, shift=0.0, ids=True, seed=1):
    rng = np.random.default_rng(seed)
    structures = []
    for k in range(n):
        atoms = Atoms("Be2", positions=[[0, 0, 0], [2.0 + 0.1 * k, 0, 0]], cell=np.eye(3) * 5, pbc=True)
        forces = rng.normal(size=(2, 3))
        atoms.calc = SinglePointCalculator(
            atoms, energy=-7.0 - k - shift, free_energy=-7.1 - k - shift, forces=forces, stress=rng.normal(size=6)
        )
        atoms.info.update(config_type="pair", cpu_seconds=1.5 + shift, wall_seconds=9.0)
        if ids:
            atoms.info["config_id"] = 100 + k
        structures.append(atoms)
    return structures


def write(path, atoms):
    ase.io.write(path, atoms, format="extxyz")
    return path


def test_levels_are_merged_by_id_whatever_the_order(tmp_path):
    low, high = frames(), frames(shift=1.0)[::-1][:3]
    summary = import_dataset(
        tmp_path / "d.h5",
        {"low": write(tmp_path / "l.xyz", low), "high": write(tmp_path / "h.xyz", high)},
        settings={"low": {"cutoff_ev": 300}},
    )
    assert summary.n_labels == {"low": 4, "high": 3}
    assert summary.missing_ids["high"] == [100]
    with Dataset(tmp_path / "d.h5") as data:
        assert data.ids.tolist() == [100, 101, 102, 103]
        assert data.labels("high").energy.tolist() == pytest.approx([np.nan, -9.1, -10.1, -11.1], nan_ok=True)
        assert data.labels("low").energy.tolist() == pytest.approx([-7.1, -8.1, -9.1, -10.1]), "force-consistent"
        assert data.labels("low").seconds.tolist() == [1.5] * 4
        assert data.labels("low").stress[2] == pytest.approx(low[2].calc.results["stress"], abs=1e-7)
        assert data[0].info == {"config_type": "pair", "config_id": 100}
        assert data.settings("low") == {"cutoff_ev": 300, "energy_kind": "free_energy"}


def test_without_ids_the_order_or_the_geometry_counts(tmp_path):
    paths = {
        "a": write(tmp_path / "a.xyz", frames(ids=False)),
        "b": write(tmp_path / "b.xyz", frames(ids=False, shift=1)),
    }
    assert import_dataset(tmp_path / "d.h5", paths).notes == []
    backwards = frames(ids=False, shift=1)[::-1]
    for few in (backwards, backwards[:3]):
        paths["b"] = write(tmp_path / "b.xyz", few)
        assert import_dataset(tmp_path / "d.h5", paths).notes == ["structures were matched by geometry"]
        with Dataset(tmp_path / "d.h5") as data:
            expected = [np.nan, -9.1, -10.1, -11.1] if len(few) == 3 else [-8.1, -9.1, -10.1, -11.1]
            assert data.labels("b").energy.tolist() == pytest.approx(expected, nan_ok=True)
    with pytest.raises(
        InputError, match=r"b\.xyz has 3 structures and .*a\.xyz has 4; they cannot be matched by order"
    ):
        import_dataset(tmp_path / "d.h5", paths, match_by="order")
    with pytest.raises(InputError, match=r"a\.xyz: not every structure has an id"):
        import_dataset(tmp_path / "d.h5", paths, match_by="id")
    with pytest.raises(InputError, match="match must be one of .*did you mean 'geometry'"):
        import_dataset(tmp_path / "d.h5", paths, match_by="geometri")


def test_another_geometry_under_the_same_id_is_refused(tmp_path):
    moved = frames()
    moved[2].positions[1, 1] += 0.01
    moved[2].calc.atoms = moved[2].copy()
    paths = {"a": write(tmp_path / "a.xyz", frames()), "b": write(tmp_path / "b.xyz", moved)}
    with pytest.raises(InputError, match=r"b\.xyz: structure 2 \(configuration 102\) differs in geometry"):
        import_dataset(tmp_path / "d.h5", paths)
    assert not (tmp_path / "d.h5").exists()


def test_one_file_with_prefixed_keys(tmp_path):
    structures = []
    for k, atoms in enumerate(frames()):
        bare = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
        for level in ("low", "high"):
            bare.info[f"{level}_energy"] = -1.0 * k if level == "low" else -2.0 * k
            bare.arrays[f"{level}_forces"] = np.full((2, 3), k + 0.5)
            bare.info[f"{level}_seconds"] = 3.0
        bare.info["high_stress"] = np.arange(9.0).reshape(3, 3)
        bare.info["config_id"] = k
        structures.append(bare)
    path = write(tmp_path / "all.xyz", structures)
    import_dataset(tmp_path / "d.h5", path, levels=["low", "high"])
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("high").energy.tolist() == [0.0, -2.0, -4.0, -6.0]
        assert data.labels("low").forces[3].tolist() == [1.5] * 3
        assert data.labels("high").stress[0].tolist() == [0.0, 4.0, 8.0, 5.0, 2.0, 1.0]
        assert data.labels("low").seconds.tolist() == [3.0] * 4
        assert data[1].info == {"config_id": 1}
    with pytest.raises(InputError, match="no structure has 'mid_energy'"):
        import_dataset(tmp_path / "d.h5", path, levels=["low", "mid"])


def test_what_cannot_be_imported(tmp_path):
    with pytest.raises(InputError, match="no file at"):
        import_dataset(tmp_path / "d.h5", {"a": tmp_path / "none.xyz"})
    (tmp_path / "junk.xyz").write_text("not a number\nx\n")
    with pytest.raises(InputError, match="cannot be read by ASE"):
        import_dataset(tmp_path / "d.h5", {"a": tmp_path / "junk.xyz"})
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(InputError, match=r"empty\.xyz"):
        import_dataset(tmp_path / "d.h5", {"a": tmp_path / "empty.xyz"})
    repeated = frames()
    repeated[1].info["config_id"] = 100
    with pytest.raises(InputError, match="the id 100 appears more than once"):
        import_dataset(tmp_path / "d.h5", {"a": write(tmp_path / "r.xyz", repeated)})
    bare = [Atoms("Be", cell=np.eye(3) * 4, pbc=True)]
    with pytest.raises(InputError, match="no structure has an energy"):
        import_dataset(tmp_path / "d.h5", {"a": write(tmp_path / "bare.xyz", bare)})
    with pytest.raises(InputError, match="'b', which is not imported"):
        import_dataset(tmp_path / "d.h5", {"a": write(tmp_path / "a.xyz", frames())}, settings={"b": {}})


def test_settings_file(tmp_path):
    path = tmp_path / "levels.yaml"
    path.write_text("engine: X\nlevels:\n  - {name: 1, cutoff_ev: 300}\n  - {name: 2, cutoff_ev: 500}\n")
    assert read_level_settings(path)["2"] == {"engine": "X", "cutoff_ev": 500}
    path.write_text("levels: [1, 2]\n")
    with pytest.raises(InputError, match="each have a 'name'"):
        read_level_settings(path)
    path.write_text("levels: {a: b: c}\n")
    with pytest.raises(InputError, match="not valid YAML"):
        read_level_settings(path)


def test_shared_files_make_the_shipped_dataset(shared_data, tmp_path, beryllium):
    folder = shared_data / "beryllium_levels"
    import_dataset(tmp_path / "d.h5", {str(k): folder / f"level_{k}.extxyz" for k in range(1, 6)})
    with Dataset(tmp_path / "d.h5") as data:
        count = len(data)
        assert data.ids.tolist() == beryllium.ids[:count].tolist()
        for level in data.levels:
            assert (data.labels(level).energy == beryllium.labels(level).energy[:count]).all()


def prefixed(path, **changes):
    """A file with one structure, labelled at the levels low and high, and changes to its info."""
    atoms = Atoms("Be2", positions=[[0, 0, 0], [2, 0, 0]], cell=np.eye(3) * 5, pbc=True)
    for level in ("low", "high"):
        atoms.info.update({f"{level}_energy": -1.0, f"{level}_seconds": 3.0, f"{level}_stress": np.zeros(6)})
        atoms.arrays[f"{level}_forces"] = np.zeros((2, 3))
    atoms.info.update(config_id=7, time=5.0)
    for name, value in changes.items():
        (atoms.arrays if name.endswith("forces") else atoms.info)[name] = value
    return write(path, [atoms])


@pytest.mark.parametrize(
    ("changes", "keys", "message"),
    [
        ({"low_energy": "abc"}, {}, r"all\.xyz: structure 0 \(configuration 7\): 'low_energy' must be a real number"),
        ({"high_seconds": "abc"}, {}, r"\(configuration 7\): 'high_seconds' must be a real number; got 'abc'"),
        ({"high_seconds": -1.0}, {}, r"'high_seconds' must be a cost of at least 0 seconds; got -1"),
        ({"low_stress": np.zeros(5)}, {}, r"\(configuration 7\): 'low_stress' must be 6 numbers .* got 5"),
        ({"low_forces": np.zeros((2, 2))}, {}, r"'low_forces' must have the shape \(2, 3\)"),
        (
            {},
            {"energy_key": "{lvl}_e"},
            r"the energy key '\{lvl\}_e' is invalid: '\{level\}' is the only",
        ),
        ({}, {"forces_key": "{level"}, r"the forces key '\{level' is invalid"),
        ({}, {"energy_key": "low_energy"}, r"'low_energy' must contain '\{level\}'"),
        ({}, {"seconds_key": "time"}, r"the seconds key 'time' must contain '\{level\}'"),
        ({}, {"seconds_key": "{level}_foo"}, "no labelled structure has the cost key '{level}_foo'"),
        ({}, {"levels": ["low", "low"]}, "a level is repeated"),
        ({"config_id": 1.5}, {}, r"all\.xyz, key 'config_id': a configuration id must be a whole number; got .*1\.5"),
    ],
)
def test_labels_under_keys_that_are_no_labels(tmp_path, changes, keys, message):
    path = prefixed(tmp_path / "all.xyz", **changes)
    with pytest.raises(InputError, match=message) as caught:
        import_dataset(tmp_path / "d.h5", path, **{"levels": ["low", "high"]} | keys)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "d.h5").exists()


@pytest.mark.parametrize(
    ("info", "key", "message"),
    [
        (
            {"cpu_seconds": "abc"},
            None,
            r"a\.xyz: structure 1 \(configuration 101\): 'cpu_seconds' must be a real number",
        ),
        ({"cpu_seconds": -2.0}, None, "'cpu_seconds' must be a cost of at least 0 seconds; got -2"),
        ({}, "foo", "no labelled structure has the cost key 'foo'"),
    ],
)
def test_costs_that_are_no_costs(tmp_path, info, key, message):
    structures = frames()
    structures[1].info.update(info)
    with pytest.raises(InputError, match=message):
        import_dataset(tmp_path / "d.h5", {"a": write(tmp_path / "a.xyz", structures)}, seconds_key=key)


def test_labels_that_are_not_complete_count_as_missing(tmp_path):
    structures = frames()
    structures[1].calc.results["free_energy"] = structures[1].calc.results["energy"] = np.nan
    structures[2].calc.results["forces"][0, 0] = np.inf
    for k in (0, 2):
        structures[k].calc.results["stress"] = np.full(6, np.nan)
    summary = import_dataset(tmp_path / "d.h5", {"a": write(tmp_path / "a.xyz", structures)})
    assert summary.n_labels == {"a": 2}
    assert summary.missing_ids == {"a": [101, 102]}
    notes = "\n".join(summary.notes)
    assert "the energy is NaN or infinite in structure 1 (configuration 101); such a label counts as missing" in notes
    assert "a force is NaN or infinite in structure 2 (configuration 102); such a label counts as missing" in notes
    assert "structure 0 (configuration 100), structure 2 (configuration 102); the stress is not used" in notes


def test_atoms_may_be_wrapped_or_shifted_by_lattice_vectors(tmp_path):
    """The same crystal, written with its atoms in another cell: along periodic directions only."""
    cell = np.array([[5.0, 0, 0], [1.0, 4.0, 0], [0.5, 0.3, 6.0]])
    first = Atoms("Be2", positions=[[0.0, 0, 0], [2, 0.1, 0.2]], cell=cell, pbc=[True, True, False])

    def labelled(name, atoms):
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((2, 3)))
        return write(tmp_path / name, [atoms])

    def with_shift(shift, pbc=first.pbc):
        atoms = Atoms("Be2", positions=first.positions, cell=cell, pbc=pbc)
        atoms.positions[1] += np.array(shift) @ cell
        return {"a": labelled("a.xyz", first.copy()), "b": labelled("b.xyz", atoms)}

    assert import_dataset(tmp_path / "d.h5", with_shift([2, -1, 0])).n_configurations == 1
    with Dataset(tmp_path / "d.h5") as data:
        assert data[0].positions == pytest.approx(first.positions)
    # Plane-wave codes call a slab in its box periodic, and turn left-handed cells round.
    assert import_dataset(tmp_path / "d.h5", with_shift([0, 0, 0], pbc=True)).n_configurations == 1
    for different in (with_shift([0, 0, 1]), with_shift([0.5, 0, 0]), with_shift([0, 0, 0], pbc=[True, False, False])):
        with pytest.raises(InputError, match="differs in geometry"):
            import_dataset(tmp_path / "d.h5", different)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"energy": "low"}, "configuration 7: energy must be a real number; got 'low'"),
        ({"energy": 1j}, "energy must be a real number"),
        ({"energy": [1.0]}, r"energy must have the shape \(\)"),
        ({"forces": [[1.0, 2.0], [3.0]]}, "forces must be real numbers"),
        ({"status": "finished"}, "status must be one of missing, done, failed; got 'finished'"),
        ({"info": {"x": {1: 1, "b": 2}}}, "cannot be stored as JSON"),
    ],
)
def test_labels_that_are_no_labels(tmp_path, label, message):
    with pytest.raises(InputError, match=message):
        write_dataset(tmp_path / "d.h5", [Atoms("Be")], {"a": LevelData([label])}, [7])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "line 1 is not valid YAML: mapping values are not allowed here; put text .* in quotes"),
        ("a: 2020-13-45", "is not valid YAML: month must be"),
        ("? {a: 1}\n: 3", "line 1 is not valid YAML"),
        ("[" * 1500, "is not valid YAML"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_what_is_not_yaml_is_said(tmp_path, text, message):
    path = tmp_path / "t.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_geometries_are_found_whatever_the_rounding(tmp_path, seed):
    """Frames of one trajectory, 2e-3 Å apart, in another order, rounded to five digits and moved by lattice vectors.

    A coordinate that lies on a rounding boundary, such as 0.000005, has another hash in every file.
    """
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * 0.5 + np.eye(3) * 6
    places = rng.uniform(0, 6, size=(5, 3))
    structures = []
    for k in range(12):
        positions = np.round(places + rng.normal(size=(5, 3)) * 2e-3, 5) + 0.5e-5
        atoms = Atoms("Be5", positions=positions, cell=cell, pbc=[True, True, seed % 2 == 0])
        atoms.calc = SinglePointCalculator(atoms, energy=-float(k), forces=np.zeros((5, 3)))
        structures.append(atoms)
    other = [structures[k].copy() for k in rng.permutation(12)[:9]]
    energies = [
        min(range(12), key=lambda k, atoms=atoms: np.abs(structures[k].positions - atoms.positions).max())
        for atoms in other
    ]
    for atoms, energy in zip(other, energies, strict=True):
        shifts = rng.integers(-1, 2, size=(5, 3)) * atoms.pbc
        atoms.positions += shifts @ np.round(cell, 5) + rng.choice([-1e-6, 1e-6], size=(5, 3))
        atoms.positions, atoms.cell = np.round(atoms.positions, 5), np.round(cell, 5)
        atoms.calc = SinglePointCalculator(atoms, energy=-float(energy), forces=np.zeros((5, 3)))
    paths = {"a": write(tmp_path / "a.xyz", structures), "b": write(tmp_path / "b.xyz", other)}
    assert import_dataset(tmp_path / "d.h5", paths).n_configurations == 12
    with Dataset(tmp_path / "d.h5") as data:
        have = data.labels("b").is_complete
        assert have.sum() == 9
        assert (data.labels("a").energy[have] == data.labels("b").energy[have]).all()


def test_equal_structures_in_one_file_stay_apart(tmp_path):
    """Two labels of one geometry, say with and without symmetry: the first belongs to the first."""
    twice = [frames(1, ids=False)[0], frames(1, ids=False, shift=0.5)[0]]
    paths = {"a": write(tmp_path / "a.xyz", twice), "b": write(tmp_path / "b.xyz", twice)}
    import_dataset(tmp_path / "d.h5", paths, match_by="geometry")
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").energy.tolist() == data.labels("b").energy.tolist() == [-7.1, -7.6]


def test_structures_that_no_other_file_has_are_counted_or_refused(tmp_path):
    """Where as many structures are in both files, one without a counterpart is more likely a mistake."""
    moved = frames(ids=False)
    moved[1].positions[1, 1] += 0.01
    moved[1].calc.atoms = moved[1].copy()
    paths = {"a": write(tmp_path / "a.xyz", frames(ids=False)), "b": write(tmp_path / "b.xyz", moved)}
    with pytest.raises(InputError, match=r"b\.xyz: structure 1 differs in geometry from every structure of"):
        import_dataset(tmp_path / "d.h5", paths)
    summary = import_dataset(tmp_path / "d.h5", paths, match_by="geometry")
    assert summary.n_configurations == 5
    assert summary.notes[1].endswith("b.xyz: 1 of 4 structures are not in an earlier file")
    assert summary.missing_ids == {"a": [4], "b": [1]}
    paths["b"] = write(tmp_path / "b.xyz", moved[1:2])
    with pytest.raises(InputError, match=r"b\.xyz: no structure has the same geometry as"):
        import_dataset(tmp_path / "d.h5", paths)


def test_ids_of_some_files_only_go_with_the_geometry(tmp_path):
    paths = {"a": write(tmp_path / "a.xyz", frames(ids=False)), "b": write(tmp_path / "b.xyz", frames()[1:])}
    import_dataset(tmp_path / "d.h5", paths)
    with Dataset(tmp_path / "d.h5") as data:
        assert data.ids.tolist() == [0, 1, 2, 3], "those of the first file"
    import_dataset(tmp_path / "d.h5", dict(reversed(paths.items())))
    with Dataset(tmp_path / "d.h5") as data:
        assert data.ids.tolist() == [101, 102, 103, 104]
        assert data.labels("a").energy.tolist() == [-8.1, -9.1, -10.1, -7.1]
        assert data.labels("b").energy.tolist() == pytest.approx([-8.1, -9.1, -10.1, np.nan], nan_ok=True)


def first_dataset(tmp_path):
    paths = {"low": write(tmp_path / "low.xyz", frames()), "high": write(tmp_path / "high.xyz", frames(shift=1)[:2])}
    import_dataset(tmp_path / "d.h5", paths, settings={"high": {"cutoff_ev": 500}})
    return tmp_path / "d.h5"


def test_adding_keeps_what_is_there(tmp_path):
    """A level, a configuration and missing labels are added; equal labels may come again."""
    path = first_dataset(tmp_path)
    with Dataset(path) as data:
        before = {level: data.labels(level).energy for level in data.levels}
    new = frames(5, shift=1)
    new[0].info.pop("config_type")
    summary = import_dataset(
        path,
        {"high": write(tmp_path / "high.xyz", new), "top": write(tmp_path / "top.xyz", frames(3, shift=2))},
        settings={"high": {"smearing": 0.1}, "top": {"cutoff_ev": 900}},
        append=True,
    )
    assert summary.n_labels == {"low": 4, "high": 4 + 1, "top": 3}
    with Dataset(path) as data:
        assert data.levels == ["low", "high", "top"]
        assert data.ids.tolist() == [100, 101, 102, 103, 104]
        assert data.labels("low").energy[:4].tolist() == before["low"].tolist()
        assert data.labels("high").energy[:2].tolist() == before["high"][:2].tolist()
        assert data.settings("high") == {"cutoff_ev": 500, "energy_kind": "free_energy", "smearing": 0.1}
        assert data[0].info["config_type"] == "pair"
        assert data.label_records("high")[0]["cpu_seconds"] == 2.5


def test_adding_refuses_what_contradicts(tmp_path):
    path = first_dataset(tmp_path)
    content = path.read_bytes()
    other = {"high": write(tmp_path / "other.xyz", frames(shift=1.5))}
    with pytest.raises(
        InputError,
        match=r"other\.xyz: structure 0 \(configuration 100\): its energy at level 'high' differs by 0\.5 from",
    ):
        import_dataset(path, other, append=True)
    same = {"high": write(tmp_path / "same.xyz", frames(shift=1))}
    with pytest.raises(InputError, match="level 'high' have cutoff_ev 700, but the dataset has 500"):
        import_dataset(path, same, append=True, settings={"high": {"cutoff_ev": 700}})
    with pytest.raises(InputError, match="no dataset at"):
        import_dataset(tmp_path / "none.h5", same, append=True)
    with pytest.raises(
        InputError, match=r"the order must list each level once \(low, high\); got high, lo; did you mean"
    ):
        import_dataset(path, same, append=True, level_order=["high", "lo"])
    assert path.read_bytes() == content


def test_a_cheaper_level_added_later_takes_its_place_in_the_order(tmp_path):
    path = first_dataset(tmp_path)
    import_dataset(
        path, {"0": write(tmp_path / "0.xyz", frames(shift=3))}, append=True, level_order=["0", "low", "high"]
    )
    with Dataset(path) as data:
        assert data.levels == ["0", "low", "high"]
        assert data.labels("0").energy[0] == -10.1


def test_programs_may_call_a_box_periodic_and_turn_its_cell_round(tmp_path):
    """What a plane-wave code makes of slabs, molecules and left-handed cells is still the same geometry."""
    structures = []
    for k, atoms in enumerate(frames(ids=False)):
        atoms.set_cell([[5.0, 0, 0], [0.5, 5 + k, 0], [0, 0.3, -6]])  # left-handed
        atoms.calc.atoms = atoms.copy()
        structures.append(atoms)
    turned = frames(ids=False)[::-1]
    for k, atoms in enumerate(turned):
        atoms.set_cell(-np.array(structures[3 - k].cell[:]))
        atoms.calc.atoms = atoms.copy()
    structures[1].pbc = structures[1].calc.atoms.pbc = False
    paths = {"a": write(tmp_path / "a.xyz", structures), "b": write(tmp_path / "b.xyz", turned)}
    import_dataset(tmp_path / "d.h5", paths, match_by="geometry")
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").energy.tolist() == data.labels("b").energy.tolist() == [-7.1, -8.1, -9.1, -10.1]
