"""Table of the errors of a fit, with FitSNAP's columns, and its conversion to FitSNAP's text format."""

from itertools import product

import numpy as np
import pandas as pd

from paretofit.core import RowKind
from paretofit.descriptors import GPA_PER_BAR
from paretofit.fitsnap.group_weights import FitRows

# Factors from the units of rows (eV/atom, eV/Å, GPa) to FitSNAP's units (eV/atom, eV/Å, bar). FitSNAP's stresses also
# have the opposite sign, which does not change the errors.
DISPLAY_FACTORS = {RowKind.ENERGY: 1.0, RowKind.FORCE: 1.0, RowKind.STRESS: 1.0 / GPA_PER_BAR}
METRIC_COLUMNS = ["set", "group", "weighting", "kind", "ncount", "mae", "rmse", "rsq"]


def compute_fit_metrics(rows: FitRows, coefficients: np.ndarray) -> pd.DataFrame:
    """Compute FitSNAP's table of errors for the training and the testing rows.

    Parameters
    ----------
    rows : FitRows
    coefficients : (p,) float64
        Coefficients of all columns of `rows.X`.

    Returns
    -------
    pandas.DataFrame
        A row for each set ("training", "testing"), group ("*ALL" for all groups), weighting and kind of rows.
        ``ncount`` is the number of these rows of the design. "Unweighted" errors are in eV/atom, eV/Å and bar; for
        "Weighted" errors, residuals and labels are multiplied by the weights of the rows. ``rsq`` is
        1 − Σ(y − ŷ)² / Σ(y − ⟨y⟩)², with labels y and predictions ŷ; it is NaN if all labels are equal.
    """
    residual = rows.X @ coefficients - rows.y
    table_rows = []
    for set_name, is_in_set in (("training", rows.is_training), ("testing", ~rows.is_training)):
        for group in ("*ALL", *dict.fromkeys(rows.group[is_in_set].tolist())):
            is_in_group = is_in_set if group == "*ALL" else is_in_set & (rows.group == group)
            for weighting, kind in product(("Unweighted", "Weighted"), RowKind):
                is_selected = is_in_group & (rows.kind == kind)
                if is_selected.any():
                    factor = DISPLAY_FACTORS[kind] if weighting == "Unweighted" else rows.weight[is_selected]
                    errors = _compute_errors(residual[is_selected] * factor, rows.y[is_selected] * factor)
                    table_rows.append(
                        [set_name, group, weighting, kind.name.capitalize(), int(is_selected.sum()), *errors]
                    )
    return pd.DataFrame(table_rows, columns=METRIC_COLUMNS)


def format_fitsnap_table(metrics: pd.DataFrame) -> str:
    """Format the training errors of `compute_fit_metrics` as the Markdown table that FitSNAP writes."""
    training_metrics = metrics[metrics["set"] == "training"]
    names = [f"('{row['group']}', '{row['weighting']}', '{row['kind']}')" for _, row in training_metrics.iterrows()]
    width = max(map(len, names))
    lines = [f"| {'':{width}} | {'ncount':>8} | {'mae':>13} | {'rmse':>13} | {'rsq':>13} |"]
    lines.append(f"|:{'-' * (width + 1)}|{'-' * 9}:|{'-' * 14}:|{'-' * 14}:|{'-' * 14}:|")
    for name, (_, row) in zip(names, training_metrics.iterrows(), strict=True):
        errors = " | ".join(f"{row[column]:13.6g}" for column in ("mae", "rmse", "rsq"))
        lines.append(f"| {name:{width}} | {row['ncount']:8d} | {errors} |")
    return "\n".join(lines) + "\n"


def _compute_errors(residual: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Return ``(mae, rmse, rsq)`` of residuals ``(n,)`` and labels ``(n,)``; see `compute_fit_metrics`."""
    residual_square_sum = float(residual @ residual)
    label_square_sum = float(((labels - labels.mean()) ** 2).sum())
    rsq = 1 - residual_square_sum / label_square_sum if label_square_sum > 0 else float("nan")
    return float(np.abs(residual).mean()), float(np.sqrt(residual_square_sum / len(residual))), rsq
