"""Input of a sweep from a prepared study and its design matrix, with the weight factors of groups of configurations."""

from dataclasses import replace

import numpy as np
import scipy.linalg

from paretofit.core import InputError, RowKind, suggest_match
from paretofit.descriptors import DesignMatrix
from paretofit.execution import RunContext
from paretofit.fitsnap import FitRows, Target, search_weights
from paretofit.linear import NEGLIGIBLE_ERRORS
from paretofit.properties import PropertyRows
from paretofit.study.preparation import PreparedStudy, add_properties
from paretofit.sweep import SweepInput

MIN_RELATIVE_PIVOT = 1e-9  # of the scaled columns; smaller pivots are rounding errors
NEGLIGIBLE_SHARE = 0.01  # of the reference of a property, in the optimisation of weights
Factors = dict[tuple[str, RowKind], float]


def build_sweep_input(prepared: PreparedStudy, design: DesignMatrix, context: RunContext | None = None) -> SweepInput:
    """Build the input of a study's sweep: labelled, constrained design, costs, group weights, split and properties.

    The rows of the properties are computed only with a `context`.
    """
    study = prepared.study
    labelled_design = design.with_labels(prepared.dataset, prepared.grid.levels)
    labelled_design = prepared.reference_energies.constrain(labelled_design)
    if study.cost.label_seconds != "recorded":
        seconds = {
            level: np.full(design.n_configurations, study.cost.label_seconds[level]) for level in prepared.grid.levels
        }
        labelled_design = replace(labelled_design, seconds=seconds)
    row_factors = compute_group_factors(prepared, labelled_design)
    labelled_design = labelled_design if row_factors is None else labelled_design.with_row_weights(row_factors)
    split, leverage = prepared.split, study.leverage
    columns = labelled_design.count_columns_up_to(max(study.twojmax) if leverage.twojmax is None else leverage.twojmax)
    energy_weight = leverage.energy_weight
    if energy_weight is None:
        energy_weight = leverage.force_weight * _count_forces_per_energy(labelled_design, split.train)
    leverage_weights = energy_weight, leverage.force_weight
    properties = None
    if prepared.properties and context is not None:
        properties = PropertyRows.compute(prepared.properties, labelled_design, context)
    return SweepInput(labelled_design, split.train, split.test, leverage_weights, columns, split.groups, properties)


def _count_forces_per_energy(design: DesignMatrix, train: np.ndarray) -> float:
    """Count the force components per energy of the training set; 1 without energies or forces."""
    kind = design.kind[np.isin(design.configuration, train)]
    n_energy, n_force = int((kind == RowKind.ENERGY).sum()), int((kind == RowKind.FORCE).sum())
    return n_force / n_energy if n_energy and n_force else 1.0


def compute_group_factors(prepared: PreparedStudy, design: DesignMatrix) -> np.ndarray | None:
    """Compute the factors of the row weights by group and kind, ``(n_rows,)``; None without 'group_weights'.

    Rows of the test set have the factor 1.

    Parameters
    ----------
    prepared : PreparedStudy
    design : DesignMatrix
        Design matrix with labels.

    Raises
    ------
    InputError
        If a group does not exist, or the training set is too small for the optimisation of factors.
    """
    settings = prepared.study.group_weights
    if not (settings.energy or settings.force or settings.objectives):
        return None
    names = np.array([str(record.get(settings.group_key)) for record in prepared.dataset.info_records])
    for group in {**settings.energy, **settings.force}:
        if group not in names:
            raise InputError(
                f"'group_weights' contains the group '{group}', but no configuration of {prepared.study.dataset} has "
                f"{settings.group_key} {group}; the groups are {', '.join(sorted(set(names.tolist())))}"
                f"{suggest_match(group, names)}"
            )
    factors: Factors = {(name, RowKind.ENERGY): factor for name, factor in settings.energy.items()}
    factors |= {(name, RowKind.FORCE): factor for name, factor in settings.force.items()}
    if settings.objectives:
        factors = _optimise_factors(prepared, design, names, factors)
    groups = names[design.configuration]
    row_factors = np.ones(design.n_rows)
    is_training = np.isin(design.configuration, prepared.split.train)
    for (name, kind), factor in factors.items():
        row_factors[is_training & (design.kind == kind) & (groups == name)] = factor
    return row_factors


def _optimise_factors(
    prepared: PreparedStudy, design: DesignMatrix, names: np.ndarray, initial_factors: Factors
) -> Factors:
    """Optimise factors at the reference level and the first weights, by errors held out within the training set."""
    study, settings = prepared.study, prepared.study.group_weights
    twojmax = min(study.twojmax) if settings.twojmax is None else settings.twojmax
    rows = np.flatnonzero(np.isin(design.configuration, prepared.split.train))
    kind, configuration = design.kind[rows], design.configuration[rows]
    base_weights = np.array([*study.weights[0], 1.0])[kind]  # the last is the weight of stresses
    group = names[configuration]
    factors = [initial_factors.get((name, RowKind(number)), 1.0) for name, number in zip(group, kind, strict=True)]
    n_columns = design.count_columns_up_to(twojmax)
    X, y = design.read_rows(rows, n_columns), design.targets[prepared.grid.levels[-1]][rows]
    is_training = np.ones(len(rows), dtype=bool)
    columns = find_independent_columns(X)
    row_weights = base_weights * np.array(factors)
    fit_rows = FitRows(X[:, columns], y, kind, group, configuration, row_weights, is_training)
    try:
        targets = {
            name: (target_rows[:, columns], labels)
            for name, (target_rows, labels) in _build_targets(prepared, design, n_columns).items()
        }
        optimum, _ = search_weights(fit_rows, 0, settings.objectives, settings.regulariser, study.seed, targets=targets)
    except InputError as error:
        raise InputError(f"'group_weights.objectives' at 2Jmax = {twojmax}: {error}") from error
    weight = dict(zip((RowKind.ENERGY, RowKind.FORCE), study.weights[0], strict=True))
    return {part: value / weight[part[1]] for part, value in optimum.weights.items() if part[1] in weight}


def find_independent_columns(X: np.ndarray) -> np.ndarray:
    """Find columns of which all others are linear combinations, ``(rank,) int``, in ascending order.

    The pair functions of POD for atoms of A with neighbours B, and of B with neighbours A, have the same sums, so that
    columns of alloys depend on each other for any structure.
    """
    scale = np.linalg.norm(X, axis=0)
    R, order = scipy.linalg.qr(X / np.where(scale > 0, scale, 1.0), mode="r", pivoting=True, check_finite=False)
    pivots = np.abs(np.diag(R))
    return np.sort(order[: int((pivots > MIN_RELATIVE_PIVOT * pivots[0]).sum())])


def _build_targets(prepared: PreparedStudy, design: DesignMatrix, n_columns: int) -> dict[str, Target]:
    """Build the rows and references of the properties among the objectives; 1 % of a reference is negligible.

    Raises
    ------
    InputError
        If a property is not linear in the coefficients, which the moments of the search require.
    """
    names = set(prepared.study.group_weights.objectives) & set(prepared.study.property_names)
    if not names:
        return {}
    prepared = prepared if prepared.properties else add_properties(prepared)
    properties = [item for item in prepared.properties if item.name in names]
    if nonlinear_names := [item.name for item in properties if not item.is_linear]:
        raise InputError(
            f"'{nonlinear_names[0]}' is not linear in the coefficients; possible are energy differences, force "
            "constants, and elastic constants with 'ions: clamped'"
        )
    computed = PropertyRows.compute(properties, design, RunContext(1, False))
    targets = {}
    for item, rows in zip(properties, computed.split_rows(), strict=True):
        reference = np.asarray(item.reference, dtype=float)
        scale = NEGLIGIBLE_ERRORS[RowKind.ENERGY] / (NEGLIGIBLE_SHARE * (np.sqrt((reference**2).mean()) or 1.0))
        targets[item.name] = scale * rows[:, :n_columns], scale * reference
    return targets
