"""Mixtures of levels in a sweep: training sets with a few labels of an accurate level, and many of cheaper ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from paretofit.core import FIT_COPIES, Array, InputError, RowKind, hash_json
from paretofit.descriptors import DesignMatrix
from paretofit.linear import Fit, LeverageScores, compute_rms_by_kind, fit_wls
from paretofit.sweep.cells import PendingModel
from paretofit.sweep.grid import Mixture, SweepGrid
from paretofit.sweep.sweep_input import SweepInput


class MixtureDraw(NamedTuple):
    """Training set of a mixture: for each of its levels, the positions of the configurations in the design.

    `n_train` counts the configurations at the top level; `subset_key` identifies levels, weight and configurations.
    """

    mixture: Mixture
    repeat: int
    n_train: int
    subset_key: str
    configurations: tuple[Array, ...]

    def sum_seconds(self, data: SweepInput) -> float:
        """Sum the cost of the labels of all levels, in seconds; NaN if a cost is not known."""
        seconds = data.stack_label_seconds(list(self.mixture.levels)).T
        return sum(float(column[rows].sum()) for column, rows in zip(seconds, self.configurations, strict=True))


@dataclass(frozen=True)
class PendingMixture:
    """Pending fits to the training set of a mixture; as `PendingFits`, but for labels of several levels."""

    draw: MixtureDraw
    models: list[PendingModel]

    @property
    def subset_key(self) -> str:
        """Key of the training set."""
        return self.draw.subset_key


def check_mixtures(grid: SweepGrid, n_train: int, data: SweepInput | None = None) -> None:
    """Raise InputError if a mixture is invalid, or needs more configurations than the training set has.

    Without `data`, it is not checked whether leverage sampling is possible.
    """
    names = [mixture.name for mixture in grid.mixtures]
    if repeated := [name for k, name in enumerate(names) if name in names[:k]]:
        raise InputError(f"'mixtures' must not have the same entry twice; got {repeated[0]}")
    if taken := [name for name in names if name in grid.levels]:
        raise InputError(f"a mixture would be called '{taken[0]}', like a level of the study; rename this level")
    if grid.mixtures and (grid.leave_one_out or list(grid.ridge) != [0.0]):
        raise InputError("'mixtures' cannot be combined with 'ridge' or 'leave_one_out'; remove one of them")
    for mixture in grid.mixtures:
        _check_levels(mixture, grid)
        if max(mixture.top_sizes) >= n_train or max(mixture.lower_sizes) > n_train:
            raise InputError(
                f"'mixtures' needs sizes of at most {n_train} configurations, and fewer at the top level; got "
                f"{max(*mixture.top_sizes, *mixture.lower_sizes)}"
            )
        if mixture.sampling.endswith("leverage") and data is not None and not data.has_leverage_scores():
            raise InputError("leverage sampling requires an energy row for every training configuration; use "
                             "'top_sampling: random'")  # fmt: skip


def _check_levels(mixture: Mixture, grid: SweepGrid) -> None:
    """Raise InputError unless the levels of a mixture are different levels of the grid, in order of cost."""
    for position, level in enumerate(mixture.levels):
        if level not in grid.levels:
            raise InputError(f"'mixtures' has level '{level}'; available: {', '.join(grid.levels)}")
        if level in mixture.levels[:position]:
            raise InputError(f"a mixture must have different levels; got '{level}' twice")
    if list(mixture.levels) != [level for level in grid.levels if level in mixture.levels]:
        raise InputError(f"a mixture must have its levels in order of cost, {', '.join(grid.levels)}; got "
                         f"{', '.join(mixture.levels)}")  # fmt: skip


def list_mixture_draws(data: SweepInput, grid: SweepGrid, scores: LeverageScores | None) -> list[MixtureDraw]:
    """List the training sets of all mixtures; those of a mixture and repetition are nested.

    The configurations of the base, the lowest level, are those of random sampling, as in the fits of single levels.
    Those of the levels above are drawn from the whole training set by the mixture's sampling method. They are nested:
    each level above the second is a subset of the level below it.
    """
    draws, n = [], len(data.train)
    for mixture in grid.mixtures:
        for repeat in range(grid.count_repetitions(mixture.sampling)):
            base_order = grid.draw_order("random", repeat, scores, n, mixture.lower_sizes[0])
            n_upper = max(*mixture.lower_sizes[1:], *mixture.top_sizes, 0)
            upper_order = grid.draw_order(mixture.sampling, repeat, scores, n, n_upper)
            for size in mixture.top_sizes:
                orders = [base_order, *(upper_order[:count] for count in (*mixture.lower_sizes[1:], size))]
                configurations = tuple(data.train[sorted(order.tolist())] for order in orders)
                keys = [data.hash_subset(subset) for subset in configurations]
                key = hash_json(["mixture", mixture.levels, mixture.energy_weight, keys])[:16]
                draws.append(MixtureDraw(mixture, repeat, size, key, configurations))
    return draws


def list_pending_mixtures(
    grid: SweepGrid, draws: list[MixtureDraw], finished_fits: Mapping[Any, Any]
) -> list[list[PendingMixture]]:
    """List the tasks, each with the pending fits to the training sets of one mixture and repetition."""
    all_models = [PendingModel(weights, twojmax, 0.0) for weights, twojmax in product(grid.weights, grid.twojmax)]
    tasks: dict[tuple[str, int], dict[str, PendingMixture]] = {}
    for draw in draws:
        name = draw.mixture.name
        models = [
            model for model in all_models
            if (draw.subset_key, model.twojmax, name, *model.weights, model.ridge) not in finished_fits
        ]  # fmt: skip
        if models:
            tasks.setdefault((name, draw.repeat), {})[draw.subset_key] = PendingMixture(draw, models)
    return [list(task.values()) for task in tasks.values()]


def iterate_mixture_cells(
    grid: SweepGrid, data: SweepInput, draws: list[MixtureDraw]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the key of each fit of a mixture, and the cells of its row that are not results of the fit."""
    for twojmax, draw in product(grid.twojmax, draws):
        seconds, mixture = draw.sum_seconds(data), draw.mixture
        for weights in grid.weights:
            yield (draw.subset_key, twojmax, mixture.name, *weights, 0.0), {
                "sampling": mixture.sampling, "repeat": draw.repeat, "n_train": draw.n_train, "label_seconds": seconds,
                **_describe_levels(mixture), "base_energy_weight": mixture.energy_weight,
                "md_us_per_atom_step": grid.md_cost.get(twojmax, float("nan")),
            }  # fmt: skip


def _describe_levels(mixture: Mixture) -> dict[str, Any]:
    """Return the levels of a mixture and the numbers of configurations below its top level, by the columns' names."""
    has_middle = len(mixture.levels) == 3
    return {
        "base_level": mixture.levels[0], "n_base": mixture.lower_sizes[0], "top_level": mixture.levels[-1],
        "middle_level": mixture.levels[1] if has_middle else None,
        "n_middle": mixture.lower_sizes[1] if has_middle else None,
    }  # fmt: skip


def fit_mixture_rows(design: DesignMatrix, draw: MixtureDraw, n_columns: int, weights: tuple[float, float]) -> Fit:
    """Fit a mixture from its stacked rows, with additional columns for the offsets of the reference energies.

    The sweep computes the same fit from factors (`paretofit.linear.reduction`).

    Parameters
    ----------
    design : DesignMatrix
        Design matrix with labels of all levels of the mixture.
    draw : MixtureDraw
    n_columns : int
        Number of leading columns of the model.
    weights : (float, float)
        w_E and w_F.

    Returns
    -------
    Fit
        `coefficients` are those of the design's columns, and `rmse` is that of the rows of the top level. The other
        fields belong to the stacked rows.
    """
    constants, blocks, targets, kinds = np.arange(design.n_constant), [], [], []
    n_offsets = design.n_constant * (len(draw.configurations) - 1)
    for position, (level, configurations) in enumerate(zip(draw.mixture.levels, draw.configurations, strict=True)):
        rows = np.flatnonzero(np.isin(design.configuration, configurations))
        X, y, kind = (
            design.read_rows(rows, n_columns, memory_copies=FIT_COPIES),
            design.targets[level][rows],
            design.kind[rows],
        )
        offsets, row_factors = np.zeros((len(X), n_offsets)), np.ones(len(X))
        if position < len(draw.configurations) - 1:
            offsets[:, position * design.n_constant + constants] = X[:, constants]
            row_factors[kind == RowKind.ENERGY] = draw.mixture.energy_weight
        blocks.append((np.hstack([offsets, X]) * row_factors[:, None])[row_factors > 0])
        targets.append((y * row_factors)[row_factors > 0])
        kinds.append(kind[row_factors > 0])
    A = np.vstack(blocks)
    is_used = np.append(A[:, :n_offsets].any(axis=0), np.ones(A.shape[1] - n_offsets, dtype=bool))
    fit = fit_wls(
        A[:, is_used], np.concatenate(targets), np.concatenate(kinds), energy_weight=weights[0],
        force_weight=weights[1], stress_weight=weights[1], n_unpenalised=design.n_constant + n_offsets,
    )  # fmt: skip
    coefficients = fit.coefficients[int(is_used[:n_offsets].sum()) :]
    rmse = compute_rms_by_kind(X @ coefficients - y, kind)  # of the last rows in the loop, those of the top level
    return replace(
        fit, coefficients=coefficients, rmse={kind.name.lower(): float(value) for kind, value in rmse.items()}
    )
