"""Checks of the labels of a dataset by physics and a cheap linear fit: units, signs, orders, outliers, copies.

Comparisons of levels cannot find an error that all levels share, such as that of a program that converted all labels. A
model of energies and forces can find it, because forces are the negative gradient of the energy.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii

from paretofit.consistency.cohesion import find_wrong_cohesion
from paretofit.consistency.hypotheses import find_explanation, list_order_hypotheses, list_ratio_hypotheses
from paretofit.consistency.label_fit import MIN_FORCE_RATIO, HeldOutErrors, LabelFit
from paretofit.consistency.level_checks import compare_labels
from paretofit.consistency.outliers import describe_energy_outliers, describe_force_outliers, describe_zero_forces
from paretofit.consistency.slopes import explain_slope
from paretofit.consistency.swaps import describe_swapped_labels
from paretofit.core import Array, list_first
from paretofit.dataset import Dataset, Labels
from paretofit.structures import find_shortest_pair_distances, list_elements

MIN_CONFIGURATIONS = 10  # number of labelled configurations for a fit, and for the search for constant labels
MAX_CONFIGURATIONS = 400  # number of configurations in the fit
MAX_ATOMS = 13_500  # number of atoms in the fit, which takes a few seconds
MAX_OTHER_ATOMS = 40_000  # number of atoms in further configurations, of which only the energies are checked
MAX_ATOMS_PER_CONFIGURATION = 600  # in the fit
MAX_DISTANCE_RATIO = 1.45  # nearest distance relative to the sum of covalent radii; positions in bohr give 1.5 to 2.2
MAX_DISTANCES = (4.0, 8.0)  # Å; search radii for the nearest atoms, the second if no atoms are within the first
MAX_MEASURED_STRUCTURES = 40  # approximate number of structures whose distances are measured
NOBLE_GASES = {2, 10, 18, 36, 54, 86}  # bound by dispersion at distances far above their covalent radii
# Errors of a fit on held-out configurations, relative to the spread of the energies or the magnitude of the forces.
EXTREME_RATIO = 20.0  # deviation of an energy, or largest force, relative to the median of all configurations
MAX_EXTREME_SHARE = 0.1  # share of the configurations up to which extreme labels are mistakes of single labels
MAX_LISTED_LABELS = 5
MAX_PREDICTABLE_ENERGY_ERROR = 0.5  # energy error up to which the energies follow from the structures
MIN_ERROR_OF_WRONG_ORDER = 0.6  # force error above which other orders of axes and atoms are tried
MIN_UNPREDICTABLE_FORCE_ERROR = 0.85  # force error above which the forces do not follow from the structures
BOHR_WARNING = f"distances look like bohr: multiply positions and cells by {units.Bohr:.5f} (the nearest atoms are"
MIN_IDENTICAL_FRACTION = 0.5  # fraction of equal labels above which they count as copies


def check_labels(dataset: Dataset) -> list[str]:
    """Find labels that contradict their structures, each other, or the labels of other configurations.

    Direct checks find identical labels of two levels, constant labels, and distances that look like bohr. A linear
    model of energies and forces (SNAP, cross-validated, on at most 400 configurations) finds wrong units, signs, axes
    and orders of atoms, outliers, and swapped labels; it requires at least 10 labelled configurations. If a level has
    no constant labels, and the model finds nothing, energies of solids with respect to isolated atoms are compared with
    tabulated cohesive energies. The warnings of `compare_labels` come last.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    list of str
        A message for each suspicion, with the likely cause and the evidence where they are known.
    """
    labels = {level: dataset.labels(level) for level in dataset.levels}
    warnings = list(_find_identical_levels(labels))
    positions = _select_sample(dataset, labels)
    structures = list(dataset.select(positions))
    distance_ratio = _measure_distance_ratio(structures)
    is_stretched = distance_ratio > MAX_DISTANCE_RATIO
    if is_stretched:
        warnings.append(f"{BOHR_WARNING} {distance_ratio:.2f} times the sum of covalent radii apart)")
    fit: LabelFit | None = None
    if len(positions) >= MIN_CONFIGURATIONS:
        fit = LabelFit(structures, 1 / units.Bohr if is_stretched else 1.0)
        positions = positions[fit.is_usable]
    for level, level_labels in labels.items():
        problems = list(_find_constant_labels(level_labels, dataset.ids))
        is_labelled = level_labels.is_complete[positions]
        if not problems and fit is not None and is_labelled.sum() >= MIN_CONFIGURATIONS:
            level_fit = fit if is_labelled.all() else fit.select(is_labelled)
            labelled_positions = positions[is_labelled]
            problems = list(
                _find_problems(dataset, level_fit, level_labels, labelled_positions, is_stretched=is_stretched)
            )
        problems = problems or list(find_wrong_cohesion(dataset, level_labels))
        warnings += [f"level {level}: {text}" for text in problems]
    return [*warnings, *compare_labels(dataset)]


def _find_problems(
    dataset: Dataset, fit: LabelFit, labels: Labels, positions: Array, *, is_stretched: bool
) -> Iterator[str]:
    """Yield the first problem of a level: zero forces, a wrong order, unpredictable forces, or a wrong unit or sign.

    If only a few extreme labels cause it, these are yielded instead. If there is no such problem, yield swapped labels
    and outliers. If all forces vanish by symmetry, nothing is checked.
    `labels` are those of all configurations of the level, `positions` are those of the configurations in the fit.
    """
    ids = dataset.ids[positions]
    forces = [labels.forces[slice(*labels.offsets[k : k + 2])] for k in positions]
    energies = labels.energy[positions] / fit.n_atoms
    errors = fit.compute_errors(energies, forces)
    if not np.isfinite(errors.forces).any():
        return
    force_errors = fit.compute_errors(energies, forces, energy_weight=0.0)
    if problem := describe_zero_forces(fit, force_errors, forces, ids):
        yield problem
        return
    if problem := _find_systematic_problem(fit, energies, forces, (errors, force_errors), is_stretched=is_stretched):
        yield _describe_extreme_labels(fit, energies, forces, ids, is_stretched=is_stretched) or problem
        return
    other_configurations = _select_other_configurations(dataset, fit, labels, positions)
    outliers = describe_energy_outliers(fit, energies, forces, force_errors.forces, ids, other_configurations)
    swaps = describe_swapped_labels(fit, errors, force_errors, (energies, forces), ids)
    yield from filter(None, [swaps, outliers, describe_force_outliers(fit, errors, ids)])


def _find_systematic_problem(
    fit: LabelFit,
    energies: Array,
    forces: Sequence[Array],
    errors: tuple[HeldOutErrors, HeldOutErrors],
    *,
    is_stretched: bool,
) -> str:
    """Describe a wrong order, unpredictable forces, or a wrong unit or sign of all labels; return "" without one.

    `errors` are those of a fit to energies (eV/atom) and forces (eV/Å), and of a fit to the forces only.
    """
    joint_errors, force_errors = errors
    force_error = float(np.nanmedian(force_errors.forces))
    finding = None
    if force_error > MIN_ERROR_OF_WRONG_ORDER:
        finding = find_explanation(fit, energies, forces, joint_errors, list(list_order_hypotheses(fit)))
    if finding is None and force_error > MIN_UNPREDICTABLE_FORCE_ERROR:
        energy_errors = fit.compute_errors(energies, forces, force_weight=0.0).energy
        return _describe_unpredictable_forces(force_error, float(np.median(np.abs(energy_errors))))
    hypotheses = list(list_ratio_hypotheses(fit, is_stretched=is_stretched))
    finding = finding or find_explanation(fit, energies, forces, joint_errors, hypotheses)
    finding = finding or explain_slope(fit, energies, force_errors, hypotheses)
    return "" if finding is None else f"{'; or '.join(finding.causes)} ({finding.certainty})"


def _describe_extreme_labels(
    fit: LabelFit, energies: Array, forces: Sequence[Array], ids: Array, *, is_stretched: bool
) -> str:
    """Describe a few extreme labels (eV/atom, eV/Å) without which no problem remains; return "" if there are none."""
    deviations = np.abs(energies - np.median(energies))
    largest_forces = np.array([np.abs(matrix).max() for matrix in forces])
    is_extreme = deviations > EXTREME_RATIO * np.median(deviations)
    is_extreme |= largest_forces > EXTREME_RATIO * np.median(largest_forces)
    n_others = int((~is_extreme).sum())
    if not is_extreme.any() or n_others < max(MIN_CONFIGURATIONS, (1 - MAX_EXTREME_SHARE) * len(energies)):
        return ""
    others, other_energies = fit.select(~is_extreme), energies[~is_extreme]
    other_forces = [forces[k] for k in np.flatnonzero(~is_extreme).tolist()]
    joint_errors = others.compute_errors(other_energies, other_forces)
    force_errors = others.compute_errors(other_energies, other_forces, energy_weight=0.0)
    if _find_systematic_problem(
        others, other_energies, other_forces, (joint_errors, force_errors), is_stretched=is_stretched
    ):
        return ""
    labels = [
        f"{ids[k]} ({energies[k]:.4g} eV/atom, largest force {largest_forces[k]:.3g} eV/Å)"
        for k in np.flatnonzero(is_extreme)[:MAX_LISTED_LABELS]
    ]
    n_extreme = len(energies) - n_others
    subject, verb, pronoun = ("configuration", "is", "it") if n_extreme == 1 else ("configurations", "are", "them")
    count = f" and {n_extreme - len(labels)} more" if n_extreme > len(labels) else ""
    return (
        f"{subject} {', '.join(labels)}{count} {verb} far from the others ({other_energies.min():.4g} to "
        f"{other_energies.max():.4g} eV/atom, forces up to {largest_forces[~is_extreme].max():.3g} eV/Å), whose labels "
        f"are consistent: correct or remove {pronoun}"
    )


def _describe_unpredictable_forces(force_error: float, energy_error: float) -> str:
    """Return a warning with the median relative errors of a fit to the forces and of a fit to the energies."""
    cause = (
        "they are in another order of the atoms or axes"
        if energy_error < MAX_PREDICTABLE_ENERGY_ERROR
        else "energies and forces belong to other configurations, or are not converged"
    )
    return (
        f"the forces do not follow from the structures: {cause} (error of a linear model on configurations that it "
        f"was not fitted to: {100 * force_error:.0f} % of the forces, {100 * energy_error:.0f} % of the spread of "
        "the energies)"
    )


def _select_other_configurations(
    dataset: Dataset, fit: LabelFit, labels: Labels, fit_positions: Array
) -> tuple[list[Atoms], Array, Array]:
    """Return labelled structures that are not in the fit but have only its elements, with their energies and ids.

    Energies are in eV/atom. Single atoms and flat cells, which have no descriptors, are excluded, and so are the last
    structures if all have more than `MAX_OTHER_ATOMS` atoms in total.
    """
    n_atoms = dataset.n_atoms
    elements = set(list_elements(fit.structures))
    positions = np.setdiff1d(np.flatnonzero(labels.is_complete & (n_atoms > 1)), fit_positions)
    positions = positions[np.cumsum(n_atoms[positions]) <= MAX_OTHER_ATOMS]
    structures = list(dataset.select(positions))
    is_usable = [set(atoms.get_chemical_symbols()) <= elements and not _has_flat_cell(atoms) for atoms in structures]
    structures = [atoms for atoms, has_row in zip(structures, is_usable, strict=True) if has_row]
    positions = positions[np.array(is_usable, dtype=bool)]
    return structures, labels.energy[positions] / n_atoms[positions], dataset.ids[positions]


def _has_flat_cell(atoms: Atoms) -> bool:
    """Return whether a structure is periodic along vectors that are zero or linearly dependent."""
    vectors = atoms.cell[atoms.pbc]
    return bool(np.linalg.matrix_rank(vectors) < len(vectors))


def _select_sample(dataset: Dataset, labels: dict[str, Labels]) -> Array:
    """Return sorted positions of a random sample of the labelled configurations for the fit.

    The sample has at most `MAX_CONFIGURATIONS`, none larger than `MAX_ATOMS_PER_CONFIGURATION`. Configurations whose
    forces do not vanish by symmetry are drawn first; up to a quarter of the sample remains for those whose forces
    vanish. The sample ends where it exceeds `MAX_ATOMS`, so that the latter may all be excluded.
    """
    n_atoms = dataset.n_atoms
    mean_squares = np.full(len(n_atoms), -1.0)  # largest mean square force of all levels; -1 without labels
    for level_labels in labels.values():
        level_mean_squares = level_labels.sum_over_atoms((level_labels.forces**2).sum(axis=1)) / n_atoms
        mean_squares = np.fmax(mean_squares, np.where(level_labels.is_complete, level_mean_squares, -1.0))
    usable_positions = np.flatnonzero((mean_squares >= 0) & (n_atoms <= MAX_ATOMS_PER_CONFIGURATION))
    if not len(usable_positions):
        return usable_positions
    order = np.random.default_rng(0).permutation(usable_positions)
    has_forces = mean_squares[order] > MIN_FORCE_RATIO**2 * np.quantile(mean_squares[usable_positions], 0.9)
    max_with_forces = max(MAX_CONFIGURATIONS * 3 // 4, MAX_CONFIGURATIONS - int((~has_forces).sum()))
    order = np.concatenate([order[has_forces][:max_with_forces], order[~has_forces]])[:MAX_CONFIGURATIONS]
    return np.sort(order[np.cumsum(n_atoms[order]) <= MAX_ATOMS])


def _measure_distance_ratio(structures: Sequence[Atoms]) -> float:
    """Return the median, over a sample of structures, of the smallest ratio of a distance to a sum of covalent radii.

    Structures with noble gases are excluded; the result is 1 if no distance can be measured.
    """
    ratios = []
    for atoms in structures[:: max(1, len(structures) // MAX_MEASURED_STRUCTURES)]:
        if set(atoms.numbers.tolist()) & NOBLE_GASES:
            continue
        searches = (find_shortest_pair_distances(atoms, radius) for radius in MAX_DISTANCES)
        distances = next(filter(None, searches), {})  # by pair of atomic numbers
        if distances:
            ratios.append(min(length / covalent_radii[list(pair)].sum() for pair, length in distances.items()))
    return float(np.median(ratios)) if ratios else 1.0


def _find_identical_levels(labels: dict[str, Labels]) -> Iterator[str]:
    """Yield a warning for each pair of levels that have the same labels of most shared configurations, at least 2."""
    for (first_level, first_labels), (second_level, second_labels) in combinations(labels.items(), 2):
        is_shared = first_labels.is_complete & second_labels.is_complete
        is_different_force = (first_labels.forces != second_labels.forces).any(axis=1)
        has_different_forces = first_labels.sum_over_atoms(is_different_force) > 0
        n_identical = int((is_shared & (first_labels.energy == second_labels.energy) & ~has_different_forces).sum())
        if n_identical > max(1, MIN_IDENTICAL_FRACTION * is_shared.sum()):
            yield (
                f"levels {first_level} and {second_level}: the energies and forces of {n_identical} of "
                f"{is_shared.sum()} configurations are identical: the same labels were imported twice"
            )


def _find_constant_labels(labels: Labels, ids: Array) -> Iterator[str]:
    """Yield a warning if most energies, or energies per atom, are the same, or else if all forces are zero."""
    energy_positions = np.flatnonzero(np.isfinite(labels.energy))
    if len(energy_positions) < MIN_CONFIGURATIONS:
        return
    n_atoms = np.diff(labels.offsets)[energy_positions]
    for name, energies in (
        ("energies", labels.energy[energy_positions]),
        ("energies per atom", labels.energy[energy_positions] / n_atoms),
    ):
        distinct_energies, counts = np.unique(energies.round(6), return_counts=True)
        if counts.max() > MIN_IDENTICAL_FRACTION * len(energies):
            most_common_energy = distinct_energies[counts.argmax()]
            id_list = list_first(ids[energy_positions[energies.round(6) == most_common_energy]])
            yield f"{counts.max()} of {len(energies)} {name} are the same, {most_common_energy:g} eV: {id_list}"
            return
    force_positions = np.flatnonzero(labels.has_forces)
    if len(force_positions) >= MIN_CONFIGURATIONS and not labels.forces[np.isfinite(labels.forces)].any():
        yield f"all forces of {len(force_positions)} configurations are zero"
