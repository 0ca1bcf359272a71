"""Each kind of augmentation, distances, vacuum and filters, on cells of any shape and periodicity."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene
from ase.geometry import find_mic
from helpers.structures import same
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import InputError
from paretofit.structures import CandidateFilter, build_mean_descriptor_function, find_nearest_distance, is_too_close
from paretofit.structures import operations as kinds
from paretofit.structures.augment_settings import FilterSettings
from paretofit.structures.geometry import add_vacuum, compute_periodic_projector, find_widest_gap, measure_thickness

BERYLLIUM = partial(bulk, "Be", "hcp", a=2.286, c=3.584)
FLAGS = [(True, True, True), (True, True, False), (False, True, False), (True, False, True), (False, False, False)]
PERIODIC = FLAGS[:-1]


@st.composite
def structures(draw, flags=tuple(FLAGS), elements=("Be", "W"), max_atoms=4):
    """A triclinic cell with one atom or a few, none of them close."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    cell = 4.0 * np.eye(3) + rng.uniform(-1.2, 1.2, (3, 3))
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])[: draw(st.integers(1, max_atoms))]
    sites = sites + rng.uniform(-0.03, 0.03, sites.shape)
    return Atoms(
        rng.choice(elements, len(sites)).tolist(), scaled_positions=sites, cell=cell, pbc=draw(flags_of(flags))
    )


def flags_of(flags):
    return st.sampled_from(list(flags))


def brute_nearest(atoms, images=3):
    """Shortest distance by counting images."""
    steps = [range(-images, images + 1) if periodic else (0,) for periodic in atoms.pbc]
    best = np.inf
    for shift in np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 3):
        away = atoms.positions[:, None] + shift @ atoms.cell[:] - atoms.positions[None]
        distances = np.linalg.norm(away, axis=-1)
        if not shift.any():
            distances[np.diag_indices(len(atoms))] = np.inf
        best = min(best, distances.min())
    return best


KINDS = {
    "supercell": lambda atoms, rng: kinds.build_supercell(atoms, 9.0, 60),
    "distorted": kinds.distort,
    "strained": lambda atoms, rng: kinds.apply_strain(atoms, rng, anisotropic=0.1, shear=0.1),
    "vacancy": lambda atoms, rng: kinds.create_vacancies(atoms * (2, 1, 1), rng, 1),
    "alloyed": lambda atoms, rng: kinds.randomise_species(atoms, rng, ["Be", "W"]),
    "substituted": lambda atoms, rng: kinds.swap_atoms(atoms * (2, 1, 1) + Atoms("He"), rng),
    "vacuum": lambda atoms, rng: add_vacuum(atoms, 15.0),
}


@pytest.mark.parametrize("kind", KINDS)
@given(atoms=structures(), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_kinds_do_not_change_their_arguments_and_are_reproducible(kind, atoms, seed):
    before = atoms.copy()
    first = KINDS[kind](atoms, np.random.default_rng(seed))
    assert same(atoms, before)
    assert same(first, KINDS[kind](atoms, np.random.default_rng(seed)))
    assert np.array_equal(first.pbc, atoms.pbc)
    assert np.isfinite(first.positions).all()


@given(atoms=structures())
@settings(max_examples=40)
def test_the_nearest_distance_is_that_of_all_images(atoms):
    assert find_nearest_distance(atoms) == pytest.approx(brute_nearest(atoms))


def test_a_single_free_atom_has_no_neighbour():
    assert find_nearest_distance(Atoms("Be")) == np.inf
    assert not is_too_close(Atoms("Be"), 1.0)


@given(atoms=structures(), length=st.floats(1.0, 20.0), max_atoms=st.integers(4, 200))
@settings(max_examples=40)
def test_a_supercell_is_long_enough_unless_the_limit_stops_it(atoms, length, max_atoms):
    larger = kinds.build_supercell(atoms, length, max_atoms)
    assert len(larger) <= max_atoms
    assert len(larger) % len(atoms) == 0
    repeats = np.round(larger.cell.lengths() / atoms.cell.lengths()).astype(int)
    assert (repeats[~atoms.pbc] == 1).all()
    assert len(larger) == len(atoms) * np.prod(repeats)
    for axis in np.flatnonzero(atoms.pbc):
        more = len(larger) // repeats[axis] * (repeats[axis] + 1)
        assert larger.cell.lengths()[axis] >= length or more > max_atoms
        assert repeats[axis] == 1 or larger.cell.lengths()[axis] - atoms.cell.lengths()[axis] < length
    if atoms.pbc.all():
        assert larger.cell.volume / len(larger) == pytest.approx(atoms.cell.volume / len(atoms))
    assert find_nearest_distance(larger) == pytest.approx(find_nearest_distance(atoms))


@given(atoms=structures(), fraction=st.floats(0.0, 0.5), seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_distortions_are_bounded_and_have_zero_mean(atoms, fraction, seed):
    moves = kinds.distort(atoms, np.random.default_rng(seed), fraction).positions - atoms.positions
    if len(atoms) == 1:
        assert not moves.any()
        return
    assert np.linalg.norm(moves, axis=1).max() <= fraction * find_nearest_distance(atoms) * (1 + 1e-12)
    assert np.abs(moves.mean(axis=0)).max() < 1e-12


def test_distortions_are_isotropic_and_reach_their_bound():
    atoms, rng = BERYLLIUM() * (3, 3, 2), np.random.default_rng(1)
    nearest = find_nearest_distance(atoms)
    distorted = [kinds.distort(atoms, rng, 0.3, nearest_distance_angstrom=nearest) for _ in range(200)]
    moves = np.concatenate([structure.positions - atoms.positions for structure in distorted])
    shares = np.linalg.norm(moves, axis=1) / (0.3 * nearest)
    assert 0.8 < shares.max() <= 1
    assert np.abs((moves > 0).mean(axis=0) - 0.5).max() < 0.02  # [0, 1) instead of [-1, 1) would give 1


@given(atoms=structures(PERIODIC), seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_isotropic_strain_scales_only_periodic_directions(atoms, seed):
    atoms = add_vacuum(atoms, 15.0)
    strained = kinds.apply_strain(atoms, np.random.default_rng(seed))
    factors = strained.cell.lengths()[atoms.pbc] / atoms.cell.lengths()[atoms.pbc]
    assert 0.8 <= factors[0] <= 1.6
    assert factors == pytest.approx(factors[0])
    assert np.array_equal(strained.cell[~atoms.pbc], atoms.cell[~atoms.pbc])
    across = np.eye(3) - compute_periodic_projector(atoms)
    assert strained.positions @ across == pytest.approx(atoms.positions @ across, abs=1e-9)
    inside = atoms.positions @ compute_periodic_projector(atoms)
    assert strained.positions @ compute_periodic_projector(atoms) == pytest.approx(factors[0] * inside, abs=1e-9)


@given(atoms=structures([(True, True, True)]), seed=st.integers(0, 10**6))
@settings(max_examples=30)
def test_strain_keeps_fractional_coordinates_and_the_bounds_of_its_tensor(atoms, seed):
    strained = kinds.apply_strain(atoms, np.random.default_rng(seed), 0.0, 0.0, anisotropic=0.05, shear=0.1)
    assert strained.get_scaled_positions(wrap=False) == pytest.approx(atoms.get_scaled_positions(wrap=False))
    gradient = np.linalg.solve(atoms.cell[:], strained.cell[:])
    assert gradient == pytest.approx(gradient.T, abs=1e-10)  # no rotation
    assert np.abs(np.diag(gradient) - 1).max() <= 0.05 + 1e-9
    assert np.abs(gradient[np.triu_indices(3, 1)]).max() <= 0.05 + 1e-9  # a shear of 0.1 is ε_xy = ε_yx = 0.05


@given(atoms=structures([(True, True, True)]), n=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_vacancies_do_not_move_the_other_atoms(atoms, n, seed):
    larger = atoms * (2, 2, 2)
    defective = kinds.create_vacancies(larger, np.random.default_rng(seed), n)
    assert len(defective) == len(larger) - n
    assert {tuple(row) for row in defective.positions} < {tuple(row) for row in larger.positions}
    with pytest.raises(InputError, match="leave no atom"):
        kinds.create_vacancies(atoms, np.random.default_rng(seed), len(atoms))


@given(n=st.integers(2, 14), seed=st.integers(0, 10**6), distance=st.floats(1.0, 3.0))
@settings(max_examples=30)
def test_atoms_of_a_cluster_have_a_neighbour_between_one_and_root_three(n, seed, distance):
    rng = np.random.default_rng(seed)
    given_distances = {("Be", "Be"): distance, ("W", "Be"): 1.2 * distance, ("W", "W"): 1.5 * distance}
    cluster = kinds.build_cluster(rng.choice(["Be", "W"], n).tolist(), rng, given_distances)
    symbols = cluster.get_chemical_symbols()
    assert len(cluster) == n
    assert not cluster.pbc.any()
    allowed = [[kinds.get_pair_distance(given_distances, a, b) for b in symbols] for a in symbols]
    ratios = cluster.get_all_distances() / allowed + 9 * np.eye(n)
    assert ratios.min() >= 1 - 1e-12
    assert ratios[1:].min(axis=1).max() <= np.sqrt(3) + 1e-12


def test_impossible_clusters_are_refused(monkeypatch):
    monkeypatch.setattr(kinds, "MAX_PLACEMENT_ATTEMPTS", 3)
    monkeypatch.setattr(kinds, "_draw_cluster_positions", lambda *_: None)
    with pytest.raises(InputError, match="no cluster of 5 atoms"):
        kinds.build_cluster(["Be"] * 5, np.random.default_rng(1))
    with pytest.raises(InputError, match="pair Be-W"):
        kinds.get_pair_distance({("Be", "Be"): 1.0}, "Be", "W")


@given(atoms=structures([(True, True, True)]), miller=st.tuples(*[st.integers(-1, 2)] * 3))
@settings(max_examples=30)
def test_slabs_are_thick_enough_dense_as_the_bulk_and_within_the_limit(atoms, miller):
    if not any(miller):
        with pytest.raises(InputError, match="not all zero"):
            kinds.cut_slab(atoms, miller)
        return
    slab = kinds.cut_slab(atoms, miller, 8.0, 400)
    assert slab.pbc.tolist() == [True, True, False]
    assert measure_thickness(slab) >= 8.0
    assert len(slab) <= 400
    assert Counter(slab.symbols).keys() == Counter(atoms.symbols).keys()
    assert np.linalg.norm(slab.cell[2]) - measure_thickness(slab) == pytest.approx(15.0)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    layer = len(slab) * atoms.cell.volume / len(atoms) / area  # as thick as the same atoms are in the bulk
    assert measure_thickness(slab) <= layer + 1e-6
    assert find_nearest_distance(slab) >= find_nearest_distance(atoms) - 1e-9


@pytest.mark.parametrize("miller", [(0, 2, 2), (-2, 0, 2), (2, 2, 2), (0, 3, 0)])
def test_a_common_factor_of_miller_indices_does_not_matter(miller):
    coprime = tuple(np.array(miller) // np.gcd.reduce(miller))
    assert same(kinds.cut_slab(BERYLLIUM(), miller), kinds.cut_slab(BERYLLIUM(), coprime))


def test_impossible_slabs_are_refused():
    with pytest.raises(InputError, match="no slab .1 1 1. has at most 1 atoms"):
        kinds.cut_slab(BERYLLIUM(), (1, 1, 1), 100.0, 1)
    with pytest.raises(InputError, match="periodic in three directions"):
        kinds.cut_slab(graphene(vacuum=5.0), (1, 0, 0))


@given(atoms=structures(FLAGS[1:]), vacuum=st.floats(5.0, 20.0))
@settings(max_examples=60)
def test_vacuum_separates_images_of_triclinic_cells(atoms, vacuum):
    padded = add_vacuum(atoms, vacuum)
    relative = padded.positions - padded.positions[0]
    assert relative == pytest.approx(atoms.positions - atoms.positions[0])
    assert np.array_equal(padded.cell[padded.pbc], atoms.cell[padded.pbc])
    for axis in np.flatnonzero(~padded.pbc):
        unit = padded.cell[axis] / np.linalg.norm(padded.cell[axis])
        heights = padded.positions @ unit
        assert np.linalg.norm(padded.cell[axis]) - np.ptp(heights) == pytest.approx(vacuum)
        assert np.delete(padded.cell[:], axis, axis=0) @ unit == pytest.approx([0, 0], abs=1e-9)
        assert padded.get_scaled_positions(wrap=False)[:, axis].min() >= 0
    everywhere = padded.copy()
    everywhere.pbc = True  # as plane-wave codes see it
    images = np.array(list(np.ndindex(3, 3, 3))) - 1
    across = images[(images[:, ~padded.pbc] != 0).any(axis=1)] @ padded.cell[:]
    away = everywhere.positions[:, None, None] + across[None, None] - everywhere.positions[None, :, None]
    assert np.linalg.norm(away, axis=-1).min() >= vacuum - 1e-9


@given(seed=st.integers(0, 10**6), fraction=st.floats(0.0, 1.0), n=st.integers(1, 6))
@settings(max_examples=40)
def test_swaps_keep_the_composition_and_change_the_structure(seed, fraction, n):
    atoms = Atoms("W" * n + "Be" * 6, np.arange(3 * (n + 6)).reshape(-1, 3))
    swapped = kinds.swap_atoms(atoms, np.random.default_rng(seed), fraction)
    assert Counter(swapped.symbols) == Counter(atoms.symbols)
    moved = int((swapped.numbers != atoms.numbers).sum())
    assert moved == 2 * min(n, max(1, round(fraction * len(atoms) / 2)))
    assert np.array_equal(swapped.positions, atoms.positions)


def test_swaps_and_alloys_need_two_elements():
    with pytest.raises(InputError, match="single element"):
        kinds.swap_atoms(BERYLLIUM(), np.random.default_rng(1))
    with pytest.raises(InputError, match="two elements"):
        kinds.randomise_species(BERYLLIUM(), np.random.default_rng(1), ["Be"])
    alloy = kinds.randomise_species(BERYLLIUM() * (3, 3, 3), np.random.default_rng(1), ["Be", "W"])
    assert set(alloy.symbols) <= {"Be", "W"}


@given(atoms=structures(), share=st.floats(0.3, 1.5))
@settings(max_examples=40)
def test_too_close_depends_on_pairs_of_radii(atoms, share):
    radius = {"Be": 1.0, "W": 1.6}
    radii = np.array([radius[symbol] for symbol in atoms.get_chemical_symbols()])
    larger = atoms.repeat([3 if periodic else 1 for periodic in atoms.pbc])
    away = larger.positions[:, None] - larger.positions[None]
    flat, _ = find_mic(away.reshape(-1, 3), larger.cell, larger.pbc)
    distances = np.linalg.norm(flat, axis=1).reshape(len(larger), -1) + 99 * np.eye(len(larger))
    all_radii = np.resize(radii, len(larger))
    expected = bool((distances < share * (all_radii[:, None] + all_radii[None])).any())
    assert is_too_close(atoms, share, radius) == expected


def test_filter_counts_rejections_by_reason():
    hot = {"W": 99.0, "Be2": 0.1}
    candidate_filter = CandidateFilter(
        FilterSettings(max_force=1.0),
        8,
        build_mean_descriptor_function(["Be", "W"]),
        lambda atoms: hot[str(atoms.symbols)],
    )
    cell = BERYLLIUM()
    moved = cell.copy()
    moved.positions += [0.3, -1.0, 0.2]
    turned = cell.copy()
    turned.rotate(40, "x", rotate_cell=True)
    squeezed = cell.copy()
    squeezed.set_cell(0.4 * cell.cell[:], scale_atoms=True)
    assert candidate_filter.accept(cell, "a")
    for atoms in (
        moved,
        turned,
        squeezed,
        cell * (3, 3, 3),
        bulk("W"),
        Atoms("Be3", [[0, 0, 0], [2, 0, 0], [4, 0, 0]]),
    ):
        assert not candidate_filter.accept(atoms, "a")
    reasons = {why: count for (_, why), count in candidate_filter.rejected.items()}
    assert reasons == {
        "duplicate": 2,
        "atoms too close": 1,
        "too many atoms": 1,
        "forces too large under the reference": 1,
        "the reference could not compute it: KeyError 'Be3'": 1,
    }


@given(atoms=structures([(True, True, True)]))
@settings(max_examples=20)
def test_the_widest_gap_closes_as_the_crystal_repeats(atoms):
    gap, _ = find_widest_gap(atoms)
    assert (
        gap
        <= max(
            abs(atoms.cell.volume) / np.linalg.norm(np.cross(atoms.cell[k - 2], atoms.cell[k - 1])) for k in range(3)
        )
        + 1e-9
    )
    assert find_widest_gap(atoms * (2, 2, 2))[0] == pytest.approx(gap)
