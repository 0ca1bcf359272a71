"""References of properties: given values, or labels of their structures at the reference level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms, units

from paretofit.core import Array, InputError, RowKind
from paretofit.dataset import Dataset
from paretofit.properties.linear_property import LinearProperty

POSITION_TOLERANCE = 1e-5  # Å; extended XYZ has eight decimals
SCORE_DECIMALS = 3  # of the invariants by which structures are looked up

LabelsByKind = Mapping[RowKind, Array]


def list_property_structures(
    properties: Iterable[LinearProperty], datasets: Sequence[Dataset] = (), level: str = ""
) -> list[Atoms]:
    """List the different structures of some properties that lack labels, with the name of the property in their info.

    Parameters
    ----------
    properties : iterable of LinearProperty
    datasets : sequence of Dataset
        Datasets in which labels are looked up; by default none.
    level : str
        Level of the labels.
    """
    structures: list[Atoms] = []
    label_lookup = _LabelLookup(datasets, level)
    for item in properties:
        terms = [term for term in item.terms if not label_lookup.has_labels(term.atoms, list(term.weights))]
        n_before = len(structures)
        index_structures([replace(item, terms=terms)], structures)
        for atoms in structures[n_before:]:
            atoms.info = {"config_type": f"property-{item.name}"}
    return structures


def index_structures(properties: Iterable[LinearProperty], structures: list[Atoms]) -> list[int]:
    """Add copies of the structures of all terms to a list, unless it has them; return the position of each term."""
    lookup, positions = _StructureLookup(), []
    for number, atoms in enumerate(structures):
        lookup.add(atoms, number)
    for term in (term for item in properties for term in item.terms):
        position = lookup.find(term.atoms)
        if position is None:
            position = len(structures)
            structures.append(term.atoms.copy())
            lookup.add(term.atoms, position)
        positions.append(position)
    return positions


def add_references(
    properties: Sequence[LinearProperty],
    values: Mapping[str, float | None],
    datasets: Sequence[Dataset],
    level: str,
) -> list[LinearProperty]:
    """Add the references: given values, or else those of the labels at the reference level.

    Parameters
    ----------
    properties : sequence of LinearProperty
    values : mapping of str to float or None
        Values by name, where they are given.
    datasets : sequence of Dataset
        Datasets in which labels are looked up, in this order.
    level : str
        The reference level.

    Raises
    ------
    InputError
        If a property has neither a value nor all labels.
    """
    label_lookup = _LabelLookup(datasets, level)
    referenced = []
    for item in properties:
        value: Any = values.get(item.name)
        if value is None:
            labels = [label_lookup.find(item, term.atoms, list(term.weights)) for term in item.terms]
            value = item.formula(item.apply(labels)[:, None])[:, 0]
            if not np.isfinite(value).all():
                raise InputError(
                    f"property '{item.name}' is not defined by the labels at level '{level}', such as a volume of "
                    "lowest energy outside of the volumes of an equation of state; use structures around the minimum, "
                    "or give a 'reference'"
                )
        referenced.append(item.with_reference(value))
    return referenced


class _StructureLookup:
    """Structures by number of atoms, volume and elements, with a number each."""

    def __init__(self) -> None:
        self._entries: dict[Any, list[tuple[Atoms, int]]] = {}

    def add(self, atoms: Atoms, number: int) -> None:
        key, _ = self._list_keys(atoms)
        self._entries.setdefault(key, []).append((atoms, number))

    def find(self, atoms: Atoms) -> int | None:
        """Return the number of a structure with the same cell and the same positions of the same atoms."""
        for key in self._list_keys(atoms):
            for other, number in self._entries.get(key, []):
                if _is_same(atoms, other):
                    return number
        return None

    @staticmethod
    def _list_keys(atoms: Atoms) -> list[Any]:
        """List two keys, so that a volume near the boundary of two roundings is found, too."""
        volume = atoms.cell.volume
        keys = [round(volume, SCORE_DECIMALS), round(volume + 0.5 * 10.0**-SCORE_DECIMALS, SCORE_DECIMALS)]
        return [(atoms.numbers.tobytes(), key) for key in keys]


def _is_same(atoms: Atoms, other: Atoms) -> bool:
    return (
        np.array_equal(atoms.pbc, other.pbc)
        and np.allclose(atoms.cell, other.cell, rtol=0, atol=POSITION_TOLERANCE)
        and np.allclose(atoms.positions, other.positions, rtol=0, atol=POSITION_TOLERANCE)
    )


class _LabelLookup:
    """Labels of structures at one level in some datasets."""

    def __init__(self, datasets: Sequence[Dataset], level: str) -> None:
        self.level, self._datasets = level, [dataset for dataset in datasets if level in dataset.levels]
        self._lookups: list[_StructureLookup] | None = None

    def has_labels(self, atoms: Atoms, kinds: Sequence[RowKind]) -> bool:
        """Return whether a structure has finite labels of some kinds."""
        return self._search(atoms, kinds)[0] is not None

    def find(self, item: LinearProperty, atoms: Atoms, kinds: Sequence[RowKind]) -> LabelsByKind:
        """Return the labels of a structure of a property, by kind.

        Raises
        ------
        InputError
            If a label is missing.
        """
        labels, problem = self._search(atoms, kinds)
        if labels is None:
            formula = atoms.get_chemical_formula()
            raise InputError(
                f"property '{item.name}' has no reference: a structure of {formula} is {problem} at level "
                f"'{self.level}'; set its 'reference', or label the structures that 'paretofit properties' writes and "
                "name their dataset in 'property_labels'"
            )
        return labels

    def _search(self, atoms: Atoms, kinds: Sequence[RowKind]) -> tuple[LabelsByKind | None, str]:
        """Search for the labels of a structure; return them, or None and the problem."""
        problem = "not labelled"
        for dataset, lookup in zip(self._datasets, self._get_lookups(), strict=True):
            if (position := lookup.find(atoms)) is not None:
                labels = _read_labels(dataset, self.level, position)
                missing = [kind.name.lower() for kind in kinds if not np.isfinite(labels[kind]).all()]
                if not missing:
                    return labels, ""
                problem = f"labelled in {dataset.path} without {' and '.join(missing)}"
        return None, problem

    def _get_lookups(self) -> list[_StructureLookup]:
        if self._lookups is None:
            self._lookups = []
            for dataset in self._datasets:
                lookup = _StructureLookup()
                for position, atoms in enumerate(dataset):
                    lookup.add(atoms, position)
                self._lookups.append(lookup)
        return self._lookups


def _read_labels(dataset: Dataset, level: str, position: int) -> LabelsByKind:
    """Read the labels of one configuration: energy per atom (eV), forces (eV/Å) and stress (GPa)."""
    labels, n_atoms = dataset.select([position]).labels(level), int(dataset.n_atoms[position])
    if labels.is_failed[0]:
        return {kind: np.full(1, np.nan) for kind in RowKind}
    return {
        RowKind.ENERGY: labels.energy / n_atoms,
        RowKind.FORCE: labels.forces.ravel(),
        RowKind.STRESS: labels.stress[0] / units.GPa,
    }
