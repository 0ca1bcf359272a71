"""Data for `bench_uncertainty`: rows with stress rows, splits by groups, fits and spreads.

Energies and forces train; stresses are only judged. Nothing is timed here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from common import LARGER, Options, Skip, stage

from paretofit import Dataset, SnapBasis
from paretofit.core import RowKind
from paretofit.dataset import LevelData, assign_groups, split_configurations, write_dataset
from paretofit.dataset.io import load_json, parse_fitsnap_structures
from paretofit.descriptors import DesignMatrix, compute_design
from paretofit.linear.reduction import RowBlock
from paretofit.uncertainty import CommitteeFit

if TYPE_CHECKING:
    from collections.abc import Iterator

ENERGY_WEIGHT = 12.25
WEIGHTS = np.array([ENERGY_WEIGHT, 1.0, 1.0])
KINDS = {"energy": RowKind.ENERGY, "force": RowKind.FORCE, "stress": RowKind.STRESS}
UNITS = {"energy": 1e3, "force": 1e3, "stress": 1.0}  # meV/atom, meV/Å, GPa
BLOCK_ROWS = 8192
ZERO = 1e-3  # of the median norm of rows of its kind: a component that (nearly) vanishes by symmetry
MISLABELLED = 1e3  # the larger set says that its stresses are in bar; they are in kbar


@dataclass(frozen=True)
class Problem:
    """Rows of one set at one 2Jmax.

    Attributes
    ----------
    X : (n, p) float64
    y : (n,) float64
        eV/atom, eV/Å, GPa; NaN for stresses without a label.
    kind, configuration : (n,) int
    seen : (n,) bool
        False for forces and stresses that vanish by symmetry: nothing is judged by them.
    group : (n_configurations,) int
        Families.
    """

    X: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    configuration: np.ndarray
    seen: np.ndarray
    group: np.ndarray

    def training_rows(self, configurations: np.ndarray) -> np.ndarray:
        """``(m,)``: energy and force rows of some configurations."""
        return np.flatnonzero(np.isin(self.configuration, configurations) & (self.kind != RowKind.STRESS))

    def labelled(self, configurations: np.ndarray, kind: RowKind) -> np.ndarray:
        """``(m,)``: rows of one kind with a label."""
        return np.flatnonzero(np.isin(self.configuration, configurations) & (self.kind == kind) & np.isfinite(self.y))

    def vanishing(self, kind: RowKind) -> int:
        """Labelled rows of a kind that are not judged."""
        return int((~self.seen[self.labelled(self.configuration, kind)]).sum())


@dataclass(frozen=True)
class Held:
    """Rows of one kind that no member has seen: residual of the fit, spread of the members, configuration, `seen`."""

    residual: np.ndarray
    spread: np.ndarray
    configuration: np.ndarray
    seen: np.ndarray

    def _where(self, indices: np.ndarray) -> Held:
        return Held(self.residual[indices], self.spread[indices], self.configuration[indices], self.seen[indices])

    def of(self, configurations: np.ndarray) -> Held:
        """Rows of the selected configurations."""
        return self._where(np.isin(self.configuration, configurations))

    def without_vanishing(self) -> Held:
        """Rows that do not vanish by symmetry."""
        return self._where(self.seen)

    def constant(self) -> Held:
        """The same residuals with one spread for all; nothing tells a calibration then what vanishes."""
        return replace(self.without_vanishing(), spread=np.ones(self.seen.sum()))

    def mean(self, values: np.ndarray) -> float:
        """Mean over configurations of their means."""
        return float(np.average(values, weights=1.0 / np.bincount(self.configuration)[self.configuration]))

    def means(self, values: np.ndarray) -> np.ndarray:
        """``(n_configurations,)``: means."""
        counts = np.bincount(self.configuration)
        return np.bincount(self.configuration, values)[counts > 0] / counts[counts > 0]


def larger_with_stress(options: Options) -> Dataset:
    """The pure beryllium of FitSNAP's W–Be example; about half of it has stresses."""
    path = options.work / "larger_stress.h5"
    if not LARGER.is_dir():
        raise Skip(f"no data at {LARGER}; set PARETOFIT_SHARED to the shared folder")
    if not path.exists():
        notes: Counter[str] = Counter()
        files = sorted(LARGER.glob("*/*.json"))
        structures = [atoms for path in files for atoms in parse_fitsnap_structures(path, load_json(path), notes)]
        structures = [atoms for atoms in structures if set(atoms.get_chemical_symbols()) == {"Be"}]
        labels = [dict(atoms.calc.results) for atoms in structures]
        for label in labels:
            if "stress" in label:
                label["stress"] = MISLABELLED * label["stress"]
        for atoms in structures:
            atoms.calc, atoms.info = None, {}
        write_dataset(path, structures, {"vasp": LevelData(labels)})
    return Dataset(path)


def problem(dataset: Dataset, name: str, level: str, twojmax: int, options: Options) -> Problem:
    """Rows, labels and families of a dataset."""
    design = with_stress(dataset, name, options, 4 if options.quick else 8).with_labels(dataset, [level])
    X = np.ascontiguousarray(design.read_all_rows()[:, : design.count_columns_up_to(twojmax)])
    norm = np.linalg.norm(X, axis=1)
    seen = np.ones(len(X), dtype=bool)
    for kind in (RowKind.FORCE, RowKind.STRESS):
        is_kind = design.kind == kind
        seen[is_kind] = norm[is_kind] > ZERO * np.median(norm[is_kind])
    group = assign_groups(dataset.ids, dataset.info_records, ["parent", "trajectory"])
    return Problem(X, design.targets[level], design.kind, design.configuration, seen, group)


def with_stress(dataset: Dataset, name: str, options: Options, twojmax: int) -> DesignMatrix:
    """Descriptors with stress rows; computed once for each working folder."""
    path = options.work / f"design_{name}_stress_{twojmax}.h5"
    if not path.exists():
        with stage(f"descriptors of the {name} set at 2Jmax = {twojmax} (stored in the working folder)"):
            compute_design(dataset, basis_of(twojmax), path, stress=True, jobs=options.cores)
    return DesignMatrix.open(path)


def basis_of(twojmax: int) -> SnapBasis:
    """Of all models here."""
    return SnapBasis(elements=["Be"], twojmax=twojmax)


def three(group: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Configurations that train (60 %), calibrate and test (20 % each)."""
    split = split_configurations(group, 0.6, seed)
    return split.train, *halved(group, split.test, seed)


def halved(group: np.ndarray, rest: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of some configurations, by families."""
    half = split_configurations(group[rest], 0.5, seed)
    return rest[half.train], rest[half.test]


def fitted(problem: Problem, train: np.ndarray, rng: np.random.Generator) -> CommitteeFit:
    """Fit some configurations."""
    rows = problem.training_rows(train)
    X, y, kind, configuration = (
        values[rows] for values in (problem.X, problem.y[:, None], problem.kind, problem.configuration)
    )

    def blocks() -> Iterator[RowBlock]:
        for start in range(0, len(X), BLOCK_ROWS):
            window = slice(start, start + BLOCK_ROWS)
            yield RowBlock(
                X[window], y[window], kind[window], configuration[window], np.ones(len(X[window]), dtype=bool)
            )

    return CommitteeFit.from_parts(blocks, problem.group, WEIGHTS, rng)


def held(problem: Problem, fit: CommitteeFit, members: np.ndarray, configurations: np.ndarray, kind: RowKind) -> Held:
    """Residuals and spreads of some configurations; the committee is centred on the fit."""
    rows = problem.labelled(configurations, kind)
    X = problem.X[rows]
    return Held(
        problem.y[rows] - X @ fit.coefficients,
        (X @ (members - members.mean(axis=0)).T).std(axis=1),
        problem.configuration[rows],
        problem.seen[rows],
    )
