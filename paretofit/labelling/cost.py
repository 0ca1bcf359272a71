"""Cost of labels: a model with five terms, fitted to finished labels.

A plane-wave calculation spends time on start-up, on each k-point, on the grid of the density and on the bands at each
k-point:

    seconds = c₀ + c₁ Nₖ + c₂ P + c₃ Nₖ P Nₑ + c₄ Nₖ P Nₑ²

Nₖ is the number of k-points (half of the mesh, as k and −k are equivalent), Nₑ is the number of electrons, and
P = V·E_cut^{3/2} (Å³ eV^{3/2}, V: volume of the cell, E_cut: cutoff) is proportional to the number of plane waves.
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

# c₀ to c₄ for GPAW on one core and beryllium. Once a label is finished, only the ratios between them matter.
PRIOR_COEFFICIENTS = np.array([0.1, 0.015, 2.7e-6, 1.0e-8, 1.0e-10])
PACE_WEIGHT_S = 10.0  # s of finished work at which the measured pace and the estimate have equal weights
PRIOR_WEIGHT = 0.1  # weight of the prior in a fit, relative to one label


@dataclass(frozen=True)
class CostModel:
    """Fitted cost of labels.

    Attributes
    ----------
    coefficients : (5,) float64
        c₀ to c₄.
    rms_log_residual : float
        Root mean square residual of log(seconds) over the fitted labels.
    n_labels : int
        Number of fitted labels.
    """

    coefficients: Array
    rms_log_residual: float
    n_labels: int

    def predict_seconds(self, terms: Array) -> Array:
        """Predict the CPU seconds of labels, ``(n,)``, from their terms (`compute_cost_terms`), ``(n, 5)``."""
        return np.asarray(terms @ self.coefficients)


def compute_cost_terms(atoms: Atoms, level: Level, engine: Engine) -> Array:
    """Compute the terms that c₀ to c₄ multiply in the cost of one label, ``(5,) float64``.

    For a level without a cutoff, which has no plane waves, they are those of the cost c₀ + c₃ Nₑ.

    Raises
    ------
    InputError
        If the engine has no file from which the electrons of an element are counted.
    """
    n_electrons = engine.count_electrons(atoms)
    if level.cutoff_ev is None:
        return np.array([1.0, 0.0, 0.0, n_electrons, 0.0])
    # k and -k are equivalent, except for Gamma, which is its own partner
    n_kpoints = np.ceil((np.prod(level.get_kpoint_mesh(atoms)) + 1) / 2)
    basis_size = _get_volume(atoms) * level.cutoff_ev**1.5
    band_term = n_kpoints * basis_size * n_electrons
    return np.array([1.0, n_kpoints, basis_size, band_term, band_term * n_electrons])


def fit_cost_model(terms: Array, seconds: Sequence[float] | Array) -> CostModel:
    """Fit the cost model to finished labels.

    Parameters
    ----------
    terms : (n, 5) float
        A row of `compute_cost_terms` for each label.
    seconds : (n,) float
        Measured cost of each label.

    Returns
    -------
    CostModel
        Non-negative coefficients that minimise relative errors. Coefficients that the labels do not determine have the
        same ratios as in `PRIOR_COEFFICIENTS`. Without labels, the model is the prior, with an rms log residual of 1.
    """
    label_seconds = np.maximum(np.asarray(seconds, dtype=float), 1e-3)  # relative errors require positive costs
    if not len(label_seconds):
        return CostModel(PRIOR_COEFFICIENTS, 1.0, 0)
    scaled_prior = np.median(label_seconds / (terms @ PRIOR_COEFFICIENTS)) * PRIOR_COEFFICIENTS
    # The unknowns are the factors by which the coefficients differ from the scaled prior; the last rows pull them to 1.
    prior_rows = PRIOR_WEIGHT * np.eye(len(PRIOR_COEFFICIENTS))
    rows = np.vstack([terms * scaled_prior / label_seconds[:, None], prior_rows])
    factors, _ = nnls(rows, np.concatenate([np.ones(len(label_seconds)), np.diag(prior_rows)]))
    coefficients = factors * scaled_prior
    predicted_seconds = np.maximum(terms @ coefficients, 1e-12)  # above 0, for the logarithm
    residuals = np.log(predicted_seconds / label_seconds)
    return CostModel(coefficients, float(np.sqrt(np.mean(residuals**2))), len(label_seconds))


def choose_probe_labels(terms: Array, max_labels: int, budget_s: float) -> list[int]:
    """Choose cheap labels with very different terms, whose measured cost then determines the cost model.

    Parameters
    ----------
    terms : (n, 5) float
        A row of `compute_cost_terms` for each label; at least one.
    max_labels : int
        Maximum number of labels.
    budget_s : float
        Maximum total cost in seconds, as estimated with `PRIOR_COEFFICIENTS`; the cheapest label is always chosen.

    Returns
    -------
    list of int
        Row indices of `terms`: first the cheapest label, then repeatedly the affordable label (at most twice an equal
        share of the remaining budget) whose terms, on a logarithmic scale, are farthest from those of the labels chosen
        before.
    """
    costs, logarithms = terms @ PRIOR_COEFFICIENTS, np.log(terms + 1.0)  # + 1, because terms may be 0
    row_indices = [int(np.argmin(costs))]
    distances = np.full(len(terms), np.inf)
    while len(row_indices) < min(max_labels, len(terms)):
        distances = np.minimum(distances, np.linalg.norm(logarithms - logarithms[row_indices[-1]], axis=1))
        remaining_budget, n_remaining = budget_s - costs[row_indices].sum(), max_labels - len(row_indices)
        is_affordable = costs <= remaining_budget / max(1, n_remaining / 2)  # for the last label: the whole remainder
        is_affordable[row_indices] = False
        if not is_affordable.any():
            break
        row_indices.append(int(np.argmax(np.where(is_affordable, distances, -1.0))))
    return row_indices


def _get_volume(atoms: Atoms) -> float:
    """Return the volume of the cell, Å³; if it has none, that of a box around the atoms with a margin of 5 Å.

    Missing cell vectors are replaced by unit vectors, unless all are missing.
    """
    volume = float(abs(np.linalg.det(atoms.cell.complete()[:]))) if atoms.cell.any() else 0.0
    return volume if volume > 0 else float(np.prod(np.ptp(atoms.positions, axis=0) + 10.0))


class CostTracker:
    """Spent and remaining CPU time of a label run; estimates are scaled by the measured cost of finished labels.

    Parameters
    ----------
    estimated_seconds : mapping of str to float
        Estimated CPU seconds of each label to compute, by task key.
    jobs : int
        Number of worker processes.

    Attributes
    ----------
    spent_seconds : float
        CPU seconds of the labels that were finished during the run.
    """

    def __init__(self, estimated_seconds: Mapping[str, float], jobs: int) -> None:
        self._pending_estimates = dict(estimated_seconds)
        self._total_estimate = sum(estimated_seconds.values())
        self._jobs = max(1, min(jobs, len(estimated_seconds)))
        self._finished_estimate = 0.0
        self.spent_seconds = 0.0

    def add(self, key: str, seconds: float) -> None:
        """Record a finished label and its CPU seconds."""
        self._finished_estimate += self._pending_estimates.pop(key, 0.0)
        self.spent_seconds += seconds

    @property
    def remaining_seconds(self) -> float:
        """Estimated CPU seconds of the pending labels."""
        pace = (self.spent_seconds + PACE_WEIGHT_S) / (self._finished_estimate + PACE_WEIGHT_S)
        return pace * sum(self._pending_estimates.values())

    def report_progress(self) -> tuple[float, str]:
        """Return the finished fraction of the estimated work, and a message with the spent and the remaining time."""
        fraction = self._finished_estimate / self._total_estimate if self._total_estimate else 1.0
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
    """Format the wall time of a number of CPU seconds that `jobs` cores share equally."""
    return f"{format_seconds(seconds / jobs)} on {jobs} core{'s' if jobs > 1 else ''}"
