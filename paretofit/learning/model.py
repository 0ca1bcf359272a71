"""Models that the loop trains, behind one small protocol; here the committee of quadratic SNAP models.

Labels of several convergence levels may stand in one training set: energies of all but the best level have an offset
per atom of each element, which is fitted beside the model, and rows count less where a level's own error is large
against that of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from paretofit.core import InputError, RowKind
from paretofit.descriptors import DesignMatrix, SnapBasis, compute_design
from paretofit.learning.md_run import MdEngine
from paretofit.learning.sets import TRAIN, VALIDATE
from paretofit.linear.reduction import RowBlock
from paretofit.potentials import CommitteeSettings, LabelledStructures, LinearPotential, build_committee
from paretofit.uncertainty import CommitteeFit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.dataset import Dataset
    from paretofit.learning.learn_settings import SnapModelSettings
    from paretofit.linear.reduction import Part
    from paretofit.potentials import StructureLabels
    from paretofit.uncertainty import Assessment

ROWS = 8.0  # for each column; with fewer a smaller 2Jmax is taken


class Committee(Protocol):
    """What a trained model says of structures, and what molecular dynamics is run with."""

    @property
    def n_members(self) -> int:
        """How many there are."""

    def assess(self, atoms: Atoms) -> Assessment:
        """Values with disagreements, intervals and grades."""

    def assess_members(self, atoms: Atoms) -> tuple[Assessment, Any]:
        """The same, and what each member predicts."""

    def compute_max_grade(self, atoms: Atoms) -> float:
        """The highest extrapolation grade of an atom, cheap enough for every few steps."""

    def build_md_engine(self, member: int | None, folder: Path) -> MdEngine:
        """One member, or their mean, for LAMMPS, with its files in `folder`."""


class Model(Protocol):
    """What can be trained on labelled structures."""

    def train(self, data: TrainingData, folder: Path, *, seed: int, jobs: int, progress: bool) -> TrainingResult:
        """Train a committee and write it to a folder."""

    def load(self, folder: Path) -> Committee:
        """Read a committee that `train` has written."""


@dataclass(frozen=True)
class TrainingData:
    """Labelled configurations of all iterations so far.

    Attributes
    ----------
    dataset : Dataset
    sets : (n,) str
        "train", "validate" or "test".
    level : (n,) str
        Whose label each configuration is used with.
    groups : (n,) int64
        Relatives share a number.
    iteration : (n,) int64
        When each was added.
    levels : list of str
        In order, the best last.
    level_noise : mapping of str to (float, float)
        Errors of a level's own energies (eV/atom, shifted) and forces (eV/Å) against the best, where known.
    previous_error : (float, float) or None
        Errors of the model before, likewise.
    previous_model : Path or None
        The folder of the model before.
    """

    dataset: Dataset
    sets: Array
    level: Array
    groups: Array
    iteration: Array
    levels: list[str]
    level_noise: Mapping[str, tuple[float, float]]
    previous_error: tuple[float, float] | None = None
    previous_model: Path | None = None

    def select_labelled(self, indices: Array) -> LabelledStructures:
        """Structures and labels, each at its own level."""
        structures, labels = [], []
        for name in dict.fromkeys(self.level[indices].tolist()):
            part = LabelledStructures.from_dataset(self.dataset, name, indices[self.level[indices] == name])
            structures += list(part.structures)
            labels += list(part.labels)
        order = np.argsort(np.concatenate([indices[self.level[indices] == name] for name in dict.fromkeys(
            self.level[indices].tolist())])) if len(indices) else np.empty(0, dtype=int)  # fmt: skip
        return LabelledStructures([structures[k] for k in order], [labels[k] for k in order])


@dataclass(frozen=True)
class TrainingResult:
    """A committee, and what goes with its labels.

    Attributes
    ----------
    committee : Committee
    offsets : mapping of (str, str) to float
        By level and element, eV: what a label's energy is above that of the best level.
    description : str
        What was trained.
    events : tuple of str
        What went wrong on the way, and what was done about it.
    member_records : tuple of dict
        Rows of a table on how each member was trained; empty where there is nothing to say.
    """

    committee: Committee
    offsets: dict[tuple[str, str], float]
    description: str
    events: tuple[str, ...] = ()
    member_records: tuple[dict[str, Any], ...] = ()


def without_offset(
    labels: StructureLabels, atoms: Atoms, level: str, offsets: Mapping[tuple[str, str], float]
) -> StructureLabels:
    """A label on the energy scale of the best level."""
    shift = sum(offsets.get((level, symbol), 0.0) for symbol in atoms.get_chemical_symbols())
    return labels._replace(energy=float(labels.energy) - shift)


def align_labels(
    labelled: LabelledStructures, levels: Sequence[str] | Array, offsets: Mapping[tuple[str, str], float]
) -> list[StructureLabels]:
    """Labels, each of its own level, on the energy scale of the best one."""
    rows = zip(labelled.labels, labelled.structures, levels, strict=True)
    return [without_offset(label, atoms, str(level), offsets) for label, atoms, level in rows]


@dataclass(frozen=True)
class SnapCommittee:
    """A committee of SNAP models, see `Committee`."""

    potential: LinearPotential

    @property
    def n_members(self) -> int:
        """How many there are."""
        return len(self.potential.coefficients)

    def assess(self, atoms: Atoms) -> Assessment:
        """See `Committee`."""
        return self.potential.assess(atoms)

    def assess_members(self, atoms: Atoms) -> tuple[Assessment, Any]:
        """See `Committee`."""
        return self.potential.assess_and_predict(atoms)

    def compute_max_grade(self, atoms: Atoms) -> float:
        """See `Committee`."""
        return float(self.potential.compute_grades(atoms).max())

    def build_md_engine(self, member: int | None, folder: Path) -> MdEngine:
        """See `Committee`."""
        one = self.potential.without_uncertainty() if member is None else self.potential.member(member)
        files = one.write(folder, "mean" if member is None else f"member_{member}")
        return MdEngine(tuple(files.commands), tuple(files.elements))


@dataclass(frozen=True)
class SnapModel:
    """Quadratic or linear SNAP, trained by weighted least squares.

    Attributes
    ----------
    settings : ModelSettings
    elements : sequence of str
        All that will ever occur.
    design_folder : Path
        A folder for descriptors, so that those of an iteration are computed once.
    """

    settings: SnapModelSettings
    elements: Sequence[str]
    design_folder: Path

    def build_basis(self, twojmax: int) -> SnapBasis:
        """The basis at a 2Jmax."""
        own = self.settings
        return SnapBasis(
            elements=list(self.elements),
            twojmax=twojmax,
            quadratic=own.quadratic,
            rcutfac=own.rcutfac,
            radelem=[own.radelem.get(symbol, 0.5) for symbol in self.elements],
            wj=[own.wj.get(symbol, 1.0) for symbol in self.elements],
        )

    def load(self, folder: Path) -> SnapCommittee:
        """Read a committee that `train` has written."""
        return SnapCommittee(LinearPotential.read(folder))

    def train(
        self, data: TrainingData, folder: Path, *, seed: int, jobs: int = 1, progress: bool = False
    ) -> TrainingResult:
        """Fit the training set, calibrate on the validation set, and write the committee.

        Raises
        ------
        InputError
            If there is nothing to train on, or the rows do not determine the smallest model.
        """
        train = np.flatnonzero(data.sets == TRAIN)
        if not len(train):
            raise InputError("no labelled configuration is in the training set; label more, or look at what failed")
        designs = self._designs(data, jobs, progress)
        n_rows = int(sum(1 + 3 * n for n in data.dataset.n_atoms[train]))
        twojmax = self._affordable(designs[0][1], n_rows)
        p = designs[0][1].columns_up_to(twojmax)
        extra = [name for name in data.levels if name != data.levels[-1] and (data.level[train] == name).any()]
        weights = np.array([self.settings.weight_ratio, 1.0, 1.0])
        parts = _parts(data, designs, train, p, extra, len(self.elements))
        rng = np.random.default_rng([seed, 0])
        fit = CommitteeFit.from_parts(parts, data.groups[train], weights, rng, threads=jobs)
        found = fit.coefficients[p:].reshape(len(extra), len(self.elements))
        offsets = {(name, symbol): float(found[k, e]) for k, name in enumerate(extra)
                   for e, symbol in enumerate(self.elements)}  # fmt: skip
        aside = data.select_labelled(held := np.flatnonzero(data.sets == VALIDATE))
        potential = build_committee(
            self.build_basis(twojmax),
            fit,
            CommitteeSettings(self.settings.members, self.settings.committee_method, seed=seed),
            list(data.dataset.select(train)),
            LabelledStructures(aside.structures, align_labels(aside, data.level[held], offsets), data.groups[held]),
            energy_weight=self.settings.weight_ratio,
            level=data.levels[-1],
            columns=p,
            jobs=jobs,
            progress=progress,
        )
        potential.write(folder)
        return TrainingResult(SnapCommittee(potential), offsets, f"2Jmax {twojmax}, {p} columns, {n_rows} rows")

    def _affordable(self, design: DesignMatrix, n_rows: int) -> int:
        """The largest 2Jmax, up to the one asked for, with rows enough."""
        sizes = sorted({int(one) for one in design.column_levels} | {self.settings.twojmax})
        fitting = [one for one in sizes if ROWS * design.columns_up_to(one) <= n_rows and one <= self.settings.twojmax]
        return max(fitting, default=sizes[0])

    def _designs(self, data: TrainingData, jobs: int, progress: bool) -> list[tuple[Array, DesignMatrix]]:
        """Positions in the dataset and rows of the configurations of each iteration."""
        basis, made = self.build_basis(self.settings.twojmax), []
        for k in np.unique(data.iteration).tolist():
            positions = np.flatnonzero(data.iteration == k)
            own = data.dataset.select(positions)
            path = self.design_folder / f"design-{k:02d}.h5"
            design = _standing(path, own, basis)
            if design is None:
                design = compute_design(own, basis, path, jobs=jobs, progress=progress)
            made.append((positions, design.with_labels(own, data.levels)))
        return made


def _standing(path: Path, dataset: Dataset, basis: SnapBasis) -> DesignMatrix | None:
    """The design of these structures, if the file holds it."""
    try:
        design = DesignMatrix.open(path)
    except InputError:
        return None
    same = design.attributes.get("structures") == dataset.hash_structures()
    return design if same and SnapBasis.model_validate_json(design.attributes["basis"]) == basis else None


def _parts(
    data: TrainingData,
    designs: Sequence[tuple[Array, DesignMatrix]],
    train: Array,
    p: int,
    extra: Sequence[str],
    n_elements: int,
) -> list[Part]:
    """Training rows with columns for the offsets of levels, each row weighted by what its level is worth."""
    place = np.full(len(data.dataset), -1)
    place[train] = np.arange(len(train))

    def blocks(positions: Array, design: DesignMatrix) -> Iterator[RowBlock]:
        for window, rows in design.blocks():
            owner = positions[design.configuration[window]]
            level, kind = data.level[owner], design.kind[window]
            own = place[owner] >= 0
            if not own.any():
                continue
            y = np.choose(
                np.searchsorted(np.arange(len(data.levels)), [data.levels.index(one) for one in level]),
                [design.targets[name][window] for name in data.levels],
            )
            X = np.hstack([rows[:, :p], *(_offset(rows, kind, level == name, n_elements) for name in extra)])
            w = np.array([compute_level_weights(data, str(one)) for one in level])[np.arange(len(level)), kind]
            yield RowBlock(
                (X * w[:, None])[own],
                (y * w)[own, None],
                kind[own],
                place[owner][own],
                np.ones(int(own.sum()), dtype=bool),
            )

    return [partial(blocks, positions, design) for positions, design in designs]


def _offset(rows: Array, kind: Array, here: Array, n_elements: int) -> Array:
    """Columns of a level's offset: the composition, in its energy rows."""
    return np.asarray(rows[:, :n_elements] * ((kind == RowKind.ENERGY) & here)[:, None])


def compute_level_weights(data: TrainingData, level: str) -> tuple[float, float, float]:
    """Weights of a level's energy, force and stress rows: s / √(s² + δ²), s the model's error and δ the level's own."""
    if data.previous_error is None or level not in data.level_noise:
        return 1.0, 1.0, 1.0
    energy, force = (s / np.hypot(s, d) for s, d in zip(data.previous_error, data.level_noise[level], strict=True))
    return energy, force, force
