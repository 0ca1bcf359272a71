"""`paretofit plan`: recommend a setting for a budget, from a finished run, a results table, or a pilot."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from paretofit import pareto, study
from paretofit.commands.fit_settings import is_study_path
from paretofit.commands.plan_result import Plan
from paretofit.commands.property_limits import convert_property_limits
from paretofit.commands.run_fits import open_run_fits
from paretofit.core import InputError
from paretofit.execution import RunContext
from paretofit.properties import list_property_units
from paretofit.report import WIDE_INTERVAL, format_levels, format_number, has_wide_interval

SECONDS_BY_UNIT = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0}
# columns of results tables that are names, even if these look like numbers
NAME_COLUMNS = ("level", "sampling", "ridge", "solver", "basis")
PILOT_NOTE = (
    "the plan is from a pilot: the errors are extrapolated from those of held-out configurations, and the ranges are "
    "their uncertainty. Label configurations in the order of 'paretofit select', then plan again with the new labels"
)


def plan(
    source: pd.DataFrame | study.Study | Path | str,
    *,
    budget: float | str | None = None,
    max_energy: float | None = None,
    max_force: float | None = None,
    min_md_speed: float | None = None,
    max_properties: Mapping[str, float | str] | None = None,
    prefer: str = "both",
    extrapolation_factor: float | None = None,
    n_pilot: int | None = None,
    out: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Plan:
    """Recommend a setting: level, number of configurations, 2Jmax and weights.

    Parameters
    ----------
    source : DataFrame, Study or path-like
        A run folder, a results table (or its CSV file), or a study (or its YAML file) whose dataset is a pilot: a few
        tens of configurations labelled at every level. The fits of a pilot are computed first.
    budget : float or str, optional
        Computing time for labels, s; or text such as "90 min", "20h", "3 d". Without a budget, the cheapest setting
        within the limits is recommended.
    max_energy, max_force : float, optional
        Largest acceptable errors against the reference level, meV/atom and meV/Å.
    min_md_speed : float, optional
        Lowest acceptable MD speed of the potential, atom-steps/s on one core.
    max_properties : mapping of str to float or str, optional
        Largest acceptable errors of properties by name, in the units of the properties; or text with the unit, such as
        "5 GPa", which must be that of the property.
    prefer : {"both", "energy", "force"}
        Error to minimise; "both" minimises the product of the two errors.
    extrapolation_factor : float, optional
        Largest number of configurations to recommend, as a multiple of the largest measured number; by default 2, for
        a pilot 30.
    n_pilot : int, optional
        Only for a study: number of configurations to draw at random for the pilot; by default all are used.
    out, jobs, progress
        Only for a study: folder for the results of the pilot, by default ``runs/<name>-pilot``; number of processes;
        and whether to show progress bars.

    Raises
    ------
    InputError
        If the source cannot be used, a run is not finished, the budget is too small for the cheapest setting, or the
        limits cannot be met. In the last two cases, the message contains the required cost.

    Notes
    -----
    The method follows section 3.5 of Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j.
    """
    limits = _parse_limits(budget, max_energy, max_force, min_md_speed, has_property_limits=bool(max_properties))
    results, name = _read_source(source, n_pilot, out, RunContext(jobs, progress))
    properties = convert_property_limits(max_properties or {}, results, _read_property_units(source))
    limits = replace(limits, max_properties=properties)
    if "level" in results:
        results = results.assign(level=results["level"].astype(str))
    is_pilot = pareto.has_folds(results)
    default_factor = study.DEFAULT_PILOT_EXTRAPOLATION_FACTOR if is_pilot else pareto.DEFAULT_EXTRAPOLATION_FACTOR
    factor = default_factor if extrapolation_factor is None else extrapolation_factor
    # twice the budget, for the recommendation of `_choose_for_doubled_budget`
    budgets = None if limits.budget is None else [limits.budget, 2 * limits.budget]
    options = pareto.tabulate_options(results, budget=budgets, extrapolation_factor=factor)
    choice = pareto.choose_option(options, limits, prefer)
    doubled_choice = _choose_for_doubled_budget(results, options, choice, limits, prefer, factor)
    by_level, by_twojmax = (pareto.choose_option_by(options, limits, prefer, column) for column in ("level", "twojmax"))
    measurements = pareto.find_adjacent_measurements(results, choice)
    n_settings = len(options.drop_duplicates(pareto.list_setting_columns(options)))
    notes = _collect_notes(choice, limits, results, options, factor)
    reference, assumed_levels = pareto.find_reference_level(results), _list_assumed_levels(results)
    has_further_splits = "ref_energy_low" in results
    return Plan(
        choice, limits, prefer, doubled_choice, by_level, by_twojmax, measurements, name, n_settings, reference, notes,
        assumed_levels, has_further_splits, list_label_ids(source, choice), _read_settings(source, choice),
    )  # fmt: skip


def parse_duration(text: float | str) -> float:
    """Convert a number of seconds, or text such as "600", "90 min", "20h" or "3 d", to seconds.

    Raises
    ------
    InputError
        If the text is not a duration, or the duration is not positive.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-z]*)\s*", str(text))
    unit = SECONDS_BY_UNIT.get(match.group(2) or "s") if match else None
    try:
        seconds = float(match.group(1)) * unit if match and unit else math.nan
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(
            f"a budget must be a positive number of seconds, or text such as 90min, 20h or 3d; got '{text}'"
        )
    return seconds


def read_results(source: Path | str) -> pd.DataFrame:
    """Read the results table of a run folder, with the fits of all bases of the run, or of a CSV file.

    Raises
    ------
    InputError
        If the table cannot be read; for an unfinished run, the message names the missing stage.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: there is no such run folder, results table or study; correct the path")
    if path.is_dir():
        study.check_digests(
            path, study.check_stages(path, {study.RESULTS_FILE: "sweep"}), [study.RESULTS_FILE, study.BASES_FILE]
        )
        study.check_bases(path)
        path = path / (study.BASES_FILE if (path / study.BASES_FILE).exists() else study.RESULTS_FILE)
    table = pareto.read_table(path)
    return table.astype({name: str for name in NAME_COLUMNS if name in table.columns})


def _parse_limits(
    budget: float | str | None,
    max_energy: float | None,
    max_force: float | None,
    min_md_speed: float | None,
    *,
    has_property_limits: bool,
) -> pareto.Limits:
    """Check the budget and the limits of errors and speed, and convert them to the units of a results table.

    Limits of properties are added later, because they are checked against the results.
    """
    limits = {"max_energy": max_energy, "max_force": max_force, "min_md_speed": min_md_speed}
    for name, limit in limits.items():
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise InputError(f"'{name}' must be a positive number; got {limit}")
    if budget is None and max_energy is None and max_force is None and not has_property_limits:
        raise InputError(
            "a plan requires a budget (--budget 20h), or a limit on errors (--max-energy, --max-force, --max C44=5)"
        )
    seconds = None if budget is None else parse_duration(budget)
    max_md_cost = None if min_md_speed is None else 1e6 / min_md_speed  # atom-steps/s to µs per atom and step
    return pareto.Limits(seconds, max_energy, max_force, max_md_cost)


def _read_source(
    source: pd.DataFrame | study.Study | Path | str, n_pilot: int | None, out: Path | str | None, context: RunContext
) -> tuple[pd.DataFrame, str]:
    """Read the results table of a source, or compute that of a pilot; also return a name of the source for the text."""
    if not isinstance(source, pd.DataFrame) and (isinstance(source, study.Study) or is_study_path(source)):
        results = study.run_pilot(source, context, n_configurations=n_pilot, out=out)
        return results, f"the pilot {source.name if isinstance(source, study.Study) else source}"
    if n_pilot is not None:
        raise InputError("--pilot-size requires a study with a dataset to draw from; specify its YAML file")
    return (source, "the table") if isinstance(source, pd.DataFrame) else (read_results(source), str(source))


def list_label_ids(source: pd.DataFrame | study.Study | Path | str, choice: pd.Series) -> dict[str, list[int]]:
    """List the ids of the configurations to label for a mixture in a run, by level, from its first repetition.

    Parameters
    ----------
    source : DataFrame, Study or path-like
        As in `plan`.
    choice : Series
        Setting with the columns of the results table.

    Returns
    -------
    dict of str to list of int
        Empty if the source is not a run folder, or the setting is not a mixture.

    Raises
    ------
    InputError
        If the run cannot be read, or has no such mixture.
    """
    is_run = isinstance(source, str | Path) and Path(source).is_dir()
    if not is_run or not pareto.find_mixtures(choice.to_frame().T).item():
        return {}
    with open_run_fits(study.get_basis_folder(Path(str(source)), choice.get(pareto.BASIS_COLUMN))) as fits:
        draw = fits.draw_mixture(pd.concat([choice, pd.Series({"repeat": 0})]))
        ids = fits.prepared.dataset.ids
        sets = zip(draw.mixture.levels, draw.configurations, strict=True)
        return {level: ids[configurations].tolist() for level, configurations in sets}


def _read_settings(source: pd.DataFrame | study.Study | Path | str, choice: pd.Series) -> dict[str, Any] | None:
    """Read the settings of a run's study, with the basis of the choice; None if the source is not a run folder."""
    if not (isinstance(source, str | Path) and Path(source).is_dir()):
        return None
    return study.read_run_settings(source, str(choice.get(pareto.BASIS_COLUMN, study.FIRST_BASIS)))


def _read_property_units(source: pd.DataFrame | study.Study | Path | str) -> dict[str, str]:
    """Read the units of the properties of a run; empty if the source is not a run folder."""
    if not (isinstance(source, str | Path) and Path(source).is_dir()):
        return {}
    return list_property_units(study.load_study(Path(source) / "study.yaml").properties)


def _choose_for_doubled_budget(
    results: pd.DataFrame, options: pd.DataFrame, choice: pd.Series, limits: pareto.Limits, prefer: str, factor: float
) -> pd.Series:
    """Choose the best setting for twice the budget or, without a budget, for twice the cost of `choice`.

    The limits of MD cost and properties are the same; those of errors do not apply.
    """
    budget = 2 * float(choice["label_seconds"] if limits.budget is None else limits.budget)
    if limits.budget is None:  # with a budget, `options` already contain the settings for twice the budget
        options = pareto.tabulate_options(results, budget=budget, extrapolation_factor=factor)
    same_limits = pareto.Limits(budget, max_md_cost=limits.max_md_cost, max_properties=limits.max_properties)
    return pareto.choose_option(options, same_limits, prefer)


def _collect_notes(
    choice: pd.Series, limits: pareto.Limits, results: pd.DataFrame, options: pd.DataFrame, factor: float
) -> list[str]:
    """Collect notes on assumed costs, wide intervals, a limited number of configurations, and the errors of a pilot."""
    notes = _describe_assumed_costs(results)
    if has_wide_interval(choice):
        notes.append(WIDE_INTERVAL)
    columns = pareto.list_setting_columns(options)
    largest_size = options.loc[(options[columns] == choice[columns]).all(axis=1), "n_train"].max()
    # mixtures are evaluated only at measured sizes, so their largest size is not the extrapolation limit
    is_mixture = pareto.find_mixtures(choice.to_frame().T).item()
    if limits.budget is not None and choice["n_train"] == largest_size and not is_mixture:
        notes.append(
            f"the recommended number of configurations is at its limit ({factor:g} times the largest measured number); "
            "the budget may allow more, but errors are not extrapolated further; for larger numbers, raise the "
            "extrapolation factor (--extrapolation-factor)"
        )
    if pareto.has_folds(results):
        notes += [_format_label_errors(results), PILOT_NOTE]
    return notes


def _list_assumed_levels(results: pd.DataFrame) -> tuple[str, ...]:
    """List the levels at which the cost of labels is assumed by the study."""
    if pareto.ASSUMED_COLUMN not in results:
        return ()
    is_assumed = results[pareto.ASSUMED_COLUMN].astype(str).str.lower() == "true"  # bool, or text from a CSV file
    return tuple(results.loc[is_assumed, "level"].unique())


def _describe_assumed_costs(results: pd.DataFrame) -> list[str]:
    """Return a list with a note on levels whose cost is assumed; empty if all costs are measured."""
    levels = _list_assumed_levels(results)
    text = "is assumed by the study (cost.assumed_levels), not measured: the plan depends on this assumption"
    return [f"the cost of labels of {format_levels(levels)} {text}"] if len(levels) else []


def _format_label_errors(results: pd.DataFrame) -> str:
    """Format the errors of the pilot's labels at each level against the reference level."""
    table = results.drop_duplicates("level").set_index("level")[["label_energy", "label_force"]]
    errors = [
        f"level {level} {format_number(row['label_energy'])} meV/atom and {format_number(row['label_force'])} meV/Å"
        for level, row in table.iterrows()
        if row["label_force"] > 0  # zero at the reference level
    ]
    return f"RMSD of the pilot's labels against the reference: {'; '.join(errors)}"
