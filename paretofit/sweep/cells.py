"""The cells of the factorial: the subsets that are drawn, and the pending fits to each subset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from paretofit.core import Array
from paretofit.linear import LeverageScores
from paretofit.sweep.grid import Ridge, SweepGrid
from paretofit.sweep.sweep_input import SweepInput


class Draw(NamedTuple):
    """One training subset: how it was drawn, a key of its configurations, and their positions in the design."""

    sampling: str
    repeat: int
    n_train: int
    subset_key: str
    configurations: Array


class PendingModel(NamedTuple):
    """A model whose fit is pending at one level or more: its weights w_E and w_F, 2Jmax and ridge."""

    weights: tuple[float, float]
    twojmax: int
    ridge: Ridge


@dataclass(frozen=True)
class PendingFits:
    """Pending fits to one set of configurations.

    Attributes
    ----------
    subset_key : str
        Key of the set.
    configurations : (n,) int64
        Positions of the configurations in the design, ascending.
    draw : (str, int)
        Sampling method and repetition that drew the set; the sets of one draw are nested.
    models : list of PendingModel
        Models to fit; models with the same weights and ridge are adjacent.
    """

    subset_key: str
    configurations: Array
    draw: tuple[str, int]
    models: list[PendingModel]


def list_draws(data: SweepInput, grid: SweepGrid, scores: LeverageScores | None) -> list[Draw]:
    """List every subset of the factorial, in the order of the grid; only leverage sampling needs scores."""
    draws = []
    for sampling, repeat, n_train, positions in grid.draw_subsets(scores, len(data.train)):
        configurations = data.train[list(positions)]
        draws.append(Draw(sampling, repeat, n_train, data.hash_subset(configurations), configurations))
    return draws


def list_pending_fits(grid: SweepGrid, draws: Iterable[Draw], finished_fits: Mapping[Any, Any]) -> list[PendingFits]:
    """List the pending fits of each set of configurations.

    Draws of the same configurations share one entry, with the sampling method and repetition of the first. Sets without
    pending fits are included, because factors grow from set to set, and skipping one would change the rounding of the
    next.
    """
    models_of_grid = product(grid.weights, grid.ridge, grid.twojmax)
    all_models = [PendingModel(weights, twojmax, ridge) for weights, ridge, twojmax in models_of_grid]
    subsets: dict[str, PendingFits] = {}
    for draw in draws:
        if draw.subset_key not in subsets:
            models = [
                model
                for model in all_models
                if any(
                    (draw.subset_key, model.twojmax, level, *model.weights, model.ridge) not in finished_fits
                    for level in grid.levels
                )
            ]
            sampling_and_repeat = draw.sampling, draw.repeat
            subsets[draw.subset_key] = PendingFits(draw.subset_key, draw.configurations, sampling_and_repeat, models)
    return list(subsets.values())


def split_into_tasks(pending_fits: list[PendingFits]) -> list[list[PendingFits]]:
    """Create a task for each subset and 2Jmax, the largest subsets first, so that no long task is started last."""
    tasks = [
        replace(pending, models=[model for model in pending.models if model.twojmax == twojmax])
        for pending in pending_fits
        for twojmax in sorted({model.twojmax for model in pending.models}, reverse=True)
    ]
    return [[task] for task in sorted(tasks, key=lambda task: -len(task.configurations))]
