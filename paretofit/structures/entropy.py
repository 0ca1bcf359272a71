"""Configurations that make a set as diverse as possible, by maximising the entropy of the descriptors of its atoms.

If descriptors have a Gaussian distribution with covariance C, the entropy is ½ log det C plus a constant. Entropies are
relative to that of random configurations: a set with positive entropy is more diverse than these. Each new
configuration starts from random positions; gradient steps maximise the entropy of the set including this configuration,
while a repulsive core keeps the atoms apart. The configuration is added to the set if it raises the entropy. Method:
M. Karabin and D. Perez, J. Chem. Phys. 153, 094110 (2020), and A. Subramanyam and D. Perez, arXiv:2407.10361.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.linalg
from ase import Atoms

from paretofit.core import Array
from paretofit.structures.augment_settings import EntropySettings
from paretofit.structures.disorder import find_close_pairs, generate_random_configuration

RIDGE = 1e-6  # ridge relative to the variance of random configurations; it allows linearly dependent descriptors
SAMPLES_PER_DESCRIPTOR = 10  # number of atoms in random configurations for each descriptor
MAX_REFERENCE_CONFIGURATIONS = 200
CORE_STRENGTH = 2.0  # energy scale in units of the entropy of one atom
CORE_RANGE_RATIO = 1.2  # range in units of the minimum distance
MAX_STARTS_RATIO = 5  # maximum number of generated configurations per requested configuration
INITIAL_STEP_A, MIN_STEP_A = 0.15, 0.005  # displacement of the atom that moves farthest


@dataclass(frozen=True)
class DescriptorMoments:
    """Count, sum ``(K,)`` and sum of squares ``(K, K)`` of the descriptors of atoms."""

    count: float
    total: Array
    squares: Array

    @classmethod
    def from_descriptors(cls, descriptors: Array) -> Self:
        """Compute the moments of the descriptors of atoms, ``(N, K)``."""
        return cls(len(descriptors), descriptors.sum(axis=0), descriptors.T @ descriptors)

    def add(self, descriptors: Array) -> Self:
        """Return the moments including the descriptors of further atoms, ``(N, K)``."""
        new_moments = self.from_descriptors(descriptors)
        return type(self)(
            self.count + new_moments.count, self.total + new_moments.total, self.squares + new_moments.squares
        )

    def compute_covariance(self) -> Array:
        """Compute the covariance C, ``(K, K)``."""
        mean = self.total / self.count
        return np.asarray(self.squares / self.count - np.outer(mean, mean))

    def compute_entropy(self) -> float:
        """Compute ½ log det C."""
        return float(0.5 * np.linalg.slogdet(self.compute_covariance())[1])


@dataclass(frozen=True)
class GeneratedConfiguration:
    """A generated configuration, and its effect on the entropy of the set.

    Attributes
    ----------
    atoms : ase.Atoms
    entropy_gain : float
        Increase of the entropy of the set by this configuration. It is not positive if every start failed; the
        configuration is then not added to the set.
    random_gain : float
        Increase of the entropy by the random configuration from which it started.
    entropy : float
        Entropy of the set, including as many random atoms as there are descriptors, relative to random atoms.
    n_starts : int
        Number of random starts.
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
    """Generate configurations one by one; each raises the entropy of the set as far as possible.

    A configuration that does not raise the entropy is yielded, but is not added to the set. At most five times the
    requested number of configurations are generated.

    Parameters
    ----------
    settings : EntropySettings
        Composition, ranges of volume and number of atoms, number of configurations and of steps.
    compute_descriptors : callable
        Function that returns the descriptors of each atom, ``(N, K)``, and their derivatives, ``(N, 3, N, K)`` in 1/Å.
    rng : numpy.random.Generator
    radii : mapping of symbol to float, optional
        Radii in Å; other elements have their covalent radii.

    Raises
    ------
    InputError
        If atoms would overlap at the requested densities.

    Notes
    -----
    The set starts with the moments of K atoms of random configurations, where K is the number of descriptors. With
    fewer atoms, the covariance would be singular, and rounding errors would determine the configurations.
    """
    if not settings.count:
        return
    maximiser = EntropyMaximiser(settings, compute_descriptors, rng, radii or {})
    moments, n_accepted = maximiser.random_moments, 0
    for _ in range(MAX_STARTS_RATIO * settings.count):
        configuration, new_moments = maximiser.generate(moments)
        if configuration.entropy_gain > 0:
            moments, n_accepted = new_moments, n_accepted + 1
        yield replace(configuration, entropy=moments.compute_entropy() - maximiser.random_moments.compute_entropy())
        if n_accepted == settings.count:
            return


class EntropyMaximiser:
    """Gradient ascent of an objective, the entropy of a set; a step that does not raise it is repeated at half length.

    Parameters
    ----------
    settings : EntropySettings
    compute_descriptors : callable
    rng : numpy.random.Generator
        Generator for random configurations. Those drawn first determine the scale of the descriptors and
        `random_moments`, which are normalised to as many atoms as there are descriptors.
    radii : mapping of symbol to float
    """

    def __init__(
        self,
        settings: EntropySettings,
        compute_descriptors: Callable[[Atoms], tuple[Array, Array]],
        rng: np.random.Generator,
        radii: dict[str, float],
    ) -> None:
        self._settings, self._compute_descriptors, self._rng, self._radii = settings, compute_descriptors, rng, radii
        # The limit of the scale avoids a division by zero if a descriptor is constant.
        samples: list[Array] = []
        for _ in range(MAX_REFERENCE_CONFIGURATIONS):
            samples.append(compute_descriptors(generate_random_configuration(settings, rng, radii))[0])
            if sum(map(len, samples)) >= SAMPLES_PER_DESCRIPTOR * samples[0].shape[1]:
                break
        descriptors = np.concatenate(samples)
        self._centre, self._scale = descriptors.mean(axis=0), np.maximum(descriptors.std(axis=0), 1e-12)
        covariance = DescriptorMoments.from_descriptors((descriptors - self._centre) / self._scale).compute_covariance()
        K = len(covariance)
        self.random_moments = DescriptorMoments(K, np.zeros(K), K * (covariance + RIDGE * np.eye(K)))

    def generate(self, moments: DescriptorMoments) -> tuple[GeneratedConfiguration, DescriptorMoments]:
        """Generate configurations until one raises the entropy; return the best, and the moments of the set with it."""
        old_entropy, starts = moments.compute_entropy(), list[tuple[GeneratedConfiguration, DescriptorMoments]]()
        while len(starts) < self._settings.max_starts and (not starts or starts[-1][0].entropy_gain <= 0):
            start = generate_random_configuration(self._settings, self._rng, self._radii)
            atoms, descriptors, random_descriptors = self.maximise(start, moments)
            new_moments = moments.add(descriptors)
            gain, random_gain = (
                set_moments.compute_entropy() - old_entropy
                for set_moments in (new_moments, moments.add(random_descriptors))
            )
            starts.append((GeneratedConfiguration(atoms, gain, random_gain, 0.0, len(starts) + 1), new_moments))
        configuration, new_moments = max(starts, key=lambda start: start[0].entropy_gain)
        return replace(configuration, n_starts=len(starts)), new_moments

    def maximise(self, start: Atoms, moments: DescriptorMoments) -> tuple[Atoms, Array, Array]:
        """Maximise the objective; return the final structure, its scaled descriptors, and those of `start`."""
        atoms, step = start, INITIAL_STEP_A
        descriptors, objective, gradient = self.evaluate_objective(atoms, moments)
        start_descriptors = descriptors
        for _ in range(self._settings.max_steps):
            largest_gradient = float(np.linalg.norm(gradient, axis=1).max())
            if step < MIN_STEP_A or largest_gradient < 1e-12:
                break
            trial = atoms.copy()
            trial.positions += gradient * (step / largest_gradient)
            new_descriptors, new_objective, new_gradient = self.evaluate_objective(trial, moments)
            if new_objective > objective:
                atoms, descriptors, objective, gradient = trial, new_descriptors, new_objective, new_gradient
                step *= 1.2
            else:
                step /= 2
        return atoms, descriptors, start_descriptors

    def evaluate_objective(self, atoms: Atoms, moments: DescriptorMoments) -> tuple[Array, float, Array]:
        """Compute the scaled descriptors, the objective to maximise, and its gradient.

        Parameters
        ----------
        atoms : ase.Atoms
        moments : DescriptorMoments
            Moments of the set without this configuration.

        Returns
        -------
        descriptors : (N, K) float64
        objective : float
            Entropy of the set times its number of atoms, minus the energy of the core; -inf if atoms are too close.
        gradient : (N, 3) float64
            Gradient of the objective in 1/Å; d(n ½ log det C)/dB_i is C⁻¹ (B_i − mean).
        """
        energy, forces = compute_core_repulsion(atoms, self._settings.min_distance_ratio, self._radii)
        if not np.isfinite(energy):
            return np.empty(0), -np.inf, forces
        raw_descriptors, descriptor_gradient = self._compute_descriptors(atoms)
        descriptors = (raw_descriptors - self._centre) / self._scale
        set_moments = moments.add(descriptors)
        factor = scipy.linalg.cho_factor(set_moments.compute_covariance(), lower=True, check_finite=False)
        weights = scipy.linalg.cho_solve(
            factor, (descriptors - set_moments.total / set_moments.count).T, check_finite=False
        ).T
        gradient = np.tensordot(descriptor_gradient, weights / self._scale, axes=((2, 3), (0, 1)))
        entropy = float(np.log(np.diag(factor[0])).sum())
        return descriptors, set_moments.count * entropy - CORE_STRENGTH * energy, gradient + CORE_STRENGTH * forces


def compute_core_repulsion(atoms: Atoms, min_distance_ratio: float, radii: dict[str, float]) -> tuple[float, Array]:
    """Compute the energy Σ ln²((r − r_c) / (r₀ − r_c)) of pairs closer than r₀ = 1.2 r_c, and its forces in 1/Å.

    The energy diverges at the minimum distance r_c, and is infinite below it.
    """
    first_atoms, ratios, min_distances, vectors = find_close_pairs(atoms, min_distance_ratio, radii, CORE_RANGE_RATIO)
    forces = np.zeros((len(atoms), 3))
    if (ratios <= 1).any():
        return float("inf"), forces
    logarithms = np.log((ratios - 1) / (CORE_RANGE_RATIO - 1))
    weights = 2 * logarithms / (min_distances * (ratios - 1)) / (ratios * min_distances)
    np.add.at(forces, first_atoms, weights[:, None] * vectors)
    return float(0.5 * (logarithms**2).sum()), forces
