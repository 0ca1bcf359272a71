"""Input of a sweep from a prepared study and its design matrix, with the weight factors of configuration groups."""

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

MIN_RELATIVE_PIVOT = 1e-9  # relative to the largest pivot of the scaled columns; smaller pivots are rounding errors
NEGLIGIBLE_SHARE = 0.01  # error of a property, relative to its reference, that the optimisation of weights neglects
GroupFactors = dict[tuple[str, RowKind], float]  # factor of the row weight, by group and kind of row


def build_sweep_input(prepared: PreparedStudy, design: DesignMatrix, context: RunContext | None = None) -> SweepInput:
    """Build the input of a study's sweep: design with labels and costs, split, leverage weights and properties.

    Models of the design reproduce the free-atom energies, and its rows have the weights of configuration groups.

    Parameters
    ----------
    prepared : PreparedStudy
    design : DesignMatrix
        Design matrix of the study's configurations, without labels.
    context : RunContext, optional
        Context in which the rows of properties are computed; by default the sweep has no properties.

    Raises
    ------
    InputError
        As in `compute_group_factors`.
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
        energy_weight = leverage.force_weight * _compute_forces_per_energy(labelled_design, split.train)
    leverage_weights = energy_weight, leverage.force_weight
    properties = None
    if prepared.properties and context is not None:
        properties = PropertyRows.compute(prepared.properties, labelled_design, context)
    return SweepInput(labelled_design, split.train, split.test, leverage_weights, columns, split.groups, properties)


def _compute_forces_per_energy(design: DesignMatrix, train: np.ndarray) -> float:
    """Compute the ratio of force rows to energy rows of the training set; 1 if it has no energies or no forces."""
    kind = design.kind[np.isin(design.configuration, train)]
    n_energy, n_force = int((kind == RowKind.ENERGY).sum()), int((kind == RowKind.FORCE).sum())
    return n_force / n_energy if n_energy and n_force else 1.0


def compute_group_factors(prepared: PreparedStudy, design: DesignMatrix) -> np.ndarray | None:
    """Compute the factor of each row's weight from its group and kind, ``(n_rows,) float64``; None if none is set.

    Rows of the test set, of other groups and of stresses have the factor 1.

    Parameters
    ----------
    prepared : PreparedStudy
    design : DesignMatrix
        Design matrix with labels.

    Raises
    ------
    InputError
        If a group does not exist, or the factors cannot be optimised, because the training set is too small or a
        property is not linear in the coefficients.
    """
    settings = prepared.study.group_weights
    if not (settings.energy or settings.force or settings.objectives):
        return None
    check_group_names(prepared)
    group_names = _list_group_names(prepared)
    factors: GroupFactors = {(name, RowKind.ENERGY): factor for name, factor in settings.energy.items()}
    factors |= {(name, RowKind.FORCE): factor for name, factor in settings.force.items()}
    if settings.objectives:
        factors = _optimise_factors(prepared, design, group_names, factors)
    row_groups = group_names[design.configuration]
    row_factors = np.ones(design.n_rows)
    is_training = np.isin(design.configuration, prepared.split.train)
    for (name, kind), factor in factors.items():
        row_factors[is_training & (design.kind == kind) & (row_groups == name)] = factor
    return row_factors


def check_group_names(prepared: PreparedStudy) -> None:
    """Check that the groups with weights exist.

    Raises
    ------
    InputError
        If no configuration is in a group of 'group_weights'.
    """
    settings, group_names = prepared.study.group_weights, _list_group_names(prepared)
    for group in {**settings.energy, **settings.force}:
        if group not in group_names:
            groups = sorted(set(group_names.tolist()) - {str(None)})
            group_text = f"the groups are {', '.join(groups)}" if groups else f"none has a {settings.group_key}"
            raise InputError(
                f"'group_weights' contains the group '{group}', but no configuration of {prepared.study.dataset} has "
                f"{settings.group_key} {group}; {group_text}{suggest_match(group, groups)}"
            )


def _list_group_names(prepared: PreparedStudy) -> np.ndarray:
    """List the group of each configuration, ``(n_configurations,) str``; ``"None"`` without a group."""
    group_key = prepared.study.group_weights.group_key
    return np.array([str(record.get(group_key)) for record in prepared.dataset.info_records])


def _optimise_factors(
    prepared: PreparedStudy, design: DesignMatrix, group_names: np.ndarray, initial_factors: GroupFactors
) -> GroupFactors:
    """Optimise the factors for errors that are held out within the training set.

    The fits are at the reference level and the first weights of the study. `group_names` has the group of each
    configuration, ``(n_configurations,) str``; factors that are not in `initial_factors` begin at 1.
    """
    study, settings = prepared.study, prepared.study.group_weights
    twojmax = min(study.twojmax) if settings.twojmax is None else settings.twojmax
    rows = np.flatnonzero(np.isin(design.configuration, prepared.split.train))
    kind, configuration = design.kind[rows], design.configuration[rows]
    base_weights = np.array([*study.weights[0], 1.0])[kind]  # w_E, w_F, and 1 for stresses
    group = group_names[configuration]
    group_kinds = [(name, RowKind(row_kind)) for name, row_kind in zip(group, kind, strict=True)]
    row_factors = [initial_factors.get(group_kind, 1.0) for group_kind in group_kinds]
    n_columns = design.count_columns_up_to(twojmax)
    X, y = design.read_rows(rows, n_columns), design.targets[prepared.grid.levels[-1]][rows]
    is_training = np.ones(len(rows), dtype=bool)  # the search itself holds out a part of these rows
    columns = find_independent_columns(X)
    row_weights = base_weights * np.array(row_factors)
    fit_rows = FitRows(X[:, columns], y, kind, group, configuration, row_weights, is_training)
    try:
        targets = {
            name: (target_rows[:, columns], labels)
            for name, (target_rows, labels) in _build_targets(prepared, design, n_columns).items()
        }
        optimum, _ = search_weights(fit_rows, 0, settings.objectives, settings.regulariser, study.seed, targets=targets)
    except InputError as error:
        raise InputError(f"'group_weights.objectives' at 2Jmax = {twojmax}: {error}") from error
    weight_by_kind = dict(zip((RowKind.ENERGY, RowKind.FORCE), study.weights[0], strict=True))
    return {
        (name, row_kind): weight / weight_by_kind[row_kind]
        for (name, row_kind), weight in optimum.weights.items()
        if row_kind in weight_by_kind
    }


def find_independent_columns(X: np.ndarray) -> np.ndarray:
    """Find columns of X, ``(n_rows, n_columns)``, of which all other columns are linear combinations.

    In alloys, POD has columns that depend on each other for any structure: its pair functions of element A with
    neighbours B and those of B with neighbours A have the same sums.

    Returns
    -------
    (rank,) int64
        Indices of the columns, ascending.
    """
    scale = np.linalg.norm(X, axis=0)
    R, order = scipy.linalg.qr(X / np.where(scale > 0, scale, 1.0), mode="r", pivoting=True, check_finite=False)
    pivots = np.abs(np.diag(R))
    return np.sort(order[: int((pivots > MIN_RELATIVE_PIVOT * pivots[0]).sum())])


def _build_targets(prepared: PreparedStudy, design: DesignMatrix, n_columns: int) -> dict[str, Target]:
    """Build the rows and references of the properties among the objectives, by name.

    They are scaled so that `NEGLIGIBLE_SHARE` of the reference is an error that the search regards as negligible.

    Raises
    ------
    InputError
        If a property is not linear in the coefficients, as the search requires.
    """
    names = set(prepared.study.group_weights.objectives) & set(prepared.study.property_names)
    if not names:
        return {}
    prepared = prepared if prepared.properties else add_properties(prepared)
    objectives = [entry for entry in prepared.properties if entry.name in names]
    if nonlinear_names := [entry.name for entry in objectives if not entry.is_linear]:
        raise InputError(
            f"'{nonlinear_names[0]}' is not linear in the coefficients; possible are energy differences, force "
            "constants, and elastic constants with 'ions: clamped'"
        )
    property_rows = PropertyRows.compute(objectives, design, RunContext(1, False))
    targets = {}
    for entry, rows in zip(objectives, property_rows.split_rows(), strict=True):
        reference = np.asarray(entry.reference, dtype=float)
        reference_rms = np.sqrt((reference**2).mean()) or 1.0  # a reference of zero cannot be scaled
        scale = NEGLIGIBLE_ERRORS[RowKind.ENERGY] / (NEGLIGIBLE_SHARE * reference_rms)
        targets[entry.name] = scale * rows[:, :n_columns], scale * reference
    return targets
