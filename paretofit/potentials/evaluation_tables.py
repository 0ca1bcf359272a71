"""Tables of an evaluation: by configuration, by component, a summary by set and grade, and flagged configurations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from paretofit.core import Array, InputError, RowKind, check_choice
from paretofit.potentials.committee_building import DISPLAY_UNITS, LabelledStructures
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.prediction import StructureLabels
from paretofit.uncertainty import Assessment, Uncertainty, classify_grade, find_role, score_detection

# Sets of configurations outside the record of a potential: not in the record, or without any record.
NEW, UNKNOWN = "new", "unknown"
VERDICTS = ("interpolation", "extrapolation", "strong extrapolation")  # the classes of `classify_grade`
COMPONENTS = ("label", "prediction", "error", "std", "interval")  # columns of the table of components
QUANTITIES = {"energy": "energy", "force": "forces", "stress": "stress"}  # attribute of labels, by name in the tables
KINDS = {"energy": RowKind.ENERGY, "force": RowKind.FORCE, "stress": RowKind.STRESS}
MIN_RANKED_CONFIGURATIONS = 3  # minimum number of configurations for a rank correlation


def build_evaluation_tables(
    potential: CommitteePotential,
    labelled_structures: LabelledStructures,
    info_records: Sequence[dict[str, Any]],
    assessments: Sequence[Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tabulate the errors and error bars of a potential.

    Parameters
    ----------
    potential : CommitteePotential
    labelled_structures : LabelledStructures
    info_records : sequence of dict
        Metadata of each configuration: ``id`` and, if known, ``config_type``.
    assessments : sequence of Assessment or StructureLabels
        Predictions for each configuration, with error bars if the potential is a committee.

    Returns
    -------
    configurations : pandas.DataFrame
        A row for each configuration with ``id``, ``config_type``, ``n_atoms``, ``set`` ("train", "held out", "new", or
        "unknown" for a potential without a training record), and the columns of `_summarise_components` for each
        quantity, in meV/atom, meV/Å and GPa. With error bars, also ``extrapolation_grade``, its class ``verdict``, and
        ``leverage``.
    components : pandas.DataFrame
        A row for each component; see `tabulate_components`. ``configuration`` is the index in `configurations`.
    """
    training_record = potential.known_configurations
    rows, component_records = [], []
    configurations = zip(
        labelled_structures.structures, labelled_structures.labels, info_records, assessments, strict=True
    )
    for k, (atoms, label, info, assessment) in enumerate(configurations):
        row: dict[str, Any] = {
            "id": info["id"],
            "config_type": str(info.get("config_type", "")),
            "n_atoms": len(atoms),
            "set": UNKNOWN if training_record is None else find_role(training_record.structure_roles, atoms) or NEW,
        }
        for quantity in QUANTITIES:
            components = _compare_components(quantity, label, assessment, len(atoms))
            row |= _summarise_components(quantity, components)
            component_records.append((k, quantity, components))
        if isinstance(assessment, Assessment):
            grade = assessment.grade
            row |= {"extrapolation_grade": grade, "verdict": classify_grade(grade), "leverage": assessment.leverage}
        rows.append(row)
    return pd.DataFrame(rows), _stack_components(component_records)


def tabulate_components(label: StructureLabels, assessment: Any, n_atoms: int) -> pd.DataFrame:
    """Tabulate each component of the energy, forces and stress of a configuration of `n_atoms` atoms.

    `assessment` is an `Assessment` or, without error bars, `StructureLabels`. The columns are `COMPONENTS`,
    ``configuration`` (0) and ``quantity``. Labels and predictions are in eV/atom, eV/Å and GPa; errors (prediction
    minus label) and error bars are in meV/atom, meV/Å and GPa. Components without a prediction are omitted.
    """
    return _stack_components(
        [(0, quantity, _compare_components(quantity, label, assessment, n_atoms)) for quantity in QUANTITIES]
    )


def _stack_components(component_records: Sequence[tuple[int, str, dict[str, Array]]]) -> pd.DataFrame:
    """Combine ``(configuration, quantity, components)`` into one table, without components that have no prediction."""
    indices, quantities, components_list = zip(*component_records, strict=True)
    lengths = [len(components["error"]) for components in components_list]
    table = pd.DataFrame(
        {name: np.concatenate([components[name] for components in components_list]) for name in COMPONENTS}
    )
    table["configuration"] = np.repeat(indices, lengths)
    table["quantity"] = np.repeat(quantities, lengths)
    return table[table["prediction"].notna()].reset_index(drop=True)


def _compare_components(quantity: str, label: StructureLabels, assessment: Any, n_atoms: int) -> dict[str, Array]:
    """Return the `COMPONENTS` of one quantity of a configuration, each ``(n,)``; see `tabulate_components`."""
    attribute = QUANTITIES[quantity]
    factor, _ = DISPLAY_UNITS[KINDS[quantity]]
    label_factor = factor if quantity == "stress" else 1.0  # only stresses are converted, from eV/Å³ to GPa
    divisor = n_atoms if quantity == "energy" else 1
    label_values, predictions = (np.ravel(getattr(source, attribute)) / divisor for source in (label, assessment))
    components = {"label": label_factor * label_values, "prediction": label_factor * predictions}
    components["error"] = factor * (predictions - label_values)
    for name in ("std", "interval"):
        error_bars = getattr(assessment, f"{attribute}_{name}", np.nan)
        components[name] = factor * np.broadcast_to(np.ravel(error_bars), predictions.shape)
    return components


def _summarise_components(quantity: str, components: dict[str, Array]) -> dict[str, float]:
    """Summarise one quantity of a configuration as entries of a table row, in the units of `components`.

    The entry ``QUANTITY_error`` is the root mean square error of the components; that of the energy keeps its sign.
    With error bars, there are also ``_committee_error`` (root mean square error of the members), ``_std`` and
    ``_interval`` (root mean squares), and ``_inside``, the fraction of errors within their intervals.
    """
    error, std, interval = components["error"], components["std"], components["interval"]
    row = {f"{quantity}_error": float(error[0]) if quantity == "energy" else _root_mean_square(error)}
    if np.isfinite(std).any():
        row |= {  # mean square error of the members = squared error of their mean + their variance
            f"{quantity}_committee_error": _root_mean_square(np.hypot(error, std)),
            f"{quantity}_std": _root_mean_square(std),
            f"{quantity}_interval": _root_mean_square(interval),
            f"{quantity}_inside": _compute_coverage(error, interval),
        }
    return row


def _root_mean_square(values: Any) -> float:
    """Compute the root mean square of the finite values; NaN if there are none."""
    finite_values = np.asarray(values)[np.isfinite(values)]
    return float(np.sqrt(np.mean(finite_values**2))) if len(finite_values) else float("nan")


def _compute_coverage(error: Any, interval: Any) -> float:
    """Compute the fraction of errors within their intervals, where both are finite; NaN without such components."""
    is_finite = np.isfinite(error) & np.isfinite(interval)
    return float(np.mean((np.abs(error) <= interval)[is_finite])) if is_finite.any() else float("nan")


def summarise_by_set(table: pd.DataFrame, components: pd.DataFrame) -> pd.DataFrame:
    """Summarise errors by set and, for configurations outside the training set, by the verdict on their grade.

    `table` and `components` are the tables of `build_evaluation_tables`. The result has the columns ``set``,
    ``verdict`` (empty for a whole set), ``configurations`` (their number) and, for each quantity, ``QUANTITY_rmse`` and
    ``_std`` over all components in the same units, ``_inside`` (fraction of errors within their intervals) and
    ``_rank`` (rank correlation of disagreement and error). For a single potential, only ``_rmse`` is present.
    """
    # The reverse alphabetical order lists the training set first.
    groups: list[tuple[str, str, pd.Series[bool]]] = [
        (name, "", table["set"] == name) for name in sorted(set(table["set"]), reverse=True)
    ]
    if "verdict" in table:
        masks = {verdict: (table["set"] != "train") & (table["verdict"] == verdict) for verdict in VERDICTS}
        groups += [("held out and new", verdict, mask) for verdict, mask in masks.items() if mask.any()]
    rows = []
    for name, verdict, mask in groups:
        row: dict[str, Any] = {"set": name, "verdict": verdict, "configurations": int(mask.sum())}
        group_components = components[components["configuration"].isin(np.flatnonzero(mask))]
        for quantity in QUANTITIES:
            quantity_components = group_components[group_components["quantity"] == quantity]
            row[f"{quantity}_rmse"] = _root_mean_square(quantity_components["error"])
            if quantity_components["std"].notna().any():
                row[f"{quantity}_std"] = _root_mean_square(quantity_components["std"])
                row[f"{quantity}_inside"] = _compute_coverage(
                    quantity_components["error"], quantity_components["interval"]
                )
                row[f"{quantity}_rank"] = _compute_rank_correlation(table[mask], quantity)
        rows.append(row)
    return pd.DataFrame(rows)


def _compute_rank_correlation(table: pd.DataFrame, quantity: str) -> float:
    """Compute Spearman's correlation of disagreement and error; NaN for too few or for constant values."""
    pairs = pd.DataFrame({"spread": table[f"{quantity}_std"], "error": table[f"{quantity}_error"].abs()}).dropna()
    if len(pairs) < MIN_RANKED_CONFIGURATIONS or (pairs.nunique() < 2).any():
        return float("nan")
    return float(spearmanr(pairs["spread"], pairs["error"]).statistic)


def compute_spread_limits(
    uncertainty: Uncertainty | None, tolerances: Mapping[str, float], calibration: str
) -> dict[str, float]:
    """Check the error tolerance of each quantity, and convert it to a limit of the committee's disagreement.

    Parameters
    ----------
    uncertainty : Uncertainty or None
        None for a single potential; its tolerances are only checked.
    tolerances : mapping of quantity to float
        Largest acceptable errors of energy (meV/atom), force (meV/Å) and stress (GPa).
    calibration : str
        Method of `Uncertainty.fit_calibration`.

    Returns
    -------
    dict of quantity to float
        In the units of the tolerances; empty without an uncertainty.

    Raises
    ------
    InputError
        If a quantity is unknown or has no calibration, or a tolerance is not positive and finite.
    """
    limits = {}
    for quantity, tolerance in tolerances.items():
        check_choice("the quantity of a tolerance", quantity, KINDS)
        if not 0 < tolerance < np.inf:
            raise InputError(f"the tolerance of the {quantity} must be positive and finite; got {tolerance:g}")
        if uncertainty is not None:
            factor, _ = DISPLAY_UNITS[KINDS[quantity]]
            fitted_calibration = uncertainty.fit_calibration(KINDS[quantity], calibration)
            limits[quantity] = factor * fitted_calibration.find_threshold(tolerance / factor)
    return limits


def flag_configurations(
    table: pd.DataFrame, tolerances: Mapping[str, float], limits: Mapping[str, float]
) -> pd.DataFrame:
    """Flag configurations with a disagreement above a limit, and compute detection rates outside the training set.

    Parameters
    ----------
    table : pandas.DataFrame
        Table of configurations of `build_evaluation_tables`. A column ``flagged`` with the names of the quantities
        above their limits is added to it, unless there are no limits.
    tolerances : mapping of quantity to float
        Committee errors (meV/atom, meV/Å, GPa) that flags should detect; only the rates depend on them.
    limits : mapping of quantity to float
        Disagreements above which a configuration is flagged, in the same units (see `compute_spread_limits`).

    Returns
    -------
    pandas.DataFrame
        A row for each ``quantity`` with its tolerance (``error_limit``), its limit (``spread_limit``), the number of
        configurations outside the training set that are ``flagged``, and the two rates of `score_detection`; empty
        without limits.
    """
    if not limits:
        return pd.DataFrame()
    is_above = pd.DataFrame({quantity: table[f"{quantity}_std"] > limit for quantity, limit in limits.items()})
    table["flagged"] = is_above.apply(lambda row: " ".join(row.index[row]), axis=1)
    is_outside_training = table["set"] != "train"  # includes "unknown"
    rows = []
    for quantity, limit in limits.items():
        error = table.loc[is_outside_training, f"{quantity}_committee_error"].dropna()
        spread = table.loc[error.index, f"{quantity}_std"]
        rates = score_detection(spread.to_numpy(), error.to_numpy(), limit, tolerances[quantity])
        n_flagged = int((is_above[quantity] & is_outside_training).sum())
        rows.append([quantity, tolerances[quantity], limit, n_flagged, *rates])
    columns = ["quantity", "error_limit", "spread_limit", "flagged", "true_positive_rate", "positive_predictive_value"]
    return pd.DataFrame(rows, columns=columns)
