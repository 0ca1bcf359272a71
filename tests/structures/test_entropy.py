"""Entropy-maximised configurations: slope and derivative agree, the set is more diverse than random ones."""

import numpy as np
import pytest
from helpers.entropy import compute_entropy_difference

from paretofit import InputError
from paretofit.descriptors import compute_atom_descriptors, compute_atom_descriptors_and_gradient
from paretofit.structures import is_too_close, maximise_entropy
from paretofit.structures.augment_settings import EntropySettings
from paretofit.structures.disorder import find_close_pairs, generate_random_configuration
from paretofit.structures.entropy import DescriptorMoments, EntropyMaximiser, compute_core_repulsion
from paretofit.structures.structure_vectors import build_comparison_basis

SETTINGS = EntropySettings(count=6, composition={"Be": 1.0}, n_atoms_range=(4, 8), twojmax=4, max_steps=15)
MIXED = EntropySettings(
    count=3,
    composition={"W": 3.0, "Be": 1.0},
    n_atoms_range=(4, 6),
    volume_per_atom=(12.0, 18.0),
    twojmax=2,
    max_steps=5,
)


@pytest.fixture
def describe(lammps):
    def of(settings):
        basis = build_comparison_basis(sorted(settings.composition), settings.twojmax, settings.cutoff)
        return lambda atoms: compute_atom_descriptors_and_gradient(lammps, basis, atoms)

    return of


@pytest.mark.parametrize("settings", [SETTINGS, MIXED], ids=["Be", "W-Be"])
def test_slope_is_the_derivative_of_the_objective(describe, settings):
    rng = np.random.default_rng(3)
    maximiser = EntropyMaximiser(settings, describe(settings), rng, {})
    moments = maximiser.random_moments.add(rng.normal(size=(9, len(maximiser.random_moments.total))))
    atoms = generate_random_configuration(
        settings.model_copy(update={"volume_per_atom": settings.volume_per_atom[:1] * 2}), rng
    )
    assert compute_core_repulsion(atoms, settings.min_distance_ratio, {})[0] > 0  # the core is tested, too
    _, _, slope = maximiser.evaluate_objective(atoms, moments)
    step = 1e-5
    for k, axis in [(0, 0), (1, 2), (3, 1)]:
        objectives = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[k, axis] += sign * step
            objectives.append(maximiser.evaluate_objective(moved, moments)[1])
        assert slope[k, axis] == pytest.approx((objectives[0] - objectives[1]) / (2 * step), rel=1e-5, abs=1e-4)


def test_core_repulsion_is_infinite_below_the_smallest_distance():
    rng = np.random.default_rng(1)
    atoms = generate_random_configuration(SETTINGS, rng)
    edge = compute_core_repulsion(atoms, 0.7, {})[0]
    assert compute_core_repulsion(atoms, 1.2, {})[0] == np.inf
    assert 0 <= edge < np.inf
    first, ratio, limit, vectors = find_close_pairs(atoms, 0.7, {}, 1.5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(ratio * limit)
    assert len(first) % 2 == 0  # each pair both ways


def test_moments_of_parts_add_up_to_those_of_all_atoms():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 4)) for n in (5, 9, 30)]
    grown = DescriptorMoments.from_descriptors(parts[0]).add(parts[1]).add(parts[2])
    assert grown.compute_covariance() == pytest.approx(np.cov(np.concatenate(parts).T, bias=True))
    assert grown.compute_entropy() == pytest.approx(0.5 * np.log(np.linalg.det(grown.compute_covariance())))
    scaled = [part @ rng.normal(size=(4, 4)) for part in parts]
    assert compute_entropy_difference(scaled, scaled) == pytest.approx(0)
    assert compute_entropy_difference([2 * part for part in parts], parts) == pytest.approx(4 * np.log(2), rel=1e-5)


def test_a_maximised_set_is_more_diverse_than_random_ones(lammps, describe):
    grown = list(maximise_entropy(SETTINGS, describe(SETTINGS), np.random.default_rng(1)))
    assert len(grown) == SETTINGS.count
    rng = np.random.default_rng(2)
    basis = build_comparison_basis(["Be"], SETTINGS.twojmax, SETTINGS.cutoff)
    random = [[generate_random_configuration(SETTINGS, rng) for _ in grown] for _ in range(5)]
    descriptors = [compute_atom_descriptors(lammps, basis, configuration.atoms) for configuration in grown]
    others = [[compute_atom_descriptors(lammps, basis, configuration) for configuration in group] for group in random]
    all_random = [configuration for group in others for configuration in group]
    assert (
        compute_entropy_difference(descriptors, all_random)
        > max(compute_entropy_difference(group, all_random) for group in others) + 3
    )
    assert [step.entropy for step in grown] == pytest.approx(np.cumsum([step.entropy_gain for step in grown]))
    assert sum(configuration.entropy_gain > configuration.random_gain for configuration in grown) == len(grown)
    for configuration in grown:
        assert not is_too_close(configuration.atoms, SETTINGS.min_distance_ratio)
        assert SETTINGS.n_atoms_range[0] <= len(configuration.atoms) <= SETTINGS.n_atoms_range[1]
        assert (
            SETTINGS.volume_per_atom[0]
            <= configuration.atoms.cell.volume / len(configuration.atoms)
            <= SETTINGS.volume_per_atom[1]
        )
        assert configuration.atoms.pbc.all()


def test_results_are_reproducible(describe):
    first, second = (list(maximise_entropy(MIXED, describe(MIXED), np.random.default_rng(4))) for _ in range(2))
    for configuration, other in zip(first, second, strict=True):
        assert np.array_equal(configuration.atoms.positions, other.atoms.positions)
        assert (configuration.entropy_gain, configuration.entropy, configuration.n_starts) == (
            other.entropy_gain,
            other.entropy,
            other.n_starts,
        )
    assert {symbol for configuration in first for symbol in configuration.atoms.symbols} == {"Be", "W"}


@pytest.mark.parametrize("volume", [6.0, 4.0, 30.0])
def test_atoms_of_random_configurations_are_apart_at_any_density(volume):
    settings = EntropySettings(composition={"Be": 1.0}, n_atoms_range=(1, 30), volume_per_atom=(volume, volume))
    for seed in range(6):
        atoms = generate_random_configuration(settings, np.random.default_rng(seed))
        assert not is_too_close(atoms, settings.min_distance_ratio)
        assert atoms.cell.volume / len(atoms) == pytest.approx(volume)


def test_densities_that_are_too_high_are_refused():
    settings = EntropySettings(composition={"Be": 1.0}, n_atoms_range=(3, 3), volume_per_atom=(0.3, 0.3))
    with pytest.raises(InputError, match="raise it to at least 1.72, or lower 'entropy.min_distance_ratio'"):
        generate_random_configuration(settings, np.random.default_rng(1))


def test_given_radii_are_used():
    settings = EntropySettings(composition={"Be": 1.0}, n_atoms_range=(8, 8), volume_per_atom=(12.0, 12.0))
    atoms = generate_random_configuration(settings, np.random.default_rng(1), {"Be": 1.3})
    assert not is_too_close(atoms, settings.min_distance_ratio, {"Be": 1.3})
