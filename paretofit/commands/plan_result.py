"""Result of `paretofit plan`, as text, as JSON, and as HTML for notebooks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from paretofit.core import escape_text, render_list, render_table
from paretofit.pareto import BASIS_COLUMN, MD_COST_COLUMN, Limits, describe_properties, describe_setting, format_size
from paretofit.properties import list_property_units
from paretofit.report import dump_yaml, format_duration, format_number, format_ratio, format_study
from paretofit.study import FIRST_BASIS, SETTING_COLUMNS, format_setting_cells

CHEAPEST = "the cheapest setting within the limits"
GOALS = {"both": "lowest product of both errors", "energy": "lowest energy error", "force": "lowest force error"}
UNITS = {"energy": "meV/atom", "force": "meV/Å"}


@dataclass(frozen=True)
class Plan:
    """Recommended setting, with its expected errors and the alternatives.

    Attributes
    ----------
    choice : pandas.Series
        Recommended setting: ``level``, ``n_train``, ``twojmax``, ``w_energy``, ``w_force``, ``sampling``,
        ``label_seconds``, and the expected errors ``energy`` (meV/atom) and ``force`` (meV/Å). ``*_low`` and ``*_high``
        are the ends of the range that contains the errors of 80 % of the draws, in new train/test splits if the run has
        further splits. ``beyond`` is true if the errors are extrapolated.
    limits : Limits
    prefer : {"both", "energy", "force"}
        Error that was minimised.
    doubled_budget_choice : pandas.Series or None
        Recommended setting for twice the budget, or without a budget for twice the cost of `choice`.
    by_level, by_twojmax : pandas.DataFrame
        Best setting for each level and for each 2Jmax within the same limits.
    measurements : pandas.DataFrame
        Median errors of the recommended setting at the measured numbers of configurations next to its ``n_train``; see
        `paretofit.pareto.find_adjacent_measurements`.
    source : str
        Name of the run, table or pilot.
    n_settings : int
        Number of settings that were compared.
    reference : str
        Level against which errors are measured.
    notes : list of str
    assumed_levels : tuple of str
        Levels at which the cost of labels is assumed by the study, not measured.
    has_further_splits : bool
        Whether the expected errors and their ranges are taken over several train/test splits.
    label_ids : mapping of str to list of int
        If the choice is a mixture in a run: ids of the configurations in its first repetition, by level; otherwise
        empty.
    settings : mapping, optional
        Settings of the study of the run; None if the source is not a run.
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
    assumed_levels: tuple[str, ...] = ()
    has_further_splits: bool = False
    label_ids: Mapping[str, list[int]] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """Recommended setting, reasons, setting for twice the budget, notes and next step, as plain text."""
        notes = (f"note: {note}" for note in self.notes)
        next_step = "next: the same command with --study prints a study of this setting, for: paretofit run"
        return "\n".join([*self._describe_choice(), *self._explain(), *self._describe_doubling(), *notes, next_step])

    def to_dict(self) -> dict[str, Any]:
        """Convert the plan to a dictionary of JSON types, as `paretofit plan --json` prints it."""
        tables = {"by_level": self.by_level, "by_twojmax": self.by_twojmax, "measured": self.measurements}
        return {
            "source": self.source,
            "limits": asdict(self.limits),
            "prefer": self.prefer,
            "settings_compared": self.n_settings,
            "plan": _convert_row(self.choice),
            "doubled": None if self.doubled_budget_choice is None else _convert_row(self.doubled_budget_choice),
            **{name: [_convert_row(row) for _, row in table.iterrows()] for name, table in tables.items()},
            "study": self.study_text,
            "notes": self.notes,
            "assumed_levels": list(self.assumed_levels),
        }

    @property
    def study_text(self) -> str:
        """YAML text of a study of exactly the recommended setting.

        If the source is not a run, the text contains only the keys of the setting. For a mixture, it also contains a
        section 'labelling' with the ids of the configurations to label.
        """
        text = format_study(self.choice, self.reference, self.settings).removesuffix("\n")
        basis = self.choice.get(BASIS_COLUMN, FIRST_BASIS)
        if basis != FIRST_BASIS and self.settings is None:
            text = f"# for the basis '{basis}': copy the keys that it has in 'bases' to 'basis'\n{text}"
        if not self.label_ids:
            return text
        labelling = dict((self.settings or {}).get("labelling") or {})
        subsets = {level: {"ids": ids} for level, ids in self.label_ids.items()}
        labelling |= {"levels": list(subsets), "subsets": subsets}
        note = "for 'paretofit label', then 'paretofit fit': the labels of the first draw, whose cost differs from the"
        note += " median over draws" if "ladder" in labelling else " median over draws; add the engine and the ladder"
        return f"{text}\n# {note}\n{dump_yaml({'labelling': labelling})}".removesuffix("\n")

    def _repr_html_(self) -> str:
        """Format the recommended settings, the best settings by level and by 2Jmax, and the notes as HTML."""
        goal = CHEAPEST if self.limits.budget is None else format_duration(self.limits.budget)
        heading = f"{goal}, the best of {self.n_settings} settings in {self.source}"
        # the columns of `_format_option_cells`: the five of the setting, the errors, and the cost
        header = ("", *SETTING_COLUMNS[:5], "expected meV/atom", "expected meV/Å", SETTING_COLUMNS[-1])
        options = {"recommended": self.choice, "for twice the budget": self.doubled_budget_choice}
        rows = [(name, *_format_option_cells(option)) for name, option in options.items() if option is not None]
        parts = [f"<p><b>Plan</b>: {escape_text(heading)}</p>", render_table(header, rows)]
        scope = " in new train/test splits" if self.has_further_splits else ""
        parts.append(f"<p>In brackets: range that contains the errors of 80 % of the draws{scope}. * extrapolated.</p>")
        for name, table in (("level", self.by_level), ("2Jmax", self.by_twojmax)):
            if len(table) > 1:
                settings = format_settings(table)
                parts.append(f"<p>Best setting for each {name} within the same limits:</p>")
                parts.append(render_table(list(settings.columns), settings.itertuples(index=False)))
        return "".join(parts) + (f"<p>Notes:</p>{render_list(self.notes)}" if self.notes else "")

    def __repr__(self) -> str:
        """Format the recommended setting in one line."""
        return f"Plan({self._describe_choice()[0]})"

    def _describe_choice(self) -> list[str]:
        """Describe the recommended setting, its cost and its expected errors, as lines."""
        row, budget = self.choice, self.limits.budget
        goal = f"{CHEAPEST}:" if budget is None else f"with {format_duration(budget)} of label time:"
        seconds = row["label_seconds"] / row["n_train"]
        assumption_note = " (assumed)" if str(row["level"]) in self.assumed_levels else ""
        # the labels of a mixture have different costs
        cost_of_each = "" if pd.notna(row.get("n_base")) else f", {format_number(seconds)} s each{assumption_note}"
        cost = f"{format_duration(row['label_seconds'])}{cost_of_each}"
        md_cost = row[MD_COST_COLUMN]
        md_text = f", MD {format_number(md_cost)} µs per atom and step" if np.isfinite(md_cost) else ""
        properties = describe_properties(row, list_property_units((self.settings or {}).get("properties", [])))
        property_note = "between fitted sizes, the larger one"
        return [
            f"{goal} {describe_setting(row)}",
            f"  cost of the labels {cost}{md_text}",
            *(f"  expected {kind} error {_format_with_spread(row, kind)}" for kind in UNITS),
            *([f"  expected errors of properties ({property_note}): {properties}"] if properties else []),
        ]

    def _explain(self) -> list[str]:
        """Explain how the setting was chosen and where its expected errors come from, as lines."""
        row = self.choice
        reason = "the lowest cost" if self.limits.budget is None else f"the {GOALS[self.prefer]}"
        lines = [
            f"why: {reason} of {self.n_settings} settings in {self.source}, each at every number of configurations"
        ]
        level_note = f" at level {row['top_level']}" if pd.notna(row.get("n_base")) else ""  # of a mixture
        measured_errors = "; ".join(
            f"{int(size['n_train'])} configurations{level_note} {format_number(size['ref_energy'])} meV/atom, "
            f"{format_number(size['ref_force'])} meV/Å"
            for _, size in self.measurements.iterrows()
        )
        splits_note = ""
        if self.has_further_splits:
            splits_note = "means over train/test splits, including that of the measured errors, "
        origin = f"{splits_note}interpolated linearly in log(error) against log(n) between sizes"
        if row["beyond"]:
            origin = (
                f"{splits_note}EXTRAPOLATED beyond the largest size along ε∞ + A n^(-α), fitted to the smaller sizes"
            )
        if int(row["n_train"]) in set(self.measurements["n_train"].astype(int)):
            origin = "the measured medians at this size"
            if self.has_further_splits:
                origin = "means over several train/test splits at this size, and the measured ones those of one split"
        lines.append(f"  measured for this setting: {measured_errors}; the errors above are {origin}")
        if self.has_further_splits:
            lines.append("  a range holds 80 % of the errors of new draws in new train/test splits")
        for name, table in (("level", self.by_level), ("2Jmax", self.by_twojmax)):
            if len(table) > 1:
                lines.append(f"  best setting for each {name} within the same limits:")
                lines += [f"    {line}" for line in format_settings(table).to_string(index=False).splitlines()]
        return lines

    def _describe_doubling(self) -> list[str]:
        """Describe the setting for twice the budget, and how its errors differ, in a line; empty without one."""
        if self.doubled_budget_choice is None:
            return []
        row, doubled_choice = self.choice, self.doubled_budget_choice
        cost = 2 * (row["label_seconds"] if self.limits.budget is None else self.limits.budget)
        change = "; ".join(
            f"{kind} error {_format_with_spread(doubled_choice, kind)}, "
            f"{100 * (doubled_choice[kind] / row[kind] - 1):+.0f} %"
            for kind in UNITS
        )
        return [f"doubling the budget to {format_duration(cost)} gives {describe_setting(doubled_choice)}: {change}"]


def format_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Format settings with their cost and expected errors as a table of texts for the user."""
    return pd.DataFrame(
        {
            "level": table["level"],
            "configurations": [format_size(row) for _, row in table.iterrows()],
            "2Jmax": table["twojmax"],
            **({BASIS_COLUMN: table[BASIS_COLUMN]} if BASIS_COLUMN in table else {}),
            "w_E/w_F": [format_ratio(value) for value in table["w_energy"] / table["w_force"]],
            "sampling": table["sampling"],
            "cost": [format_duration(value) for value in table["label_seconds"]],
            "meV/atom (80 %)": [_format_range(row, "energy") for _, row in table.iterrows()],
            "meV/Å (80 %)": [_format_range(row, "force") for _, row in table.iterrows()],
            "extrapolated": ["yes" if value else "" for value in table["beyond"]],
        }
    )


def _format_option_cells(row: pd.Series) -> Sequence[str]:
    """Format the cells of a setting in the HTML table; a star marks extrapolated errors."""
    star = " *" if row["beyond"] else ""
    errors = []
    for kind in UNITS:
        error, low, high = (format_number(row[column]) for column in (kind, f"{kind}_low", f"{kind}_high"))
        errors.append(f"{error} ({low} to {high}){star}")
    return (*format_setting_cells(row), *errors, format_duration(row["label_seconds"]))


def _format_with_spread(row: pd.Series, kind: str) -> str:
    """Format an expected error with its unit and its range, for text."""
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    has_spread = np.isfinite(low)
    spread = f"80 %: {format_number(low)} to {format_number(high)}" if has_spread else "a single fit, of unknown spread"
    text = f"{format_number(row[kind])} {UNITS[kind]} ({spread})"
    return text + (", extrapolated" if row["beyond"] else "")


def _format_range(row: pd.Series, kind: str) -> str:
    """Format an expected error with its range, if it has one, for a cell of a table."""
    low, high = row[f"{kind}_low"], row[f"{kind}_high"]
    return format_number(row[kind]) + (f" ({format_number(low)}–{format_number(high)})" if np.isfinite(low) else "")


def _convert_row(row: pd.Series) -> dict[str, Any]:
    """Convert a row to JSON types; non-finite numbers become null."""
    record: dict[str, Any] = json.loads(row.to_json())
    return record
