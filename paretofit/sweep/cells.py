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
    key: str
    members: Array


@dataclass(frozen=True)
class Cells:
    """What is to be fitted on one set of configurations.

    Attributes
    ----------
    key : str
        Names the set.
    members : (n,) int64
        Positions of the configurations in the design, ascending.
    draw : (str, int)
        A sampling and repetition that drew it; the sets of one draw are nested.
    pending : mapping of (w_E, w_F) to list of (2Jmax, ridge)
    """

    key: str
    members: Array
    draw: tuple[str, int]
    pending: dict[tuple[float, float], list[tuple[int, Ridge]]]


def draws_of(data: SweepInput, grid: SweepGrid, scores: LeverageScores | None) -> list[Draw]:
    """Every subset of the factorial, in the order of the grid."""
    draws = []
    for subset in grid.subsets(scores, len(data.train)):
        members = data.train[list(subset.members)]
        draws.append(Draw(subset.sampling, subset.repeat, subset.n_train, data.subset_key(members), members))
    return draws


def pending_cells(grid: SweepGrid, draws: list[Draw], done: Mapping[Any, Any]) -> list[Cells]:
    """What is still to be fitted, one entry for each set of configurations; also where that is nothing any more.

    Those are steps of a walk all the same: moments that grow in other steps are rounded in another way.
    """
    cells: dict[str, Cells] = {}
    for draw in draws:
        if draw.key in cells:
            continue
        pending = {
            weights: [
                (twojmax, ridge)
                for twojmax in grid.twojmax
                for ridge in grid.ridge
                if any((draw.key, twojmax, level, *weights, ridge) not in done for level in grid.levels)
            ]
            for weights in grid.weights
        }
        pending = {weights: models for weights, models in pending.items() if models}
        cells[draw.key] = Cells(draw.key, draw.members, (draw.sampling, draw.repeat), pending)
    return list(cells.values())


def single_tasks(cells: list[Cells]) -> list[list[Cells]]:
    """One task for each subset and 2Jmax, the largest first, so that none is left to the end."""
    single = [
        replace(
            one, pending={weights: kept for weights, own in one.pending.items() if (kept := _of_size(own, twojmax))}
        )
        for one in cells
        for twojmax in sorted({twojmax for own in one.pending.values() for twojmax, _ in own}, reverse=True)
    ]
    return [[one] for one in sorted(single, key=lambda one: -len(one.members))]


def _of_size(models: list[tuple[int, Ridge]], twojmax: int) -> list[tuple[int, Ridge]]:
    return [model for model in models if model[0] == twojmax]
