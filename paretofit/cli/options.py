"""The application, options that several verbs share, and the output of results."""

import dataclasses
import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from paretofit.cli.stopping import VerbGroup
from paretofit.core import InputError

if TYPE_CHECKING:  # help and wrong options are shown before anything large is imported
    from paretofit.potentials import CommitteeSettings

app = typer.Typer(
    name="paretofit",
    cls=VerbGroup,
    help="Choose DFT convergence, training data, model and weights for an interatomic potential from one Pareto front.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def count_cores() -> int:
    """Count the cores that this process may use."""
    from joblib import cpu_count

    return int(cpu_count())


def _store_json(context: typer.Context, as_json: bool) -> bool:
    """Store the option --json for `_resolve_progress`, which typer calls later because --json is eager."""
    context.find_root().ensure_object(dict)["json"] = as_json
    return as_json


def _resolve_progress(context: typer.Context, is_requested: bool) -> bool:
    """Return whether to show progress bars: not with --quiet or --json."""
    settings = context.find_root().ensure_object(dict)
    return is_requested and not settings.get("quiet") and not settings.get("json")


def _resolve_quiet(context: typer.Context, is_quiet: bool) -> bool:
    """Return whether --quiet is used before or after the verb, and store this for `_resolve_progress`."""
    settings = context.find_root().ensure_object(dict)
    settings["quiet"] = is_quiet or bool(settings.get("quiet"))
    return bool(settings["quiet"])


Jobs = Annotated[
    int,
    Option(
        "--jobs",
        "-j",
        min=1,
        default_factory=count_cores,
        help="Number of processes on this machine; results do not depend on it.",
        show_default="one per core",
    ),
]
Progress = Annotated[
    bool,
    Option("--progress/--no-progress", callback=_resolve_progress, help="Show progress bars.", show_default=True),
]
Json = Annotated[bool, Option("--json", is_eager=True, callback=_store_json, help="Print the result as JSON.")]
Quiet = Annotated[
    bool,
    Option("--quiet", "-q", is_eager=True, callback=_resolve_quiet, help="Print only the path of what was written."),
]
Level = Annotated[str | None, Option("--level", help="Convergence level of the labels.", show_default="the last")]
WeightRatio = Annotated[
    float | None,
    Option(
        "--weight-ratio",
        help="Weight ratio w_E/w_F of energies to forces.",
        show_default="the one with the smallest leave-one-out errors; for a run: best",
    ),
]
Potential = Annotated[
    Path,
    Argument(help="SNAP or POD potential (.mod, .snapcoeff, .podcoeff), or folder of one or of MACE networks."),
]
Force = Annotated[bool, Option("--force", help="Replace existing files.")]
RunFolder = Annotated[
    Path | None,
    Option("--out", "-o", help="Run folder.", show_default="runs/<name>-<hash> or runs/<name>-<verb>"),
]
Figures = Annotated[bool, Option("--figures/--no-figures", help="Draw a map of the candidates.")]
Committee = Annotated[
    int | None,
    Option(
        "--committee",
        help="Number of committee members; a committee gives error bars, intervals and extrapolation grades.",
    ),
]
CommitteeMethod = Annotated[
    str,
    Option(
        "--committee-method",
        help="Method that generates the committee members: bootstrap, subset, posterior or pops. Needs --committee.",
    ),
]
AllowPickle = Annotated[
    bool,
    Option(
        "--allow-pickle",
        help="Load MACE networks that were not trained by you on this computer. Loading them can run any code.",
    ),
]
Coverage = Annotated[float, Option("--coverage", help="Fraction of labels that the prediction intervals must contain.")]


def read_committee_options(members: int | None, method: str, coverage: float, seed: int) -> "CommitteeSettings | None":
    """Return the committee settings of the options, or None without --committee.

    Raises
    ------
    InputError
        If a method other than the default is specified without --committee.
    """
    if members is None:
        if method != "bootstrap":
            raise InputError(f"--committee-method {method} requires --committee with the number of members")
        return None
    from paretofit.potentials import CommitteeSettings

    return CommitteeSettings(members, method, coverage, seed)


def split_names(text: str) -> list[str]:
    """Split comma-separated names; remove the spaces around them, and empty names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def print_result(result: Any, text: str, *, as_json: bool, exclude: Collection[str] = ()) -> None:
    """Print the text of a result or, with `as_json`, the result as JSON, without its fields in `exclude`."""
    if as_json and dataclasses.is_dataclass(result):
        fields = dataclasses.fields(result)
        result = {field.name: getattr(result, field.name) for field in fields if field.name not in exclude}
    typer.echo(json.dumps(_convert_to_json_types(result), indent=1) if as_json else wrap_for_terminal(text))


def wrap_for_terminal(text: str) -> str:
    """Wrap the lines of a text to the width of the terminal; lines of tables and redirected output remain unchanged."""
    if not sys.stdout.isatty():
        return text
    width, lines = shutil.get_terminal_size().columns, []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        is_table = re.search(r"\S {2,}\S", line)  # only columns are separated by more than one space
        if is_table or len(line) <= width:
            lines.append(line)
        else:
            lines += textwrap.wrap(
                line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
    return "\n".join(lines)


def _convert_to_json_types(value: Any) -> Any:
    """Convert a value to JSON types: tables become lists of rows, non-finite numbers null, and other objects text."""
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        value = value.to_dict("records")
    elif isinstance(value, pd.Series):
        value = value.to_dict()
    elif isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    elif dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _convert_to_json_types(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_convert_to_json_types(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
