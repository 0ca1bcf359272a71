"""Configurations that make a set as diverse as it can be: the entropy of its atoms' descriptors is maximised.

Of descriptors that are distributed like a Gaussian with covariance C, the entropy is ½ log det C up to a constant;
here it is counted from that of random configurations, so that above zero a set is more diverse than those. Each new
configuration begins at random and climbs the entropy of the whole set, itself included, while a repulsive core keeps
its atoms apart; it is taken if the set gains by it. After M. Karabin and D. Perez, J. Chem. Phys. 153, 094110
(2020), and A. Subramanyam and D. Perez, arXiv:2407.10361.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from paretofit.structures.disorder import find_close_pairs, generate_random_configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.structures.augment_settings import EntropySettings

RIDGE = 1e-6  # of the variance of random configurations, so that descriptors that depend on others do no harm
REFERENCE = 10, 200  # atoms of random configurations for each descriptor, and configurations at most
CORE, CORE_REACH = 2.0, 1.2  # strength, in units of the entropy of one atom; reach, in units of the closest distance
MOST = 5  # configurations that are begun for each that is asked for
FIRST_STEP, LAST_STEP = 0.15, 0.005  # Å, of the atom that moves farthest


@dataclass(frozen=True)
class DescriptorMoments:
    """Count, sum ``(K,)`` and sum of squares ``(K, K)`` of the descriptors of atoms."""

    count: float
    total: Array
    squares: Array

    @classmethod
    def from_descriptors(cls, values: Array) -> DescriptorMoments:
        """Of the atoms of ``(N, K)``."""
        return cls(len(values), values.sum(axis=0), values.T @ values)

    def add(self, values: Array) -> DescriptorMoments:
        """With further atoms, ``(N, K)``."""
        return DescriptorMoments(
            self.count + len(values), self.total + values.sum(axis=0), self.squares + values.T @ values
        )

    def covariance(self) -> Array:
        """``(K, K)``."""
        mean = self.total / self.count
        return np.asarray(self.squares / self.count - np.outer(mean, mean))

    def entropy(self) -> float:
        """½ log det C."""
        return float(0.5 * np.linalg.slogdet(self.covariance())[1])


@dataclass(frozen=True)
class GeneratedConfiguration:
    """A configuration of the set, and what the set gained by it.

    Attributes
    ----------
    atoms : ase.Atoms
    entropy_gain : float
        Growth of the entropy of the set. Not above zero where none of its beginnings brought a gain: then it is not
        taken into the set.
    random_gain : float
        What the random configuration that it began from would have brought.
    entropy : float
        Of the set with it, and with as many random atoms as there are descriptors, less that of random ones.
    n_starts : int
        Configurations that were begun until one brought a gain.
    """

    atoms: Atoms
    entropy_gain: float
    random_gain: float
    entropy: float
    n_starts: int


def maximise_entropy(
    settings: EntropySettings,
    compute_descriptors: Callable[[Atoms], tuple[Array, Array]],
    rng: np.random.Generator,
    radii: dict[str, float] | None = None,
) -> Iterator[GeneratedConfiguration]:
    """Grow a set of configurations, each of which raises the entropy of the set as far as it can.

    One that would lower it is yielded with its gain, not above zero, and is not part of the set; at most five times as
    many are begun as are asked for.

    Parameters
    ----------
    settings : EntropySettings
        Elements, ranges of volume and of size, number of configurations and of steps.
    compute_descriptors : callable
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

    Notes
    -----
    The set begins with K atoms' worth of the moments of random configurations, K being the number of descriptors. A
    set of fewer atoms than that has no determinant of its own, and would be steered by rounding.
    """
    if not settings.count:
        return
    climber = EntropyMaximiser(settings, compute_descriptors, rng, radii or {})
    moments = climber.random_moments
    kept = 0
    for _ in range(MOST * settings.count):
        before = moments.entropy()
        climbed: list[tuple[float, Atoms, Array, Array]] = []
        for _ in range(settings.max_starts):
            atoms, values, first = climber.maximise(generate_random_configuration(settings, rng, radii), moments)
            climbed.append((moments.add(values).entropy() - before, atoms, values, first))
            if climbed[-1][0] > 0:
                break
        gain, atoms, values, first = max(climbed, key=lambda one: one[0])
        from_random = moments.add(first).entropy() - before
        if gain > 0:
            moments, kept = moments.add(values), kept + 1
        yield GeneratedConfiguration(
            atoms, gain, from_random, moments.entropy() - climber.random_moments.entropy(), len(climbed)
        )
        if kept == settings.count:
            return


def compute_entropy_difference(values: Sequence[Array], random_values: Sequence[Array]) -> float:
    """Entropy of a set of configurations less that of a set of random ones, for comparing sets.

    Parameters
    ----------
    values, random_values : sequence of (N, K) float64
        Descriptors of the atoms of each configuration.
    """
    reference = np.concatenate(list(random_values))
    scale = np.maximum(reference.std(axis=0), 1e-12)
    ridge = RIDGE * np.eye(len(scale))
    both = (np.concatenate(list(values)) / scale, reference / scale)
    own, other = (
        0.5 * np.linalg.slogdet(DescriptorMoments.from_descriptors(one).covariance() + ridge)[1] for one in both
    )
    return float(own - other)


class EntropyMaximiser:
    """Gradient steps up the entropy of a set, with a step length that shrinks where a step does not pay.

    Parameters
    ----------
    settings : EntropySettings
    describe : callable
    rng : numpy.random.Generator
        Draws the random configurations that set the scale of the descriptors, from which `random_moments` is made: the
        moments of as many of their atoms as there are descriptors.
    radii : mapping of symbol to float
    """

    def __init__(
        self,
        settings: EntropySettings,
        compute_descriptors: Callable[[Atoms], tuple[Array, Array]],
        rng: np.random.Generator,
        radii: dict[str, float],
    ) -> None:
        self._settings, self._describe, self._radii = settings, compute_descriptors, radii
        per_descriptor, at_most = REFERENCE
        drawn: list[Array] = []
        for _ in range(at_most):
            drawn.append(compute_descriptors(generate_random_configuration(settings, rng, radii))[0])
            if sum(map(len, drawn)) >= per_descriptor * drawn[0].shape[1]:
                break
        values = np.concatenate(drawn)
        self._centre, self._scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-12)
        covariance = DescriptorMoments.from_descriptors((values - self._centre) / self._scale).covariance()
        K = len(covariance)
        self.random_moments = DescriptorMoments(K, np.zeros(K), K * (covariance + RIDGE * np.eye(K)))

    def maximise(self, start: Atoms, moments: DescriptorMoments) -> tuple[Atoms, Array, Array]:
        """The configuration at the top, its scaled descriptors, and those that it began with."""
        atoms, length = start, FIRST_STEP
        values, level, slope = self.evaluate_objective(atoms, moments)
        first = values
        for _ in range(self._settings.max_steps):
            largest = float(np.linalg.norm(slope, axis=1).max())
            if length < LAST_STEP or largest < 1e-12:
                break
            trial = atoms.copy()
            trial.positions += slope * (length / largest)
            new_values, new_level, new_slope = self.evaluate_objective(trial, moments)
            if new_level > level:
                atoms, values, level, slope, length = trial, new_values, new_level, new_slope, 1.2 * length
            else:
                length /= 2
        return atoms, values, first

    def evaluate_objective(self, atoms: Atoms, moments: DescriptorMoments) -> tuple[Array, float, Array]:
        """Scaled descriptors, what is maximised, and its slope.

        Parameters
        ----------
        atoms : ase.Atoms
        moments : Moments
            Of the set without it.

        Returns
        -------
        values : (N, K) float64
        level : float
            The set's entropy times its number of atoms, less the core's energy; -inf where atoms are too close.
        slope : (N, 3) float64
            1/Å; d(n ½ log det C)/dB_i is C⁻¹ (B_i − mean).
        """
        energy, push = compute_core_repulsion(atoms, self._settings.min_distance_ratio, self._radii)
        if not np.isfinite(energy):
            return np.empty(0), -np.inf, push
        raw, gradient = self._describe(atoms)
        values = (raw - self._centre) / self._scale
        whole = moments.add(values)
        factor = scipy.linalg.cho_factor(whole.covariance(), lower=True, check_finite=False)
        weights = scipy.linalg.cho_solve(factor, (values - whole.total / whole.count).T, check_finite=False).T
        slope = np.tensordot(gradient, weights / self._scale, axes=((2, 3), (0, 1)))
        entropy = float(np.log(np.diag(factor[0])).sum())
        return values, whole.count * entropy - CORE * energy, slope + CORE * push


def compute_core_repulsion(atoms: Atoms, min_distance_ratio: float, radii: dict[str, float]) -> tuple[float, Array]:
    """Energy Σ ln²((r − r_c) / (r₀ − r_c)) of pairs closer than r₀ = 1.2 r_c, and its forces, 1/Å.

    It grows without bound towards r_c, the closest distance allowed, and is infinite below.
    """
    first, ratio, limit, vectors = find_close_pairs(atoms, min_distance_ratio, radii, CORE_REACH)
    forces = np.zeros((len(atoms), 3))
    if (ratio <= 1).any():
        return float("inf"), forces
    logarithm = np.log((ratio - 1) / (CORE_REACH - 1))
    distances = ratio * limit
    pull = 2 * logarithm / (limit * (ratio - 1)) / distances
    np.add.at(forces, first, pull[:, None] * vectors)
    return float(0.5 * (logarithm**2).sum()), forces
