"""Label noise in the report: table and summary of the correlation of residuals with label errors.

The data are those of Figures S4 to S7 of Baghishov et al., Digital Discovery (2025).
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

# Correlations above this multiple of 1/√n count as positive; 1/√n is their standard deviation for n independent pairs.
# The force components of a configuration depend on each other, so n is the number of configurations.
MIN_CORRELATION_SIGMAS = 3.0
MIN_RESIDUAL_RATIO = 3.0  # residuals above this multiple of the label errors hide these errors
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
    """Summarise the correlations, whether models ignore part of the label errors, and the effect of weights."""
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
    """List the correlations of energies or forces by level, for each weighting."""
    parts: list[str] = []
    for ratio, group in rows.groupby("weight_ratio"):
        values = join_items(format_correlation(value) for value in group["correlation"])
        levels = "" if parts else f" at {format_levels(list(group['level']))}"
        parts.append(f"{values}{levels} with w_E/w_F = {format_ratio(float(str(ratio)))}")
    return f"The correlation of residuals and label errors of {_NOUNS[kind]} is {'; '.join(parts)}."


def _describe_ignored_errors(table: pd.DataFrame) -> str:
    """Describe whether models ignore part of the label errors, and the slope, which is the size of this part."""
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
    """Count the configurations of each row; without their column, they are at most the rows of the smaller kind."""
    if "configurations" in table:
        return table["configurations"].to_numpy(dtype=float)
    return table.groupby(["weight_ratio", "level"])["n"].transform("min").to_numpy(dtype=float)


def _compare_weightings(table: pd.DataFrame) -> str:
    """Count the pairs in which the correlation is higher with the higher of two force weights."""
    ratios = sorted(set(table["weight_ratio"]))
    pairs = table.pivot_table(index=["level", "kind"], columns="weight_ratio", values="correlation").dropna()
    if len(ratios) != 2 or pairs.empty:
        return ""
    n_higher = int((pairs[ratios[0]] > pairs[ratios[1]]).sum())
    return (
        f"With the higher force weight, w_E/w_F = {format_ratio(ratios[0])}, the correlation is higher in {n_higher} "
        f"of {format_count(len(pairs), 'pair')}."
    )


def _describe_hidden_errors(table: pd.DataFrame) -> str:
    """List the cases in which residuals are so large that they hide the label errors."""
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
