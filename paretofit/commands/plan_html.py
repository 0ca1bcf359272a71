"""HTML tables of a plan for notebooks; all text from data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from paretofit.core import escape_text, render_list, render_table
from paretofit.report import format_duration, format_number
from paretofit.study import SETTING_COLUMNS, format_setting_cells

KINDS = ("energy", "force")


def format_plan_html(
    heading: str, options: Mapping[str, pd.Series], best: Mapping[str, pd.DataFrame], notes: Sequence[str]
) -> str:
    """Format the recommended settings, the best settings by level and by 2Jmax, and the notes of a plan as HTML.

    Parameters
    ----------
    heading : str
        Goal, and the settings that were compared.
    options : mapping of str to Series
        Recommended setting, and the setting for twice the budget, as in `paretofit.commands.Plan`.
    best : mapping of str to DataFrame
        Best settings by level and by 2Jmax, formatted for reading.
    notes : sequence of str
    """
    header = ("", *SETTING_COLUMNS[:5], "expected meV/atom", "expected meV/Å", SETTING_COLUMNS[-1])
    rows = [(name, *_format_option(option)) for name, option in options.items()]
    parts = [f"<p><b>Plan</b>: {escape_text(heading)}</p>", render_table(header, rows)]
    parts.append("<p>In brackets: range of 80 % of the draws. * extrapolated.</p>")
    for name, choices in best.items():
        if len(choices) > 1:
            parts.append(f"<p>Best setting for each {name} within the same limits:</p>")
            parts.append(render_table(list(choices.columns), choices.itertuples(index=False)))
    return "".join(parts) + (f"<p>Notes:</p>{render_list(notes)}" if notes else "")


def _format_option(row: pd.Series) -> Sequence[str]:
    star = " *" if row["beyond"] else ""
    errors = [
        f"{format_number(row[k])} ({format_number(row[f'{k}_low'])} to {format_number(row[f'{k}_high'])}){star}"
        for k in KINDS
    ]
    return (*format_setting_cells(row), *errors, format_duration(row["label_seconds"]))
