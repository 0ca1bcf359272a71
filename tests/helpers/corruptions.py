"""Twenty mistakes of converters and files, planted in labels that are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms, units

KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol


@dataclass(frozen=True)
class LabelSet:
    """Labels of one level: energies (eV, total), forces (eV/Å) and stresses (eV/Å³); `targets` are changed alone."""

    structures: list[Atoms]
    energies: np.ndarray
    forces: list[np.ndarray]
    stresses: np.ndarray
    targets: tuple[int, int]


@dataclass(frozen=True)
class Corruption:
    """A mistake, and a piece of the message that names it."""

    apply: Callable[[LabelSet], LabelSet]
    pattern: str
    moves_atoms: bool = False


def _energies(change: Callable[[LabelSet], np.ndarray]) -> Callable[[LabelSet], LabelSet]:
    return lambda labels: replace(labels, energies=change(labels))


def _forces(change: Callable[[np.ndarray, Atoms], np.ndarray]) -> Callable[[LabelSet], LabelSet]:
    return lambda labels: replace(
        labels, forces=[change(forces, atoms) for forces, atoms in zip(labels.forces, labels.structures, strict=True)]
    )


def _to_bohr(labels: LabelSet) -> LabelSet:
    structures = [atoms.copy() for atoms in labels.structures]
    for atoms in structures:
        atoms.set_cell(atoms.cell[:] / units.Bohr, scale_atoms=True)
        if atoms.cell.rank != 3:
            atoms.positions = atoms.positions / units.Bohr
    return replace(labels, structures=structures)


def _shuffle(forces: np.ndarray, atoms: Atoms) -> np.ndarray:
    return forces[np.random.default_rng(len(forces)).permutation(len(forces))]


def _zero_third(forces: np.ndarray, atoms: Atoms) -> np.ndarray:
    changed = forces.copy()
    changed[::3] = 0.0
    return changed


def choose_targets(structures: list[Atoms], forces: list[np.ndarray]) -> tuple[int, int]:
    """Two configurations of the commonest size above one atom whose forces are of the usual magnitude."""
    sizes = [len(atoms) for atoms in structures]
    size = max(set(sizes) - {1}, key=lambda value: (sizes.count(value), value))
    order = np.argsort([np.sqrt(np.mean(f**2)) if len(f) == size else -1.0 for f in forces])[-sizes.count(size) :]
    return int(order[len(order) // 2]), int(order[len(order) // 2 + max(1, len(order) // 5)])


def _swap(labels: LabelSet) -> LabelSet:
    first, second = labels.targets
    energies, forces, stresses = labels.energies.copy(), list(labels.forces), labels.stresses.copy()
    energies[[first, second]] = energies[[second, first]]
    stresses[[first, second]] = stresses[[second, first]]
    forces[first], forces[second] = forces[second], forces[first]
    return replace(labels, energies=energies, forces=forces, stresses=stresses)


def _raise_energy(labels: LabelSet) -> np.ndarray:
    energies = labels.energies.copy()
    energies[labels.targets[0]] += 5.0
    return energies


def _sizes(labels: LabelSet) -> np.ndarray:
    return np.array([len(atoms) for atoms in labels.structures])


CORRUPTIONS: dict[str, Corruption] = {
    "energies in Ry": Corruption(_energies(lambda x: x.energies / units.Rydberg), "rydberg"),
    "energies in hartree": Corruption(_energies(lambda x: x.energies / units.Hartree), "hartree"),
    "energies in kcal/mol": Corruption(_energies(lambda x: x.energies / KCAL), "kcal/mol"),
    "energies in kJ/mol": Corruption(_energies(lambda x: x.energies / KJ), "kJ/mol"),
    "energies per atom": Corruption(_energies(lambda x: x.energies / _sizes(x)), "per atom"),
    "energies of opposite sign": Corruption(_energies(lambda x: -x.energies), "opposite sign"),
    "forces of opposite sign": Corruption(_forces(lambda f, a: -f), "opposite sign"),
    "forces in hartree/bohr": Corruption(_forces(lambda f, a: f * units.Bohr / units.Hartree), "hartree/bohr"),
    "forces in Ry/bohr": Corruption(_forces(lambda f, a: f * units.Bohr / units.Rydberg), "Ry/bohr|rydberg/bohr"),
    "forces in eV/bohr": Corruption(_forces(lambda f, a: f * units.Bohr), "eV/bohr|0.52"),
    "positions in bohr": Corruption(_to_bohr, "bohr", moves_atoms=True),
    "forces in reversed order": Corruption(_forces(lambda f, a: f[::-1]), "order"),
    "forces in random order": Corruption(_forces(_shuffle), "order"),
    "axes of the forces permuted": Corruption(_forces(lambda f, a: f[:, [1, 2, 0]]), "axes"),
    "labels of two configurations swapped": Corruption(_swap, "configurations"),
    "5 eV more on one energy": Corruption(_energies(_raise_energy), "configuration"),
    "a third of the forces zero": Corruption(_forces(_zero_third), "zero"),
    "constant energies": Corruption(_energies(lambda x: np.full_like(x.energies, x.energies[0])), "same"),
    "stress of opposite sign": Corruption(lambda x: replace(x, stresses=-x.stresses), "sign"),
}
