"""Result of an evaluation: tables, their text, and the configurations with the largest errors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from paretofit import potentials
from paretofit.core import list_first
from paretofit.report import format_number
from paretofit.report.page import VIEWER_REMEDY, StructureView

PAGE_FILE, VIEW_FILE = "evaluation.html", "structures.html"
N_WORST = 3  # number of configurations that are named for each quantity
MIN_OUTLIER_RATIO = 5.0  # ratio of an error to the median above which the error counts as an outlier
N_RESAMPLES = 500  # number of bootstrap samples
INTERVAL_PERCENT = (5, 95)  # percentiles of the bootstrap samples: a 90 % interval


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a potential on a dataset.

    Attributes
    ----------
    table : DataFrame
        A row for each configuration: ``id, config_type, n_atoms``; ``set`` (train, held out or new; unknown if the
        potential has no record of its training set); for each quantity ``*_error`` (of forces and stress the root mean
        square), ``*_committee_error`` (equation 2), ``*_std`` (disagreement, equation 1), ``*_interval`` (half width,
        root mean square) and ``*_inside`` (fraction of labels in their intervals); ``extrapolation_grade, verdict,
        leverage``. Errors are in meV/atom, meV/Å and GPa. Equations are those of Bidoggia et al. (2025).
    components : DataFrame
        A row for each energy per atom, force component and stress component: ``configuration`` (row of `table`),
        ``quantity, label, prediction`` (eV/atom, eV/Å, GPa), ``error, std, interval`` (in the units of `table`).
    summary : DataFrame
        Summary of `table` by ``set`` and by ``verdict`` (`paretofit.uncertainty.classify_grade`).
    thresholds : DataFrame
        For each tolerance: ``quantity, error_limit``, ``spread_limit`` (the disagreement that corresponds to the error
        limit), ``flagged`` (number of configurations outside the training set whose disagreement exceeds the spread
        limit) and, for labelled configurations, ``true_positive_rate, positive_predictive_value`` (equations 3 and 4).
    level : str
        Convergence level of the labels, or the name of their file; empty if there are no labels.
    potential : CommitteePotential
    coverage : float
        Fraction of the labels that the intervals should contain; NaN without a committee.
    folder : Path or None
        Folder of the page, tables and figures; None if nothing was written.
    view : StructureView or None
        Map of the configurations with the largest errors, grades and leverages; ``evaluation.view.show()`` shows it in
        a notebook. None if there are fewer than three configurations, or none of these numbers.
    """

    table: pd.DataFrame
    components: pd.DataFrame
    summary: pd.DataFrame
    thresholds: pd.DataFrame
    level: str
    potential: potentials.CommitteePotential
    coverage: float
    folder: Path | None = None
    view: StructureView | None = None

    @property
    def text(self) -> str:
        """Summary, worst configurations, interpretation and next step, as plain text."""
        summary = self.summary.dropna(axis="columns", how="all")
        units = {quantity: potentials.DISPLAY_UNITS[kind][1] for quantity, kind in potentials.KINDS.items()}
        headings = {f"{quantity}_rmse": f"{quantity}_rmse {unit}" for quantity, unit in units.items()}
        lines = [
            f"{len(self.table)} configurations" + (f", labels: {self.level}" if self.level else ", no labels"),
            "energies in meV/atom, forces in meV/Å, stresses in GPa",
            summary.rename(columns=headings).to_string(
                index=False, float_format=lambda value: f"{value:.4g}", na_rep="–"
            ),
        ]
        lines += list_unlabelled(self.table, self.components)
        if self.potential.known_configurations is None:
            lines.append(
                "the potential has no record of its training set, so errors of training configurations cannot be "
                "separated; potentials written by this version of paretofit have one"
            )
        if self.potential.uncertainty is None:
            lines.append("errors only; fit a committee (--committee) to get error bars, intervals and grades")
        elif not self.potential.uncertainty.calibration_data:
            lines.append("the committee is not calibrated: it gives standard deviations and grades, but no intervals")
        elif not any(str(column).endswith("_inside") for column in summary):
            lines.append(f"too few configurations were held out to calibrate intervals of {self.coverage:.0%}")
        else:
            lines.append(
                f"*_inside: fraction of labels in their intervals, which should be {self.coverage:.0%} for "
                "configurations like the held-out ones; *_rank: Spearman's rank correlation of disagreement and error"
            )
            if (self.table["set"] == "held out").any():
                lines.append("the intervals are calibrated on the held-out set; only new configurations test them")
        if len(self.thresholds):
            thresholds = self.thresholds.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="–")
            lines.append(
                f"configurations outside the training set above the tolerances (see evaluation.csv):\n{thresholds}"
            )
        lines += list_worst(self.table)
        if self.folder:
            lines.append(f"page: {self.folder / PAGE_FILE}")
            if self.view is not None and not (self.folder / VIEW_FILE).exists():
                lines.append(f"next: {VIEWER_REMEDY}, to look at these structures on a linked map")
            lines.append("next: paretofit validate POTENTIAL --quick -o validation, for its physical properties")
        return "\n".join(lines)


def list_unlabelled(table: pd.DataFrame, components: pd.DataFrame) -> list[str]:
    """List the configurations without finite labels of a quantity that others have, as a line for each quantity."""
    lines = []
    for quantity in potentials.KINDS:
        errors = components.loc[components["quantity"] == quantity, ["configuration", "error"]]
        is_finite = np.isfinite(errors["error"])
        ids = table["id"].iloc[np.unique(errors.loc[~is_finite, "configuration"])]
        if len(ids) and is_finite.any():
            lines.append(
                f"the {quantity} error omits labels that are missing, NaN or infinite, in {len(ids)} of {len(table)} "
                f"configurations: {list_first(ids)}"
            )
    return lines


def list_worst(table: pd.DataFrame, n: int = N_WORST) -> list[str]:
    """List the `n` configurations with the largest errors of each quantity, as a line of text for each quantity."""
    lines = []
    for quantity, kind in potentials.KINDS.items():
        errors, unit = table[f"{quantity}_error"].abs().dropna(), potentials.DISPLAY_UNITS[kind][1]
        texts = [
            f"{row['id']} ({_format_prefix(row['config_type'], row['set'])}{format_number(error)})"
            for error, (_, row) in zip(errors.nlargest(n), table.loc[errors.nlargest(n).index].iterrows(), strict=True)
        ]
        if texts:
            n_outliers = int((errors > MIN_OUTLIER_RATIO * errors.median()).sum())
            outliers = f"; {n_outliers} above {MIN_OUTLIER_RATIO:g} times the median" if n_outliers else ""
            lines.append(
                f"largest {quantity} errors ({unit}; median {format_number(errors.median())}{outliers}): "
                f"configurations {', '.join(texts)}"
            )
    return lines


def _format_prefix(*texts: str) -> str:
    """Join the texts that are not empty, with a comma after each."""
    return "".join(f"{text}, " for text in texts if text)


def select_worst(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Select the `n` configurations with the largest errors of each quantity.

    Each configuration occurs once. The column ``reason`` says for which quantities it was selected, and how large the
    error of each is relative to the median.
    """
    reasons: dict[int, list[str]] = {}
    for quantity in potentials.KINDS:
        errors = table[f"{quantity}_error"].abs().dropna()
        median = errors.median()
        for position in errors.nlargest(n).index.tolist():
            ratio = f"{format_number(errors[position] / median, 2)} × median" if median else "the largest"
            reasons.setdefault(position, []).append(f"{quantity} {ratio}")
    columns = ["id", "config_type", "n_atoms", "set", *(f"{quantity}_error" for quantity in potentials.KINDS)]
    columns += [name for name in ("leverage", "extrapolation_grade") if name in table]
    worst_rows = table.loc[list(reasons), columns]
    if len(worst_rows):  # dropna would drop all columns of a table without rows
        worst_rows = worst_rows.dropna(axis="columns", how="all")
    worst_rows.insert(1, "reason", ["; ".join(texts) for texts in reasons.values()])
    return worst_rows.reset_index(drop=True)


def estimate_rmse(table: pd.DataFrame, quantity: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Estimate the root mean square error of a quantity with a 90 % interval, by a bootstrap over configurations.

    Parameters
    ----------
    table : DataFrame
        Rows of `Evaluation.table`.
    quantity : {"energy", "force", "stress"}
    rng : numpy.random.Generator

    Returns
    -------
    rmse, low, high : float
        Error and the ends of its interval, in the unit of `Evaluation.table`; NaN without labels.
    """
    rows = table[table[f"{quantity}_error"].notna()]
    if rows.empty:
        return (float("nan"),) * 3
    # The force error of a configuration is a root mean square over its atoms; weighted, it becomes one over all atoms.
    weights = rows["n_atoms"].to_numpy(float) if quantity == "force" else np.ones(len(rows))
    squares = weights * rows[f"{quantity}_error"].to_numpy() ** 2
    counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=N_RESAMPLES)
    samples = np.sqrt(counts @ squares / (counts @ weights))
    low, high = np.percentile(samples, INTERVAL_PERCENT)
    return float(np.sqrt(squares.sum() / weights.sum())), float(low), float(high)
