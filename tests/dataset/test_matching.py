"""Levels whose files list the atoms in another order, or their labels under other keys, are matched."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.command_line import call

from paretofit import Dataset, InputError
from paretofit.dataset import import_dataset


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def make_structures(rng, n=3, pbc=(True, True, True)):
    """Make triclinic InP-like cells with random positions and forces."""
    structures = []
    for k in range(n):
        cell = 6 * np.eye(3) + rng.normal(size=(3, 3))
        atoms = Atoms("In4P4", scaled_positions=rng.random((8, 3)), cell=cell, pbc=pbc)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - k, forces=rng.normal(size=(8, 3)))
        structures.append(atoms)
    return structures


def permute(atoms, rng):
    """Return the structure and its labels with shuffled atoms, each moved by a lattice vector along periodic axes."""
    order = rng.permutation(len(atoms))
    permuted = atoms[order]
    permuted.positions += (rng.integers(-1, 2, size=(len(atoms), 3)) * atoms.pbc) @ atoms.cell[:]
    forces, energy = atoms.calc.results["forces"][order], atoms.calc.results["energy"]
    permuted.calc = SinglePointCalculator(permuted, energy=energy + 10, forces=forces)
    return permuted


@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
@pytest.mark.parametrize("match_by", [None, "id", "order", "geometry"])
def test_atoms_in_another_order_are_matched_with_their_forces(tmp_path, rng, match_by, pbc):
    structures = make_structures(rng, pbc=pbc)
    permuted = [permute(atoms, rng) for atoms in structures]
    if match_by == "id":
        for k in range(len(structures)):
            structures[k].info["config_id"] = permuted[k].info["config_id"] = k
    if match_by == "geometry":
        permuted.reverse()
    paths = {"a": tmp_path / "a.xyz", "b": tmp_path / "b.xyz"}
    for path, frames in zip(paths.values(), (structures, permuted), strict=True):
        ase.io.write(path, frames, format="extxyz")
    summary = import_dataset(tmp_path / "d.h5", paths, match_by=match_by)
    assert any("b.xyz: the atoms of 3 structures are in another order" in note for note in summary.notes)
    with Dataset(tmp_path / "d.h5") as data:
        np.testing.assert_array_equal(data.labels("a").forces, data.labels("b").forces)
        assert (data.labels("b").energy - data.labels("a").energy).tolist() == [10.0] * 3


def test_exchanged_elements_and_moved_atoms_are_another_geometry(tmp_path, rng):
    first, second = make_structures(rng, 1)[0], make_structures(rng, 1)[0]
    second.cell, second.positions, second.numbers = first.cell, first.positions, first.numbers[::-1]
    moved = permute(first, rng)
    moved.positions[3, 0] += 0.01
    moved.calc = first.calc.__class__(moved, **first.calc.results)
    ase.io.write(tmp_path / "a.xyz", first, format="extxyz")
    for other in (second, moved):
        ase.io.write(tmp_path / "b.xyz", other, format="extxyz")
        with pytest.raises(InputError, match="differs in geometry"):
            import_dataset(tmp_path / "d.h5", {"a": tmp_path / "a.xyz", "b": tmp_path / "b.xyz"}, match_by="order")


def write_with_keys(path, structures, energy, forces):
    """Write labels under these keys of the info and the arrays."""
    frames = []
    for atoms in structures:
        bare = atoms.copy()
        bare.info[energy] = atoms.calc.results["energy"]
        bare.arrays[forces] = atoms.calc.results["forces"].copy()
        frames.append(bare)
    ase.io.write(path, frames, format="extxyz")


def test_each_level_can_have_its_own_keys_on_the_command_line(tmp_path, rng):
    structures = make_structures(rng)
    write_with_keys(tmp_path / "c.xyz", structures, "E_pbe", "F_pbe")
    write_with_keys(tmp_path / "g.xyz", structures, "REF_energy", "REF_forces")
    levels = ["import", "d.h5", "--level", "cheap=c.xyz", "--level", "good=g.xyz"]
    failed = call(*levels, cwd=tmp_path)  # the remedy consists of keys of the file, and works
    assert failed.returncode == 2, failed.stderr
    energy_option, forces_option = "--energy-key cheap=E_pbe", "--forces-key cheap=F_pbe"
    remedy = f"specify the key, for example with {energy_option} for the energy and with {forces_option} for the forces"
    assert f"c.xyz: no structure has an energy or forces; {remedy}" in failed.stderr
    assert not (tmp_path / "d.h5").exists()
    done = call(*levels, *energy_option.split(), *forces_option.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Dataset(tmp_path / "d.h5") as data:
        np.testing.assert_array_equal(data.labels("cheap").forces, data.labels("good").forces)
    all_keys = ["--energy-key", "cheap=E_pbe", "--energy-key", "good=REF_energy", "--forces-key", "cheap=F_pbe"]
    assert call(*levels, *all_keys, "--force", cwd=tmp_path).returncode == 0
    # a key for all levels that one file lacks: the message names the keys of that file
    wrong = call(*levels, "--force", "--energy-key", "E_pbe", "--forces-key", "F_pbe", cwd=tmp_path)
    remedy = "specify the key, for example with --energy-key good=REF_energy for the energy"
    assert f"g.xyz: no structure has the energy key 'E_pbe'; {remedy}" in wrong.stderr
    unknown = call(*levels, "--force", "--energy-key", "cheep=E_pbe", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "is for level 'cheep', which is not imported; imported levels: cheap, good; did you mean" in unknown.stderr
    mixed = call(*levels, "--force", "--energy-key", "E_pbe", "--energy-key", "good=E", cwd=tmp_path)
    assert "--energy-key must be one KEY, or LEVEL=KEY once for each level" in mixed.stderr


def test_cost_and_id_keys_by_level(tmp_path, rng):
    structures = make_structures(rng)
    for name, keys in (("a", ("t", "n")), ("b", ("cost", "index"))):
        for k, atoms in enumerate(structures):
            atoms.info = {keys[0]: 5.0, keys[1]: 7 + k}
        ase.io.write(tmp_path / f"{name}.xyz", structures, format="extxyz")
    paths = {name: tmp_path / f"{name}.xyz" for name in "ab"}
    options = {"seconds_key": {"a": "t", "b": "cost"}, "id_key": {"a": "n", "b": "index"}}
    import_dataset(tmp_path / "d.h5", paths, **options)
    with Dataset(tmp_path / "d.h5") as data:
        assert data.ids.tolist() == [7, 8, 9]
        assert data.labels("b").seconds.tolist() == [5.0] * 3
    with pytest.raises(InputError, match="the cost key 'nope'"):
        import_dataset(tmp_path / "e.h5", paths, seconds_key={"a": "t", "b": "nope"})
