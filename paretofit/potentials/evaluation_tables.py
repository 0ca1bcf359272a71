"""Tables of an evaluation: by configuration, by component, in summary, by threshold, and what its figures show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from paretofit.core import InputError, RowKind
from paretofit.potentials.committee_building import DISPLAY_UNITS
from paretofit.uncertainty import Assessment, classify_grade, detection_map, detection_rates, hash_structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paretofit.core import Array
    from paretofit.potentials.assessment import StructureLabels
    from paretofit.potentials.committee_building import LabelledStructures
    from paretofit.potentials.linear_potential import LinearPotential
    from paretofit.potentials.mace.mace_potential import MacePotential
    from paretofit.uncertainty import ConformalIntervals, Uncertainty

NEW = "new"
VANISHING = 1e-3  # of the median error
COMPONENTS = ("label", "prediction", "error", "std", "interval")
LEAST = 5  # labelled configurations that did not train, for figures of calibration
LIMITS = 40  # thresholds along each axis of the map of detection rates
STATED = np.linspace(0.05, 0.95, 19)
QUANTITIES = {"energy": RowKind.ENERGY, "forces": RowKind.FORCE, "stress": RowKind.STRESS}
SHORT = {"energy": "energy", "forces": "force", "stress": "stress"}  # in columns, as everywhere
KINDS = dict(zip(SHORT.values(), QUANTITIES.values(), strict=True))


def build_evaluation_tables(
    potential: LinearPotential | MacePotential,
    labelled: LabelledStructures,
    infos: Sequence[dict[str, Any]],
    assessments: Sequence[Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each configuration, and one for each component."""
    own = potential.uncertainty
    rows, parts = [], []
    for k, (atoms, label, info, one) in enumerate(
        zip(labelled.structures, labelled.labels, infos, assessments, strict=True)
    ):
        row: dict[str, Any] = {
            "id": info["id"],
            "config_type": str(info.get("config_type", "")),
            "n_atoms": len(atoms),
            "set": NEW if own is None else own.structure_roles.get(hash_structure(atoms), NEW),
        }
        for name, kind in QUANTITIES.items():
            part = _component(name, kind, label, one, len(atoms))
            row |= _row(SHORT[name], part)
            parts.append((k, SHORT[name], part))
        if isinstance(one, Assessment):
            row |= {"extrapolation_grade": one.grade, "verdict": classify_grade(one.grade), "leverage": one.leverage}
        rows.append(row)
    return pd.DataFrame(rows), _stacked(parts)


def tabulate_components(label: StructureLabels, assessment: Any, n_atoms: int) -> pd.DataFrame:
    """All components of a configuration: ``quantity, label, prediction`` (eV/atom, eV/Å, GPa), ``error, std``."""
    parts = [(0, SHORT[name], _component(name, kind, label, assessment, n_atoms)) for name, kind in QUANTITIES.items()]
    return _stacked(parts)


def _stacked(parts: Sequence[tuple[int, str, dict[str, Array]]]) -> pd.DataFrame:
    """The components of all configurations as one table, those that are predicted."""
    lengths = [len(part["error"]) for _, _, part in parts]
    columns = {name: np.concatenate([part[name] for _, _, part in parts]) for name in COMPONENTS}
    table = pd.DataFrame(columns)
    table["configuration"] = np.repeat([k for k, _, _ in parts], lengths)
    table["quantity"] = np.repeat([quantity for _, quantity, _ in parts], lengths)
    return table[table["prediction"].notna()].reset_index(drop=True)


def _component(name: str, kind: RowKind, label: StructureLabels, one: Any, n_atoms: int) -> dict[str, Array]:
    """Labels, predictions, errors and error bars of one quantity of a configuration."""
    factor, _ = DISPLAY_UNITS[kind]
    scale = n_atoms if name == "energy" else 1
    shown = 1.0 if name != "stress" else factor  # labels and predictions in eV/atom, eV/Å, GPa
    truth, prediction = (np.ravel(getattr(holder, name)) / scale for holder in (label, one))
    part = {"label": shown * truth, "prediction": shown * prediction, "error": factor * (prediction - truth)}
    for bar in ("std", "interval"):
        values = getattr(one, f"{name}_{bar}", np.nan)
        part[bar] = factor * np.broadcast_to(np.ravel(values), prediction.shape)
    return part


def _row(name: str, part: dict[str, Array]) -> dict[str, float]:
    """What the table says of one quantity."""
    error, std, interval = part["error"], part["std"], part["interval"]
    known = np.isfinite(error)
    row = {f"{name}_error": float(error[0]) if name == "energy" else _rms(error)}
    if np.isfinite(std).any():
        judged = known & np.isfinite(interval)
        row |= {
            f"{name}_committee_error": _rms(np.hypot(error, std)),
            f"{name}_std": _rms(std),
            f"{name}_interval": _rms(interval),
            f"{name}_inside": float(np.mean(np.abs(error) <= interval, where=judged)) if judged.any() else float("nan"),
        }
    return row


def _rms(values: Any) -> float:
    """Root mean square of what is known."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def summarise_by_set(table: pd.DataFrame, components: pd.DataFrame) -> pd.DataFrame:
    """By set, and of what did not train by verdict."""
    groups: list[tuple[str, str, pd.Series[bool]]] = [
        (name, "", table["set"] == name) for name in dict.fromkeys(sorted(table["set"], reverse=True))
    ]
    if "verdict" in table:
        apart = table["set"] != "train"
        groups += [
            ("held out and new", name, apart & (table["verdict"] == name))
            for name in ("inside", "at the edge", "outside")
            if (apart & (table["verdict"] == name)).any()
        ]
    rows = []
    for name, judged, own in groups:
        row: dict[str, Any] = {"set": name, "verdict": judged, "configurations": int(own.sum())}
        of = components[components["configuration"].isin(np.flatnonzero(own))]
        for quantity in SHORT.values():
            part, here = of[of["quantity"] == quantity], table[own]
            row[f"{quantity}_rmse"] = _rms(part["error"])
            if part["std"].notna().any():
                inside = (part["error"].abs() <= part["interval"])[part["error"].notna() & part["interval"].notna()]
                row[f"{quantity}_std"] = _rms(part["std"])
                row[f"{quantity}_inside"] = float(inside.mean()) if len(inside) else float("nan")
                row[f"{quantity}_rank"] = _rank(here[f"{quantity}_std"], here[f"{quantity}_error"].abs())
        rows.append(row)
    return pd.DataFrame(rows)


def compute_spread_limits(
    uncertainty: Uncertainty | None, tolerances: Mapping[str, float], calibration: str
) -> dict[str, float]:
    """The disagreement that stands for each tolerance."""
    limits = {}
    for quantity, tolerance in tolerances.items():
        if quantity not in KINDS:
            raise InputError(f"there is no tolerance of '{quantity}'; there are {', '.join(KINDS)}")
        if not 0 < tolerance < np.inf:
            raise InputError(f"the tolerance of the {quantity} must be above zero and finite; got {tolerance:g}")
        if uncertainty is not None:
            factor, _ = DISPLAY_UNITS[KINDS[quantity]]
            limits[quantity] = factor * uncertainty.fit_calibration(KINDS[quantity], calibration).threshold(
                tolerance / factor
            )
    return limits


def flag_configurations(
    table: pd.DataFrame, tolerances: Mapping[str, float], limits: Mapping[str, float]
) -> pd.DataFrame:
    """Name in the table what is above a tolerance, and count."""
    if not limits:
        return pd.DataFrame()
    above = pd.DataFrame({quantity: table[f"{quantity}_std"] > limit for quantity, limit in limits.items()})
    table["flagged"] = above.apply(lambda row: " ".join(row.index[row]), axis=1)
    apart, rows = table["set"] != "train", []
    for quantity, limit in limits.items():
        error = table.loc[apart, f"{quantity}_committee_error"].dropna()
        spread = table.loc[error.index, f"{quantity}_std"]
        rates = detection_rates(spread.to_numpy(), error.to_numpy(), limit, tolerances[quantity])
        rows.append([quantity, tolerances[quantity], limit, int((above[quantity] & apart).sum()), *rates])
    columns = ["quantity", "error_limit", "spread_limit", "flagged", "true_positive_rate", "positive_predictive_value"]
    return pd.DataFrame(rows, columns=columns)


def _rank(spread: pd.Series[float], error: pd.Series[float]) -> float:
    known = spread.notna() & error.notna()
    if known.sum() < 3 or spread[known].nunique() < 2 or error[known].nunique() < 2:
        return float("nan")
    return float(spearmanr(spread[known], error[known]).statistic)


def build_calibration_tables(
    uncertainty: Uncertainty, table: pd.DataFrame, components: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Slopes of the calibration, detection rates by both thresholds, and coverage.

    Judged on new configurations or, if there are too few, on those that were held out, which is no test of the
    calibration: it was made on them.
    """
    slopes, rates, curve = [], [], []
    new = table["set"] == NEW
    on = NEW if new.sum() >= LEAST else "held out"
    apart = table[table["set"] == on]
    rows = components[components["configuration"].isin(apart.index)]
    for quantity, kind in KINDS.items():
        known = apart[apart[f"{quantity}_error"].notna()]
        if kind not in uncertainty.held_out or len(known) < LEAST:
            continue
        line = uncertainty.fit_calibration(kind)
        slopes.append([quantity, line.slope, line.slope_half_width, line.residual * DISPLAY_UNITS[kind][0], on])
        spread, error = (known[f"{quantity}_{one}"].to_numpy() for one in ("std", "committee_error"))
        some = error > VANISHING * np.median(error)  # the others are forces that vanish by symmetry
        spread, error = spread[some], error[some]
        limits = [_limits(spread), _limits(error)]
        found_rates = detection_map(spread, error, *limits)
        rates += [
            [quantity, limits[0][i], limits[1][j], *(float(one[i, j]) for one in found_rates)]
            for i, j in np.ndindex(found_rates[0].shape)
        ]
        part = rows[(rows["quantity"] == quantity) & rows["error"].notna()]
        size, std = part["error"].abs().to_numpy(), part["std"].to_numpy()
        for stated in STATED:
            if (count := uncertainty.held_out[kind].n_groups) * (1 - stated) < stated:
                continue  # too few for a calibration of this share
            half = DISPLAY_UNITS[kind][0] * _conformal(uncertainty, kind, stated).half_width(
                std / DISPLAY_UNITS[kind][0]
            )
            curve.append(
                [quantity, stated, on, count, np.mean(size <= half), np.mean(size <= norm.ppf((1 + stated) / 2) * std)]
            )
    return {
        "slopes": pd.DataFrame(slopes, columns=["quantity", "slope", "confidence", "residual", "judged_on"]),
        "detection": pd.DataFrame(
            rates,
            columns=["quantity", "spread_limit", "error_limit", "true_positive_rate", "positive_predictive_value"],
        ),
        "coverage": pd.DataFrame(
            curve, columns=["quantity", "stated", "judged_on", "calibrated_on", "conformal", "spread"]
        ),
    }


def _conformal(own: Uncertainty, kind: RowKind, stated: float) -> ConformalIntervals:
    found = own.fit_interval(kind, stated)
    if found is None:
        raise InputError(f"no {kind.name.lower()} was held out to calibrate by; fit again with some held out")
    return found


def _limits(values: np.ndarray) -> np.ndarray:
    """Thresholds from the smallest to the largest value, evenly on a logarithmic axis."""
    positive = values[values > 0]
    return np.geomspace(positive.min(), positive.max(), LIMITS) if len(positive) else np.array([1.0])
