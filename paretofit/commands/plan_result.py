"""The result of `paretofit plan`, as text, as JSON and as a notebook shows it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from paretofit.commands.plan_html import format_plan_html
from paretofit.pareto import MD_COST_COLUMN, Limits, describe_setting
from paretofit.report import format_duration, format_number, format_ratio

CHEAPEST = "the cheapest within the limits"
GOALS = {"both": "lowest product of both errors", "energy": "lowest energy error", "force": "lowest force error"}
UNITS = {"energy": "meV/atom", "force": "meV/Å"}


@dataclass(frozen=True)
class Plan:
    """What to run, and why.

    Attributes
    ----------
    choice : pandas.Series
        ``level``, ``n_train``, ``twojmax``, ``w_energy``, ``w_force``, ``sampling``, ``label_seconds``, and the
        expected errors: ``energy`` (meV/atom), ``force`` (meV/Å), each with ``_low`` and ``_high`` (80 % of
        draws are between); ``beyond`` where they are extrapolated.
    limits : Limits
    prefer : str
    doubled_budget_choice : pandas.Series or None
        The choice for twice the budget.
    by_level, by_twojmax : pandas.DataFrame
        The best choice of each within the same limits.
    measurements : pandas.DataFrame
        The medians of the chosen setting at the measured sizes around it.
    source : str
    n_settings : int
        Number of settings that were compared.
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
        """The choice with its expected errors, the reasons, the choice for twice the budget, and notes."""
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([*self._describe_choice(), *self._explain(), *self._describe_doubling(), *notes])

    def to_dict(self) -> dict[str, Any]:
        """The plan for scripts: plain numbers and text, without anything that JSON lacks."""
        tables = {"by_level": self.by_level, "by_twojmax": self.by_twojmax, "measured": self.measurements}
        return {
            "source": self.source,
            "limits": asdict(self.limits),
            "prefer": self.prefer,
            "settings_compared": self.n_settings,
            "plan": _to_json(self.choice),
            "doubled": None if self.doubled_budget_choice is None else _to_json(self.doubled_budget_choice),
            **{name: [_to_json(row) for _, row in table.iterrows()] for name, table in tables.items()},
            "study": self.study_text,
            "notes": self.notes,
        }

    @property
    def study_text(self) -> str:
        """The keys of a study that fits exactly this choice."""
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
        goal = CHEAPEST if self.limits.budget is None else format_duration(self.limits.budget)
        options = {"recommended": self.choice}
        if self.doubled_budget_choice is not None:
            options["for twice that"] = self.doubled_budget_choice
        best = {"level": compare_choices(self.by_level), "2Jmax": compare_choices(self.by_twojmax)}
        heading = f"{goal}, the best of {self.n_settings} settings in {self.source}"
        return format_plan_html(heading, options, best, self.notes)

    def __repr__(self) -> str:
        return f"Plan({self._describe_choice()[0]})"

    def _describe_choice(self) -> list[str]:
        row, budget = self.choice, self.limits.budget
        goal = f"{CHEAPEST}:" if budget is None else f"with {format_duration(budget)} of label time:"
        seconds_each = row["label_seconds"] / row["n_train"]
        md_cost = row[MD_COST_COLUMN]
        md = f", MD {format_number(md_cost)} µs for each atom and step" if np.isfinite(md_cost) else ""
        return [
            f"{goal} {describe_setting(row)}",
            f"  cost of the labels {format_duration(row['label_seconds'])}, {format_number(seconds_each)} s each{md}",
            *(f"  expected {kind} error {_format_with_spread(row, kind)}" for kind in UNITS),
        ]

    def _explain(self) -> list[str]:
        row = self.choice
        reason = "the lowest cost" if self.limits.budget is None else f"the {GOALS[self.prefer]}"
        lines = [
            f"why: {reason} of {self.n_settings} settings in {self.source}, each at every number of configurations"
        ]
        measured = [
            f"{int(size['n_train'])} configurations {format_number(size['ref_energy'])} meV/atom, "
            f"{format_number(size['ref_force'])} meV/Å"
            for _, size in self.measurements.iterrows()
        ]
        method = "straight lines in log(error) against log(n) between sizes"
        if row["beyond"]:
            method = "EXTRAPOLATED beyond the largest size along ε∞ + A n^(-α), fitted to the smaller sizes"
        if int(row["n_train"]) in set(self.measurements["n_train"].astype(int)):
            method = "the measured median at this size"
        lines.append(f"  measured for this setting: {'; '.join(measured)}; the errors above are {method}")
        for name, table in (("level", self.by_level), ("2Jmax", self.by_twojmax)):
            if len(table) > 1:
                lines.append(f"  the best of each {name} within the same limits:")
                lines += [f"    {line}" for line in compare_choices(table).to_string(index=False).splitlines()]
        return lines

    def _describe_doubling(self) -> list[str]:
        if self.doubled_budget_choice is None:
            return []
        row, doubled = self.choice, self.doubled_budget_choice
        cost = 2 * (row["label_seconds"] if self.limits.budget is None else self.limits.budget)
        change = "; ".join(
            f"{kind} error {_format_with_spread(doubled, kind)}, {100 * (doubled[kind] / row[kind] - 1):+.0f} %"
            for kind in UNITS
        )
        return [f"doubling the budget to {format_duration(cost)} gives {describe_setting(doubled)}: {change}"]


def compare_choices(table: pd.DataFrame) -> pd.DataFrame:
    """Format choices for a table that people read."""
    return pd.DataFrame(
        {
            "level": table["level"],
            "configurations": table["n_train"],
            "2Jmax": table["twojmax"],
            "w_E/w_F": [format_ratio(value) for value in table["w_energy"] / table["w_force"]],
            "sampling": table["sampling"],
            "cost": [format_duration(value) for value in table["label_seconds"]],
            "meV/atom (80 %)": [_format_range(row, "energy") for _, row in table.iterrows()],
            "meV/Å (80 %)": [_format_range(row, "force") for _, row in table.iterrows()],
            "extrapolated": ["yes" if value else "" for value in table["beyond"]],
        }
    )


def _format_with_spread(row: pd.Series, kind: str) -> str:
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    is_known = np.isfinite(low)
    spread = f"80 %: {format_number(low)} to {format_number(high)}" if is_known else "a single fit, of unknown spread"
    text = f"{format_number(row[kind])} {UNITS[kind]} ({spread})"
    return text + (", extrapolated" if row["beyond"] else "")


def _format_range(row: pd.Series, kind: str) -> str:
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    return format_number(row[kind]) + (f" ({format_number(low)}–{format_number(high)})" if np.isfinite(low) else "")


def _to_json(row: pd.Series) -> dict[str, Any]:
    """Convert a row to plain types; numbers that are not finite become null, as JSON has none of them."""
    values: dict[str, Any] = json.loads(row.to_json())
    return values
