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
    """A single potential or a committee; a committee may have a calibration."""

    if TYPE_CHECKING:  # not defined here at run time, because subclasses are data classes with these as fields

        @property
        def elements(self) -> Sequence[str]:
            """Chemical symbols of the elements."""

        @property
        def uncertainty(self) -> Uncertainty | None:
            """Calibration and training set of a committee; None for a single potential."""

    @property
    def known_configurations(self) -> TrainingRecord | None:
        """Training and held-out configurations, if known, from the committee or the record of a single potential."""
        if self.uncertainty is None:
            return getattr(self, "training_record", None)
        return TrainingRecord(self.uncertainty.structure_roles, self.uncertainty.level)

    @abstractmethod
    def without_uncertainty(self) -> Self:
        """Return the potential without its calibration."""

    @abstractmethod
    def predict(self, atoms: Atoms) -> Prediction:
        """Predict energy, forces and stress of a configuration, for every member at once."""

    @abstractmethod
    def compute_descriptors(self, atoms: Atoms) -> Array:
        """Compute the descriptors of each atom from which grades are computed, ``(N, K)``."""

    def assess(self, atoms: Atoms, *, coverage: float | None = None) -> Assessment:
        """Predict energy, forces and stress with the mean of the committee, with error bars and grades.

        Parameters
        ----------
        atoms : ase.Atoms
        coverage : float, optional
            Coverage of the intervals; by default the coverage chosen in the fit.

        Raises
        ------
        InputError
            If the potential is not a committee, has no data on its training set, or has too few calibration
            configurations for this coverage.
        """
        return self.assess_and_predict(atoms, coverage)[0]

    def assess_and_predict(self, atoms: Atoms, coverage: float | None = None) -> tuple[Assessment, Prediction]:
        """Return the result of `assess` and the predictions of every member."""
        uncertainty = self.require_uncertainty()
        members, leverage = self._predict_with_leverage(atoms)
        return build_assessment(members, uncertainty, self.compute_grades(atoms), leverage, coverage), members

    def compute_grades(self, atoms: Atoms) -> Array:
        """Compute the extrapolation grade γ of each atom, ``(N,)``; γ is above 1 outside the training set.

        This is much cheaper than computing forces.

        Raises
        ------
        InputError
            If the potential has no data on its training set.
        """
        return self.require_uncertainty().compute_grades(atoms, self.compute_descriptors(atoms))

    def require_uncertainty(self) -> Uncertainty:
        """Return the uncertainty of the committee, or raise an `InputError` if there is none."""
        if self.uncertainty is None:
            raise InputError("this potential has no data on its errors and training set; fit it with a committee")
        return self.uncertainty

    def _predict_with_leverage(self, atoms: Atoms) -> tuple[Prediction, float]:
        return self.predict(atoms), float("nan")  # leverages are only defined for linear models
