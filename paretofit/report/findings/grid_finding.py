"""Finding on a grid of levels: whether the cutoff or the k-points limit the accuracy of labels, and whether errors add.

Errors are those of labels against the reference, without any fit, and without their mean, which a fit absorbs.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from paretofit.core import Array
from paretofit.dataset.quality import LevelErrors
from paretofit.pareto import INTERVAL_COVERAGE
from paretofit.report.findings.finding import Finding
from paretofit.report.paired_errors import compute_central_interval
from paretofit.report.wording import format_number

QUESTION = "Do the cutoff or the k-points limit the accuracy of the labels?"
N_BOOTSTRAP, BOOTSTRAP_SEED = 1000, 1
MIN_GRID = 2  # number of cutoffs and of k-point spacings
MAX_ADDITIVE_DEVIATION = 0.5  # of the RMSD of a level; with larger deviations, the errors do not add
_Point = tuple[float, float]  # cutoff (eV) and k-point spacing (1/Å)


def tabulate_grid(errors: LevelErrors) -> pd.DataFrame:
    """Tabulate the levels of a full grid of cutoffs and k-point spacings; empty if the levels form none.

    Returns
    -------
    DataFrame
        A row for each level, the reference included: ``level``, ``cutoff_ev``, ``kspacing_per_angstrom``,
        ``mean_seconds``, ``energy_rmsd_mean_shifted`` (meV/atom) and ``force_rmsd`` (meV/Å), zero for the reference.
    """
    columns = ["level", "cutoff_ev", "kspacing_per_angstrom", "mean_seconds"]
    if not set(columns) <= set(errors.settings) or errors.table.empty:
        return pd.DataFrame()
    table = errors.settings[columns].copy()
    for name in columns[1:3]:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    shape = table["cutoff_ev"].nunique(), table["kspacing_per_angstrom"].nunique()
    is_full = len(table) == shape[0] * shape[1] == len(table.drop_duplicates(columns[1:3]))
    if min(shape) < MIN_GRID or not is_full or table[columns[1:3]].isna().any(axis=None):
        return pd.DataFrame()
    rmsd = errors.table[["level", "energy_rmsd_mean_shifted", "force_rmsd"]]
    return table.merge(rmsd, on="level", how="left").fillna({"energy_rmsd_mean_shifted": 0.0, "force_rmsd": 0.0})


def assess_grid(errors: LevelErrors) -> Finding | None:
    """Compare the errors of a coarser mesh at the highest cutoff with those of a lower cutoff at the densest mesh.

    Parameters
    ----------
    errors : LevelErrors
        Of levels whose last one has the highest cutoff and the densest mesh.

    Returns
    -------
    Finding or None
        None if the levels form no full grid. The compared levels are one step below the reference in one direction.
        ``numbers`` has a row for each level below the reference: its settings, cost and errors; ``additive_rmsd``, the
        RMSD of the sum of the errors of its cutoff and of its mesh alone; and ``deviation``, the root mean square
        difference between its errors and this sum, divided by its RMSD.
    """
    grid = tabulate_grid(errors)
    reference = grid[grid["level"] == errors.reference_level] if len(grid) else grid
    if reference.empty:
        return None
    finest = float(reference["cutoff_ev"].iloc[0]), float(reference["kspacing_per_angstrom"].iloc[0])
    if finest != (grid["cutoff_ev"].max(), grid["kspacing_per_angstrom"].min()):
        return None
    level_by_point = {
        (float(cutoff), float(spacing)): str(level)
        for level, cutoff, spacing in grid[["level", "cutoff_ev", "kspacing_per_angstrom"]].itertuples(index=False)
    }
    by_level = _collect_errors(errors, level_by_point, finest)
    numbers = grid[grid["level"] != errors.reference_level].reset_index(drop=True)
    additivity = [
        _measure_additivity(by_level, (row["cutoff_ev"], row["kspacing_per_angstrom"]), finest)
        for row in numbers.to_dict("records")
    ]
    numbers = numbers.join(pd.DataFrame(additivity, columns=["additive_rmsd", "deviation"]))
    coarser_mesh = finest[0], min(spacing for _, spacing in by_level if spacing > finest[1])
    lower_cutoff = max(cutoff for cutoff, _ in by_level if cutoff < finest[0]), finest[1]
    ratio, low, high = _estimate_ratio(by_level[coarser_mesh], by_level[lower_cutoff])
    n = len(by_level[finest])
    cause = "The k-points limit" if low > 1 else "The cutoff limits" if high < 1 else "Neither clearly limits"
    inner = numbers["deviation"].dropna()
    text = (
        f"{cause} the accuracy of energies of {n} configurations: at {finest[0]:g} eV, a k-point spacing of "
        f"{coarser_mesh[1]:g} instead of {finest[1]:g} 1/Å changes them by "
        f"{format_number(_compute_rms(by_level[coarser_mesh]))} meV/atom, and at {finest[1]:g} 1/Å, a cutoff of "
        f"{lower_cutoff[0]:g} instead of {finest[0]:g} eV by "
        f"{format_number(_compute_rms(by_level[lower_cutoff]))} meV/atom (RMSD without the mean; ratio "
        f"{format_number(ratio)}, {100 * INTERVAL_COVERAGE:.0f} % interval {format_number(low)} to "
        f"{format_number(high)}, bootstrap over configurations)."
    )
    if len(inner):
        text += " " + _describe_additivity(inner)
    return Finding("grid", QUESTION, "measured", text, numbers=numbers)


def _describe_additivity(deviations: pd.Series) -> str:
    """Describe whether the errors of the cutoff and of the k-points add, from the deviations by level."""
    median, largest = (format_number(100 * value, 2) for value in (deviations.median(), deviations.max()))
    verb = "add" if deviations.max() < MAX_ADDITIVE_DEVIATION else "do not add"
    return (
        f"The errors of cutoff and k-points {verb}: the energies of a level with both deviate from the sum by "
        f"{median} % of its RMSD in the median, and by at most {largest} %."
    )


def _collect_errors(errors: LevelErrors, level_by_point: Mapping[_Point, str], finest: _Point) -> dict[_Point, Array]:
    """Collect the energy errors without their mean (meV/atom) of the configurations that all levels have."""
    table = errors.configurations.pivot_table(index="config_id", columns="level", values="energy_error").dropna()
    table = table - table.mean()
    return {
        point: np.zeros(len(table)) if point == finest else table[level].to_numpy()
        for point, level in level_by_point.items()
    }


def _measure_additivity(by_level: Mapping[_Point, Array], point: _Point, finest: _Point) -> tuple[float, float]:
    """Return the RMSD of the sum of the errors of the cutoff and of the mesh alone, and its relative deviation."""
    additive_errors = by_level[point[0], finest[1]] + by_level[finest[0], point[1]]
    if point[0] == finest[0] or point[1] == finest[1]:
        return float("nan"), float("nan")
    errors = by_level[point]
    return _compute_rms(additive_errors), _compute_rms(errors - additive_errors) / _compute_rms(errors)


def _compute_rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _estimate_ratio(first: Array, second: Array) -> tuple[float, float, float]:
    """Estimate the ratio of two RMSDs, with its interval from a bootstrap over configurations."""
    samples = np.random.default_rng(BOOTSTRAP_SEED).integers(len(first), size=(N_BOOTSTRAP, len(first)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.sqrt((first[samples] ** 2).mean(axis=1) / (second[samples] ** 2).mean(axis=1))
        ratio = _compute_rms(first) / _compute_rms(second)
    return (ratio, *compute_central_interval(ratios))
