"""Energies of free atoms, which the models of a study reproduce exactly: from settings or labels of isolated atoms.

Every level has its own energies. If the energy of an element is not known at a level, the energy at another level plus
the offset between the labels of both levels is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from paretofit.core import InputError, list_first, suggest_match
from paretofit.dataset import Dataset, IsolatedAtom, find_isolated_atoms, read_isolated_energies
from paretofit.descriptors import DesignMatrix, constrain_free_atoms, select_level_energies
from paretofit.study.schema import Study

ORIGIN_FITTED, ORIGIN_ISOLATED, ORIGIN_GIVEN = "fitted", "isolated atom", "given"
KnownEnergy = tuple[float, str]  # energy in eV, and its origin


@dataclass(frozen=True)
class ReferenceEnergies:
    """Energies of free atoms that the models of a study reproduce exactly.

    Attributes
    ----------
    energies : mapping of str to mapping of str to float
        Energies by level and element, eV. The elements are the same at all levels; the energies of other elements are
        fitted.
    origins : mapping of str to mapping of str to str
        Origin of each energy, fitted ones included, by level and element.
    isolated_atoms : list of ase.Atoms
        Isolated atoms, which are in neither the training nor the test set.
    """

    energies: Mapping[str, Mapping[str, float]]
    origins: Mapping[str, Mapping[str, str]]
    isolated_atoms: list[Atoms]

    def constrain(self, design: DesignMatrix) -> DesignMatrix:
        """Return a labelled design whose models reproduce these energies; see `constrain_free_atoms`."""
        return constrain_free_atoms(design, self.energies)

    def describe(self, level: str) -> str:
        """Describe the energies at a level, and their origins, on one line."""
        energies = self.energies[level]
        return ", ".join(
            f"{symbol} {f'{energies[symbol]:.6g} eV ' if symbol in energies else ''}({origin})"
            for symbol, origin in self.origins[level].items()
        )


def find_study_isolated_atoms(study: Study, levels: Sequence[str], dataset: Dataset) -> list[IsolatedAtom]:
    """Find the isolated atoms that are not fitted, because the models reproduce the energies of their elements exactly.

    The energy of an element must be set in 'reference_energies' for any level of the dataset, or be the label of an
    isolated atom at one of `levels`, the levels of the study. All other isolated atoms are ordinary configurations.
    With 'reference_energies: fitted', no isolated atoms are returned.
    """
    if study.reference_energies == "fitted":
        return []
    isolated_atoms = find_isolated_atoms(dataset, study.basis.cutoff)
    known_energies = _collect_known_energies(study, levels, dataset, isolated_atoms)
    return [atom for atom in isolated_atoms if any(atom.symbol in by_element for by_element in known_energies.values())]


def resolve_reference_energies(
    study: Study, levels: Sequence[str], dataset: Dataset, isolated_atoms: Sequence[IsolatedAtom], training_set: Dataset
) -> ReferenceEnergies:
    """Determine the energies of free atoms at all levels of a study.

    Parameters
    ----------
    study : Study
    levels : sequence of str
        Levels of the study, the reference last.
    dataset : Dataset
        All configurations.
    isolated_atoms : sequence of IsolatedAtom
        Isolated atoms in `dataset`, from `find_study_isolated_atoms`.
    training_set : Dataset
        Training configurations with labels at all levels of the study.

    Raises
    ------
    InputError
        If 'reference_energies' contains an unknown element or level, or is 'isolated' and no isolated atom of an
        element is labelled; if two levels have no common labels that give their offset; or if the reference
        configuration is an isolated atom.
    """
    setting, elements = study.reference_energies, study.basis.elements
    if not isinstance(setting, str):
        _check_names(study, dataset)
    known_energies = _collect_known_energies(study, levels, dataset, isolated_atoms)
    known_symbols = {symbol for by_element in known_energies.values() for symbol in by_element}
    if setting == "isolated" and (missing_elements := [symbol for symbol in elements if symbol not in known_symbols]):
        raise InputError(
            f"'reference_energies: isolated' requires a labelled isolated atom of {list_first(missing_elements, 5)} in "
            f"{dataset.path}, a single atom without images within {study.basis.cutoff:.4g} Å; label one, or give its "
            "energy"
        )
    completed_energies = {level: _complete_energies(level, known_energies, training_set, levels) for level in levels}
    dataset_indices = np.array([atom.dataset_index for atom in isolated_atoms], dtype=int)
    if study.reference_configuration in dataset.ids[dataset_indices].tolist():
        raise InputError(
            f"'reference_configuration' is {study.reference_configuration}, an isolated atom, which is not among the "
            "configurations of the study; choose another one, or set 'reference_energies: fitted'"
        )
    fitted_origins = dict.fromkeys(elements, ORIGIN_FITTED)
    energies = {
        level: {symbol: energy for symbol, (energy, _) in by_element.items()}
        for level, by_element in completed_energies.items()
    }
    origins = {
        level: fitted_origins | {symbol: origin for symbol, (_, origin) in by_element.items()}
        for level, by_element in completed_energies.items()
    }
    return ReferenceEnergies(energies, origins, list(dataset.select(dataset_indices)))


def _collect_known_energies(
    study: Study, levels: Sequence[str], dataset: Dataset, isolated_atoms: Sequence[IsolatedAtom]
) -> dict[str, dict[str, KnownEnergy]]:
    """Collect the known energies of free atoms, by level and element.

    Energies in 'reference_energies' take precedence over labels of isolated atoms, which are read only at the levels of
    the study.
    """
    reference_energies, drop_unconverged = study.reference_energies, study.unconverged_labels == "drop"
    known_energies: dict[str, dict[str, KnownEnergy]] = {}
    for level in dict.fromkeys([*dataset.levels, *levels]):
        energies = select_level_energies(reference_energies, level, levels[-1])
        level_energies = {symbol: (energy, ORIGIN_GIVEN) for symbol, energy in energies.items()}
        if level in levels:
            labels = read_isolated_energies(dataset, isolated_atoms, level, drop_unconverged=drop_unconverged)
            labelled_energies = {symbol: (energy, ORIGIN_ISOLATED) for symbol, energy in labels.items()}
            level_energies = labelled_energies | level_energies
        known_energies[level] = level_energies
    return known_energies


def _check_names(study: Study, dataset: Dataset) -> None:
    """Raise InputError if 'reference_energies' has an unknown level or element.

    A key is a level with a mapping of energies by element, or an element with its energy at the reference level.
    """
    setting = study.reference_energies
    for key, entry in setting.items() if isinstance(setting, Mapping) else ():
        if isinstance(entry, Mapping) and key not in dataset.levels:
            raise InputError(
                f"'reference_energies' has the level '{key}'; {dataset.path} has {', '.join(dataset.levels)}"
                f"{suggest_match(key, dataset.levels)}"
            )
        symbols = list(entry) if isinstance(entry, Mapping) else [key]
        for symbol in symbols:
            if symbol not in study.basis.elements:
                raise InputError(f"'reference_energies' has {symbol}; the basis has {', '.join(study.basis.elements)}")


def _complete_energies(
    level: str, known_energies: Mapping[str, Mapping[str, KnownEnergy]], training_set: Dataset, levels: Sequence[str]
) -> dict[str, KnownEnergy]:
    """Complete the known energies of a level by energies of other levels, plus the offset between the labels.

    The levels of the study, `levels`, are tried first, from the reference downwards, and then the other levels of the
    dataset. Raise InputError if the offset to a level is required but cannot be fitted.
    """
    energies = dict(known_energies[level])
    for other_level in [*reversed(levels), *(name for name in known_energies if name not in levels)]:
        if missing_elements := [symbol for symbol in known_energies[other_level] if symbol not in energies]:
            offsets = _fit_offsets(training_set, level, other_level)
            for symbol in missing_elements:
                energy, origin = known_energies[other_level][symbol]
                shifted_origin = f"{origin} at level {other_level}, plus the offset of the labels"
                # an element that the training set lacks has no offset
                energies[symbol] = energy + offsets.get(symbol, 0.0), shifted_origin
    return energies


def _fit_offsets(training_set: Dataset, level: str, other_level: str) -> dict[str, float]:
    """Fit the energy per atom (eV) of each element at `level` relative to `other_level`, by least squares.

    Raise InputError if no training configuration has an energy at both levels.
    """
    difference = (training_set.labels(level).energy - training_set.labels(other_level).energy) / training_set.n_atoms
    positions = np.flatnonzero(np.isfinite(difference))
    if not len(positions):
        raise InputError(
            f"the energies of free atoms at level '{level}' are not known, and no configuration has labels at this "
            f"level and at level '{other_level}', which would give their offset; give the energies in "
            "'reference_energies'"
        )
    formulas = [atoms.get_chemical_symbols() for atoms in training_set.select(positions)]
    elements = sorted({symbol for symbols in formulas for symbol in symbols})
    fractions = np.array([[symbols.count(symbol) / len(symbols) for symbol in elements] for symbols in formulas])
    offsets = np.linalg.lstsq(fractions, difference[positions], rcond=None)[0]
    return dict(zip(elements, offsets.tolist(), strict=True))
