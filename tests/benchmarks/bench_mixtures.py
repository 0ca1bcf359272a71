"""Mixtures of levels against delta learning and single levels, on the shipped beryllium data.

Delta learning fits the base alone, then the difference of the labels of the top level to this model, on the few
configurations that have them. All three choose their weights (and the size of the second model) by the lowest geometric
mean of both errors on the test set.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Options, Table

from paretofit import Dataset, SnapBasis, compute_design, fit_wls
from paretofit.dataset import split_configurations
from paretofit.sweep import Mixture, SweepGrid, SweepInput, fit_mixture_rows, list_mixture_draws

TWOJMAX, TOP_SIZES, RATIOS, ENERGY_WEIGHTS, DELTA_TWOJMAX = (
    6,
    (10, 25, 40, 65, 100),
    (5.0, 12.25, 50.0),
    (0.0, 0.25, 1.0),
    (0, 2, 4),
)


def run(options: Options) -> list[Table]:
    """Compare at each number of labels of the top level, for two bases."""
    draws = 2 if options.quick else 10
    with tempfile.TemporaryDirectory() as folder, Dataset(ROOT / "data" / "beryllium.h5") as dataset:
        design = compute_design(dataset, SnapBasis(elements=["Be"], twojmax=TWOJMAX), Path(folder) / "design.h5")
        design = design.with_labels(dataset, ["3", "4", "5"]).load_into_memory()
        split = split_configurations(np.arange(len(dataset)), 0.7, 1)
        data = SweepInput(design, split.train, split.test, (150.0, 1.0))
        scores = data.compute_leverage_scores()
        table = Table(
            "Mixtures against delta learning, level 5 as reference: energies (meV/atom) and forces (meV/Å)",
            ["base", "top labels", "mixture", "delta learning", "base alone", "mixture / delta", "mixture lower"],
            notes=[
                f"Medians of {draws} block-leverage draws, 2Jmax {TWOJMAX}; ratio of geometric means of both errors.",
                f"w_E/w_F {RATIOS}, energy weights of the base {ENERGY_WEIGHTS}, second model: 2Jmax {DELTA_TWOJMAX}.",
            ],
        )  # fmt: skip
        for base, n in product(("4", "3"), TOP_SIZES if not options.quick else (40,)):
            add_row(table, data, scores, base, n, draws)
    return [table]


def add_row(table: Table, data: SweepInput, scores: Any, base: str, n: int, draws: int) -> None:
    """Measure one base and number of labels of the top level."""
    mixtures = [
        Mixture(f"{base}{weight}", (base, "5"), (len(data.train),), (n,), "block-leverage", weight)
        for weight in ENERGY_WEIGHTS
    ]
    grid = SweepGrid(["3", "4", "5"], [TWOJMAX], [(r, 1.0) for r in RATIOS], [n], repetitions=draws, mixtures=mixtures)
    errors: dict[str, list[np.ndarray]] = {"mixture": [], "delta": [], "base": []}
    design, p = data.design, data.design.count_columns_up_to(TWOJMAX)
    all_draws = list_mixture_draws(data, grid, scores)
    base_fits = {ratio: fit_rows(data, data.train, design.targets[base], p, ratio) for ratio in RATIOS}
    for repeat in range(draws):
        members = [draw for draw in all_draws if draw.repeat == repeat]
        mixed = [fit_mixture_rows(design, d, p, (r, 1.0)).coefficients for d in members for r in RATIOS]
        delta = []
        for first, twojmax, ratio in product(base_fits.values(), DELTA_TWOJMAX, RATIOS):
            q = design.count_columns_up_to(twojmax)
            residuals = design.targets["5"] - design.read_all_rows()[:, :p] @ first
            second = fit_rows(data, members[0].configurations[-1], residuals, q, ratio)
            delta.append(first + np.pad(second, (0, p - q)))
        errors["mixture"].append(measure_best(data, mixed))
        errors["delta"].append(measure_best(data, delta))
        errors["base"].append(measure_best(data, list(base_fits.values())))
    ratio = np.sqrt(np.prod(errors["mixture"], axis=1) / np.prod(errors["delta"], axis=1))
    texts = [" and ".join(f"{value:.1f}" for value in np.median(values, axis=0)) for values in errors.values()]
    table.add(base, n, *texts, f"{np.median(ratio):.3f}", f"{(ratio < 1).sum()} of {draws}")


def fit_rows(data: SweepInput, configurations: np.ndarray, targets: np.ndarray, p: int, ratio: float) -> np.ndarray:
    """Fit the first p columns to the rows of some configurations."""
    rows = data.find_row_indices(configurations)
    X = data.design.read_rows(rows, p)
    return np.asarray(fit_wls(X, targets[rows], data.design.kind[rows], energy_weight=ratio).coefficients)


def measure_best(data: SweepInput, coefficients: list[np.ndarray]) -> np.ndarray:
    """Return the energy and force error of the best coefficients: those of the lowest product."""
    rows = data.find_row_indices(data.test)
    X, y, kind = (
        data.design.read_rows(rows, len(coefficients[0])),
        data.design.targets["5"][rows],
        data.design.kind[rows],
    )
    residuals = X @ np.column_stack(coefficients) - y[:, None]
    errors = 1000 * np.array([np.sqrt((residuals[kind == k] ** 2).mean(axis=0)) for k in (0, 1)])
    return np.asarray(errors[:, errors.prod(axis=0).argmin()])
