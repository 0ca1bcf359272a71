"""Weight paths of a study: the energy/force front of the whole training set as a continuous curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from paretofit.linear import compute_weight_path
from paretofit.sweep.row_fits import EV_TO_MEV

if TYPE_CHECKING:
    from paretofit.linear import WeightPath
    from paretofit.sweep.fast_engine import FastEngine
    from paretofit.sweep.grid import SweepGrid

PATH_COLUMNS = [
    "twojmax",
    "level",
    "weight_ratio",
    "train_energy",
    "train_force",
    "test_energy",
    "test_force",
    "ref_energy",
    "ref_force",
]
MARGIN = 3.0  # the curve goes on this far beyond the study's smallest and largest ratio
POINTS = 81


def compute_weight_paths(engine: FastEngine, grid: SweepGrid) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors as functions of w_E/w_F on the whole training set, and where each curve is at its best.

    Parameters
    ----------
    engine : FastEngine
    grid : SweepGrid

    Returns
    -------
    paths : DataFrame
        A row for each 2Jmax, level and ratio, with the columns of `PATH_COLUMNS`; meV/atom and meV/Å. A 2Jmax
        whose moments cannot be trusted is left out.
    knees : DataFrame
        For each 2Jmax and level the ratio with the lowest energy error, with the lowest force error (both
        against the reference), and at the knee between them, with the errors there.
    """
    ratios = [w_energy / w_force for w_energy, w_force in grid.weights]
    limits = (min(ratios) / MARGIN, max(ratios) * MARGIN)
    paths, knees = [], []
    with threadpool_limits(1):
        for twojmax in grid.twojmax:
            reduction = engine.reduction
            path = compute_weight_path(
                reduction, reduction.train_moments, engine.get_size_index(twojmax), ratio_limits=limits, n_points=POINTS
            )
            if path is None:
                continue
            for k, level in enumerate(grid.levels):
                paths.append(_curve(path, k).assign(twojmax=twojmax, level=level))
                knees.append({"twojmax": twojmax, "level": level, **_best(path, k)})
    empty = pd.DataFrame(columns=PATH_COLUMNS)
    return (pd.concat(paths, ignore_index=True)[PATH_COLUMNS] if paths else empty), pd.DataFrame(knees)


def _curve(path: WeightPath, k: int) -> pd.DataFrame:
    names = {"train": "train", "test": "test", "ref": "reference"}
    columns = {"weight_ratio": path.ratio}
    for short, name in names.items():
        columns[f"{short}_energy"] = EV_TO_MEV * path.energy[name][:, k]
        columns[f"{short}_force"] = EV_TO_MEV * path.force[name][:, k]
    return pd.DataFrame(columns)


def _best(path: WeightPath, k: int) -> dict[str, float]:
    energy, force = path.energy["reference"][:, k], path.force["reference"][:, k]
    knee = path.knee_ratio(k)
    at = int(np.argmin(np.abs(path.ratio - knee)))
    return {
        "ratio_of_lowest_energy": float(path.ratio[np.argmin(energy)]),
        "ratio_of_lowest_force": float(path.ratio[np.argmin(force)]),
        "knee_ratio": knee,
        "knee_ref_energy": EV_TO_MEV * float(energy[at]),
        "knee_ref_force": EV_TO_MEV * float(force[at]),
    }
