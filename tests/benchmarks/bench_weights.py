"""Group weights by gradient on moments against a genetic algorithm on refits, for FitSNAP's tantalum groups.

Both make the same held-out errors small, from the same start. The genetic algorithm is the one of FitSNAP's example
scripts in outline: a population of logarithms of weights, tournament selection, uniform crossover, Gaussian mutation,
elites kept; each individual is one `lstsq` of the weighted rows.
"""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np
from common import SHARED, Options, Skip, Table

from paretofit.commands import fit_fitsnap
from paretofit.core import RowKind
from paretofit.fitsnap.group_weights import VALIDATION_FRACTION
from paretofit.linear import GroupMoments, optimise_weights
from paretofit.linear.group_optimisation import NEGLIGIBLE_ERRORS

if TYPE_CHECKING:
    from paretofit.fitsnap import FitRows

INPUT = SHARED / "data" / "fitsnap_ta_linear" / "Ta-example.in"
OBJECTIVE = (
    "The objective is the mean of ln √(MSE + ε²) over held-out energies and forces of all groups; the ratio is its "
    "exponential, end to start. No regulariser in either. 15,213 rows, 31 coefficients."
)
POPULATION, ELITES, MUTATION = 40, 4, 0.5
GENERATIONS = 60


def run(options: Options) -> list[Table]:
    """Both optimisations from the published weights, with three random held-out sets."""
    if not INPUT.exists():
        raise Skip(f"there is no {INPUT}")
    with tempfile.TemporaryDirectory() as folder:
        rows = fit_fitsnap(INPUT, folder, jobs=options.cores).rows
    table = Table(
        "Weights of 12 groups, three kinds of row each: 36 weights",
        ["held out", "search", "objective: start", "end", "held-out errors, mean ratio", "fits", "s"],
        notes=[
            OBJECTIVE,
            f"Genetic algorithm: {POPULATION} individuals, {GENERATIONS} generations, one numpy lstsq each.",
        ],
    )
    for seed in range(1 if options.quick else 3):
        for name, search in (("gradient on moments", by_gradient), ("genetic algorithm on refits", by_genes)):
            start = time.perf_counter()
            before, after, fits = search(rows, held_out(rows, seed), seed, 5 if options.quick else GENERATIONS)
            spent = time.perf_counter() - start
            ratio = float(np.exp(after - before))
            table.add(f"draw {seed + 1}", name, f"{before:.3f}", f"{after:.3f}", f"{ratio:.3f}", fits, f"{spent:.3g}")
    return [table]


def held_out(rows: FitRows, seed: int) -> np.ndarray:
    """Random configurations of every group."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(int(rows.configuration.max()) + 1, dtype=bool)
    for group in dict.fromkeys(rows.group.tolist()):
        members = np.unique(rows.configuration[rows.group == group])
        chosen[rng.choice(members, max(1, round(VALIDATION_FRACTION * len(members))), replace=False)] = True
    return np.asarray(chosen[rows.configuration])


def parts_of(rows: FitRows) -> dict[tuple[str, RowKind], np.ndarray]:
    """Masks of the rows of each group and kind."""
    parts = {}
    for group in dict.fromkeys(rows.group.tolist()):
        for kind in RowKind:
            mask = (rows.group == group) & (rows.kind == kind)
            if mask.any():
                parts[group, kind] = mask
    return parts


def starting(rows: FitRows) -> dict[tuple[str, RowKind], float]:
    """The published weights."""
    return {part: float(rows.weight[mask][0]) for part, mask in parts_of(rows).items()}


def by_gradient(rows: FitRows, held: np.ndarray, seed: int, generations: int) -> tuple[float, float, int]:
    """L-BFGS with exact gradients; moments included in the time."""
    del seed, generations
    weight = np.maximum(rows.weight, 1e-12 * rows.weight.max())
    moments = GroupMoments(rows.X, rows.y, rows.kind, rows.group, held, weight)
    importance = {part: 1.0 for part in moments.held_out_sums if part[1] != RowKind.STRESS}
    optimised = optimise_weights(moments, starting(rows), importance, regulariser=0.0)
    return (*optimised.objective, optimised.n_evaluations)


def by_genes(rows: FitRows, held: np.ndarray, seed: int, generations: int) -> tuple[float, float, int]:
    """A genetic algorithm, in which every individual is fitted from its rows."""
    rng = np.random.default_rng(seed)
    masks, origin = parts_of(rows), np.log(np.array(list(starting(rows).values())))
    names = list(masks)
    judged = [(mask & held, part[1]) for part, mask in masks.items() if part[1] != RowKind.STRESS]

    def cost(logs: np.ndarray) -> float:
        weight = np.zeros(len(rows.y))
        for part, value in zip(names, np.exp(logs), strict=True):
            weight[masks[part]] = value
        train = ~held
        beta = np.linalg.lstsq(rows.X[train] * weight[train, None], rows.y[train] * weight[train], rcond=1e-13)[0]
        residual = rows.y - rows.X @ beta
        return float(np.mean([0.5 * np.log(np.mean(residual[o] ** 2) + NEGLIGIBLE_ERRORS[k] ** 2) for o, k in judged]))

    population = [origin] + [origin + rng.normal(size=len(origin)) for _ in range(POPULATION - 1)]
    costs = [cost(candidate) for candidate in population]
    first, fits = costs[0], len(population)
    for _ in range(generations):
        order = np.argsort(costs)
        children = []
        for _ in range(POPULATION - ELITES):
            a, b = (min(rng.integers(POPULATION, size=3), key=lambda k: costs[k]) for _ in range(2))
            mixed = np.where(rng.random(len(origin)) < 0.5, population[a], population[b])
            children.append(mixed + MUTATION * rng.normal(size=len(origin)) * (rng.random(len(origin)) < 0.2))
        elites = [population[k] for k in order[:ELITES]]
        costs = [costs[k] for k in order[:ELITES]] + [cost(child) for child in children]
        population = elites + children
        fits += len(children)
    return first, float(min(costs)), fits
