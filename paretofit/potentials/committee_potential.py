"""Common base class of potentials: predictions for a structure and, with a committee, their error bars."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from ase import Atoms

from paretofit.core import Array, InputError
from paretofit.potentials.prediction import Prediction
from paretofit.potentials.training_record import TrainingRecord
from paretofit.uncertainty import Assessment, Uncertainty, build_assessment


class CommitteePotential(ABC):
    """A single potential or a committee; a committee may have an uncertainty, with its calibration and training set."""

    if TYPE_CHECKING:  # only for type checkers; in the subclasses, which are data classes, these are fields

        @property
        def elements(self) -> Sequence[str]:
            """Chemical symbols of the elements."""

        @property
        def uncertainty(self) -> Uncertainty | None:
            """Calibration and training set of a committee; None if they are unknown, or for a single potential."""

    @property
    def known_configurations(self) -> TrainingRecord | None:
        """Training and held-out configurations, from the uncertainty or the record of a single potential, or None."""
        if self.uncertainty is None:
            return getattr(self, "training_record", None)  # only a LinearPotential has this field
        return TrainingRecord(self.uncertainty.structure_roles, self.uncertainty.level)

    @abstractmethod
    def without_uncertainty(self) -> Self:
        """Return the potential without its uncertainty; a linear committee becomes its mean, a single potential."""

    @abstractmethod
    def predict(self, atoms: Atoms) -> Prediction:
        """Predict energy, forces and stress of a configuration with every member at once; see `Prediction`."""

    @abstractmethod
    def compute_descriptors(self, atoms: Atoms) -> Array:
        """Compute the descriptors of each atom, ``(N, K) float64``, from which extrapolation grades are computed."""

    def assess(self, atoms: Atoms, *, coverage: float | None = None) -> Assessment:
        """Predict energy, forces and stress with the mean of the committee, with error bars and grades.

        Parameters
        ----------
        atoms : ase.Atoms
        coverage : float, optional
            Coverage of the intervals; by default that chosen when the committee was fitted.

        Raises
        ------
        InputError
            If the potential is not a committee, has no data on its training set, or has too few calibration
            configurations for this coverage.
        """
        return self.assess_and_predict(atoms, coverage)[0]

    def assess_and_predict(self, atoms: Atoms, coverage: float | None = None) -> tuple[Assessment, Prediction]:
        """Return the result of `assess` and the predictions of every member; errors are those of `assess`."""
        uncertainty = self.require_uncertainty()
        members, leverage = self._predict_with_leverage(atoms)
        return build_assessment(members, uncertainty, self.compute_grades(atoms), leverage, coverage), members

    def compute_grades(self, atoms: Atoms) -> Array:
        """Compute the extrapolation grade γ of each atom, ``(N,)``; γ > 1 means extrapolation.

        Grades require only descriptors, so that they are much cheaper than forces.

        Raises
        ------
        InputError
            If the potential has no data on its training set.
        """
        return self.require_uncertainty().compute_grades(atoms, self.compute_descriptors(atoms))

    def require_uncertainty(self) -> Uncertainty:
        """Return the uncertainty of the committee; raise `InputError` if there is none."""
        if self.uncertainty is None:
            raise InputError("this potential has no data on its errors and training set; fit it with a committee")
        return self.uncertainty

    def _predict_with_leverage(self, atoms: Atoms) -> tuple[Prediction, float]:
        """Return the predictions of every member, and the leverage of the energy; NaN if the model is not linear."""
        return self.predict(atoms), float("nan")
