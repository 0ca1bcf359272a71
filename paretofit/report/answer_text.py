"""The answer of a study as plain text for a terminal of any width, laid out by rich."""

import io
import shutil
from collections.abc import Iterable

import pandas as pd
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paretofit.report.answer import ERRORS, Answer, format_answer_table
from paretofit.report.rivals import MODEL_COLUMN

DEFAULT_COLUMNS, MIN_COLUMNS, MAX_COLUMNS = 80, 30, 110
MIN_TABLE_COLUMNS = 76  # width of a terminal; in narrower ones, every budget is a paragraph
SAMPLING_COLUMNS = 96  # the table shows the sampling method from this width on
_SHORT_HEADINGS = {"configurations": "size", "MD speed": "steps/s"}


def render_text(parts: Iterable[RenderableType], width: int | None = None) -> str:
    """Render parts below each other as plain text, wrapped to `width` columns, by default that of the terminal."""
    columns = shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns if width is None else width
    console = Console(
        file=io.StringIO(), width=max(MIN_COLUMNS, min(columns, MAX_COLUMNS)), force_terminal=False, color_system=None,
        highlight=False, markup=False, emoji=False,
    )  # fmt: skip
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def render_answer(answer: Answer, width: int | None = None) -> str:
    """Render the sentence, the table of budgets and the notes; below 76 columns, budgets are paragraphs.

    Parameters
    ----------
    answer : Answer
    width : int, optional
        Columns of the terminal, by default those of the current one.
    """
    columns = shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns if width is None else width
    table = format_answer_table(answer)
    is_wide = columns >= MIN_TABLE_COLUMNS and _measure_width(table, columns) <= min(columns, MAX_COLUMNS)
    body = [_build_table(table, columns)] if is_wide else _list_budgets(table)
    return render_text(
        [
            f"{answer.sentence} {answer.certainty}".strip(),
            "",
            *body,
            *(
                Text(note)
                for note in [f"Errors: {answer.error_source}, against level {answer.reference}.", *answer.notes]
            ),
        ],
        columns,
    )


def _measure_width(table: pd.DataFrame, columns: int) -> int:
    """Measure the width of the table in a terminal with a number of columns."""
    console = Console(width=10 * MAX_COLUMNS)
    return console.measure(_build_table(table, columns)).maximum


def _build_table(table: pd.DataFrame, columns: int) -> Table:
    shown = table if columns >= SAMPLING_COLUMNS else table.drop(columns="sampling")
    grid = Table(box=None, padding=(0, 2 if columns >= SAMPLING_COLUMNS else 1, 0, 0))
    for name in shown.columns:
        grid.add_column(Text(_SHORT_HEADINGS.get(name, name)), no_wrap=True)
    for row in shown.itertuples(index=False, name=None):
        grid.add_row(*(Text(cell.replace(" *", "*")) for cell in row))
    return grid


def _list_budgets(table: pd.DataFrame) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for _, row in table.iterrows():
        parts.append(Text(f"{row['budget']}: level {row['level']}, {row['configurations']} configurations"))
        details = [
            f"{_format_model(row)}, w_E/w_F {row['w_E/w_F']}, {row['sampling']}",
            *(f"{row[unit]} {unit}" for unit in ERRORS.values()),
            *([f"{row['MD speed']} MD atom-steps/s"] if "MD speed" in row else []),
        ]
        parts.append(Padding(Text("\n".join(details)), (0, 0, 0, 2)))
    return parts


def _format_model(row: pd.Series) -> str:
    return f"2Jmax {row['2Jmax']}" if "2Jmax" in row else f"model {row[MODEL_COLUMN]}"
