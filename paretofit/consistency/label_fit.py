"""Cheap linear fits to energies and forces, and their errors on configurations outside the training set.

A linear SNAP model of energies *and* forces is fitted by cross-validation. Forces are the negative gradient of the
energy, so one set of coefficients predicts energies and forces, but only if the units, signs and orders of the labels
agree; the held-out errors therefore measure the consistency of the labels. Because a single wrong label must not spoil
the fit, configurations with large relative errors have less weight in a second fit.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, get_shared_lammps
from paretofit.descriptors import SnapBasis, compute_configuration_rows, compute_energy_rows
from paretofit.structures import build_comparison_basis, list_elements

N_FOLDS = 5
RIDGE = 1e-4  # ridge penalty, relative to the mean squares of the columns
ROBUST_LIMIT = 3.0  # multiple of the median error above which an error reduces the weight
MIN_FORCE_RATIO = 0.01  # ratio of an RMS force to the 90 % quantile, below which the forces vanish by symmetry
MIN_FORCE = 1e-6  # eV/Å; RMS force below which the forces vanish by symmetry
NORMAL_RANGE = 3.29  # standard deviations between the 5 % and the 95 % quantile of a normal distribution
MAX_ELEMENTS_OF_LARGE_BASIS = 2  # 2Jmax is 6 up to this number of elements, and 4 above


@dataclass(frozen=True)
class HeldOutErrors:
    """Errors on configurations outside the training set, and the fits that have these errors.

    Attributes
    ----------
    energy : (n,) float64
        Signed error of the energy per atom, relative to the spread of the energies.
    forces : (n,) float64
        RMS error of the forces, relative to the larger of their RMS and ``force_scale``; NaN where forces vanish by
        symmetry.
    energy_spread, force_scale : float
        Robust standard deviation of the energies per atom, and median RMS of the forces, in the units of the labels.
    inflation : (n,) float64
        Factor sqrt(1 + leverage) on the expected error of the energy; large for a structure unlike the training set.
    coefficients : (n_folds, p) float64
        Coefficients of the fit without each fold, for rows as in `LabelFit`.
    inverse : (p, p) float64
        Inverse of the penalised normal matrix of the first fold, divided by the square of ``energy_spread``.
    composition : (n_elements,) float64
        Energies of the elements, from `LabelFit.fit_composition`, which were subtracted before the fit.
    folds : (n,) int64
        Fold to which each configuration belongs.
    """

    energy: Array
    forces: Array
    energy_spread: float
    force_scale: float
    inflation: Array
    coefficients: Array
    inverse: Array
    composition: Array
    folds: Array

    @property
    def score(self) -> Array:
        """``(n,)``: mean of the absolute energy error and the force error, each at most 1, or the energy error alone.

        An error of 1 is that of predicting zero; the energy error is alone where forces vanish by symmetry.
        """
        capped_errors = np.minimum(np.abs(np.stack([self.energy, self.forces], axis=1)), 1.0)
        return np.asarray(np.nanmean(capped_errors, axis=1))


class LabelFit:
    """Descriptor rows of configurations, and fits of these rows to any energies and forces.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Structures whose descriptors cannot be computed, because atoms overlap or a cell has no volume, are excluded.
    stretch : float
        Factor on the cutoff, for positions that are in another unit of length.

    Attributes
    ----------
    is_usable : (n_structures,) bool
        Whether each structure is usable.
    structures : list of ase.Atoms
        The `n` usable structures, which all other attributes describe; these do not exist if n is 0.
    n_atoms : (n,) int64
    n_elements : int
        Number of elements; the first columns of ``energy_rows`` are the fractions of the elements.
    energy_rows : (n, p) float64
        Descriptors per atom, with each column divided by the scale that gives the same column of ``force_rows`` a root
        mean square of 1 (by 1 if that column is zero).
    force_rows : list of (3N, p) float64
        Negative derivatives of the total descriptors, with the same scales.
    """

    def __init__(self, structures: Sequence[Atoms], stretch: float = 1.0) -> None:
        elements = list_elements(structures)
        twojmax = 6 if len(elements) <= MAX_ELEMENTS_OF_LARGE_BASIS else 4
        basis = build_comparison_basis(elements, twojmax)
        basis = SnapBasis(**{**basis.model_dump(), "rcutfac": basis.rcutfac * stretch})
        rows = [_try_to_compute_rows(basis, atoms) for atoms in structures]
        self.is_usable = np.array([row is not None for row in rows], dtype=bool)
        self.structures = [atoms for atoms, is_usable in zip(structures, self.is_usable, strict=True) if is_usable]
        usable_rows = [row for row in rows if row is not None]
        if not usable_rows:
            return
        scales = np.sqrt(np.mean([np.mean(force_rows**2, axis=0) for _, force_rows in usable_rows], axis=0))
        scales = np.where(scales > 0, scales, 1.0)
        self._basis, self._scales = basis, scales
        self.n_atoms = np.array([len(atoms) for atoms in self.structures])
        self.n_elements = len(elements)
        self.energy_rows = np.array([energy_row for energy_row, _ in usable_rows]) / scales
        self.force_rows = [force_rows / scales for _, force_rows in usable_rows]
        self._energy_products = np.einsum("ki,kj->kij", self.energy_rows, self.energy_rows)
        self._force_products = np.array([matrix.T @ matrix / len(matrix) for matrix in self.force_rows])

    def fit_composition(self, energies: Array) -> Array:
        """Fit energies per atom, ``(n,)``, to the composition; return ``(n_elements,)`` energies of the elements.

        The energies of the elements are coefficients of the first columns of ``energy_rows``.
        """
        return np.asarray(np.linalg.lstsq(self.energy_rows[:, : self.n_elements], energies, rcond=None)[0])

    def predict_energies(self, errors: HeldOutErrors, structures: Sequence[Atoms]) -> tuple[Array, Array, Array]:
        """Predict energies of other structures with the same elements by the mean of the fits of all folds.

        Parameters
        ----------
        errors : HeldOutErrors
            From `compute_errors`.
        structures : sequence of ase.Atoms

        Returns
        -------
        energies : (n_structures,) float64
            Energies per atom, in the unit of the fitted energies.
        inflation : (n_structures,) float64
            As in `HeldOutErrors`.
        rows : (n_structures, p) float64
            Descriptors with the scales of ``energy_rows``.
        """
        rows = compute_energy_rows(structures, self._basis) / self._scales
        energies = rows @ errors.coefficients.mean(axis=0) + rows[:, : self.n_elements] @ errors.composition
        inverses = np.broadcast_to(errors.inverse, (len(rows), *errors.inverse.shape))
        return energies, np.sqrt(1 + _contract(inverses, rows)), rows

    def select(self, positions: Array) -> Self:
        """Return a fit of the usable configurations at some positions, or where a mask is True, with the same rows.

        The rows are not computed again; ``is_usable`` is that of the original fit.
        """
        selected_positions = np.arange(len(self.n_atoms))[positions]
        fit = copy(self)
        for name in ("n_atoms", "energy_rows", "_energy_products", "_force_products"):
            setattr(fit, name, getattr(self, name)[selected_positions])
        for name in ("structures", "force_rows"):
            setattr(fit, name, [getattr(self, name)[k] for k in selected_positions])
        return fit

    def compute_errors(
        self, energies: Array, forces: Sequence[Array], *, energy_weight: float = 1.0, force_weight: float = 1.0
    ) -> HeldOutErrors:
        """Fit energies and forces by cross-validation, and return the held-out errors.

        Parameters
        ----------
        energies : (n,) float64
            Energies per atom, eV.
        forces : sequence of (N, 3) float64
            Forces of each configuration, eV/Å.
        energy_weight, force_weight : float
            Weights of the mean squared relative errors of the energies and of the forces.

        Returns
        -------
        HeldOutErrors
        """
        composition = self.fit_composition(energies)
        targets = energies - self.energy_rows[:, : self.n_elements] @ composition
        low, high = np.quantile(targets, [0.05, 0.95])
        energy_spread = max(float(high - low) / NORMAL_RANGE, np.finfo(float).tiny)
        flat_forces = [values.ravel() for values in forces]
        rms = np.array([np.sqrt(np.mean(values**2)) for values in flat_forces])
        has_forces = rms > max(MIN_FORCE_RATIO * float(np.quantile(rms, 0.9)), MIN_FORCE)
        force_scale = float(np.median(rms[has_forces])) if has_forces.any() else 1.0
        moments = np.array(
            [rows.T @ values / len(values) for rows, values in zip(self.force_rows, flat_forces, strict=True)]
        )
        kind_weights = np.array([[energy_weight / energy_spread**2, force_weight / force_scale**2]])
        folds = np.arange(len(targets)) % N_FOLDS
        weights = np.ones((len(targets), 2))
        for _ in range(2):  # the second time with less weight on configurations with large errors
            fits = [
                self._fit_coefficients((folds != fold)[:, None] * weights * kind_weights, targets, moments)
                for fold in range(N_FOLDS)
            ]
            coefficients = np.array([fit[0] for fit in fits])[folds]
            energy_errors = (np.einsum("ki,ki->k", self.energy_rows, coefficients) - targets) / energy_spread
            # Mean square of force_rows @ coefficients - forces, expanded into products that are computed once.
            squares = _contract(self._force_products, coefficients)
            squares += rms**2 - 2 * np.einsum("ki,ki->k", coefficients, moments)
            squares = np.maximum(squares, 0)  # rounding may give negative squares
            force_errors = np.sqrt(squares) / np.maximum(rms, force_scale)
            errors = np.stack([np.abs(energy_errors), force_errors], axis=1)
            medians = np.maximum(np.median(errors, axis=0), np.finfo(float).eps)
            weights = np.minimum(1.0, ROBUST_LIMIT * medians / np.maximum(errors, medians)) ** 2
        inverses = np.array([fit[1] for fit in fits])[folds] / energy_spread**2
        leverage = _contract(inverses, self.energy_rows)
        return HeldOutErrors(
            energy=energy_errors,
            forces=np.where(has_forces, force_errors, np.nan),
            energy_spread=energy_spread,
            force_scale=force_scale,
            inflation=np.sqrt(1 + leverage),
            coefficients=np.array([fit[0] for fit in fits]),
            inverse=inverses[0],
            composition=composition,
            folds=folds,
        )

    def _fit_coefficients(self, weights: Array, targets: Array, moments: Array) -> tuple[Array, Array]:
        """Solve the normal equations of energies and forces; return coefficients and inverse as `_solve_ridge`.

        Parameters
        ----------
        weights : (n, 2) float64
            Weights of the squared energy error and of the mean squared force error of each configuration.
        targets : (n,) float64
            Energies per atom without those of the elements.
        moments : (n, p) float64
            For each configuration, ``force_rows.T @ forces`` divided by the number of forces.
        """
        products = np.tensordot(weights[:, 0], self._energy_products, 1)
        products += np.tensordot(weights[:, 1], self._force_products, 1)
        vector = (weights[:, 0] * targets) @ self.energy_rows + weights[:, 1] @ moments
        return _solve_ridge(products, vector)


def normalise_columns(rows: Array) -> Array:
    """Divide the columns of ``(n, p)`` rows by their standard deviations, if positive, to compare configurations."""
    scales = rows.std(axis=0)
    return np.asarray(rows / np.where(scales > 0, scales, 1.0))


def _try_to_compute_rows(basis: SnapBasis, atoms: Atoms) -> tuple[Array, Array] | None:
    """Return the energy row, ``(p,)``, and the force rows, ``(3N, p)``; None if LAMMPS cannot compute them."""
    try:
        return compute_configuration_rows(get_shared_lammps(), basis, atoms)
    except InputError:
        return None


def _contract(matrices: Array, vectors: Array) -> Array:
    """Return ``(n,)`` xᵀ A x of each of the ``(n, p, p)`` matrices A and ``(n, p)`` vectors x."""
    return np.asarray(np.einsum("ki,ki->k", (matrices @ vectors[:, :, None])[:, :, 0], vectors))


def _solve_ridge(products: Array, vector: Array) -> tuple[Array, Array]:
    """Solve normal equations with a ridge penalty; return the solution, ``(p,)``, and the inverse matrix, ``(p, p)``.

    Parameters
    ----------
    products : (p, p) float64
        Normal matrix; the penalty is `RIDGE` times its diagonal.
    vector : (p,) float64
        Right-hand side.
    """
    scales = np.sqrt(np.diag(products))
    scales = np.where(scales > 0, scales, 1.0)
    penalised_products = products / np.outer(scales, scales) + RIDGE * np.eye(len(products))
    inverse = np.linalg.inv(penalised_products) / np.outer(scales, scales)
    return inverse @ vector, inverse
