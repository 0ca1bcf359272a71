"""Energy as a function of volume, area or length, and the Birch-Murnaghan equation of state around its minimum."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from scipy.optimize import minimize_scalar

from paretofit.core import Array
from paretofit.validation import periodicity
from paretofit.validation.crystal import FORCE_TOLERANCE, compute_energy, relax_positions_if_needed
from paretofit.validation.quantity import PropertyError, Quantity

# Ranges of volumes. Ranges of areas are two thirds and those of lengths one third of these, so that the distances
# between atoms have equal ranges.
SCAN_RANGE = 0.25  # largest relative change of the volume in the curve
FIT_RANGE = 0.06  # largest relative change of the volume in the fit of the equation of state
FIT_POINTS = 9  # number of volumes in the fit
MAX_RESIDUAL_RATIO = 0.02  # ratio of the largest residual to the range of the energies; 0.005 for smooth potentials
MODULUS_DERIVATIVE_RANGE = 1.0, 10.0  # plausible B'; most solids have 3 to 6, graphite has about 9
MAX_ENERGY_FALL = 1e-3  # decrease in eV/atom between neighbouring points, away from the minimum
SCAN_POINTS = 21  # number of volumes in the curve
SEARCH_RANGE = (0.6, 1.7)  # volumes relative to the initial one in the search for the minimum of a prototype
SEARCH_POINTS = 23  # number of volumes in the search


@dataclass(frozen=True)
class BirchMurnaghanCurve:
    """Birch-Murnaghan equation of state of a crystal, a sheet or a wire.

    Attributes
    ----------
    size, energy : float
        Volume (Å³/atom), area (Å²/atom) or length (Å/atom) and energy (eV/atom) at the minimum.
    modulus, modulus_derivative : float
        Bulk modulus B (GPa), layer modulus (N/m) or stiffness (nN), and its derivative with respect to pressure.
    curve : DataFrame
        ``volume``, ``area`` or ``length`` (as `size`) and ``energy`` (eV/atom), in ascending order of the size; volumes
        within ±25 % of the initial volume.
    measure : CellMeasure
        Whether sizes are volumes, areas or lengths, with units.
    failures : list of str
        For each size outside the range of the fit at which the positions could not be relaxed, the reason why the curve
        has no point there.
    """

    size: float
    energy: float
    modulus: float
    modulus_derivative: float
    curve: pd.DataFrame
    measure: periodicity.CellMeasure
    failures: list[str]

    @property
    def quantities(self) -> list[Quantity]:
        """V0, E0, B and B', or their counterparts of sheets and wires."""
        low, high = MODULUS_DERIVATIVE_RANGE
        is_plausible = low <= self.modulus_derivative <= high
        derivative_problem = "" if is_plausible else f"most solids have 3 to 6, and nearly all {low:g} to {high:g}"
        modulus_problem = "" if self.modulus > 0 else "compression lowers the energy"
        return [
            Quantity(f"{self.measure.symbol}0", f"{self.measure.unit}/atom", self.size),
            Quantity("E0", "eV/atom", self.energy, self._describe_fall()),
            Quantity(self.measure.modulus, self.measure.modulus_unit, self.modulus, modulus_problem),
            Quantity(self.measure.modulus_derivative, "", self.modulus_derivative, derivative_problem),
        ]

    def _describe_fall(self) -> str:
        """Describe where the energy decreases again away from the minimum; return an empty text if it never does."""
        curve = self.curve.sort_values(self.measure.name)
        sizes, energies = curve[self.measure.name].to_numpy(), curve["energy"].to_numpy()
        is_inner, is_outer = sizes <= self.size, sizes >= self.size
        branches = (
            (sizes[is_inner][::-1], energies[is_inner][::-1], "below"),
            (sizes[is_outer], energies[is_outer], "above"),
        )  # each branch begins at the minimum
        for branch_sizes, branch_energies, side in branches:
            fall_indices = np.flatnonzero(np.diff(branch_energies) < -MAX_ENERGY_FALL)
            if len(fall_indices):
                size_text = f"{branch_sizes[fall_indices[0]]:.3g} {self.measure.unit}/atom"
                return f"the curve is unphysical: the energy falls again {side} {size_text}"
        return ""


def fit_birch_murnaghan(sizes: Array, energies: Array, n_periodic: int = 3) -> tuple[float, float, float, float]:
    """Fit the third-order equation of state of a structure that is periodic in d = `n_periodic` directions.

    The energy is a cubic polynomial of the Eulerian strain f = ((M0/M)^(2/d) - 1) / 2 and thus of x = M^(-2/d). For
    volumes this is the equation of Birch (1947), for areas that of Andrew et al., Phys. Rev. B 85, 125428 (2012).

    Parameters
    ----------
    sizes : (n,) float64
        Volumes, areas or lengths M per atom, in ascending order, Å³, Å² or Å.
    energies : (n,) float64
        Energies, eV/atom.
    n_periodic : int
        Number of periodic directions: 3 for volumes, 2 for areas, 1 for lengths.

    Returns
    -------
    tuple of float
        M0, E0 (eV/atom), K = M d²E/dM² at the minimum (GPa, N/m or nN), and dK/dP.

    Raises
    ------
    PropertyError
        If the energy has no minimum within the sizes, or deviates from the equation by more than 2 % of its range (for
        example, because neighbours cross a cutoff), so that the moduli would have no meaning.
    """
    measure, d = periodicity.MEASURES[n_periodic], n_periodic
    range_text = f"between {min(sizes):.4g} and {max(sizes):.4g} {measure.unit}/atom"
    lowest_index = int(np.argmin(energies))
    if not np.isfinite(energies).all() or lowest_index in {0, len(energies) - 1}:
        raise PropertyError(f"the energy has no minimum {range_text}")
    x = np.asarray(sizes) ** (-2 / d)
    polynomial = np.polynomial.Polynomial.fit(x, energies, 3)
    residual_ratio = float(np.abs(polynomial(x) - energies).max() / np.ptp(energies))
    if residual_ratio > MAX_RESIDUAL_RATIO:
        raise PropertyError(
            f"no equation of state fits the energies {range_text}: they deviate by {100 * residual_ratio:.2g} % "
            "of their range"
        )
    curvature = polynomial.deriv(2)
    roots = np.asarray(polynomial.deriv(1).roots(), dtype=complex)
    real_roots = roots.real[np.abs(roots.imag) < 1e-12 * np.abs(roots)].tolist()
    # a cubic polynomial has at most one minimum
    minima = [root for root in real_roots if x.min() < root < x.max() and curvature(root) > 0]
    if not minima:
        raise PropertyError(f"the equation of state that fits the energies {range_text} has no minimum there")
    x0 = minima[0]
    # derivatives with respect to s = ln M, in which K M0 = d²E/ds² and dK/dP = 2 - (d³E/ds³) / (d²E/ds²)
    dx, ddx = -2 * x0 / d, 4 * x0 / d**2
    d2 = float(curvature(x0)) * dx**2
    d3 = float(polynomial.deriv(3)(x0)) * dx**3 + 3 * float(curvature(x0)) * dx * ddx
    size = float(x0 ** (-d / 2))
    return (size, float(polynomial(x0)), d2 / size / measure.modulus_factor, 2 - d3 / d2)


def compute_equation_of_state(calculator: Any, atoms: Atoms, *, n_points: int = SCAN_POINTS) -> BirchMurnaghanCurve:
    """Fit the equation of state to energies at constant cell shape, with positions relaxed at each volume.

    The fit includes nine volumes within ±6 %; the curve extends to ±25 %. For sheets and wires, areas and lengths
    replace volumes, with smaller ranges.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Crystal, sheet or wire near its equilibrium, in the orientation of `orient_structure`.
    n_points : int
        Number of evenly spaced volumes within ±25 %; those within ±6 % are replaced by the fitted volumes.

    Raises
    ------
    PropertyError
        If there is no valid fit, see `fit_birch_murnaghan`, positions within ±6 % cannot be relaxed, or the structure
        is a molecule.
    """
    n_periodic, measure = periodicity.count_periodic(atoms), periodicity.get_measure(atoms)
    scan_range, fit_range = SCAN_RANGE * n_periodic / 3, FIT_RANGE * n_periodic / 3
    fit_factors = np.linspace(1 - fit_range, 1 + fit_range, FIT_POINTS)
    fit_points = [_relax_at_scale(calculator, atoms, factor) for factor in fit_factors]
    sizes, energies = np.array(fit_points).T
    parameters = fit_birch_murnaghan(sizes, energies, n_periodic)
    outer_points, failures = [], []
    for factor in np.linspace(1 - scan_range, 1 + scan_range, n_points):
        if abs(factor - 1) > fit_range:
            try:
                outer_points.append(_relax_at_scale(calculator, atoms, factor))
            except PropertyError as error:
                failures.append(f"the curve has no point at {factor:.3g} times the {measure.name}: {error}")
    curve = pd.DataFrame(sorted(fit_points + outer_points), columns=[measure.name, "energy"])
    return BirchMurnaghanCurve(*parameters, curve, measure, failures)


def _relax_at_scale(calculator: Any, atoms: Atoms, factor: float) -> tuple[float, float]:
    """Scale a structure and relax its positions; return its size (such as Å³/atom) and energy (eV/atom).

    The volume, area or length is multiplied by `factor`.
    """
    relaxed_structure = relax_positions_if_needed(calculator, periodicity.scale_measure(atoms, factor), FORCE_TOLERANCE)
    size, energy = periodicity.measure_cell(relaxed_structure), relaxed_structure.get_potential_energy()
    return size / len(atoms), energy / len(atoms)


def scale_to_minimum(calculator: Any, atoms: Atoms) -> Atoms:
    """Scale a crystal, at constant shape, to the nearest volume at which the energy has a minimum.

    The nearest minimum is chosen instead of the deepest one, because a potential may give energies below that of any
    real crystal at volumes far from its training data.

    Raises
    ------
    PropertyError
        If the energy has no minimum between 0.6 and 1.7 times the volume of the structure.
    """

    def compute_energy_at(factor: float) -> float:
        """Compute the energy (eV) at `factor` times the volume."""
        return compute_energy(periodicity.scale_measure(atoms, factor), calculator)

    factors = np.linspace(*SEARCH_RANGE, SEARCH_POINTS)
    energies = np.array([compute_energy_at(factor) for factor in factors])
    inner_energies = energies[1:-1]
    # indices of points that are below the previous one and not above the next one
    minima = 1 + np.flatnonzero((inner_energies < energies[:-2]) & (inner_energies <= energies[2:]))
    if not len(minima):
        raise PropertyError("the energy has no minimum between 0.6 and 1.7 times the volume of the structure")
    nearest_index = int(minima[np.argmin(np.abs(factors[minima] - 1))])
    bounds = float(factors[nearest_index - 1]), float(factors[nearest_index + 1])
    minimum = minimize_scalar(compute_energy_at, bounds=bounds, method="bounded")
    return periodicity.scale_measure(atoms, minimum.x)
