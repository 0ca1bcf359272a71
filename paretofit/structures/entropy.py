"""Configurations that make a set as diverse as it can be: the entropy of its atoms' descriptors is maximised.

Of descriptors that are distributed like a Gaussian with covariance C, the entropy is ½ log det C up to a constant.
Each new configuration begins at random and climbs the entropy of the whole set, itself included, while a repulsive
core keeps its atoms apart; it is taken if the set gains by it. After M. Karabin and D. Perez, J. Chem. Phys. 153,
094110 (2020), and A. Subramanyam and D. Perez, arXiv:2407.10361.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from ase import Atoms
from ase.neighborlist import neighbor_list

from paretofit.errors import InputError
from paretofit.structures.filters import is_too_close, radius_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paretofit.structures.geometry import Array
    from paretofit.structures.settings import EntropySettings

RIDGE = 1e-6  # of the variance of random configurations, so that a small set has a determinant
REFERENCE = 20  # random configurations that set the scale of each descriptor
CORE = 20.0  # strength of the core, in units of the entropy of one atom
FIRST_STEP, LAST_STEP = 0.15, 0.005  # Å, of the atom that moves farthest
CORE_STEPS = 300


@dataclass
class Moments:
    """Count, sum and sum of squares of descriptors, ``(K,)`` and ``(K, K)``, in units of random configurations."""

    count: int
    total: Array
    squares: Array

    def plus(self, values: Array) -> Moments:
        """With further atoms, ``(N, K)``."""
        return Moments(self.count + len(values), self.total + values.sum(axis=0), self.squares + values.T @ values)

    def covariance(self) -> Array:
        """``(K, K)``, with a small ridge."""
        mean = self.total / self.count
        return np.asarray(self.squares / self.count - np.outer(mean, mean) + RIDGE * np.eye(len(mean)))

    def entropy(self) -> float:
        """½ log det C."""
        return float(0.5 * np.linalg.slogdet(self.covariance())[1])


@dataclass(frozen=True)
class Grown:
    """A configuration of the set, and what the set gained by it.

    Attributes
    ----------
    atoms : ase.Atoms
    gain : float
        Growth of ½ log det C of the set.
    from_random : float
        What the random configuration that it began from would have brought.
    entropy : float
        Of the set with it.
    tries : int
        Configurations that were begun until one brought a gain.
    """

    atoms: Atoms
    gain: float
    from_random: float
    entropy: float
    tries: int


def maximise_entropy(
    settings: EntropySettings,
    describe: Callable[[Atoms], tuple[Array, Array]],
    rng: np.random.Generator,
    radii: dict[str, float] | None = None,
) -> Iterator[Grown]:
    """Grow a set of configurations, each of which raises the entropy of the set.

    Parameters
    ----------
    settings : EntropySettings
        Elements, ranges of volume and of size, number of configurations and of steps.
    describe : callable
        Descriptors of each atom, ``(N, K)``, and their derivatives, ``(N, 3, N, K)``, 1/Å.
    rng : numpy.random.Generator
    radii : mapping of symbol to float, optional
        Å; covalent radii where not given.

    Yields
    ------
    Grown

    Raises
    ------
    InputError
        If atoms cannot be kept apart at the densities that are asked for.
    """
    reference = [describe(random_configuration(settings, rng, radii))[0] for _ in range(REFERENCE)]
    everyone = np.concatenate(reference)
    centre, scale = everyone.mean(axis=0), np.maximum(everyone.std(axis=0), 1e-12)
    moments: Moments | None = None
    climber = _Climber(settings, describe, centre, scale, radii or {})
    for _ in range(settings.count):
        best: tuple[float, Atoms, Array, float] | None = None
        tries = 0
        while tries < settings.tries and (best is None or best[0] <= 0):
            tries += 1
            start = random_configuration(settings, rng, radii)
            atoms, values, first = climber.climb(start, moments)
            before = moments.entropy() if moments else -np.inf
            gain = climber.entropy(values, moments) - before
            if best is None or gain > best[0]:
                best = gain, atoms, values, climber.entropy(first, moments) - before
        if best is None:
            return
        gain, atoms, values, from_random = best
        moments = moments.plus(values) if moments else climber.moments_of(values)
        known = np.isfinite(gain)
        yield Grown(atoms, gain if known else 0.0, from_random if known else 0.0, moments.entropy(), tries)


class _Climber:
    """Gradient steps up the entropy, with a step length that shrinks where a step does not pay."""

    def __init__(
        self,
        settings: EntropySettings,
        describe: Callable[[Atoms], tuple[Array, Array]],
        centre: Array,
        scale: Array,
        radii: dict[str, float],
    ) -> None:
        self._settings, self._describe = settings, describe
        self._centre, self._scale, self._radii = centre, scale, radii

    def moments_of(self, values: Array) -> Moments:
        """Moments of a single configuration."""
        return Moments(len(values), values.sum(axis=0), values.T @ values)

    def entropy(self, values: Array, moments: Moments | None) -> float:
        """Of the set with these atoms."""
        return (moments.plus(values) if moments else self.moments_of(values)).entropy()

    def climb(self, start: Atoms, moments: Moments | None) -> tuple[Atoms, Array, Array]:
        """The configuration at the top, its scaled descriptors, and those that it began with."""
        atoms, length = start, FIRST_STEP
        values, gradient = self._scaled(atoms)
        first = values
        level, slope = self._objective(atoms, values, gradient, moments)
        for _ in range(self._settings.steps):
            largest = float(np.linalg.norm(slope, axis=1).max())
            if length < LAST_STEP or largest < 1e-12:
                break
            trial = atoms.copy()
            trial.positions += slope * (length / largest)
            if is_too_close(trial, self._settings.closest, self._radii):
                length /= 2
                continue
            new_values, new_gradient = self._scaled(trial)
            new_level, new_slope = self._objective(trial, new_values, new_gradient, moments)
            if new_level > level:
                atoms, values, level, slope, length = trial, new_values, new_level, new_slope, 1.2 * length
            else:
                length /= 2
        return atoms, values, first

    def _scaled(self, atoms: Atoms) -> tuple[Array, Array]:
        values, gradient = self._describe(atoms)
        return (values - self._centre) / self._scale, gradient / self._scale

    def _objective(self, atoms: Atoms, values: Array, gradient: Array, moments: Moments | None) -> tuple[float, Array]:
        """The set's entropy times its number of atoms, less the core's energy; and its slope along each atom."""
        whole = moments.plus(values) if moments else self.moments_of(values)
        factor = scipy.linalg.cho_factor(whole.covariance(), lower=True, check_finite=False)
        weights = scipy.linalg.cho_solve(factor, (values - whole.total / whole.count).T, check_finite=False).T
        slope = np.einsum("jaik,ik->ja", gradient, weights)  # d(N ½ log det C)/dB_i is C⁻¹ (B_i − mean)
        energy, push = core(atoms, self._settings.closest, self._radii)
        return whole.count * whole.entropy() - CORE * energy, slope + CORE * push


def core(atoms: Atoms, closest: float, radii: dict[str, float]) -> tuple[float, Array]:
    """Energy Σ (1 − r/r₀)² of pairs closer than r₀, and the forces of it, 1/Å.

    r₀ is 1.1 times what the filter demands, so that what has come to rest passes it.
    """
    reach = np.array([radius_of(symbol, radii) for symbol in atoms.get_chemical_symbols()])
    limit = 1.1 * closest
    first, second, distances, vectors = neighbor_list("ijdD", atoms, 2 * limit * float(reach.max()))
    edge = limit * (reach[first] + reach[second])
    near = distances < edge
    first, distances, vectors, edge = first[near], distances[near], vectors[near], edge[near]
    depth = 1 - distances / edge
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, first, (-2 * depth / edge / np.maximum(distances, 1e-6))[:, None] * vectors)
    return float(0.5 * (depth**2).sum()), forces


def random_configuration(
    settings: EntropySettings, rng: np.random.Generator, radii: dict[str, float] | None = None
) -> Atoms:
    """Atoms at random in a random cell, pushed apart until none are closer than the limit.

    Raises
    ------
    InputError
        If that fails again and again: the cell is too small for them.
    """
    for _ in range(settings.tries):
        size = int(rng.integers(settings.atoms[0], settings.atoms[1] + 1))
        volume = size * rng.uniform(*settings.volume)
        cell = np.eye(3) + rng.uniform(-0.25, 0.25, (3, 3))
        cell *= (volume / np.linalg.det(cell)) ** (1 / 3)
        shares = list(settings.elements.values())
        symbols = rng.choice(list(settings.elements), size, p=np.array(shares) / sum(shares))
        atoms = Atoms(symbols.tolist(), scaled_positions=rng.uniform(size=(size, 3)), cell=cell, pbc=True)
        if _pushed_apart(atoms, settings.closest, radii or {}):
            return atoms
    raise InputError(
        f"atoms cannot be kept apart at {settings.volume[0]:g} to {settings.volume[1]:g} Å³ for each atom; raise "
        "'entropy.volume', or lower 'entropy.closest'"
    )


def _pushed_apart(atoms: Atoms, closest: float, radii: dict[str, float]) -> bool:
    for _ in range(CORE_STEPS):
        energy, forces = core(atoms, closest, radii)
        if energy == 0:
            return True
        atoms.positions += 0.1 * forces / max(1.0, float(np.abs(forces).max()))
    return not is_too_close(atoms, closest, radii)
