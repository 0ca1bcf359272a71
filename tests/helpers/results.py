"""Synthetic results tables with known truths."""

import numpy as np
import pandas as pd

from paretofit.pareto import pareto_front
from paretofit.report.tables import OBJECTIVES

LEVELS = ["1", "2", "3", "4", "5"]


ENERGY_NOISE = {"1": 4000.0, "2": 120.0, "3": 37.0, "4": 22.0, "5": 0.0}  # meV/atom


FORCE_NOISE = {"1": 900.0, "2": 170.0, "3": 95.0, "4": 41.0, "5": 0.0}  # meV/Å


SECONDS = {"1": 0.74, "2": 1.07, "3": 1.93, "4": 4.32, "5": 32.6}


FEATURES = {2: 21, 4: 120, 6: 496, 8: 1596, 10: 4278}


POOL = 140  # configurations in the whole training set


def synthetic(
    *,
    levels=LEVELS,
    twojmax=(4, 8),
    ratios=(1.0, 5.0, 12.25, 50.0, 150.0),
    sizes=(20, 40, 80, POOL),
    samplings=("random", "leverage", "block-leverage"),
    repeats=6,
    gain=0.7,
    force_weight_helps=True,
    seconds=SECONDS,
    noise=True,
    seed=0,
):
    """A results table with known truths.

    `gain` multiplies the excess error of a subset under leverage sampling: below 1, leverage wins.
    With `assess_force_weight` the DFT error of the energies grows with the energy weight, else it falls;
    without `noise` all levels have the same small DFT error.
    """
    rng = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product(
        [twojmax, levels, samplings, sizes, range(repeats), ratios],
        names=["twojmax", "level", "sampling", "n_train", "repeat", "w_energy"],
    )
    frame = grid.to_frame(index=False).assign(w_force=1.0)
    n, ratio = frame["n_train"].to_numpy(float), frame["w_energy"].to_numpy()
    p = frame["twojmax"].map(FEATURES).to_numpy(float)
    capacity = (p / 120) ** -0.4
    whole = n == POOL
    excess = (p / (16 * n)) ** 1.5 + 15.0 / n
    excess *= np.where(frame["sampling"] == "random", 1.0, gain)
    excess *= np.where(whole, 1.0, np.exp(0.25 * rng.standard_normal(len(frame))))
    excess[whole] = ((p / (16 * n)) ** 1.5 + 15.0 / n)[whole]
    share = (ratio / 150) ** 0.3
    share = share if force_weight_helps else 1.1 - share
    dft_energy, dft_force = (
        frame["level"].map(errors if noise else dict.fromkeys(levels, 5.0)).to_numpy(float)
        for errors in (ENERGY_NOISE, FORCE_NOISE)
    )
    noise_energy, noise_force = dft_energy * (0.2 + 0.5 * share), dft_force * 0.6
    energy = 12 * capacity * (12.25 / ratio) ** 0.25 * (1 + excess)
    force = 90 * capacity * (ratio / 12.25) ** 0.08 * (1 + excess)
    own_energy, own_force = 0.9 * dft_energy, 0.9 * dft_force
    return frame.assign(
        n_features=p.astype(int),
        rank=np.minimum(p, 16 * n).astype(int),
        condition=1e6,
        solver="factor",
        train_energy=0.8 * np.hypot(energy, own_energy),
        train_force=0.8 * np.hypot(force, own_force),
        test_energy=np.hypot(energy, own_energy),
        test_force=np.hypot(force, own_force),
        ref_energy=np.hypot(energy, noise_energy),
        ref_force=np.hypot(force, noise_force),
        ref_energy_shifted=0.95 * np.hypot(energy, noise_energy),
        label_seconds=n * frame["level"].map(seconds).to_numpy(float),
        md_us_per_atom_step=np.nan,
    )


def front_of(results):
    finite = results[np.isfinite(results[OBJECTIVES]).all(axis=1)]
    settings = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
    if finite.empty:
        return pd.DataFrame(columns=[*settings, *OBJECTIVES, "n_repeats"])
    return pareto_front(finite, OBJECTIVES, settings)
