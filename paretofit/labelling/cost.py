"""Cost of labels: a model with five terms, fitted to finished labels.

A plane-wave calculation spends time on start-up, on each k-point, on the grid of the density and on the bands at each
k-point. With the number of k-points Nₖ (half of the mesh, as k and −k are equivalent), the size of the basis
P = V·E_cut^{3/2}, and the number of electrons Nₑ:

    seconds = c₀ + c₁ Nₖ + c₂ P + c₃ Nₖ P Nₑ + c₄ Nₖ P Nₑ²

A fit to 591 beryllium labels of three cheap levels predicted the mean cost at 700 eV and 0.25 1/Å within 6 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.optimize import nnls

from paretofit.core import Array
from paretofit.labelling.engines.base import Engine
from paretofit.labelling.ladder import Level

# For seconds of GPAW on one core for beryllium; once a label is finished, only the ratios matter.
PRIOR_COEFFICIENTS = np.array([0.1, 0.015, 2.7e-6, 1.0e-8, 1.0e-10])
PACE_WEIGHT_S = 10.0  # seconds of finished work at which the measured pace has the same weight as the estimate
PRIOR_WEIGHT = 0.1  # weight of the ratios of the prior relative to one label


@dataclass(frozen=True)
class CostModel:
    """Fitted coefficients of the five terms, and the rms residual of log(seconds) over the labels."""

    coefficients: Array
    rms_log_residual: float
    n_labels: int

    def predict_seconds(self, terms: Array) -> Array:
        """Predict the CPU seconds of labels from their `compute_cost_terms`, ``(n, 5)``."""
        return np.asarray(terms @ self.coefficients)


def compute_cost_terms(atoms: Atoms, level: Level, engine: Engine) -> Array:
    """Compute the ``(5,)`` terms of one label; without a cutoff, only the start-up and the number of electrons."""
    n_electrons = engine.count_electrons(atoms)
    if level.cutoff_ev is None:
        return np.array([1.0, 0.0, 0.0, n_electrons, 0.0])
    # k and -k are equivalent, but Gamma has no partner
    n_kpoints = np.ceil((np.prod(level.get_kpoint_mesh(atoms)) + 1) / 2)
    basis = _get_volume(atoms) * level.cutoff_ev**1.5
    return np.array([1.0, n_kpoints, basis, n_kpoints * basis * n_electrons, n_kpoints * basis * n_electrons**2])


def fit_cost_model(terms: Array, seconds: Sequence[float] | Array) -> CostModel:
    """Fit the model to finished labels.

    Parameters
    ----------
    terms : (n, 5) float
        A row of `compute_cost_terms` for each label.
    seconds : (n,) float
        Measured cost of each label.

    Returns
    -------
    CostModel
        Non-negative coefficients that minimise relative errors; coefficients that the labels do not determine keep the
        ratios of the prior. Without labels, the prior with an rms log residual of 1.
    """
    label_seconds = np.maximum(np.asarray(seconds, dtype=float), 1e-3)  # relative errors require positive costs
    if not len(label_seconds):
        return CostModel(PRIOR_COEFFICIENTS, 1.0, 0)
    scale = np.median(label_seconds / (terms @ PRIOR_COEFFICIENTS))
    prior_rows = PRIOR_WEIGHT * np.eye(len(PRIOR_COEFFICIENTS))
    rows = np.vstack([terms * PRIOR_COEFFICIENTS * scale / label_seconds[:, None], prior_rows])
    factors, _ = nnls(rows, np.concatenate([np.ones(len(label_seconds)), np.diag(prior_rows)]))
    coefficients = factors * PRIOR_COEFFICIENTS * scale
    residuals = np.log(np.maximum(terms @ coefficients, 1e-12) / label_seconds)
    return CostModel(coefficients, float(np.sqrt(np.mean(residuals**2))), len(label_seconds))


def choose_probe_labels(terms: Array, max_labels: int, budget_s: float) -> list[int]:
    """Choose cheap labels with widely different terms, which are computed to estimate the cost of all labels.

    Parameters
    ----------
    terms : (n, 5) float
        A row of `compute_cost_terms` for each label.
    max_labels : int
        Maximum number of labels.
    budget_s : float
        Maximum total cost in seconds, as estimated by the prior; the cheapest label is always chosen.

    Returns
    -------
    list of int
        Row indices of `terms`. Each is the affordable label that is farthest from the labels chosen before it, by
        the distance between logarithms of the terms.
    """
    costs, logarithms = terms @ PRIOR_COEFFICIENTS, np.log(terms + 1.0)
    row_indices = [int(np.argmin(costs))]
    distances = np.full(len(terms), np.inf)
    while len(row_indices) < min(max_labels, len(terms)):
        distances = np.minimum(distances, np.linalg.norm(logarithms - logarithms[row_indices[-1]], axis=1))
        # a label may cost at most twice an equal share of the remaining budget
        is_affordable = costs <= (budget_s - costs[row_indices].sum()) / max(1, (max_labels - len(row_indices)) / 2)
        is_affordable[row_indices] = False
        if not is_affordable.any():
            break
        row_indices.append(int(np.argmax(np.where(is_affordable, distances, -1.0))))
    return row_indices


def _get_volume(atoms: Atoms) -> float:
    """Return the volume of the cell in Å³; without a cell, of a box that extends 5 Å beyond the atoms."""
    volume = float(abs(np.linalg.det(atoms.cell.complete()[:]))) if atoms.cell.any() else 0.0
    return volume if volume > 0 else float(np.prod(np.ptp(atoms.positions, axis=0) + 10.0))


class CostTracker:
    """Spent and remaining CPU time during a run; estimates are scaled by the measured cost of finished labels.

    Parameters
    ----------
    estimated_seconds : mapping of str to float
        Estimated CPU seconds of each label to compute, by task key.
    jobs : int
        Number of worker processes.
    """

    def __init__(self, estimated_seconds: Mapping[str, float], jobs: int) -> None:
        self._pending = dict(estimated_seconds)
        self._total, self._jobs = sum(estimated_seconds.values()), max(1, min(jobs, len(estimated_seconds)))
        self._estimated_done = 0.0
        self.spent_seconds = 0.0

    def add(self, key: str, seconds: float) -> None:
        """Record a finished label."""
        self._estimated_done += self._pending.pop(key, 0.0)
        self.spent_seconds += seconds

    @property
    def remaining_seconds(self) -> float:
        """Estimated CPU seconds of the pending labels."""
        pace = (self.spent_seconds + PACE_WEIGHT_S) / (self._estimated_done + PACE_WEIGHT_S)
        return pace * sum(self._pending.values())

    def report_progress(self) -> tuple[float, str]:
        """Return the finished fraction of the work, and a message with the spent and the remaining cost."""
        fraction = self._estimated_done / self._total if self._total else 1.0
        spent_text = format_seconds(self.spent_seconds, "CPU ")
        remaining_text = format_seconds(self.remaining_seconds, "CPU ")
        wall_time = format_wall_time(self.remaining_seconds, self._jobs)
        return fraction, f"{spent_text} so far, about {remaining_text} remaining ({wall_time})"


def format_seconds(seconds: float, unit_prefix: str = "") -> str:
    """Format a time in seconds, minutes or hours; `unit_prefix`, such as "CPU ", precedes the unit."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit_prefix}{unit}"
    return f"{seconds:.2g} {unit_prefix}s"


def format_wall_time(seconds: float, jobs: int) -> str:
    """Format the wall time in which `jobs` cores spend a number of CPU seconds."""
    return f"{format_seconds(seconds / jobs)} on {jobs} core{'s' if jobs > 1 else ''}"
