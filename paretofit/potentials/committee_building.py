"""A fitted committee becomes a potential that knows its errors: members, calibration, and what they were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ase import units

from paretofit.core import InputError, RowKind
from paretofit.linear.reduction import RowBlock, split_rows
from paretofit.potentials.assessment import (
    StructureLabels,
    collect_calibration_data,
    fit_environment_grades,
    predict_spreads,
)
from paretofit.potentials.linear_potential import LinearPotential
from paretofit.uncertainty import (
    COMMITTEE_METHODS,
    HELD_OUT,
    TRAIN,
    CalibrationData,
    CommitteeFit,
    CommitteeMethod,
    Uncertainty,
    hash_structure,
    min_calibration_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.dataset import Dataset
    from paretofit.descriptors import DesignMatrix, ReferencePotential, SnapBasis
    from paretofit.linear.reduction import Part

FEWEST = 3  # held-out configurations with a label, for the slope of a calibration
DISPLAY_UNITS = {
    RowKind.ENERGY: (1000.0, "meV/atom"),
    RowKind.FORCE: (1000.0, "meV/Å"),
    RowKind.STRESS: (1 / units.GPa, "GPa"),
}


@dataclass(frozen=True)
class CommitteeSettings:
    """What a committee is to be.

    Attributes
    ----------
    members : int
        Two at least.
    method : {"bootstrap", "subset", "posterior", "pops"}
    coverage : float
        Of the intervals.
    seed : int
    """

    members: int
    method: str = "bootstrap"
    coverage: float = 0.9
    seed: int = 1

    def check(self, n_calibration_groups: int | None) -> None:
        """Refuse what cannot be, before anything is computed.

        Parameters
        ----------
        n_calibration_groups : int or None
            Families of relatives that calibrate; None if there will be no calibration.

        Raises
        ------
        InputError
        """
        if self.members < 2:
            raise InputError(f"a committee needs two members at least; got {self.members}")
        if self.method not in COMMITTEE_METHODS:
            raise InputError(f"the method '{self.method}' is not one of {', '.join(COMMITTEE_METHODS)}")
        if not 0 < self.coverage < 1:
            raise InputError(f"the coverage must lie between 0 and 1; got {self.coverage:g}")
        least = min_calibration_size(self.coverage)
        if n_calibration_groups is not None and n_calibration_groups < least:
            raise InputError(
                f"a coverage of {self.coverage:g} needs {least} held-out configurations, or families of relatives, for "
                f"its calibration; there are {n_calibration_groups}: hold out more, or ask for less"
            )


def partition_training_rows(design: DesignMatrix, level: str, positions: Array, columns: int) -> list[Part]:
    """Training rows of some configurations, ascending, at one level; configurations are numbered as in `positions`."""
    trains = np.zeros(design.n_configurations, dtype=bool)
    trains[positions] = True

    def blocks(part: slice) -> Iterator[RowBlock]:
        for window, rows in design.blocks(row_range=part):
            owner = design.configuration[window]
            own = trains[owner]
            if own.any():
                yield RowBlock(
                    rows[own, :columns],
                    design.targets[level][window][own, None],
                    design.kind[window][own],
                    np.searchsorted(positions, owner[own]),
                    np.ones(int(own.sum()), dtype=bool),
                )

    return [partial(blocks, part) for part in split_rows(design.n_rows, columns)]


@dataclass(frozen=True)
class LabelledStructures:
    """Structures with their labels, and the family of relatives that each is in (by default each in its own)."""

    structures: Sequence[Atoms]
    labels: Sequence[StructureLabels]
    group: Array | None = None

    @property
    def groups(self) -> Array:
        """``(n,)``: families."""
        return np.arange(len(self.structures)) if self.group is None else np.asarray(self.group)

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, level: str, positions: Array, group: Array | None = None
    ) -> LabelledStructures:
        """Some configurations of a dataset at one level; `group` is that of the whole dataset."""
        own = dataset.select(positions)
        found, at = own.labels(level), own.labels(level).offsets
        labels = [
            StructureLabels(found.energy[k], found.forces[at[k] : at[k + 1]], found.stress[k])
            for k in range(len(positions))
        ]
        return cls(list(own), labels, None if group is None else group[positions])


def build_committee(
    basis: SnapBasis,
    fit: CommitteeFit,
    settings: CommitteeSettings,
    training: Sequence[Atoms],
    calibration_set: LabelledStructures,
    *,
    centre: Array | None = None,
    reference: ReferencePotential | None = None,
    energy_weight: float = 1.0,
    level: str = "",
    columns: int | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> LinearPotential:
    """Draw the members, calibrate them on what was held out, and grade atoms by the training set.

    Parameters
    ----------
    basis : SnapBasis
        Of the model's own 2Jmax.
    fit : CommitteeFit
    settings : CommitteeSettings
    training : sequence of ase.Atoms
    calibration_set : Labelled
        Held out; may be empty, and then there are no intervals.
    centre : (p,) float64, optional
        What the members are moved to have as their mean: the potential is then the plain fit; by default that of `fit`.
    reference : ReferencePotential, optional
    energy_weight : float
        w_E, for leverages.
    level : str
        Of the labels.
    columns : int, optional
        Leading columns of the fit that are the model's; what follows belongs to the labels, such as offsets of levels.
    """
    members = fit.draw_members(
        settings.members, np.random.default_rng(settings.seed), method=cast("CommitteeMethod", settings.method)
    )
    members += (fit.coefficients if centre is None else centre) - members.mean(axis=0)
    if np.ptp(members, axis=0).max() <= 0:
        raise InputError("all members of the committee are identical: there is nothing to go by; add configurations")
    members = members[:, :columns]
    bare = LinearPotential(basis, members, reference)
    calibrated, known = calibrate_committee(bare, training, calibration_set, jobs=jobs, progress=progress)
    uncertainty = Uncertainty(
        settings.method,
        calibrated,
        fit_environment_grades(basis, training, jobs=jobs, progress=progress),
        fit.leverage.restrict_columns(members.shape[1]),
        energy_weight,
        known,
        settings.coverage,
        level,
    )
    return LinearPotential(basis, members, reference, uncertainty)


def calibrate_committee(
    committee: Any,
    training: Sequence[Atoms],
    calibration_set: LabelledStructures,
    *,
    jobs: int = 1,
    progress: bool = False,
) -> tuple[dict[RowKind, CalibrationData], dict[str, str]]:
    """What a committee says of labels that were held out, where there are enough, and which structures it knows.

    Parameters
    ----------
    committee : LinearPotential or MacePotential
        The committee, which need know nothing of its errors yet.
    training : sequence of ase.Atoms
    calibration_set : Labelled
        Held out; may be empty.
    """
    known = {hash_structure(atoms): HELD_OUT for atoms in calibration_set.structures}
    known |= {hash_structure(atoms): TRAIN for atoms in training}
    predicted = predict_spreads(committee, calibration_set.structures, jobs=jobs, progress=progress)
    found = collect_calibration_data(
        predicted, calibration_set.labels, [len(atoms) for atoms in calibration_set.structures], calibration_set.groups
    )
    return {kind: one for kind, one in found.items() if len(np.unique(one.configuration)) >= FEWEST}, known


def format_committee(potential: LinearPotential) -> str:
    """How a committee is calibrated, as plain text."""
    own = potential.uncertainty
    if own is None:
        return "no committee"
    lines = [f"committee of {len(potential.coefficients)} by {own.method}"]
    for kind, held in own.held_out.items():
        factor, unit = DISPLAY_UNITS[kind]
        line, interval = own.fit_calibration(kind), own.fit_interval(kind)
        rmse = factor * float(np.sqrt(np.mean(held.residual**2)))
        said = f"too few for {100 * own.coverage:g} % intervals"
        if interval is not None:
            wide = factor * float(np.median(interval.half_width(held.spread)))
            said = f"{100 * own.coverage:g} % intervals, half width {wide:.4g} {unit} at the median"
        lines.append(
            f"{kind.name.lower():6} held out: rmse {rmse:.4g} {unit} on {len(np.unique(held.configuration))} "
            f"configurations; {said}; disagreement = {line.slope:.3g} ± {line.slope_half_width:.2g} × error"
        )
    if own.held_out and RowKind.STRESS not in own.held_out:
        lines.append("stress is not calibrated: too few held-out configurations have a label of it")
    if potential.basis.quadratic and not all(one.quadratic for one in own.environments.values()):
        lines.append("grades are by the linear descriptors: fewer than two atoms trained for each column")
    if not own.held_out:
        lines.append("not calibrated, for nothing was held out: standard deviations and grades only, no intervals")
    return "\n".join(lines)
