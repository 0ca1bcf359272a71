"""What labels will cost: a model with a handful of terms, fitted to labels that are finished.

A plane-wave calculation spends time on start-up, on each k-point, on the density's grid and on the bands at each
k-point. With Nₖ the k-points (half of the mesh: k and −k are one), P = V·E_cut^{3/2} the size of a basis, and Nₑ
the electrons:

    seconds = c₀ + c₁ Nₖ + c₂ P + c₃ Nₖ P Nₑ + c₄ Nₖ P Nₑ²

Fitted to 591 beryllium labels of three cheap levels, it foretold the mean cost of 700 eV and 0.25 1/Å within 6 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from scipy.optimize import nnls

from paretofit.core import Array
from paretofit.labelling.engines.base import Engine
from paretofit.labelling.ladder import Level

# Seconds on one core, GPAW on beryllium; only their proportions matter once a label is finished.
PRIOR_COEFFICIENTS = np.array([0.1, 0.015, 2.7e-6, 1.0e-8, 1.0e-10])
ANCHOR = 10.0  # seconds of finished work before their pace counts more than the estimate
STIFFNESS = 0.1  # how strongly few labels are held to the prior's proportions


@dataclass(frozen=True)
class CostModel:
    """Coefficients of the terms, and the spread of the labels around them (rms of log(seconds))."""

    coefficients: Array
    rms_log_residual: float
    n_labels: int

    def predict_seconds(self, terms: Array) -> Array:
        """CPU seconds of labels whose `cost_terms` are the rows of ``(n, 5)``."""
        return np.asarray(terms @ self.coefficients)


def cost_terms(atoms: Atoms, level: Level, engine: Engine) -> Array:
    """``(5,)``: the terms of the model for one label; without a cutoff, start-up and electrons alone."""
    electrons = engine.count_electrons(atoms)
    if level.cutoff_ev is None:
        return np.array([1.0, 0.0, 0.0, electrons, 0.0])
    points = np.ceil((np.prod(level.kpoints(atoms)) + 1) / 2)
    basis = _volume(atoms) * level.cutoff_ev**1.5
    return np.array([1.0, points, basis, points * basis * electrons, points * basis * electrons**2])


def fit_cost_model(terms: Array, seconds: Sequence[float] | Array) -> CostModel:
    """Fit the model to finished labels.

    Parameters
    ----------
    terms : (n, 5) float
        A row of `cost_terms` for each.
    seconds : (n,) float
        What each took; relative errors are minimised, with non-negative coefficients, held to the proportions of
        the prior where the labels do not tell.

    Returns
    -------
    CostModel
        The prior itself, with a spread of one factor of e, if there are no labels.
    """
    spent = np.maximum(np.asarray(seconds, dtype=float), 1e-3)
    if not len(spent):
        return CostModel(PRIOR_COEFFICIENTS, 1.0, 0)
    scaled = terms * PRIOR_COEFFICIENTS * np.median(spent / (terms @ PRIOR_COEFFICIENTS))
    held = STIFFNESS * np.eye(len(PRIOR_COEFFICIENTS))
    rows, targets = np.vstack([scaled / spent[:, None], held]), np.concatenate([np.ones(len(spent)), np.diag(held)])
    factors, _ = nnls(rows, targets)
    coefficients = factors * PRIOR_COEFFICIENTS * np.median(spent / (terms @ PRIOR_COEFFICIENTS))
    residuals = np.log(np.maximum(terms @ coefficients, 1e-12) / spent)
    return CostModel(coefficients, float(np.sqrt(np.mean(residuals**2))), len(spent))


def choose_probe_labels(terms: Array, max_labels: int, budget_s: float) -> list[int]:
    """Which labels to compute for an estimate: cheap ones that differ in every term.

    Parameters
    ----------
    terms : (n, 5) float
    max_labels : int
        Labels to choose at most.
    budget_s : float
        Seconds, by the prior, for all of them together; the cheapest label is always chosen.

    Returns
    -------
    list of int
        Rows of `terms`; each next one is the farthest from those before it, in logarithms, that is affordable.
    """
    guess = terms @ PRIOR_COEFFICIENTS
    chosen = [int(np.argmin(guess))]
    position: Any = np.log(terms + 1.0)
    distance = np.full(len(terms), np.inf)
    while len(chosen) < min(max_labels, len(terms)):
        distance = np.minimum(distance, np.linalg.norm(position - position[chosen[-1]], axis=1))
        affordable = guess <= (budget_s - guess[chosen].sum()) / max(1, (max_labels - len(chosen)) / 2)
        affordable[chosen] = False
        if not affordable.any():
            break
        chosen.append(int(np.argmax(np.where(affordable, distance, -1.0))))
    return chosen


def _volume(atoms: Atoms) -> float:
    """Å³; of a molecule without a cell, the box around it with 5 Å on every side."""
    volume = float(abs(np.linalg.det(atoms.cell.complete()[:]))) if atoms.cell.any() else 0.0
    return volume if volume > 0 else float(np.prod(np.ptp(atoms.positions, axis=0) + 10.0))


class CostTracker:
    """CPU time spent and to go, in the course of a run: the model's estimates, scaled by what labels really take.

    Parameters
    ----------
    tasks : mapping of str to float
        Estimated CPU seconds of every label that is to be computed, by task key.
    jobs : int
        Processes at work.
    """

    def __init__(self, estimated_seconds: Mapping[str, float], jobs: int) -> None:
        self._left = dict(estimated_seconds)
        self._total, self._jobs = sum(estimated_seconds.values()), max(1, min(jobs, len(estimated_seconds)))
        self._foreseen = 0.0
        self.spent_seconds = 0.0

    def add(self, key: str, seconds: float) -> None:
        """A label is finished."""
        self._foreseen += self._left.pop(key, 0.0)
        self.spent_seconds += seconds

    @property
    def remaining_seconds(self) -> float:
        """CPU seconds of the labels that are left, as the finished ones suggest."""
        pace = (self.spent_seconds + ANCHOR) / (self._foreseen + ANCHOR)
        return pace * sum(self._left.values())

    def report_progress(self) -> tuple[float, str]:
        """Share of the work that is done, and what it has cost and will cost."""
        share = self._foreseen / self._total if self._total else 1.0
        spent, left = format_seconds(self.spent_seconds, "CPU "), format_seconds(self.remaining_seconds, "CPU ")
        return share, f"{spent} so far, about {left} to go ({format_wall_time(self.remaining_seconds, self._jobs)})"


def format_seconds(seconds: float, unit_prefix: str = "") -> str:
    """A time in a unit that one can read; `unit_prefix` stands before the unit, such as "CPU "."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit_prefix}{unit}"
    return f"{seconds:.2g} {unit_prefix}s"


def format_wall_time(seconds: float, jobs: int) -> str:
    """The wall time of so many CPU seconds, in words."""
    return f"{format_seconds(seconds / jobs)} on {jobs} core{'s' if jobs > 1 else ''}"
