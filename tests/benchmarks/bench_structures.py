"""Benefit of generating and selecting structures: entropy of sets, and learning curves of fits to them.

Labels are those of an embedded-atom potential that ships with LAMMPS, which is not in the space of the models that
are fitted.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from ase.build import bulk
from common import ROOT, Options, Table, cpu_seconds, spread, stage

from paretofit.core import RowKind, get_shared_lammps, lammps_calculator
from paretofit.dataset import Dataset, LevelData, write_dataset
from paretofit.descriptors import (
    SnapBasis,
    compute_atom_descriptors,
    compute_atom_descriptors_and_gradient,
    compute_design,
)
from paretofit.linear import fit_wls, leverage_scores, sample_configurations, select_d_optimal, select_farthest_points
from paretofit.structures import AugmentSettings, build_mean_descriptor_function, generate_candidates, maximise_entropy
from paretofit.structures.augment_settings import EntropySettings
from paretofit.structures.disorder import generate_random_configuration
from paretofit.structures.structure_vectors import build_comparison_basis

sys.path.insert(0, str(ROOT / "tests"))
from helpers.entropy import compute_entropy_difference

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

    from paretofit.descriptors import DesignMatrix

POTENTIAL = ["pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W"]
ENERGY_WEIGHT = 50.0
HOTTEST = 100.0  # eV/Å; what the filter max_force is for
TWOJMAX = (4, 6)
BASIS = SnapBasis(elements=["W"], twojmax=TWOJMAX[-1], rcutfac=4.8)
TESTS = ("test random", "test maximised", "test pool")
TUNGSTEN = {
    "composition": {"W": 1.0},
    "volume_per_atom": (14.0, 22.0),
    "n_atoms_range": (6, 14),
    "min_distance_ratio": 0.65,
    "twojmax": 4,
}
BERYLLIUM = {"composition": {"Be": 1.0}, "volume_per_atom": (6.0, 12.0), "n_atoms_range": (8, 32), "twojmax": 6}
SIZES = (20, 50, 100, 200)
GROWN = (10, 20, 40, 80)


def run(options: Options) -> list[Table]:
    """Entropy of sets, fits to generated structures, and fits to selected structures."""
    grown_sizes, sizes, draws = (GROWN, SIZES, 10) if not options.quick else ((4, 8), (10, 20), 3)
    beryllium = EntropySettings(count=grown_sizes[-2], **BERYLLIUM)
    tungsten = EntropySettings(count=grown_sizes[-1], **TUNGSTEN)
    table = Table(
        "Entropy of a set less that of 200 random configurations of its sizes and densities",
        ["set", "n", "maximised", "random (min / median / max)", "atoms", "CPU, s"],
        notes=[
            "½ log det of the covariance of the atoms' bispectrum components; random: ten sets of n configurations.",
            "CPU: for all configurations of the set up to n = the largest shown, and their reference.",
        ],
    )
    _entropies(table, "Be, 2Jmax = 6, 8-32 atoms", beryllium, grown_sizes[:-1])
    cells_by_entropy = _entropies(table, "W, 2Jmax = 4, 6-14 atoms", tungsten, grown_sizes)
    lab = _Laboratory(options, tungsten, cells_by_entropy, grown_sizes, sizes)
    return [table, lab.of_generation(draws), lab.of_choice(draws)]


def _entropies(table: Table, name: str, settings: EntropySettings, sizes: tuple[int, ...]) -> list[Atoms]:
    symbol = next(iter(settings.composition))
    lammps, basis = get_shared_lammps(), build_comparison_basis([symbol], settings.twojmax, settings.cutoff)
    rng = np.random.default_rng(1)
    with stage(f"entropy, {name}"):
        start = cpu_seconds()
        grown = list(maximise_entropy(settings, partial(compute_atom_descriptors_and_gradient, lammps, basis), rng))
        spent = cpu_seconds() - start
        random = [generate_random_configuration(settings, rng) for _ in range(200)]
        values = [compute_atom_descriptors(lammps, basis, generated.atoms) for generated in grown]
        others = [compute_atom_descriptors(lammps, basis, atoms) for atoms in random]
    for n in sizes:
        sets = [rng.permutation(len(others))[:n] for _ in range(10)]
        chance = [compute_entropy_difference([others[k] for k in indices], others) for indices in sets]
        last = n == sizes[-1]
        table.add(
            name,
            n,
            f"{compute_entropy_difference(values[:n], others):.2f}",
            " / ".join(spread(chance, ".2f")),
            sum(map(len, values[:n])),
            f"{spent:.0f}" if last else "",
        )
    return [generated.atoms for generated in grown]


class _Laboratory:
    """Configurations with labels and rows: a pool to select from, generated sets, and test sets."""

    def __init__(
        self,
        options: Options,
        settings: EntropySettings,
        generated: list[Atoms],
        grown_sizes: tuple[int, ...],
        sizes: tuple[int, ...],
    ) -> None:
        self.grown_sizes, self.sizes = grown_sizes, sizes
        rng = np.random.default_rng(2)
        held_out = settings.model_copy(update={"count": 20 if not options.quick else 4})
        describe = partial(
            compute_atom_descriptors_and_gradient, get_shared_lammps(), build_comparison_basis(["W"], settings.twojmax)
        )
        with stage("structures to choose from and to test on"):
            groups = {
                "made": generated,
                "random": [generate_random_configuration(settings, rng) for _ in range(3 * len(generated))],
                "test random": [generate_random_configuration(settings, rng) for _ in range(60)],
                "test maximised": [configuration.atoms for configuration in maximise_entropy(held_out, describe, rng)],
                "pool": _augmented(600 if not options.quick else 120),
            }
        structures = [atoms for group in groups.values() for atoms in group]
        self.group = np.repeat(list(groups), [len(group) for group in groups.values()])
        with stage("labels and rows"):
            self.design, cold = _labelled(structures, options)
        self.group[~cold] = "too hot"
        pool = np.flatnonzero(self.group == "pool")
        self.group[rng.permutation(pool)[: len(pool) // 3]] = "test pool"
        self.pool = np.flatnonzero(self.group == "pool")
        self.X, self.y = self.design.read_all_rows(), self.design.targets["eam"]
        self.columns = {twojmax: BASIS.count_columns_up_to(twojmax) for twojmax in TWOJMAX}

    def errors(self, train: np.ndarray, test: str, columns: int) -> tuple[float, float]:
        """RMSE of energies, meV/atom, and of forces, meV/Å, on a test set, of a fit of the leading columns."""
        kind, configuration = self.design.kind, self.design.configuration
        is_training = np.isin(configuration, train)
        fit = fit_wls(
            self.X[is_training, :columns], self.y[is_training], kind[is_training], energy_weight=ENERGY_WEIGHT
        )
        is_tested = np.isin(configuration, np.flatnonzero(self.group == test))
        wrong = 1000 * (self.X[is_tested, :columns] @ fit.coefficients - self.y[is_tested])
        is_energy = kind[is_tested] == RowKind.ENERGY
        return tuple(float(np.sqrt(np.mean(wrong[chosen] ** 2))) for chosen in (is_energy, ~is_energy))

    def of_generation(self, draws: int) -> Table:
        """Fits to n maximised configurations and to n random ones."""
        table = Table(
            "Force error in meV/Å (energy error in meV/atom) of quadratic SNAP fitted to n configurations "
            "that were made",
            [
                "2Jmax",
                "tested on",
                "n",
                "maximised",
                "random: median",
                "random: minimum",
                "random: maximum",
                "better than",
            ],
            notes=[
                (
                    f"random: {draws} sets of n random configurations of the same sizes and densities. better than: "
                    "the share of them that the maximised set beats in forces / in energies."
                ),
                (
                    f"Tested on {self._count('test random')} random configurations, {self._count('test maximised')} "
                    f"maximised ones of another seed, and {self._count('test pool')} augmentations of bcc."
                ),
                (
                    f"Labels: {POTENTIAL[1].split()[-2]}; above {HOTTEST:g} eV/Å a configuration is left out "
                    f"({self._count('too hot')} in all). w_E/w_F = {ENERGY_WEIGHT:g}."
                ),
            ],
        )
        rng = np.random.default_rng(3)
        generated, random = (np.flatnonzero(self.group == name) for name in ("made", "random"))
        with stage("fits to what was made"):
            for (twojmax, columns), test in product(self.columns.items(), TESTS):
                for n in (size for size in self.grown_sizes if size <= len(generated)):
                    chance = [self.errors(rng.permutation(random)[:n], test, columns) for _ in range(draws)]
                    errors = self.errors(generated[:n], test, columns)
                    _line(table, [twojmax, test.removeprefix("test "), n], errors, chance)
        return table

    def _count(self, name: str) -> int:
        return int((self.group == name).sum())

    def of_choice(self, draws: int) -> Table:
        """Fits to n configurations selected from a pool, and to n random ones."""
        table = Table(
            "Force error in meV/Å (energy error in meV/atom) of quadratic SNAP fitted to n configurations "
            "chosen from a pool",
            ["2Jmax", "method", "n", "chosen", "random: median", "random: minimum", "random: maximum", "better than"],
            notes=[
                (
                    f"Pool: {len(self.pool)} augmentations of bcc of up to 16 atoms; tested on "
                    f"{self._count('test pool')} others of them. better than: the share of {draws} random choices that "
                    "the method beats in forces / in energies. Leverage scores with w_E/w_F = 150 as in `select`."
                ),
                f"drawn: with probabilities by score, the median of {draws} draws. The others take the highest scores.",
                "d-optimal and farthest-point look at energy rows only.",
            ],
        )
        rng = np.random.default_rng(4)
        for twojmax, columns in self.columns.items():
            error = partial(self.errors, test="test pool", columns=columns)
            chance = {n: [error(rng.permutation(self.pool)[:n]) for _ in range(draws)] for n in self.sizes}
            methods = self._methods(columns)
            for (name, choose), n in product(methods.items(), self.sizes):
                repeats = draws if "drawn" in name else 1
                errors = [error(self.pool[choose(n, rng)]) for _ in range(repeats)]
                _line(table, [twojmax, name, n], tuple(np.median(errors, axis=0)), chance[n])
        return table

    def _methods(self, columns: int) -> dict[str, Callable[[int, np.random.Generator], np.ndarray]]:
        kind, configuration = self.design.kind, self.design.configuration
        is_pool = np.isin(configuration, self.pool)
        X, place = self.X[is_pool, :columns], np.searchsorted(self.pool, configuration[is_pool])
        scores = leverage_scores(X, kind[is_pool], place, energy_weight=150.0)
        rows = X[kind[is_pool] == RowKind.ENERGY]
        return {
            "leverage": lambda n, _: sample_configurations(scores.regular, n),
            "leverage, drawn": lambda n, rng: sample_configurations(scores.regular, n, rng=rng),
            "block-leverage": lambda n, _: sample_configurations(scores.block, n),
            "block-leverage, drawn": lambda n, rng: sample_configurations(scores.block, n, rng=rng),
            "d-optimal": lambda n, _: select_d_optimal(rows, n)[0],
            "farthest-point": lambda n, _: select_farthest_points(rows, n)[0],
        }


def _line(table: Table, first: list[object], errors: tuple[float, ...], chance: list[tuple[float, float]]) -> None:
    energies, forces = np.array(chance).T
    shares = f"{np.mean(errors[1] < forces):.1f} / {np.mean(errors[0] < energies):.1f}"
    quantiles = [f"{np.quantile(forces, q):.0f} ({np.quantile(energies, q):.1f})" for q in (0.5, 0, 1)]
    table.add(*first, f"{errors[1]:.0f} ({errors[0]:.1f})", *quantiles, shares)


def _augmented(n: int) -> list[Atoms]:
    """Periodic candidates from bcc tungsten: distorted, strained, with vacancies."""
    chosen = AugmentSettings(
        n_candidates=n,
        max_atoms=16,
        min_length=5.0,
        isolated_atoms=False,
        slabs={"miller_indices": []},
        clusters={"count": 0},
        vacancies={"n_vacancies": 1},
        strained={"fraction": 0.2, "stretch": 0.2, "compress": 0.1, "anisotropic": 0.05, "shear": 0.1},
    )
    *_, candidates = generate_candidates(
        [bulk("W", cubic=True)], ["bcc"], chosen, compute_descriptors=build_mean_descriptor_function(["W"])
    )
    return candidates.structures


def _labelled(structures: list[Atoms], options: Options) -> tuple[DesignMatrix, np.ndarray]:
    """Rows and labels, and the configurations below the energy limit."""
    calculator = lammps_calculator(POTENTIAL, ["W"])
    labels = []
    for atoms in structures:
        copy = atoms.copy()
        copy.calc = calculator
        labels.append({"energy": float(copy.get_potential_energy()), "forces": copy.get_forces()})
    path = options.work / "structures.h5"
    write_dataset(path, [atoms.copy() for atoms in structures], {"eam": LevelData(labels)})
    with Dataset(path) as data:
        design = compute_design(data, BASIS, options.work / "design_structures.h5", jobs=options.cores)
        design = design.with_labels(data, ["eam"])
    return design, np.array([np.abs(label["forces"]).max() < HOTTEST for label in labels])
