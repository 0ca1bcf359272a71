"""The result of a run, and how a notebook shows it: tables in HTML. Everything that comes from data is escaped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from paretofit.core import escape_text, render_list, render_table
from paretofit.report import format_count, format_duration, format_number, format_ratio, join_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


ROWS = 8  # of the front
SETTING_COLUMNS = ("level", "configurations", "2Jmax", "w_E/w_F", "sampling", "meV/atom", "meV/Å", "cost of the labels")


@dataclass(frozen=True)
class RunResult:
    """What a run made: its folder, the results table, the front, and where the report is."""

    folder: Path
    results: pd.DataFrame
    front: pd.DataFrame
    report: Path
    warnings: list[str]
    stage_seconds: dict[str, float]

    def __repr__(self) -> str:
        return format_run(self)

    def _repr_html_(self) -> str:
        return format_run_html(self)


def format_run_html(run: RunResult) -> str:
    """What was run, its lowest errors, the first rows of the front, warnings, and where the report is.

    Parameters
    ----------
    run : RunResult
    """
    front = run.front[run.front["overall"]] if "overall" in run.front else run.front
    best = front.sort_values("ref_force")
    parts = [
        f"<p><b>Run</b> {escape_text(run.folder.name)}: {_report_link(run.report)}</p>",
        render_table((), _what_was_run(run)),
        f"<p>Lowest errors against level {escape_text(_reference(run.results))}, medians over repetitions:</p>",
        render_table(("lowest", *SETTING_COLUMNS), _lowest(front)),
        f"<p>{_heading(len(front))}</p>",
        render_table(SETTING_COLUMNS, (_point(row) for _, row in best.head(ROWS).iterrows())),
    ]
    return "".join(parts) + (f"<p>Warnings:</p>{render_list(run.warnings)}" if run.warnings else "")


def format_run(run: RunResult) -> str:
    """One line: where, how many fits, the lowest errors."""
    front = run.front
    lowest = ""
    if len(front):
        energy, force = format_number(front["ref_energy"].min()), format_number(front["ref_force"].min())
        lowest = f", lowest errors {energy} meV/atom and {force} meV/Å"
    return f"RunResult('{run.folder}', {format_count(len(run.results), 'fit')}, {len(front)} on the fronts{lowest})"


def _what_was_run(run: RunResult) -> list[tuple[str, str]]:
    results = run.results
    ratios = sorted(set(results["w_energy"] / results["w_force"]))
    seconds = sum(run.stage_seconds.values())
    return [
        ("fits", f"{len(results):,} in {format_duration(seconds)}"),
        ("levels", join_items(results["level"].unique())),
        ("2Jmax", join_items(sorted(results["twojmax"].unique()))),
        ("w_E/w_F", join_items(format_ratio(ratio) for ratio in ratios)),
        ("configurations", join_items(sorted(results["n_train"].unique()))),
        ("samplings", join_items(results["sampling"].unique())),
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
    return f"Front of energy error, force error and cost: {format_count(count, 'point')}{shown}:"


def _point(row: pd.Series) -> Sequence[str]:
    return (
        *setting_cells(row),
        format_number(row["ref_energy"]),
        format_number(row["ref_force"]),
        format_duration(row["label_seconds"]),
    )


def setting_cells(row: pd.Series) -> Sequence[str]:
    """Level, configurations, 2Jmax, weight ratio and sampling of a row, as the first of `SETTING_COLUMNS`."""
    ratio = format_ratio(row["w_energy"] / row["w_force"])
    return (str(row["level"]), f"{int(row['n_train']):,}", f"{int(row['twojmax'])}", ratio, str(row["sampling"]))


def _report_link(report: Path) -> str:
    """A link that Jupyter serves where the report lies under the working folder, else one of the file itself."""
    path = report.resolve()
    inside = path.is_relative_to(Path.cwd())
    target = Path(os.path.relpath(path)).as_posix() if inside else path.as_uri()
    return f'<a href="{escape(target)}" target="_blank">{escape_text(report)}</a>'
