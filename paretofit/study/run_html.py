"""A finished run, and a plan, as a notebook shows them: tables in HTML. Everything that comes from data is escaped."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from paretofit.dataset import listing, table, text
from paretofit.report import counted, duration, listed, number, ratio_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from paretofit.commands import Plan
    from paretofit.study.pipeline import RunResult

ROWS = 8  # of the front
KINDS = ("energy", "force")
HEADER = ("level", "configurations", "2Jmax", "w_E/w_F", "sampling", "meV/atom", "meV/Å", "cost of the labels")


def run_html(run: RunResult) -> str:
    """What was run, its lowest errors, the first rows of the front, warnings, and where the report is.

    Parameters
    ----------
    run : RunResult
    """
    front = run.front[run.front["overall"]] if "overall" in run.front else run.front
    best = front.sort_values("ref_force")
    parts = [
        f"<p><b>Run</b> {text(run.folder.name)}: {_report_link(run.report)}</p>",
        table((), _what_was_run(run)),
        f"<p>Lowest errors against level {text(_reference(run.results))}, medians over repetitions:</p>",
        table(("lowest", *HEADER), _lowest(front)),
        f"<p>{_heading(len(front))}</p>",
        table(HEADER, (_point(row) for _, row in best.head(ROWS).iterrows())),
    ]
    return "".join(parts) + (f"<p>Warnings:</p>{listing(run.warnings)}" if run.warnings else "")


def run_text(run: RunResult) -> str:
    """One line: where, how many fits, the lowest errors."""
    front = run.front
    lowest = ""
    if len(front):
        energy, force = number(front["ref_energy"].min()), number(front["ref_force"].min())
        lowest = f", lowest errors {energy} meV/atom and {force} meV/Å"
    return f"RunResult('{run.folder}', {counted(len(run.results), 'fit')}, {len(front)} on the fronts{lowest})"


def plan_html(plan: Plan, by_level: pd.DataFrame, by_twojmax: pd.DataFrame) -> str:
    """The recommendation as a table, what twice the money buys, the best of each level and of each 2Jmax, and notes.

    Parameters
    ----------
    plan : Plan
    by_level, by_twojmax : DataFrame
        `paretofit.commands.plan.comparison` of the plan's own.
    """
    asked = "the cheapest that is good enough" if plan.limits.budget is None else duration(plan.limits.budget)
    rows = [("recommended", *_option(plan.chosen))]
    if plan.doubled is not None:
        rows.append(("for twice that", *_option(plan.doubled)))
    header = ("", *HEADER[:5], "expected meV/atom", "expected meV/Å", HEADER[-1])
    parts = [
        f"<p><b>Plan</b>: {text(asked)}, the best of {plan.n_settings} settings in {text(plan.source)}</p>",
        table(header, rows),
    ]
    parts.append("<p>In brackets: where four of five draws would lie. * beyond what was measured.</p>")
    for name, choices in (("level", by_level), ("2Jmax", by_twojmax)):
        if len(choices) > 1:
            parts.append(f"<p>The best of each {name} within the same limits:</p>")
            parts.append(table(list(choices.columns), choices.itertuples(index=False)))
    return "".join(parts) + (f"<p>Notes:</p>{listing(plan.notes)}" if plan.notes else "")


def _what_was_run(run: RunResult) -> list[tuple[str, str]]:
    results = run.results
    ratios = sorted(set(results["w_energy"] / results["w_force"]))
    seconds = sum(run.seconds.values())
    return [
        ("fits", f"{len(results):,} in {duration(seconds)}"),
        ("levels", listed(results["level"].unique())),
        ("2Jmax", listed(sorted(results["twojmax"].unique()))),
        ("w_E/w_F", listed(ratio_text(ratio) for ratio in ratios)),
        ("configurations", listed(sorted(results["n_train"].unique()))),
        ("samplings", listed(results["sampling"].unique())),
        ("repetitions", f"{results['repeat'].nunique()}"),
    ]


def _reference(results: pd.DataFrame) -> str:
    """The last level: those of a run stand in order of cost."""
    return str(results["level"].iloc[-1])


def _lowest(front: pd.DataFrame) -> list[tuple[str, ...]]:
    if front.empty:
        return []
    columns = (("energy error", "ref_energy"), ("force error", "ref_force"))
    return [(name, *_point(front.iloc[int(front[column].argmin())])) for name, column in columns]


def _heading(count: int) -> str:
    shown = f", the {ROWS} with the lowest force errors" if count > ROWS else ""
    return f"Front of energy error, force error and cost: {counted(count, 'point')}{shown}:"


def _point(row: pd.Series) -> Sequence[str]:
    return (*_setting(row), number(row["ref_energy"]), number(row["ref_force"]), duration(row["label_seconds"]))


def _option(row: pd.Series) -> Sequence[str]:
    star = " *" if row["beyond"] else ""
    errors = [f"{number(row[k])} ({number(row[f'{k}_low'])} to {number(row[f'{k}_high'])}){star}" for k in KINDS]
    return (*_setting(row), *errors, duration(row["label_seconds"]))


def _setting(row: pd.Series) -> Sequence[str]:
    ratio = ratio_text(row["w_energy"] / row["w_force"])
    return (str(row["level"]), f"{int(row['n_train']):,}", f"{int(row['twojmax'])}", ratio, str(row["sampling"]))


def _report_link(report: Path) -> str:
    """A link that Jupyter serves where the report lies under the working folder, else one of the file itself."""
    path = report.resolve()
    inside = path.is_relative_to(Path.cwd())
    target = Path(os.path.relpath(path)).as_posix() if inside else path.as_uri()
    return f'<a href="{escape(target)}" target="_blank">{text(report)}</a>'
