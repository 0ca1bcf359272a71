"""The cells of the factorial: which sets of configurations are drawn, and what is still to be fitted on each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paretofit.core import Array
    from paretofit.linear import LeverageScores
    from paretofit.sweep.grid import Ridge, SweepGrid
    from paretofit.sweep.sweep_input import SweepInput


@dataclass(frozen=True)
class Draw:
    """One subset of the factorial: who drew it, and which configurations of the design are in it."""

    sampling: str
    repeat: int
    n_train: int
    subset_key: str
    configurations: Array


@dataclass(frozen=True)
class PendingFits:
    """What is to be fitted on one set of configurations.

    Attributes
    ----------
    subset_key : str
        Names the set.
    configurations : (n,) int64
        Positions of the configurations in the design, ascending.
    draw : (str, int)
        A sampling and repetition that drew it; the sets of one draw are nested.
    models_by_weights : mapping of (w_E, w_F) to list of (2Jmax, ridge)
    """

    subset_key: str
    configurations: Array
    draw: tuple[str, int]
    models_by_weights: dict[tuple[float, float], list[tuple[int, Ridge]]]


def list_draws(data: SweepInput, grid: SweepGrid, scores: LeverageScores | None) -> list[Draw]:
    """Every subset of the factorial, in the order of the grid."""
    draws = []
    for subset in grid.draw_subsets(scores, len(data.train)):
        members = data.train[list(subset.positions)]
        draws.append(Draw(subset.sampling, subset.repeat, subset.n_train, data.subset_key(members), members))
    return draws


def list_pending_fits(grid: SweepGrid, draws: list[Draw], finished_fits: Mapping[Any, Any]) -> list[PendingFits]:
    """What is still to be fitted, one entry for each set of configurations; also where that is nothing any more.

    Those are steps of a walk all the same: moments that grow in other steps are rounded in another way.
    """
    cells: dict[str, PendingFits] = {}
    for draw in draws:
        if draw.subset_key in cells:
            continue
        pending = {
            weights: [
                (twojmax, ridge)
                for twojmax in grid.twojmax
                for ridge in grid.ridge
                if any((draw.subset_key, twojmax, level, *weights, ridge) not in finished_fits for level in grid.levels)
            ]
            for weights in grid.weights
        }
        pending = {weights: models for weights, models in pending.items() if models}
        cells[draw.subset_key] = PendingFits(
            draw.subset_key, draw.configurations, (draw.sampling, draw.repeat), pending
        )
    return list(cells.values())


def split_into_tasks(pending_fits: list[PendingFits]) -> list[list[PendingFits]]:
    """One task for each subset and 2Jmax, the largest first, so that none is left to the end."""
    single = [
        replace(
            one,
            models_by_weights={
                weights: kept for weights, own in one.models_by_weights.items() if (kept := _of_size(own, twojmax))
            },
        )
        for one in pending_fits
        for twojmax in sorted({twojmax for own in one.models_by_weights.values() for twojmax, _ in own}, reverse=True)
    ]
    return [[one] for one in sorted(single, key=lambda one: -len(one.configurations))]


def _of_size(models: list[tuple[int, Ridge]], twojmax: int) -> list[tuple[int, Ridge]]:
    return [model for model in models if model[0] == twojmax]
