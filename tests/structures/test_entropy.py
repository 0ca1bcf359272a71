"""Entropy-maximised configurations: the slope is the derivative, the set beats random ones, atoms stay apart."""

import numpy as np
import pytest

from paretofit import InputError
from paretofit.descriptors import compute_atom_descriptors, compute_atom_descriptors_and_gradient
from paretofit.structures import is_too_close, maximise_entropy
from paretofit.structures.augment_settings import EntropySettings
from paretofit.structures.disorder import find_close_pairs, generate_random_configuration
from paretofit.structures.entropy import (
    DescriptorMoments,
    EntropyMaximiser,
    compute_core_repulsion,
    compute_entropy_difference,
)
from paretofit.structures.structure_vectors import make_comparison_basis

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
        basis = make_comparison_basis(sorted(settings.composition), settings.twojmax, settings.cutoff)
        return lambda atoms: compute_atom_descriptors_and_gradient(lammps, basis, atoms)

    return of


@pytest.mark.parametrize("settings", [SETTINGS, MIXED], ids=["Be", "W-Be"])
def test_the_slope_is_the_derivative_of_what_is_maximised(describe, settings):
    rng = np.random.default_rng(3)
    climber = EntropyMaximiser(settings, describe(settings), rng, {})
    moments = climber.random_moments.add(rng.normal(size=(9, len(climber.random_moments.total))))
    atoms = generate_random_configuration(settings.model_copy(update={"volume_per_atom": settings.volume_per_atom[:1] * 2}), rng)
    assert compute_core_repulsion(atoms, settings.min_distance_ratio, {})[0] > 0  # the core is tested, too
    _, _, slope = climber.evaluate_objective(atoms, moments)
    step = 1e-5
    for k, axis in [(0, 0), (1, 2), (3, 1)]:
        levels = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[k, axis] += sign * step
            levels.append(climber.evaluate_objective(moved, moments)[1])
        assert slope[k, axis] == pytest.approx((levels[0] - levels[1]) / (2 * step), rel=1e-5, abs=1e-4)


def test_the_core_has_no_way_through():
    rng = np.random.default_rng(1)
    atoms = generate_random_configuration(SETTINGS, rng)
    edge = compute_core_repulsion(atoms, 0.7, {})[0]
    assert compute_core_repulsion(atoms, 1.2, {})[0] == np.inf
    assert 0 <= edge < np.inf
    first, ratio, limit, vectors = find_close_pairs(atoms, 0.7, {}, 1.5)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(ratio * limit)
    assert len(first) % 2 == 0  # each pair both ways


def test_moments_are_those_of_all_atoms_together():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 4)) for n in (5, 9, 30)]
    grown = DescriptorMoments.from_descriptors(parts[0]).add(parts[1]).add(parts[2])
    assert grown.covariance() == pytest.approx(np.cov(np.concatenate(parts).T, bias=True))
    assert grown.entropy() == pytest.approx(0.5 * np.log(np.linalg.det(grown.covariance())))
    scaled = [part @ rng.normal(size=(4, 4)) for part in parts]
    assert compute_entropy_difference(scaled, scaled) == pytest.approx(0)
    assert compute_entropy_difference([2 * part for part in parts], parts) == pytest.approx(4 * np.log(2), rel=1e-5)


def test_a_maximised_set_beats_random_ones_of_its_sizes_and_densities(lammps, describe):
    grown = list(maximise_entropy(SETTINGS, describe(SETTINGS), np.random.default_rng(1)))
    assert len(grown) == SETTINGS.count
    rng = np.random.default_rng(2)
    basis = make_comparison_basis(["Be"], SETTINGS.twojmax, SETTINGS.cutoff)
    random = [[generate_random_configuration(SETTINGS, rng) for _ in grown] for _ in range(5)]
    own = [compute_atom_descriptors(lammps, basis, one.atoms) for one in grown]
    others = [[compute_atom_descriptors(lammps, basis, one) for one in group] for group in random]
    everyone = [one for group in others for one in group]
    assert (
        compute_entropy_difference(own, everyone)
        > max(compute_entropy_difference(group, everyone) for group in others) + 3
    )
    assert [one.entropy for one in grown] == pytest.approx(np.cumsum([one.entropy_gain for one in grown]))
    assert sum(one.entropy_gain > one.random_gain for one in grown) == len(grown)
    for one in grown:
        assert not is_too_close(one.atoms, SETTINGS.min_distance_ratio)
        assert SETTINGS.n_atoms_range[0] <= len(one.atoms) <= SETTINGS.n_atoms_range[1]
        assert SETTINGS.volume_per_atom[0] <= one.atoms.cell.volume / len(one.atoms) <= SETTINGS.volume_per_atom[1]
        assert one.atoms.pbc.all()


def test_the_same_seed_gives_the_same_bits(describe):
    first, second = (list(maximise_entropy(MIXED, describe(MIXED), np.random.default_rng(4))) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.atoms.positions, other.atoms.positions)
        assert (one.entropy_gain, one.entropy, one.n_starts) == (other.entropy_gain, other.entropy, other.n_starts)
    assert {symbol for one in first for symbol in one.atoms.symbols} == {"Be", "W"}


@pytest.mark.parametrize("volume", [6.0, 4.0, 30.0])
def test_random_configurations_keep_their_distance_at_any_density(volume):
    settings = EntropySettings(composition={"Be": 1.0}, n_atoms_range=(1, 30), volume_per_atom=(volume, volume))
    for seed in range(6):
        atoms = generate_random_configuration(settings, np.random.default_rng(seed))
        assert not is_too_close(atoms, settings.min_distance_ratio)
        assert atoms.cell.volume / len(atoms) == pytest.approx(volume)


def test_what_is_too_dense_is_said_to_be_so():
    settings = EntropySettings(composition={"Be": 1.0}, n_atoms_range=(3, 3), volume_per_atom=(0.3, 0.3))
    with pytest.raises(InputError, match="raise it to 1.72 at least, or lower 'entropy.min_distance_ratio'"):
        generate_random_configuration(settings, np.random.default_rng(1))


def test_radii_that_are_given_count():
    settings = EntropySettings(composition={"Be": 1.0}, n_atoms_range=(8, 8), volume_per_atom=(12.0, 12.0))
    atoms = generate_random_configuration(settings, np.random.default_rng(1), {"Be": 1.3})
    assert not is_too_close(atoms, settings.min_distance_ratio, {"Be": 1.3})
