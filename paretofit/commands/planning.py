"""`paretofit plan`: what to run with a budget, out of a finished run, any results table, or a pilot."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretofit.commands.plan_html import format_plan_html
from paretofit.core import InputError
from paretofit.pareto import (
    DEFAULT_EXTRAPOLATION_FACTOR,
    MD_COST_COLUMN,
    SETTING_COLUMNS,
    Limits,
    choose_option,
    choose_option_by,
    describe_setting,
    find_adjacent_measurements,
    find_reference_level,
    has_folds,
    read_table,
    tabulate_options,
)
from paretofit.report import format_duration, format_number, format_ratio
from paretofit.study import (
    DEFAULT_PILOT_EXTRAPOLATION_FACTOR,
    RECORD_FILE,
    Study,
    check_digests,
    read_record,
    run_pilot,
)

UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0}
TEXT_COLUMNS = ("level", "sampling", "ridge", "solver")


@dataclass(frozen=True)
class Plan:
    """What to run, and why.

    Attributes
    ----------
    choice : pandas.Series
        ``level``, ``n_train``, ``twojmax``, ``w_energy``, ``w_force``, ``sampling``, ``label_seconds``, and the errors
        to expect: ``energy`` (meV/atom), ``force`` (meV/Å), each with ``_low`` and ``_high`` (four draws of five lie
        between); ``beyond`` where that is extrapolated.
    limits : Limits
    prefer : str
    doubled_budget_choice : pandas.Series or None
        The choice for twice the money.
    by_level, by_twojmax : pandas.DataFrame
        The best choice of each within the same limits.
    measurements : pandas.DataFrame
        The medians of the chosen setting at the measured sizes around it.
    source : str
    n_settings : int
        Settings that were compared.
    reference : str
        The level that errors are measured against.
    notes : list of str
    """

    choice: pd.Series
    limits: Limits
    prefer: str
    doubled_budget_choice: pd.Series | None
    by_level: pd.DataFrame
    by_twojmax: pd.DataFrame
    measurements: pd.DataFrame
    source: str
    n_settings: int
    reference: str
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The plan in words."""
        return "\n".join([*self._lead(), *self._why(), *self._doubling(), *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """The plan for scripts: plain numbers and text, nothing that JSON lacks."""
        tables = {"by_level": self.by_level, "by_twojmax": self.by_twojmax, "measured": self.measurements}
        return {
            "source": self.source,
            "limits": asdict(self.limits),
            "prefer": self.prefer,
            "settings_compared": self.n_settings,
            "plan": _plain(self.choice),
            "doubled": None if self.doubled_budget_choice is None else _plain(self.doubled_budget_choice),
            **{name: [_plain(row) for _, row in table.iterrows()] for name, table in tables.items()},
            "study": self.study_text,
            "notes": self.notes,
        }

    @property
    def study_text(self) -> str:
        """The keys of a study that would fit exactly this."""
        row = self.choice
        lines = [
            f"levels: [{', '.join(dict.fromkeys([str(row['level']), self.reference]))}]    # the last is the reference",
            f"twojmax: [{int(row['twojmax'])}]",
            f"weights: [[{row['w_energy']:g}, {row['w_force']:g}]]",
            f"sizes: [{int(row['n_train'])}]",
            f"sampling_methods: [{'random' if row['sampling'] == 'all' else row['sampling']}]",
        ]
        return "\n".join(lines + ([f"ridge: [{row['ridge']}]"] if "ridge" in row.index else []))

    def _repr_html_(self) -> str:
        asked = (
            "the cheapest that is good enough" if self.limits.budget is None else format_duration(self.limits.budget)
        )
        options = {"recommended": self.choice}
        if self.doubled_budget_choice is not None:
            options["for twice that"] = self.doubled_budget_choice
        best = {"level": comparison(self.by_level), "2Jmax": comparison(self.by_twojmax)}
        heading = f"{asked}, the best of {self.n_settings} settings in {self.source}"
        return format_plan_html(heading, options, best, self.notes)

    def __repr__(self) -> str:
        return f"Plan({self._lead()[0]})"

    def _lead(self) -> list[str]:
        row = self.choice
        lead = "" if self.limits.budget is None else f"with {format_duration(self.limits.budget)} of label time:"
        each = row["label_seconds"] / row["n_train"]
        md = (
            ""
            if not np.isfinite(row[MD_COST_COLUMN])
            else f", MD {format_number(row[MD_COST_COLUMN])} µs for each atom and step"
        )
        return [
            f"{'the cheapest that is good enough:' if self.limits.budget is None else lead} {describe_setting(row)}",
            f"  cost of the labels {format_duration(row['label_seconds'])}, {format_number(each)} s each{md}",
            f"  expected energy error {_with_spread(row, 'energy', 'meV/atom')}",
            f"  expected force error {_with_spread(row, 'force', 'meV/Å')}",
        ]

    def _why(self) -> list[str]:
        row = self.choice
        goal = {"both": "lowest product of both errors", "energy": "lowest energy error", "force": "lowest force error"}
        what = "the lowest cost" if self.limits.budget is None else f"the {goal[self.prefer]}"
        lines = [f"why: {what} of {self.n_settings} settings in {self.source}, each at every number of configurations"]
        near = [
            f"{int(one['n_train'])} configurations {format_number(one['ref_energy'])} meV/atom, "
            f"{format_number(one['ref_force'])} meV/Å"
            for _, one in self.measurements.iterrows()
        ]
        how = "straight lines in log(error) against log(n) between sizes"
        if row["beyond"]:
            how = "EXTRAPOLATED beyond the largest size along ε∞ + A n^(-α), fitted to the sizes before"
        if int(row["n_train"]) in set(self.measurements["n_train"].astype(int)):
            how = "the median of what was measured at this size"
        lines.append(f"  measured for this setting: {'; '.join(near)}; the errors above are {how}")
        for name, table in (("level", self.by_level), ("2Jmax", self.by_twojmax)):
            if len(table) > 1:
                lines.append(f"  the best of each {name} within the same limits:")
                lines += [f"    {line}" for line in comparison(table).to_string(index=False).splitlines()]
        return lines

    def _doubling(self) -> list[str]:
        if self.doubled_budget_choice is None:
            return []
        row, more = self.choice, self.doubled_budget_choice
        cost = 2 * (row["label_seconds"] if self.limits.budget is None else self.limits.budget)
        change = "; ".join(
            f"{kind} error {_with_spread(more, kind, unit)}, {100 * (more[kind] / row[kind] - 1):+.0f} %"
            for kind, unit in (("energy", "meV/atom"), ("force", "meV/Å"))
        )
        return [f"twice that, {format_duration(cost)}, would buy {describe_setting(more)}: {change}"]


def plan(
    source: pd.DataFrame | Study | Path | str,
    *,
    budget: float | str | None = None,
    max_energy: float | None = None,
    max_force: float | None = None,
    min_md_speed: float | None = None,
    prefer: str = "both",
    extrapolation_factor: float | None = None,
    n_pilot: int | None = None,
    out: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Plan:
    """Say what to run: level, number of configurations, 2Jmax and weights.

    Parameters
    ----------
    source : DataFrame, Study or path-like
        A run folder, a results table (or its CSV), or a study (or its YAML file) whose dataset is a pilot: a few tens
        of configurations labelled at every level.
    budget : float or str, optional
        For the labels, in the seconds of the table; or text such as "90 min", "20h", "3 d". Without one, the cheapest
        that keeps to the limits.
    max_energy, max_force : float, optional
        Largest errors against the reference level, meV/atom and meV/Å.
    min_md_speed : float, optional
        Least speed of the potential, atoms·steps/s on one core.
    prefer : {"both", "energy", "force"}
        Which error to make lowest; both: their product.
    extrapolation_factor : float, optional
        How many times more configurations than were measured may be recommended; by default 2, for a pilot 30.
    n_pilot : int, optional
        Pilot: take so many configurations of the study's dataset, at random, and forget the others.
    out : path-like, optional
        Pilot: where its results are kept, by default ``runs/<name>-pilot``.
    jobs : int
        Pilot: processes.
    progress : bool
        Pilot: show bars.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        If the source is no such thing or a run is not finished, the budget is below the cheapest setting, or the limits
        are out of reach; says what they would cost.

    Notes
    -----
    After section 3.5 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j.
    """
    limits = _limits(budget, max_energy, max_force, min_md_speed)
    results, name = _results(source, n_pilot, out, jobs, progress)
    results = results.assign(level=results["level"].astype(str)) if "level" in results else results
    folded = has_folds(results)
    reach = (
        extrapolation_factor
        if extrapolation_factor is not None
        else DEFAULT_PILOT_EXTRAPOLATION_FACTOR
        if folded
        else DEFAULT_EXTRAPOLATION_FACTOR
    )
    found = tabulate_options(results, budget=limits.budget, extrapolation_factor=reach)
    chosen = choose_option(found, limits, prefer)
    by_level, by_twojmax = (choose_option_by(found, limits, prefer, column) for column in ("level", "twojmax"))
    n_settings = len(found.drop_duplicates([key for key in SETTING_COLUMNS if key in found.columns]))
    made = Plan(
        chosen, limits, prefer, _doubled(results, chosen, limits, prefer, reach), by_level, by_twojmax,
        find_adjacent_measurements(results, chosen), name, n_settings, find_reference_level(results),
    )  # fmt: skip
    made.notes.extend(_notes(made, results, found, folded, reach))
    return made


def parse_duration(text: float | str) -> float:
    """Seconds from a number or text such as "600", "90 min", "20h" or "3 d".

    Raises
    ------
    InputError
        If it is neither, or not positive.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-z]*)\s*", str(text))
    unit = UNITS.get(found.group(2) or "s") if found else None
    try:
        seconds = float(found.group(1)) * unit if found and unit else math.nan
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"a budget is a positive number of seconds, or such as 90min, 20h or 3d; got '{text}'")
    return seconds


def comparison(table: pd.DataFrame) -> pd.DataFrame:
    """The choices side by side, as people read them."""
    return pd.DataFrame(
        {
            "level": table["level"],
            "configurations": table["n_train"],
            "2Jmax": table["twojmax"],
            "w_E/w_F": [format_ratio(value) for value in table["w_energy"] / table["w_force"]],
            "sampling": table["sampling"],
            "cost": [format_duration(value) for value in table["label_seconds"]],
            "meV/atom (80 %)": [_range(row, "energy") for _, row in table.iterrows()],
            "meV/Å (80 %)": [_range(row, "force") for _, row in table.iterrows()],
            "extrapolated": ["yes" if value else "" for value in table["beyond"]],
        }
    )


def read_results(source: Path | str) -> pd.DataFrame:
    """The results table of a run folder, or a CSV.

    Raises
    ------
    InputError
        If there is none; for a run folder, says which stage is missing.
    """
    path = Path(source)
    if path.is_dir():
        if not (path / RECORD_FILE).exists():
            raise InputError(f"{path} is no run folder: it has no {RECORD_FILE}; name one that paretofit run has made")
        if not (path / "results.csv").exists():
            raise InputError(
                f"{path} is not finished: the stage 'sweep' is missing (no results.csv); run the same "
                "paretofit run again, it goes on where it stopped"
            )
        check_digests(path, read_record(path), ["results.csv"])
        path = path / "results.csv"
    table = read_table(path)
    return table.astype({name: str for name in TEXT_COLUMNS if name in table.columns})


def _limits(
    budget: float | str | None, max_energy: float | None, max_force: float | None, md_speed: float | None
) -> Limits:
    for name, value in (("max_energy", max_energy), ("max_force", max_force), ("md_speed", md_speed)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"'{name}' must be a positive number; got {value}")
    if budget is None and max_energy is None and max_force is None:
        raise InputError("a plan needs a budget (--budget 20h), or a limit on errors (--max-energy, --max-force)")
    seconds = None if budget is None else parse_duration(budget)
    return Limits(seconds, max_energy, max_force, None if md_speed is None else 1e6 / md_speed)


def _results(
    source: pd.DataFrame | Study | Path | str, pilot: int | None, out: Path | str | None, jobs: int, progress: bool
) -> tuple[pd.DataFrame, str]:
    is_study = isinstance(source, Study) or (
        not isinstance(source, pd.DataFrame) and Path(source).suffix in {".yaml", ".yml"}
    )
    if pilot is not None and not is_study:
        raise InputError("a pilot is drawn from the dataset of a study; give its YAML file")
    if isinstance(source, pd.DataFrame):
        return source, "the table"
    if isinstance(source, Study) or is_study:
        made = run_pilot(source, n_configurations=pilot, out=out, jobs=jobs, progress=progress)
        return made, f"the pilot {source.name if isinstance(source, Study) else source}"
    path = Path(source)
    return read_results(path), str(path)


def _doubled(
    results: pd.DataFrame, chosen: pd.Series, limits: Limits, prefer: str, extrapolate: float
) -> pd.Series | None:
    """The best choice for twice the money, and the same speed; None where nothing is better."""
    budget = 2 * float(chosen["label_seconds"] if limits.budget is None else limits.budget)
    found = tabulate_options(results, budget=budget, extrapolation_factor=extrapolate)
    return choose_option(found, Limits(budget, max_md_cost=limits.max_md_cost), prefer)


def _label_errors(results: pd.DataFrame) -> str:
    """How far each level is from the reference on the pilot."""
    table = results.drop_duplicates("level").set_index("level")[["label_energy", "label_force"]]
    told = [
        f"level {level} {format_number(row['label_energy'])} meV/atom and {format_number(row['label_force'])} meV/Å"
        for level, row in table.iterrows()
        if row["label_force"] > 0
    ]
    return f"RMSD of the pilot's labels against the reference: {'; '.join(told)}"


def _notes(made: Plan, results: pd.DataFrame, found: pd.DataFrame, pilot: bool, reach: float) -> list[str]:
    chosen, notes = made.choice, []
    keys = [key for key in SETTING_COLUMNS if key in found.columns]
    largest = found.loc[(found[keys] == chosen[keys]).all(axis=1), "n_train"].max()
    if made.limits.budget is not None and chosen["n_train"] == largest:
        notes.append(
            f"this is as many configurations as may be recommended ({reach:g} times those measured); the budget may "
            "pay for more, of which nothing is known"
        )
    if pilot:
        notes.append(_label_errors(results))
        notes.append(
            "from a pilot: errors come from held-out pilot configurations, and are extrapolated; the ranges say how "
            "far that can be trusted. Label in the order of 'paretofit select', and plan again on what is there"
        )
    return notes


def _with_spread(row: pd.Series, name: str, unit: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    spread = (
        f"80 %: {format_number(low)} to {format_number(high)}"
        if np.isfinite(low)
        else "a single fit, of unknown spread"
    )
    text = f"{format_number(row[name])} {unit} ({spread})"
    return text + (", extrapolated" if row["beyond"] else "")


def _range(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return format_number(row[name]) + (f" ({format_number(low)}–{format_number(high)})" if np.isfinite(low) else "")


def _plain(row: pd.Series) -> dict[str, Any]:
    """A row without numpy's types; what is not finite is null, as JSON has no word for it."""
    values: dict[str, Any] = json.loads(row.to_json())
    return values
