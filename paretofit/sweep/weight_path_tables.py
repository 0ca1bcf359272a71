"""Weight paths of a study: the energy/force front of the whole training set as a continuous curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from paretofit.linear import WeightPath, compute_weight_path
from paretofit.sweep.fast_engine import FastEngine
from paretofit.sweep.grid import SweepGrid
from paretofit.sweep.plain_engine import EV_TO_MEV
from paretofit.sweep.results import ERROR_COLUMNS

PATH_COLUMNS = ["twojmax", "level", "weight_ratio", *ERROR_COLUMNS]
# types of error by the prefix of their columns
ERROR_TYPE_BY_PREFIX = {"train": "train", "test": "test", "ref": "reference"}
RATIO_MARGIN = 3.0  # factor by which the curve extends beyond the study's smallest and largest ratio
N_CURVE_POINTS = 81  # number of ratios on each curve


def compute_weight_paths(engine: FastEngine, grid: SweepGrid) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute errors as functions of w_E/w_F on the whole training set, and the best ratios of each curve.

    Parameters
    ----------
    engine : FastEngine
    grid : SweepGrid

    Returns
    -------
    paths : DataFrame
        A row for each 2Jmax, level and ratio, with the columns of `PATH_COLUMNS`, in meV/atom and meV/Å. A 2Jmax
        whose Gram matrix is ill-conditioned has no rows.
    knees : DataFrame
        A row for each ``twojmax`` and ``level`` of `paths`, with errors against the reference: the ratios with the
        lowest energy error and force error (``ratio_of_lowest_energy``, ``ratio_of_lowest_force``), and the ratio of
        the knee between them (``knee_ratio``) with its errors (``knee_ref_energy``, ``knee_ref_force``; meV/atom,
        meV/Å).
    """
    ratios = [w_energy / w_force for w_energy, w_force in grid.weights]
    limits = (min(ratios) / RATIO_MARGIN, max(ratios) * RATIO_MARGIN)
    paths, knees, reduction = [pd.DataFrame(columns=PATH_COLUMNS)], [], engine.reduction
    with threadpool_limits(1):
        for twojmax in grid.twojmax:
            size_index = engine.get_size_index(twojmax)
            path = compute_weight_path(
                reduction, reduction.train, size_index, ratio_limits=limits, n_points=N_CURVE_POINTS
            )
            if path is not None:
                for k, level in enumerate(grid.levels):
                    paths.append(_build_curve(path, k).assign(twojmax=twojmax, level=level))
                    knees.append({"twojmax": twojmax, "level": level, **_find_best_ratios(path, k)})
    return pd.concat(paths[1:] or paths, ignore_index=True)[PATH_COLUMNS], pd.DataFrame(knees)


def _build_curve(path: WeightPath, k: int) -> pd.DataFrame:
    """Build a table of the ratios and errors of the k-th level."""
    columns = {"weight_ratio": path.ratio}
    for prefix, error_type in ERROR_TYPE_BY_PREFIX.items():
        columns[f"{prefix}_energy"] = EV_TO_MEV * path.energy[error_type][:, k]
        columns[f"{prefix}_force"] = EV_TO_MEV * path.force[error_type][:, k]
    return pd.DataFrame(columns)


def _find_best_ratios(path: WeightPath, k: int) -> dict[str, float]:
    """Find the ratios with the lowest errors of the k-th level against the reference, and the ratio of the knee.

    The errors at the knee (meV/atom, meV/Å) are those of the ratio of the path that is nearest to the knee. The keys
    are the columns of the knees in `compute_weight_paths`.
    """
    energy_errors, force_errors = path.energy["reference"][:, k], path.force["reference"][:, k]
    knee = path.find_knee_ratio(k)
    nearest_index = int(np.argmin(np.abs(path.ratio - knee)))
    return {
        "ratio_of_lowest_energy": float(path.ratio[np.argmin(energy_errors)]),
        "ratio_of_lowest_force": float(path.ratio[np.argmin(force_errors)]),
        "knee_ratio": knee,
        "knee_ref_energy": EV_TO_MEV * float(energy_errors[nearest_index]),
        "knee_ref_force": EV_TO_MEV * float(force_errors[nearest_index]),
    }
