"""Generation of a diverse set of configurations, by maximising the entropy of the descriptors of its atoms.

The entropy of descriptors with a Gaussian distribution of covariance C is ½ log det C plus a constant. Entropies are
reported relative to that of random configurations, so that a set with a positive entropy is more diverse than these. A
new configuration starts from random positions. Gradient steps then maximise the entropy of the set including this
configuration, while a repulsive core keeps the atoms apart. The configuration is added if it raises the entropy of the
set. Method:
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

RIDGE = 1e-6  # added to the unit variances of random configurations, so that descriptors may be linearly dependent
MIN_ATOMS_PER_DESCRIPTOR = 10  # number of atoms per descriptor in the random reference configurations
MAX_REFERENCE_CONFIGURATIONS = 200
CORE_STRENGTH = 2.0  # weight of the core energy in the objective
CORE_RANGE_RATIO = 1.2  # range of the core relative to the minimum distance
MAX_GENERATED_RATIO = 5  # maximum number of generated configurations per requested configuration
INITIAL_STEP_A, MIN_STEP_A = 0.15, 0.005  # step lengths: displacement of the atom that moves farthest
MIN_GRADIENT = 1e-12  # 1/Å; a smaller gradient has no direction


@dataclass(frozen=True)
class DescriptorMoments:
    """Number of atoms, sum ``(K,)`` of their descriptors b, and sum ``(K, K)`` of the products b bᵀ."""

    count: float
    total: Array
    products: Array

    @classmethod
    def from_descriptors(cls, descriptors: Array) -> Self:
        """Compute the moments of the descriptors of atoms, ``(N, K)``."""
        return cls(len(descriptors), descriptors.sum(axis=0), descriptors.T @ descriptors)

    def add(self, descriptors: Array) -> Self:
        """Return the moments including the descriptors of further atoms, ``(N, K)``."""
        new_moments = self.from_descriptors(descriptors)
        return type(self)(
            self.count + new_moments.count, self.total + new_moments.total, self.products + new_moments.products
        )

    def compute_covariance(self) -> Array:
        """Compute the covariance C of the descriptors, ``(K, K)``."""
        mean = self.total / self.count
        return np.asarray(self.products / self.count - np.outer(mean, mean))

    def compute_entropy(self) -> float:
        """Compute the entropy ½ log det C, without its constant."""
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
        Increase of the entropy of the set by the random configuration from which this configuration was generated.
    entropy : float
        Entropy of the set after this configuration, relative to that of random atoms. The set includes as many random
        atoms as there are descriptors.
    n_starts : int
        Number of random configurations from which the generation was started.
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
    """Generate configurations one by one, each of which maximises the entropy of the set at its addition.

    A configuration that does not raise the entropy is yielded, but is not added to the set. At most five times the
    requested number of configurations are generated.

    Parameters
    ----------
    settings : EntropySettings
        Composition, ranges of volume and number of atoms, and numbers of configurations and of gradient steps.
    compute_descriptors : callable
        Function that returns the descriptors of each atom, ``(N, K)``, and their derivatives, ``(N, 3, N, K)`` in 1/Å;
        the first two axes belong to the displaced atom.
    rng : numpy.random.Generator
        Generator for the random configurations.
    radii : mapping of symbol to float, optional
        Radii in Å; other elements have their covalent radii.

    Yields
    ------
    GeneratedConfiguration

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
    for _ in range(MAX_GENERATED_RATIO * settings.count):
        configuration, new_moments = maximiser.generate(moments)
        if configuration.entropy_gain > 0:
            moments, n_accepted = new_moments, n_accepted + 1
        yield replace(configuration, entropy=moments.compute_entropy() - maximiser.random_moments.compute_entropy())
        if n_accepted == settings.count:
            return


class EntropyMaximiser:
    """Generator of configurations by gradient ascent of the objective in `evaluate_objective`.

    The constructor generates random reference configurations. They determine the centre and the scale of the
    descriptors, and `random_moments`, the moments of K random atoms, where K is the number of descriptors.

    Parameters
    ----------
    settings, compute_descriptors, rng, radii
        As in `maximise_entropy`.
    """

    def __init__(
        self,
        settings: EntropySettings,
        compute_descriptors: Callable[[Atoms], tuple[Array, Array]],
        rng: np.random.Generator,
        radii: dict[str, float],
    ) -> None:
        self._settings, self._compute_descriptors, self._rng, self._radii = settings, compute_descriptors, rng, radii
        samples: list[Array] = []  # descriptors of the random reference configurations
        for _ in range(MAX_REFERENCE_CONFIGURATIONS):
            samples.append(compute_descriptors(generate_random_configuration(settings, rng, radii))[0])
            if sum(map(len, samples)) >= MIN_ATOMS_PER_DESCRIPTOR * samples[0].shape[1]:
                break
        descriptors = np.concatenate(samples)
        # The limit of 1e-12 avoids a division by zero if a descriptor is constant.
        self._centre, self._scale = descriptors.mean(axis=0), np.maximum(descriptors.std(axis=0), 1e-12)
        covariance = DescriptorMoments.from_descriptors((descriptors - self._centre) / self._scale).compute_covariance()
        K = len(covariance)
        self.random_moments = DescriptorMoments(K, np.zeros(K), K * (covariance + RIDGE * np.eye(K)))

    def generate(self, moments: DescriptorMoments) -> tuple[GeneratedConfiguration, DescriptorMoments]:
        """Generate configurations from random starts until one raises the entropy of a set.

        Parameters
        ----------
        moments : DescriptorMoments
            Moments of the set.

        Returns
        -------
        configuration : GeneratedConfiguration
            The configuration with the largest gain; its `entropy` is not computed.
        new_moments : DescriptorMoments
            Moments of the set with this configuration.
        """
        old_entropy, attempts = moments.compute_entropy(), list[tuple[GeneratedConfiguration, DescriptorMoments]]()
        while len(attempts) < self._settings.max_starts and (not attempts or attempts[-1][0].entropy_gain <= 0):
            random_atoms = generate_random_configuration(self._settings, self._rng, self._radii)
            atoms, descriptors, random_descriptors = self.maximise(random_atoms, moments)
            new_moments = moments.add(descriptors)
            gain = new_moments.compute_entropy() - old_entropy
            random_gain = moments.add(random_descriptors).compute_entropy() - old_entropy
            attempts.append((GeneratedConfiguration(atoms, gain, random_gain, 0.0, len(attempts) + 1), new_moments))
        configuration, new_moments = max(attempts, key=lambda attempt: attempt[0].entropy_gain)
        return replace(configuration, n_starts=len(attempts)), new_moments

    def maximise(self, initial_atoms: Atoms, moments: DescriptorMoments) -> tuple[Atoms, Array, Array]:
        """Maximise the objective by gradient steps from the structure `initial_atoms`.

        A step that does not raise the objective is repeated at half its length. After other steps, the length grows by
        20 %. The maximisation ends after `max_steps` steps, or when the step length or the gradient is too small.

        Returns
        -------
        atoms : ase.Atoms
            Final structure.
        descriptors, initial_descriptors : (N, K) float64
            Scaled descriptors of the final structure and of `initial_atoms`.
        """
        atoms, step_length = initial_atoms, INITIAL_STEP_A
        descriptors, objective, gradient = self.evaluate_objective(atoms, moments)
        initial_descriptors = descriptors
        for _ in range(self._settings.max_steps):
            largest_gradient = float(np.linalg.norm(gradient, axis=1).max())
            if step_length < MIN_STEP_A or largest_gradient < MIN_GRADIENT:
                break
            trial = atoms.copy()
            trial.positions += gradient * (step_length / largest_gradient)
            new_descriptors, new_objective, new_gradient = self.evaluate_objective(trial, moments)
            if new_objective > objective:
                atoms, descriptors, objective, gradient = trial, new_descriptors, new_objective, new_gradient
                step_length *= 1.2
            else:
                step_length /= 2
        return atoms, descriptors, initial_descriptors

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
            Scaled descriptors; empty if atoms are too close.
        objective : float
            Entropy of the set, with this configuration, times its number of atoms n, minus the energy of the core; -inf
            if atoms are too close.
        gradient : (N, 3) float64
            Gradient of the objective in 1/Å; zero if atoms are too close. The derivative of n ½ log det C with respect
            to the descriptors b_i of an atom is C⁻¹ (b_i − mean).
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
        entropy = float(np.log(np.diag(factor[0])).sum())  # ½ log det C from the Cholesky factor
        return descriptors, set_moments.count * entropy - CORE_STRENGTH * energy, gradient + CORE_STRENGTH * forces


def compute_core_repulsion(atoms: Atoms, min_distance_ratio: float, radii: dict[str, float]) -> tuple[float, Array]:
    """Compute the energy Σ ln²((r − r_c) / (r₀ − r_c)) of pairs at distances r below r₀ = 1.2 r_c, and its forces.

    The energy is dimensionless. It diverges at the minimum distance r_c of a pair, and is infinite below. The forces,
    ``(N, 3)`` in 1/Å, are then zero.
    """
    first_atoms, ratios, min_distances, vectors = find_close_pairs(atoms, min_distance_ratio, radii, CORE_RANGE_RATIO)
    forces = np.zeros((len(atoms), 3))
    if (ratios <= 1).any():
        return float("inf"), forces
    logarithms = np.log((ratios - 1) / (CORE_RANGE_RATIO - 1))
    weights = 2 * logarithms / (min_distances * (ratios - 1)) / (ratios * min_distances)
    np.add.at(forces, first_atoms, weights[:, None] * vectors)
    return float(0.5 * (logarithms**2).sum()), forces
