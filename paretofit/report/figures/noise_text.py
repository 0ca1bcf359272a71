"""Label noise in the report: table and summary of the correlation of residuals with label errors.

The correlations correspond to Figures S4 to S7 of Baghishov et al., Digital Discovery (2025). Each function reads the
table of `paretofit.sweep.correlate_label_noise`, with a row for each weighting, level and kind of label.
"""

import numpy as np
import pandas as pd

from paretofit.report.page.sweep_page import ReportTable
from paretofit.report.tables.summaries import select_finite_rows
from paretofit.report.wording import (
    format_count,
    format_count_range,
    format_levels,
    format_number,
    format_ratio,
    join_items,
    join_sentences,
)

# Correlations above this multiple of 1/√n count as positive. Without correlation, n independent pairs give a standard
# deviation of 1/√n; n is the number of configurations, because the force components of one depend on each other.
MIN_CORRELATION_SIGMAS = 3.0
MIN_RESIDUAL_RATIO = 3.0  # residuals above this multiple of the label errors hide the label errors
_NOUNS = {"energy": "energies", "force": "force components"}


def build_label_noise_table(table: pd.DataFrame) -> ReportTable:
    """Build the table of correlations and slopes, with a row for each weighting, level and kind of label."""
    unit = "(meV/atom or meV/Å)"
    headings = {"n": "test rows", "label_error": f"label error {unit}", "residual": f"residual {unit}"}
    note = join_sentences(
        "Residuals of a model on the test set, with the labels of its training level, against the errors of these "
        "labels (level minus reference): Pearson's correlation, the slope of the residual on the label error (1: the "
        "model ignores the error, 0: it learns the error), and the standard deviations of both. The force components "
        "of a configuration are not independent.",
        _describe_strongest(table),
    )
    return ReportTable("Residuals against label errors", note, "label_noise", table.rename(columns=headings))


def _describe_strongest(table: pd.DataFrame) -> str:
    """Describe the correlation with the largest magnitude; empty if no correlation is known."""
    rows = table[table["correlation"].notna()]
    if rows.empty:
        return ""
    strongest = rows.iloc[int(rows["correlation"].abs().to_numpy(dtype=float).argmax())]
    return (
        f"The strongest correlation is {format_correlation(strongest['correlation'])}, of "
        f"{_NOUNS[strongest['kind']]} at level {strongest['level']} and w_E/w_F = "
        f"{format_ratio(strongest['weight_ratio'])}."
    )


def describe_label_noise(table: pd.DataFrame) -> str:
    """Describe the correlations, whether models ignore part of the label errors, and the effect of weights."""
    finite = select_finite_rows(table, ["correlation", "slope"])
    if finite.empty:
        return "No residual can be compared with a label error."
    finite = finite.assign(level=finite["level"].astype(str))
    return join_sentences(
        _describe_ignored_errors(finite),
        *(_describe_correlations(str(kind), rows) for kind, rows in finite.groupby("kind", sort=False)),
        _compare_weightings(finite),
        _describe_hidden_errors(finite),
        f"The models have {format_twojmax(finite)}.",
    )


def format_twojmax(table: pd.DataFrame) -> str:
    """Format the model sizes of a table: ``"2Jmax = 4 and 6"``."""
    return f"2Jmax = {join_items(sorted(set(table['twojmax'])))}"


def format_correlation(value: float) -> str:
    """Format a number with two decimals and a minus sign instead of a hyphen."""
    return f"{float(value):.2f}".replace("-", "−")


def _describe_correlations(kind: str, rows: pd.DataFrame) -> str:
    """List the correlations of energies or forces by level, for each weighting; the levels are named only once."""
    lists: list[str] = []
    for ratio, group in rows.groupby("weight_ratio"):
        correlations = join_items(map(format_correlation, group["correlation"]))
        levels = "" if lists else f" at {format_levels(list(group['level']))}"
        lists.append(f"{correlations}{levels} with w_E/w_F = {format_ratio(float(str(ratio)))}")
    return f"The correlation of residuals and label errors of {_NOUNS[kind]} is {'; '.join(lists)}."


def _describe_ignored_errors(table: pd.DataFrame) -> str:
    """Describe whether models ignore part of the label errors; the slope of residuals on label errors is this part."""
    counts = _count_configurations(table)
    positive = table[table["correlation"] > MIN_CORRELATION_SIGMAS / np.sqrt(counts)]
    claim = (
        f"The correlation is significantly positive (above {MIN_CORRELATION_SIGMAS:g}/√n for n = "
        f"{format_count_range(counts.astype(int), 'configuration')}) in"
    )
    if positive.empty:
        return f"{claim} none of the cases: models learn the label errors, too."
    low, high = (format_number(value, 2) for value in (positive["slope"].min(), positive["slope"].max()))
    return (
        f"{claim} {len(positive)} of {format_count(len(table), 'case')}, in which models ignore part of the "
        f"label errors: the slope is {low if len(positive) == 1 else f'{low} to {high}'} (0: none of them, 1: all)."
    )


def _count_configurations(table: pd.DataFrame) -> np.ndarray:
    """Return the number of configurations of each row, ``(n_rows,)`` float64.

    If the table lacks the column ``configurations``, the number is that of test rows of the kind of label with fewer
    rows, because every configuration has at least one row of each kind.
    """
    if "configurations" in table:
        return table["configurations"].to_numpy(dtype=float)
    return table.groupby(["weight_ratio", "level"])["n"].transform("min").to_numpy(dtype=float)


def _compare_weightings(table: pd.DataFrame) -> str:
    """Count the levels and kinds of labels for which the higher of two force weights gives the higher correlation.

    The text is empty unless there are two weightings.
    """
    ratios = sorted(set(table["weight_ratio"]))
    correlations = table.pivot_table(index=["level", "kind"], columns="weight_ratio", values="correlation").dropna()
    if len(ratios) != 2 or correlations.empty:
        return ""
    n_higher = int((correlations[ratios[0]] > correlations[ratios[1]]).sum())
    return (
        f"With the higher force weight, w_E/w_F = {format_ratio(ratios[0])}, the correlation is higher in {n_higher} "
        f"of {format_count(len(correlations), 'case')} (each level and kind of label)."
    )


def _describe_hidden_errors(table: pd.DataFrame) -> str:
    """List the cases in which residuals are so large that they hide the label errors; empty if there are none."""
    hidden_rows = table[table["residual"] > MIN_RESIDUAL_RATIO * table["label_error"]]
    if hidden_rows.empty:
        return ""
    cases = [
        f"{_NOUNS[str(kind)]} of {format_levels(list(dict.fromkeys(rows['level'])))} at w_E/w_F = "
        f"{format_ratio(float(str(ratio)))}"
        for (kind, ratio), rows in hidden_rows.groupby(["kind", "weight_ratio"], sort=False)
    ]
    return (
        f"The residuals are more than {MIN_RESIDUAL_RATIO:g} times as large as the label errors, and hide them, for "
        f"{join_items(cases)}."
    )
