"""The answer of a study as plain text for a terminal of any width, laid out by rich."""

import io
import shutil
from collections.abc import Iterable

import pandas as pd
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from paretofit.report.answer import ERROR_UNITS, Answer, format_answer_table
from paretofit.report.rivals import MODEL_COLUMN

# Widths in characters ("columns" of a terminal).
DEFAULT_COLUMNS = 80  # where the width of the terminal is unknown
MIN_COLUMNS, MAX_COLUMNS = 30, 110  # limits of the width of the text
MIN_TABLE_COLUMNS = 76  # in a narrower terminal, each budget is a paragraph instead of a row of a table
SAMPLING_COLUMNS = 96  # in a narrower terminal, the table omits the sampling method
_SHORT_HEADINGS = {"configurations": "size", "MD speed": "steps/s"}


def render_text(parts: Iterable[RenderableType], width: int | None = None) -> str:
    """Render texts and tables one below the other as plain text.

    Parameters
    ----------
    parts : iterable
        Strings and renderables of rich.
    width : int, optional
        Columns to which the text is wrapped, limited to `MIN_COLUMNS` to `MAX_COLUMNS`; by default, those of the
        terminal.
    """
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
    """Render the sentence, the table of budgets and the notes of an answer as plain text.

    The table is replaced by a paragraph for each budget if the terminal is narrower than `MIN_TABLE_COLUMNS` or than
    the table.

    Parameters
    ----------
    answer : Answer
    width : int, optional
        Columns of the terminal; by default, those of the current terminal.
    """
    columns = shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns if width is None else width
    table = format_answer_table(answer)
    has_room = columns >= MIN_TABLE_COLUMNS and _measure_width(table, columns) <= min(columns, MAX_COLUMNS)
    budgets = [_build_table(table, columns)] if has_room else _list_budgets(table)
    notes = [f"Errors: {answer.error_source}, against level {answer.reference}.", *answer.notes]
    return render_text([f"{answer.sentence} {answer.certainty}".strip(), "", *budgets, *map(Text, notes)], columns)


def _measure_width(table: pd.DataFrame, columns: int) -> int:
    """Measure the width that a table needs, in the form in which a terminal with `columns` columns shows it."""
    console = Console(width=10 * MAX_COLUMNS)  # wide enough not to limit the measured width
    return console.measure(_build_table(table, columns)).maximum


def _build_table(table: pd.DataFrame, columns: int) -> Table:
    """Build the table of budgets for a terminal with `columns` columns."""
    shown = table if columns >= SAMPLING_COLUMNS else table.drop(columns="sampling")
    grid = Table(box=None, padding=(0, 2 if columns >= SAMPLING_COLUMNS else 1, 0, 0))
    for name in shown.columns:
        grid.add_column(Text(_SHORT_HEADINGS.get(name, name)), no_wrap=True)
    for row in shown.itertuples(index=False, name=None):
        grid.add_row(*(Text(cell.replace(" *", "*")) for cell in row))
    return grid


def _list_budgets(table: pd.DataFrame) -> list[RenderableType]:
    """List a title and an indented paragraph for each budget."""
    parts: list[RenderableType] = []
    for _, row in table.iterrows():
        parts.append(Text(f"{row['budget']}: level {row['level']}, {row['configurations']} configurations"))
        details = [
            f"{_format_model(row)}, w_E/w_F {row['w_E/w_F']}, {row['sampling']}",
            *(f"{row[unit]} {unit}" for unit in ERROR_UNITS.values()),
            *([f"{row['MD speed']} MD atom-steps/s"] if "MD speed" in row else []),
        ]
        parts.append(Padding(Text("\n".join(details)), (0, 0, 0, 2)))
    return parts


def _format_model(row: pd.Series) -> str:
    """Format the 2Jmax of a row of the table, or the model (basis and size) if there are several bases."""
    return f"2Jmax {row['2Jmax']}" if "2Jmax" in row else f"model {row[MODEL_COLUMN]}"
