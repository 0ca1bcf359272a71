"""Wrong units, signs and orders that would explain why energies and forces contradict each other.

Each hypothesis implies a correction of the labels, and is tested by the held-out errors of the corrected labels. Only
the ratio of energies to forces is tested, so hypotheses with equal ratios cannot be told apart and are named together.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from ase import units
from scipy import stats

from paretofit.consistency.label_fit import HeldOutErrors, LabelFit
from paretofit.consistency.label_units import ENERGY_UNITS, FORCE_UNITS
from paretofit.core import Array

WRONG_UNITS: tuple[tuple[str, float], ...] = (
    *(
        (f"energies look like {unit}: multiply them by {1 / value:.6g}", 1 / value)
        for unit, value in ENERGY_UNITS.items()
    ),
    *((f"forces look like {unit}: multiply them by {1 / value:.6g}", value) for unit, value in FORCE_UNITS.items()),
    ("energies and forces look like hartree and hartree/bohr, or rydberg and rydberg/bohr", units.Bohr),
    (f"positions and cells look like bohr: multiply them by {units.Bohr:.5f}", 1 / units.Bohr),
)
"""Each cause of a wrong ratio of energies to forces, and the factor on the energies that corrects the ratio."""
WRONG_SIGN = "forces (or energies) have the opposite sign: multiply them by -1"
PER_ATOM = "energies look like energies per atom: multiply each by its number of atoms"
# Scores and errors are those of `HeldOutErrors`, relative to the spread of the labels.
MAX_P_VALUE = 1e-4  # p-value of the improvement over the uncorrected labels
MIN_IMPROVEMENT = 0.02  # decrease of the mean score by a correction
MAX_CORRECTED_SCORE = 0.42  # mean score of the corrected labels; above it, the model is too inaccurate for a conclusion
MAX_CORRECTED_ERROR = 0.7  # median error of the corrected energies, and of the corrected forces
TIE_P_VALUE = 1e-3  # hypotheses whose scores differ less significantly are named together
FACTOR_RESOLUTION = 1.3  # factors whose ratio is smaller cannot be told apart
AXIS_NAMES = "xyz"


@dataclass(frozen=True)
class Finding:
    """Causes that explain why the labels are inconsistent, and the evidence for them.

    Attributes
    ----------
    causes : list of str
        Causes that explain the labels equally well.
    certainty : str
        Evidence, such as the errors before and after the correction.
    """

    causes: list[str]
    certainty: str


@dataclass(frozen=True)
class Hypothesis:
    """A mistake, and its correction: a factor on the energies, or another order of the forces.

    Attributes
    ----------
    causes : tuple of str
        Descriptions of the mistake.
    energy_factor : float or (n,) float64
        Factor that corrects the energies, for all configurations or for each of them.
    axes, signs : tuple of int
        For x, y and z, the column of the forces in which this component was written, and the sign that corrects it.
    orders : sequence of (N,) int64, optional
        For each configuration, the index of the atom to which each row of the forces belongs; by default, the rows are
        in the order of the atoms.
    """

    causes: tuple[str, ...]
    energy_factor: float | Array = 1.0
    axes: tuple[int, ...] = (0, 1, 2)
    signs: tuple[int, ...] = (1, 1, 1)
    orders: Sequence[Array] | None = None

    def correct(self, energies: Array, forces: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Return corrected energies and forces, in the units of ``(n,)`` `energies` and ``(N, 3)`` `forces`."""
        corrected_forces = [matrix[:, self.axes] * np.array(self.signs) for matrix in forces]
        if self.orders is not None:  # argsort gives the inverse permutation: the row of each atom
            pairs = zip(corrected_forces, self.orders, strict=True)
            corrected_forces = [matrix[np.argsort(order)] for matrix, order in pairs]
        return energies * self.energy_factor, corrected_forces

    def is_close(self, other: Self) -> bool:
        """Return whether two hypotheses differ only by a factor that the method cannot resolve, or not at all."""
        if (self.axes, self.signs) != (other.axes, other.signs) or self.orders is not other.orders:
            return False
        ratio = self.energy_factor / other.energy_factor
        return bool(np.all((ratio > 1 / FACTOR_RESOLUTION) & (ratio < FACTOR_RESOLUTION)))


def find_explanation(
    fit: LabelFit,
    energies: Array,
    forces: Sequence[Array],
    errors: HeldOutErrors,
    hypotheses: Sequence[Hypothesis],
) -> Finding | None:
    """Find the hypotheses whose correction makes energies and forces most consistent.

    Parameters
    ----------
    fit : LabelFit
        Descriptor rows of the configurations.
    energies : (n,) float64
        Energies per atom, eV.
    forces : sequence of (N, 3) float64
        Forces of each configuration, eV/Å.
    errors : HeldOutErrors
        Errors of the uncorrected labels.
    hypotheses : sequence of Hypothesis
        From `list_ratio_hypotheses` or `list_order_hypotheses`.

    Returns
    -------
    Finding or None
        None if no correction lowers the errors significantly, or the remaining errors are too large for a conclusion.
    """
    corrected_errors = [fit.compute_errors(*hypothesis.correct(energies, forces)) for hypothesis in hypotheses]
    best = min(range(len(hypotheses)), key=lambda k: float(corrected_errors[k].score.mean()))
    best_hypothesis, best_errors = hypotheses[best], corrected_errors[best]
    score_before, score_after = float(errors.score.mean()), float(best_errors.score.mean())
    energy_error, force_error = float(np.median(np.abs(best_errors.energy))), float(np.nanmedian(best_errors.forces))
    is_poor = max(energy_error, force_error) > MAX_CORRECTED_ERROR
    if score_before - score_after < MIN_IMPROVEMENT or score_after > MAX_CORRECTED_SCORE or is_poor:
        return None
    if _compute_p_value(errors.score - best_errors.score) > MAX_P_VALUE:
        return None
    causes = [
        cause
        for hypothesis, trial in zip(hypotheses, corrected_errors, strict=True)
        if hypothesis.is_close(best_hypothesis) or _compute_p_value(trial.score - best_errors.score) > TIE_P_VALUE
        for cause in hypothesis.causes
    ]
    n_better = int((best_errors.score < errors.score).sum())
    certainty = (
        f"the error of a linear model falls from {100 * score_before:.0f} to {100 * score_after:.0f} % of the spread "
        f"of the labels, in {n_better} of {len(energies)} configurations that it was not fitted to"
    )
    return Finding(causes, certainty)


def _compute_p_value(differences: Array) -> float:
    """Return the p-value of a one-sided t-test whose alternative is a positive mean of paired differences, ``(n,)``."""
    if np.ptp(differences) == 0:  # the t-statistic is undefined without a spread
        return 0.0 if differences[0] > 0 else 1.0
    return float(stats.ttest_1samp(differences, 0.0, alternative="greater").pvalue)


def list_ratio_hypotheses(fit: LabelFit, *, is_stretched: bool) -> Iterator[Hypothesis]:
    """Yield wrong units and signs, each with the factor on the energies that corrects their ratio to the forces.

    Positions in bohr are included only if `is_stretched`, that is, if the distances between atoms look like bohr.
    """
    for cause, factor in WRONG_UNITS:
        if is_stretched or not cause.startswith("positions"):
            yield Hypothesis((cause,), factor)
            yield Hypothesis((f"{cause}, and {WRONG_SIGN}",), -factor)
    yield Hypothesis((WRONG_SIGN,), -1.0)
    if (fit.n_atoms > 1).any():
        yield Hypothesis((PER_ATOM,), fit.n_atoms)


def list_order_hypotheses(fit: LabelFit) -> Iterator[Hypothesis]:
    """Yield wrong orders of the axes or of the atoms in which a program may have written the forces.

    Axes may be permuted and mirrored; atoms may be in reverse order, or sorted by a coordinate or by element.
    """
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            # The factor -1 for all axes is a wrong sign, which `list_ratio_hypotheses` yields.
            if axes != (0, 1, 2) or signs not in {(1, 1, 1), (-1, -1, -1)}:
                names = [("-" if sign < 0 else "") + AXIS_NAMES[axis] for axis, sign in zip(axes, signs, strict=True)]
                cause = "the axes of the forces differ from those of the positions: the columns should be read as "
                yield Hypothesis((cause + ", ".join(names),), axes=axes, signs=signs)
    orders = {"reversed": [np.arange(n)[::-1] for n in fit.n_atoms]}
    sort_keys = {
        f"sorted by {name}": [atoms.positions[:, axis] for atoms in fit.structures]
        for axis, name in enumerate(AXIS_NAMES)
    }
    if fit.n_elements > 1:
        sort_keys["sorted by element"] = [np.array(atoms.get_chemical_symbols()) for atoms in fit.structures]
    for name, arrays in sort_keys.items():
        orders[name] = [np.argsort(array, kind="stable") for array in arrays]
    for name, indices in orders.items():
        yield Hypothesis((f"the forces are in another order of the atoms: {name}",), orders=indices)
