"""Finding on a grid of levels: whether the cutoff or the k-points limit the accuracy of labels, and whether errors add.

Errors are differences between the energies of labels and those of the reference, without any fit. Their mean over
configurations is subtracted, because a fit absorbs it.
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
N_BOOTSTRAP, BOOTSTRAP_SEED = 1000, 1  # number of bootstrap samples, and seed of their generator
MIN_GRID = 2  # smallest number of cutoffs and of k-point spacings of a grid
MAX_ADDITIVE_DEVIATION = 0.5  # relative to the RMSD of a level; with larger deviations, the errors do not add
_Point = tuple[float, float]  # cutoff (eV) and k-point spacing (1/Å)


def tabulate_grid(errors: LevelErrors) -> pd.DataFrame:
    """Tabulate the levels of a full grid of cutoffs and k-point spacings.

    Returns
    -------
    DataFrame
        A row for each level, the reference included: ``level``, ``cutoff_ev``, ``kspacing_per_angstrom``,
        ``mean_seconds``, and the errors ``energy_rmsd_mean_shifted`` (meV/atom) and ``force_rmsd`` (meV/Å), which are
        zero for the reference. Empty if the levels do not form a full grid with at least `MIN_GRID` cutoffs and
        spacings.
    """
    axes = ["cutoff_ev", "kspacing_per_angstrom"]
    columns = ["level", *axes, "mean_seconds"]
    if not set(columns) <= set(errors.settings) or errors.table.empty:
        return pd.DataFrame()
    table = errors.settings[columns].copy()
    for name in axes:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    n_cutoffs, n_spacings = (table[name].nunique() for name in axes)
    is_full = len(table) == n_cutoffs * n_spacings == len(table.drop_duplicates(axes))
    if min(n_cutoffs, n_spacings) < MIN_GRID or not is_full or table[axes].isna().any(axis=None):
        return pd.DataFrame()
    rmsd = errors.table[["level", "energy_rmsd_mean_shifted", "force_rmsd"]]
    return table.merge(rmsd, on="level", how="left").fillna({"energy_rmsd_mean_shifted": 0.0, "force_rmsd": 0.0})


def assess_grid(errors: LevelErrors) -> Finding | None:
    """Compare the errors of a coarser k-point mesh with those of a lower cutoff, each one step below the reference.

    Parameters
    ----------
    errors : LevelErrors
        Errors of the levels of the grid.

    Returns
    -------
    Finding or None
        ``numbers`` has a row for each level below the reference: its settings, cost and errors; and ``additive_rmsd``
        (meV/atom) and ``deviation``, see `_measure_additivity`. None if the levels do not form a full grid in which the
        reference has the highest cutoff and the densest mesh.
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
    errors_by_point = _collect_errors(errors, level_by_point, finest)
    numbers = grid[grid["level"] != errors.reference_level].reset_index(drop=True)
    additivity = [
        _measure_additivity(errors_by_point, (row["cutoff_ev"], row["kspacing_per_angstrom"]), finest)
        for row in numbers.to_dict("records")
    ]
    numbers = numbers.join(pd.DataFrame(additivity, columns=["additive_rmsd", "deviation"]))
    coarser_mesh = finest[0], min(spacing for _, spacing in errors_by_point if spacing > finest[1])
    lower_cutoff = max(cutoff for cutoff, _ in errors_by_point if cutoff < finest[0]), finest[1]
    ratio, low, high = _estimate_ratio(errors_by_point[coarser_mesh], errors_by_point[lower_cutoff])
    n_configurations = len(errors_by_point[finest])
    cause = "The k-points limit" if low > 1 else "The cutoff limits" if high < 1 else "Neither clearly limits"
    deviations = numbers["deviation"].dropna()
    text = (
        f"{cause} the accuracy of energies of {n_configurations} configurations: at {finest[0]:g} eV, a k-point "
        f"spacing of {coarser_mesh[1]:g} instead of {finest[1]:g} 1/Å changes them by "
        f"{format_number(_compute_rms(errors_by_point[coarser_mesh]))} meV/atom, and at {finest[1]:g} 1/Å, a cutoff of "
        f"{lower_cutoff[0]:g} instead of {finest[0]:g} eV by "
        f"{format_number(_compute_rms(errors_by_point[lower_cutoff]))} meV/atom (RMSD without the mean; ratio "
        f"{format_number(ratio)}, {100 * INTERVAL_COVERAGE:.0f} % interval {format_number(low)} to "
        f"{format_number(high)}, bootstrap over configurations)."
    )
    if len(deviations):
        text += " " + _describe_additivity(deviations)
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
    """Collect the energy errors (meV/atom) of the configurations with labels of all levels, by point of the grid.

    The mean over configurations is subtracted; the errors of the reference, at the point `finest`, are zero.
    """
    table = errors.configurations.pivot_table(index="config_id", columns="level", values="energy_error").dropna()
    table = table - table.mean()
    return {
        point: np.zeros(len(table)) if point == finest else table[level].to_numpy()
        for point, level in level_by_point.items()
    }


def _measure_additivity(errors_by_point: Mapping[_Point, Array], point: _Point, finest: _Point) -> tuple[float, float]:
    """Compute the RMSD of the sum of the errors of the cutoff alone and of the mesh alone, and its deviation.

    The deviation is the root mean square difference between the errors at the point and this sum, divided by the RMSD
    of the errors. Both numbers are NaN for a point that differs from the reference in one direction only.
    """
    cutoff, spacing = point
    if cutoff == finest[0] or spacing == finest[1]:
        return float("nan"), float("nan")
    additive_errors = errors_by_point[cutoff, finest[1]] + errors_by_point[finest[0], spacing]
    errors = errors_by_point[point]
    return _compute_rms(additive_errors), _compute_rms(errors - additive_errors) / _compute_rms(errors)


def _compute_rms(errors: Array) -> float:
    """Compute the root mean square of errors."""
    return float(np.sqrt(np.mean(errors**2)))


def _estimate_ratio(first_errors: Array, second_errors: Array) -> tuple[float, float, float]:
    """Estimate the ratio of the RMSDs of the errors of two levels, with the ends of its 90 % interval.

    The errors have the shape ``(n_configurations,)``; the interval is from a bootstrap over configurations.
    """
    n_configurations = len(first_errors)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    samples = rng.integers(n_configurations, size=(N_BOOTSTRAP, n_configurations))
    with np.errstate(divide="ignore", invalid="ignore"):  # all errors of a level or a sample may be zero
        ratios = np.sqrt((first_errors[samples] ** 2).mean(axis=1) / (second_errors[samples] ** 2).mean(axis=1))
        ratio = _compute_rms(first_errors) / _compute_rms(second_errors)
    return (ratio, *compute_central_interval(ratios))
