"""Fits of mixtures of levels from the factors of the fast engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import Array
from paretofit.linear import get_row_weights
from paretofit.linear.reduction import LevelRows, MixedFactors, ModelFit, RowFactors
from paretofit.sweep.cells import PendingModel
from paretofit.sweep.fast_engine import FastEngine
from paretofit.sweep.fit_errors import compute_fit_errors
from paretofit.sweep.mixtures import MixtureDraw, PendingMixture
from paretofit.sweep.plain_engine import build_level_rows
from paretofit.sweep.results import PartialResults, Row


def run_mixtures(engine: FastEngine, task: list[PendingMixture], partial_results: PartialResults) -> list[Row]:
    """Fit the training sets of one mixture and repetition in a worker; return the rows of the results table."""
    with threadpool_limits(1):
        lower_factors = grow_lower_levels(engine, task[0].draw)
        fit = partial(_fit_mixture, engine, lower_factors)
        return [row for pending in task for row in partial_results.load_or_fit(pending, fit)]


def grow_lower_levels(engine: FastEngine, draw: MixtureDraw) -> list[RowFactors]:
    """Return the factors of each level below the top level, which all draws of a mixture and repetition share."""
    return [_grow_rows(engine, configurations) for configurations in draw.configurations[:-1]]


def fit_draw(
    engine: FastEngine, lower_factors: Sequence[RowFactors], draw: MixtureDraw, models: Sequence[PendingModel]
) -> Iterator[tuple[RowFactors, list[PendingModel], list[ModelFit]]]:
    """Fit some models to the training set of a mixture.

    Parameters
    ----------
    engine : FastEngine
    lower_factors : sequence of RowFactors
        From `grow_lower_levels`.
    draw : MixtureDraw
    models : sequence of PendingModel
        Those of equal weights are adjacent.

    Yields
    ------
    For each pair of weights: the factors of the rows of the top level, the models, and their fits.
    """
    mixture, top = draw.mixture, _grow_rows(engine, draw.configurations[-1])
    positions = [engine.source.levels.index(level) for level in mixture.levels]
    energy_weights = [mixture.energy_weight] * len(lower_factors) + [1.0]
    level_rows = [LevelRows(*fields) for fields in zip([*lower_factors, top], positions, energy_weights, strict=True)]
    mixed = MixedFactors.from_levels(level_rows, engine.source.design.n_constant)
    for (w_energy, w_force), group in groupby(models, key=lambda model: model.weights):
        members = list(group)
        weights = get_row_weights(np.arange(3), w_energy, w_force, w_force)
        yield top, members, mixed.fit(weights, [engine.get_size_index(model.twojmax) for model in members])


def _grow_rows(engine: FastEngine, configurations: Array) -> RowFactors:
    """Return the factors of the rows of some configurations; those of the whole training set are known."""
    if np.array_equal(configurations, engine.train):
        return engine.reduction.train
    return engine.grow(engine.reduction.create_factors(engine.device), configurations)


def _fit_mixture(engine: FastEngine, lower_factors: Sequence[RowFactors], pending: PendingMixture) -> Iterator[Row]:
    """Fit the pending models to one training set; yield rows of the results table."""
    mixture = pending.draw.mixture
    level = engine.source.levels.index(mixture.levels[-1])
    for top, models, fits in fit_draw(engine, lower_factors, pending.draw, pending.models):
        delta = np.hstack([fit.delta for fit in fits])
        errors = compute_fit_errors(engine.reduction, top, delta, level, engine.properties)
        for k, (model, fit) in enumerate(zip(models, fits, strict=True)):
            cell = {
                "twojmax": model.twojmax, "w_energy": model.weights[0], "w_force": model.weights[1],
                "n_features": int(engine.reduction.sizes[engine.get_size_index(model.twojmax)]), "ridge": model.ridge,
                "rank": fit.rank, "condition": fit.condition, "solver": fit.solver,
            }  # fmt: skip
            fit_errors = {name: column[k : k + 1] for name, column in errors.items()}
            yield from build_level_rows([mixture.name], cell, fit_errors, np.zeros(1))
