"""The cells of the factorial: the subsets that are drawn, and the fits that are pending on each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from paretofit.core import Array
    from paretofit.linear import LeverageScores
    from paretofit.sweep.grid import Ridge, SweepGrid
    from paretofit.sweep.sweep_input import SweepInput

Weights = tuple[float, float]  # w_E, w_F


class Draw(NamedTuple):
    """One subset of the factorial: its factors, a key of its configurations, and their positions in the design."""

    sampling: str
    repeat: int
    n_train: int
    subset_key: str
    configurations: Array


@dataclass(frozen=True)
class PendingFits:
    """The fits that are pending on one set of configurations.

    Attributes
    ----------
    subset_key : str
        Key of the set.
    configurations : (n,) int64
        Positions of the configurations in the design, ascending.
    draw : (str, int)
        A sampling and repetition that drew it; the sets of one draw are nested.
    models_by_weights : mapping of (w_E, w_F) to list of (2Jmax, ridge)
    """

    subset_key: str
    configurations: Array
    draw: tuple[str, int]
    models_by_weights: dict[Weights, list[tuple[int, Ridge]]]

    @property
    def twojmax_values(self) -> set[int]:
        """Every 2Jmax of the models."""
        return {twojmax for models in self.models_by_weights.values() for twojmax, _ in models}

    def restrict(self, twojmax: int) -> PendingFits:
        """The fits of one 2Jmax."""
        selected = {
            weights: [model for model in models if model[0] == twojmax]
            for weights, models in self.models_by_weights.items()
        }
        return replace(self, models_by_weights=_drop_empty(selected))


def list_draws(data: SweepInput, grid: SweepGrid, scores: LeverageScores | None) -> list[Draw]:
    """List every subset of the factorial, in the order of the grid."""
    draws = []
    for sampling, repeat, n_train, positions in grid.draw_subsets(scores, len(data.train)):
        configurations = data.train[list(positions)]
        draws.append(Draw(sampling, repeat, n_train, data.subset_key(configurations), configurations))
    return draws


def list_pending_fits(grid: SweepGrid, draws: Iterable[Draw], finished_fits: Mapping[Any, Any]) -> list[PendingFits]:
    """List the pending fits of each set of configurations.

    Subsets without pending fits are included: moments are accumulated subset by subset, and skipping one would change
    the rounding of the next.
    """
    subsets: dict[str, PendingFits] = {}
    for draw in draws:
        if draw.subset_key in subsets:
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
        subsets[draw.subset_key] = PendingFits(
            draw.subset_key, draw.configurations, (draw.sampling, draw.repeat), _drop_empty(pending)
        )
    return list(subsets.values())


def split_into_tasks(pending_fits: list[PendingFits]) -> list[list[PendingFits]]:
    """One task for each subset and 2Jmax, the largest first, so that no long task is left to the end."""
    single = [
        pending.restrict(twojmax)
        for pending in pending_fits
        for twojmax in sorted(pending.twojmax_values, reverse=True)
    ]
    return [[task] for task in sorted(single, key=lambda task: -len(task.configurations))]


def _drop_empty(models_by_weights: dict[Weights, list[tuple[int, Ridge]]]) -> dict[Weights, list[tuple[int, Ridge]]]:
    return {weights: models for weights, models in models_by_weights.items() if models}
