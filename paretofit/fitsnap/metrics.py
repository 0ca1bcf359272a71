"""Table of fit errors with FitSNAP's columns, and its conversion to FitSNAP's text format."""

from itertools import product

import numpy as np
import pandas as pd

from paretofit.core import RowKind
from paretofit.descriptors import GPA_PER_BAR
from paretofit.fitsnap.group_weights import FitRows

# FitSNAP reports stresses in bar, positive in compression; rows are in GPa, positive in tension.
DISPLAY_FACTORS = {RowKind.ENERGY: 1.0, RowKind.FORCE: 1.0, RowKind.STRESS: 1.0 / GPA_PER_BAR}
METRICS = ["set", "group", "weighting", "kind", "ncount", "mae", "rmse", "rsq"]


def compute_fit_metrics(rows: FitRows, coefficients: np.ndarray) -> pd.DataFrame:
    """Compute FitSNAP's table of errors for the training and the testing rows.

    ``rsq`` is 1 − Σ(y − ŷ)² / Σ(y − ⟨y⟩)². For "Weighted" errors, the residuals and labels are
    multiplied by the weights of the rows.
    """
    residual = rows.X @ coefficients - rows.y
    table = []
    for name, is_in_set in (("training", rows.is_training), ("testing", ~rows.is_training)):
        for group in ("*ALL", *dict.fromkeys(rows.group[is_in_set].tolist())):
            is_in_group = is_in_set if group == "*ALL" else is_in_set & (rows.group == group)
            for weighting, kind in product(("Unweighted", "Weighted"), RowKind):
                mask = is_in_group & (rows.kind == kind)
                if mask.any():
                    factor = DISPLAY_FACTORS[kind] if weighting == "Unweighted" else rows.weight[mask]
                    values = _compute_errors(residual[mask] * factor, rows.y[mask] * factor)
                    table.append([name, group, weighting, kind.name.capitalize(), int(mask.sum()), *values])
    return pd.DataFrame(table, columns=METRICS)


def format_fitsnap_table(metrics: pd.DataFrame) -> str:
    """Format the training errors as FitSNAP does, in Markdown."""
    training_metrics = metrics[metrics["set"] == "training"]
    names = [f"('{row['group']}', '{row['weighting']}', '{row['kind']}')" for _, row in training_metrics.iterrows()]
    width = max(map(len, names))
    lines = [f"| {'':{width}} | {'ncount':>8} | {'mae':>13} | {'rmse':>13} | {'rsq':>13} |"]
    lines.append(f"|:{'-' * (width + 1)}|{'-' * 9}:|{'-' * 14}:|{'-' * 14}:|{'-' * 14}:|")
    for name, (_, row) in zip(names, training_metrics.iterrows(), strict=True):
        values = " | ".join(f"{row[column]:13.6g}" for column in ("mae", "rmse", "rsq"))
        lines.append(f"| {name:{width}} | {row['ncount']:8d} | {values} |")
    return "\n".join(lines) + "\n"


def _compute_errors(residual: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    squares = float(residual @ residual)
    spread = float(((labels - labels.mean()) ** 2).sum())
    rsq = 1 - squares / spread if spread > 0 else float("nan")
    return float(np.abs(residual).mean()), float(np.sqrt(squares / len(residual))), rsq
