"""Reference values of properties: from the settings, or from labels of their structures at the reference level."""

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
VOLUME_DECIMALS = 3  # decimals of the volumes (Å³) by which structures are looked up

LabelsByKind = Mapping[RowKind, Array]


def list_property_structures(
    properties: Iterable[LinearProperty], datasets: Sequence[Dataset] = (), level: str = ""
) -> list[Atoms]:
    """List the structures of properties for which a label that a property requires is missing, each structure once.

    Parameters
    ----------
    properties : iterable of LinearProperty
    datasets : sequence of Dataset
        Datasets in which labels are looked up; by default none.
    level : str
        Level of the labels.

    Returns
    -------
    list of ase.Atoms
        Copies. Their info has only the key ``config_type`` with the value ``property-<name>``, which names the first
        property with this structure.
    """
    structures: list[Atoms] = []
    label_lookup = _LabelLookup(datasets, level)
    for linear_property in properties:
        unlabelled_terms = [
            term for term in linear_property.terms if not label_lookup.has_labels(term.atoms, list(term.weights))
        ]
        n_before = len(structures)
        index_structures([replace(linear_property, terms=unlabelled_terms)], structures)
        for atoms in structures[n_before:]:
            atoms.info = {"config_type": f"property-{linear_property.name}"}
    return structures


def index_structures(properties: Iterable[LinearProperty], structures: list[Atoms]) -> list[int]:
    """Append the structures of all terms to `structures`; return the position of each term's structure in the list.

    A copy of a structure is appended, unless the list contains the structure already.
    """
    lookup, positions = _StructureLookup(), []
    for position, atoms in enumerate(structures):
        lookup.add(atoms, position)
    for term in (term for linear_property in properties for term in linear_property.terms):
        known_position = lookup.find_position(term.atoms)
        if known_position is None:
            known_position = len(structures)
            structures.append(term.atoms.copy())
            lookup.add(term.atoms, known_position)
        positions.append(known_position)
    return positions


def add_references(
    properties: Sequence[LinearProperty],
    values: Mapping[str, float | None],
    datasets: Sequence[Dataset],
    level: str,
) -> list[LinearProperty]:
    """Return the properties with their references: given values, or values computed from labels.

    Parameters
    ----------
    properties : sequence of LinearProperty
    values : mapping of str to float or None
        Reference values by name of the property, in its unit. A property whose value is missing or None has the
        reference that follows from the labels.
    datasets : sequence of Dataset
        Datasets in which labels are looked up, in this order.
    level : str
        The reference level.

    Raises
    ------
    InputError
        If a property has no given value, and its labels are incomplete or do not define it.
    """
    label_lookup = _LabelLookup(datasets, level)
    properties_with_references = []
    for linear_property in properties:
        value: Any = values.get(linear_property.name)
        if value is None:
            labels = [
                label_lookup.get_labels(linear_property, term.atoms, list(term.weights))
                for term in linear_property.terms
            ]
            value = linear_property.formula(linear_property.apply(labels)[:, None])[:, 0]  # the labels as a single fit
            if not np.isfinite(value).all():
                raise InputError(
                    f"property '{linear_property.name}' is not defined by the labels at level '{level}', such as a "
                    "volume of lowest energy outside of the volumes of an equation of state; use structures around the "
                    "minimum, or give a 'reference'"
                )
        properties_with_references.append(linear_property.with_reference(value))
    return properties_with_references


class _StructureLookup:
    """Positions of structures in a list, which are looked up by atomic numbers and volume."""

    def __init__(self) -> None:
        self._entries: dict[Any, list[tuple[Atoms, int]]] = {}

    def add(self, atoms: Atoms, position: int) -> None:
        """Add a structure with its position in the list."""
        key, _ = self._list_keys(atoms)
        self._entries.setdefault(key, []).append((atoms, position))

    def find_position(self, atoms: Atoms) -> int | None:
        """Return the position of the first structure with the same cell and the same atoms in order, or None."""
        for key in self._list_keys(atoms):
            for candidate, position in self._entries.get(key, []):
                if _is_same_geometry(atoms, candidate):
                    return position
        return None

    @staticmethod
    def _list_keys(atoms: Atoms) -> list[Any]:
        """List the keys to look up; structures are stored under the first one.

        The second key finds a stored volume that is slightly larger and therefore rounded to the next key.
        """
        volume = atoms.cell.volume
        keys = [round(volume, VOLUME_DECIMALS), round(volume + 0.5 * 10.0**-VOLUME_DECIMALS, VOLUME_DECIMALS)]
        return [(atoms.numbers.tobytes(), key) for key in keys]


def _is_same_geometry(atoms: Atoms, other: Atoms) -> bool:
    """Return whether two structures with equal atomic numbers have the same periodic directions, cell and positions.

    Cells and positions may differ by `POSITION_TOLERANCE`.
    """
    return (
        np.array_equal(atoms.pbc, other.pbc)
        and np.allclose(atoms.cell, other.cell, rtol=0, atol=POSITION_TOLERANCE)
        and np.allclose(atoms.positions, other.positions, rtol=0, atol=POSITION_TOLERANCE)
    )


class _LabelLookup:
    """Labels of structures at one level, looked up in datasets; datasets without the level are ignored."""

    def __init__(self, datasets: Sequence[Dataset], level: str) -> None:
        self.level, self._datasets = level, [dataset for dataset in datasets if level in dataset.levels]
        self._lookups: list[_StructureLookup] | None = None

    def has_labels(self, atoms: Atoms, kinds: Sequence[RowKind]) -> bool:
        """Return whether a structure has finite labels of all given kinds in one of the datasets."""
        return self._search_labels(atoms, kinds)[0] is not None

    def get_labels(self, linear_property: LinearProperty, atoms: Atoms, kinds: Sequence[RowKind]) -> LabelsByKind:
        """Return the labels of a structure of a property, by kind.

        Raises
        ------
        InputError
            If a label is missing.
        """
        labels, problem = self._search_labels(atoms, kinds)
        if labels is None:
            formula = atoms.get_chemical_formula()
            raise InputError(
                f"property '{linear_property.name}' has no reference: a structure of {formula} is {problem} at level "
                f"'{self.level}'; set its 'reference', or label the structures that 'paretofit properties' writes and "
                "name their dataset in 'property_labels'"
            )
        return labels

    def _search_labels(self, atoms: Atoms, kinds: Sequence[RowKind]) -> tuple[LabelsByKind | None, str]:
        """Search for finite labels of a structure; return them and an empty string, or None and the problem."""
        problem = "not labelled"
        for dataset, lookup in zip(self._datasets, self._get_lookups(), strict=True):
            if (position := lookup.find_position(atoms)) is not None:
                labels = _read_labels(dataset, self.level, position)
                missing_kinds = [kind.name.lower() for kind in kinds if not np.isfinite(labels[kind]).all()]
                if not missing_kinds:
                    return labels, ""
                problem = f"labelled in {dataset.path} without {' and '.join(missing_kinds)}"
        return None, problem

    def _get_lookups(self) -> list[_StructureLookup]:
        """Return a lookup of the structures of each dataset, which the first call builds."""
        if self._lookups is None:
            self._lookups = []
            for dataset in self._datasets:
                lookup = _StructureLookup()
                for position, atoms in enumerate(dataset):
                    lookup.add(atoms, position)
                self._lookups.append(lookup)
        return self._lookups


def _read_labels(dataset: Dataset, level: str, position: int) -> LabelsByKind:
    """Read the labels of one configuration: energy per atom (eV), forces (eV/Å) and stress (GPa, Voigt order).

    Missing labels are NaN; if the labelling failed, each kind is a single NaN.
    """
    labels, n_atoms = dataset.select([position]).labels(level), int(dataset.n_atoms[position])
    if labels.is_failed[0]:
        return {kind: np.full(1, np.nan) for kind in RowKind}
    return {
        RowKind.ENERGY: labels.energy / n_atoms,
        RowKind.FORCE: labels.forces.ravel(),
        RowKind.STRESS: labels.stress[0] / units.GPa,
    }
