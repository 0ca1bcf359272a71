"""`paretofit evaluate POTENTIAL DATASET`: errors, disagreements, intervals and grades of every configuration.

Configurations that trained are told from those that were held out and from new ones, for only the last two say what a
potential is worth. Structures without labels have disagreements, intervals and grades all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np

from paretofit.core import InputError, atomic_path
from paretofit.dataset import Dataset
from paretofit.dataset.io import extract_file_labels, read_frames
from paretofit.potentials import (
    LabelledStructures,
    StructureLabels,
    assess_all,
    build_calibration_tables,
    build_evaluation_tables,
    compute_spread_limits,
    flag_configurations,
    predict_all,
    read_potential,
    summarise_by_set,
)
from paretofit.report.tables import write_table
from paretofit.uncertainty import Assessment, classify_grade

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from ase import Atoms

    from paretofit.dataset.io import Frames
    from paretofit.potentials import LinearPotential, MacePotential


@dataclass(frozen=True)
class Evaluation:
    """A potential on a dataset.

    Attributes
    ----------
    table : DataFrame
        A row for each configuration: ``id, config_type, n_atoms, set`` (train, held out or new), and for each quantity
        ``*_error`` (of forces and stress the root mean square), ``*_committee_error`` (equation 2), ``*_std``
        (disagreement, equation 1), ``*_interval`` (half width, root mean square), ``*_inside`` (share of labels in
        their intervals); ``extrapolation_grade, verdict, leverage``. meV/atom, meV/Å, GPa.
    components : DataFrame
        A row for each energy per atom, force component and stress component: ``configuration`` (row of the table),
        ``quantity, label, prediction`` (eV/atom, eV/Å, GPa), ``error, std, interval`` (as in the table).
    summary : DataFrame
        By ``set`` and ``classify_grade``.
    thresholds : DataFrame
        For each tolerance that was given: ``quantity, error_limit``, ``spread_limit`` (the disagreement that stands for
        it by the calibration), ``flagged`` (configurations above it that did not train) and, where they have labels,
        ``true_positive_rate, positive_predictive_value`` (equations 3 and 4).
    level : str
        Whose labels; empty if there are none.
    potential : LinearPotential or MacePotential
    coverage : float
    folder : Path or None
        Where it was written.
    """

    table: pd.DataFrame
    components: pd.DataFrame
    summary: pd.DataFrame
    thresholds: pd.DataFrame
    level: str
    potential: LinearPotential | MacePotential
    coverage: float
    folder: Path | None = None

    @property
    def text(self) -> str:
        """The summary as plain text."""
        shown = self.summary.dropna(axis="columns", how="all")
        lines = [
            f"{len(self.table)} configurations" + (f", labels: {self.level}" if self.level else ", no labels"),
            "energies in meV/atom, forces in meV/Å, stresses in GPa",
            shown.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="–"),
        ]
        if self.potential.uncertainty is None:
            lines.append("no committee: errors only; fit with --committee for error bars, intervals and grades")
        elif not self.potential.uncertainty.held_out:
            lines.append("the committee is not calibrated: standard deviations and grades, no intervals")
        elif not any(str(column).endswith("_inside") for column in shown):
            lines.append(f"too few configurations were held out for intervals of {self.coverage:.0%}")
        else:
            lines.append(
                f"*_inside: share of labels in their intervals, which are to hold {self.coverage:.0%} of what "
                "resembles the held-out configurations; *_rank: Spearman's rank correlation of disagreement and error"
            )
            if (self.table["set"] == "held out").any():
                lines.append(
                    "held-out configurations have calibrated these intervals: only new ones are a test of them"
                )
        if len(self.thresholds):
            counted = self.thresholds.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep="–")
            lines.append(f"above the tolerances, of what did not train (evaluation.csv names them):\n{counted}")
        return "\n".join([*lines, *([str(self.folder)] if self.folder else [])])


def evaluate_dataset(
    potential: LinearPotential | MacePotential | Path | str,
    dataset: Path | str,
    out: Path | str | None = None,
    *,
    level: str | None = None,
    coverage: float | None = None,
    tolerances: Mapping[str, float] | None = None,
    calibration: str = "slope",
    jobs: int = 1,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a potential on labelled, or unlabelled, configurations.

    Parameters
    ----------
    potential : LinearPotential, MacePotential or path-like
    dataset : path-like
        A dataset (HDF5), or anything ASE reads.
    out : path-like, optional
        Where to write ``evaluation.csv``, ``summary.csv``, ``evaluation.extxyz`` (standard deviations and grades as
        arrays of atoms) and figures.
    level : str, optional
        Whose labels; by default the level that the potential was fitted to, or else the last.
    coverage : float, optional
        Of the intervals; by default the fit's.
    tolerances : mapping of str to float, optional
        Errors of "energy" (meV/atom), "force" (meV/Å) or "stress" (GPa) above which a configuration is to be flagged.
    calibration : {"slope", "isotonic", "quantile"}
        What turns them into thresholds of the disagreement.
    jobs, progress
        Processes, and whether to show bars.

    Raises
    ------
    InputError
        If a file or level cannot be used, or there is too little calibration for the coverage.
    """
    own = read_potential(potential) if isinstance(potential, Path | str) else potential
    wanted = own.uncertainty.level if own.uncertainty is not None else ""
    cases, infos, chosen = _cases(Path(dataset), level, wanted)
    if own.uncertainty is None and (coverage is not None or tolerances):
        raise InputError("a coverage and tolerances need a committee; fit the potential with --committee")
    if own.uncertainty is not None and coverage is not None and not own.uncertainty.held_out:
        raise InputError(f"intervals of {coverage:g} need a calibration; fit the potential with something held out")
    if calibration != "slope" and not tolerances:
        raise InputError(f"the calibration '{calibration}' turns tolerances into thresholds; give at least one")
    limits = compute_spread_limits(own.uncertainty, tolerances or {}, calibration)
    _check_elements(own, cases.structures, dataset)
    if own.uncertainty is not None:
        for kind in own.uncertainty.held_out:
            own.uncertainty.fit_interval(kind, coverage)  # says what is wrong before anything is computed
        assessed: Sequence[Any] = assess_all(own, cases.structures, coverage=coverage, jobs=jobs, progress=progress)
    else:
        assessed = predict_all(own, cases.structures, jobs=jobs, progress=progress)
    table, components = build_evaluation_tables(own, cases, infos, assessed)
    thresholds = flag_configurations(table, tolerances or {}, limits)
    stated = own.uncertainty.coverage if own.uncertainty is not None else float("nan")
    found = Evaluation(
        table,
        components,
        summarise_by_set(table, components),
        thresholds,
        chosen,
        own,
        stated if coverage is None else coverage,
        None if out is None else Path(out),
    )
    if out is not None:
        _write(found, Path(out), cases.structures, assessed)
    return found


def _cases(path: Path, level: str | None, wanted: str) -> tuple[LabelledStructures, list[dict[str, Any]], str]:
    """Structures with labels, what is known of each, and the level."""
    if path.suffix in {".h5", ".hdf5"}:
        with Dataset(path) as data:
            if level is not None and level not in data.levels:
                raise InputError(f"{path} has no level '{level}'; it has {', '.join(data.levels) or 'none'}")
            chosen = level or (wanted if wanted in data.levels else (data.levels or [""])[-1])
            infos = [{**one, "id": int(k)} for k, one in zip(data.ids, data.info_records, strict=True)]
            if not chosen:
                structures = list(data)
                return LabelledStructures(structures, [_unlabelled(atoms) for atoms in structures]), infos, ""
            return LabelledStructures.from_dataset(data, chosen, np.arange(len(data))), infos, chosen
    if level is not None:
        raise InputError(f"--level {level} goes with a dataset; {path} has one set of labels")
    frames = read_frames(path, None)
    if not _has_labels(frames):
        given: Sequence[Any] = [None] * len(frames.atoms)
    else:
        given, _ = extract_file_labels(frames, "labels", {"energy": None, "forces": None, "stress": None}, None)
    labels = []
    for atoms, one in zip(frames.atoms, given, strict=True):
        found = {key: value for key, value in (one or {}).items() if value is not None}
        none = _unlabelled(atoms)
        known: dict[str, Any] = {key: np.asarray(found[key]) for key in StructureLabels._fields if key in found}
        labels.append(none._replace(**known))
    ids = frames.ids or range(len(frames.atoms))
    for atoms, identity in zip(frames.atoms, ids, strict=True):
        atoms.info["config_id"] = int(identity)  # how messages call it
    infos = [{**atoms.info, "id": int(k)} for atoms, k in zip(frames.atoms, ids, strict=True)]
    return LabelledStructures(frames.atoms, labels), infos, path.name if any(given) else ""


def _check_elements(potential: LinearPotential | MacePotential, structures: Sequence[Atoms], path: Path | str) -> None:
    """Refuse what the potential cannot see, by name."""
    known = set(potential.elements)
    for atoms in structures:
        which = f"{path}: configuration {atoms.info['config_id']}"
        foreign = sorted(set(atoms.get_chemical_symbols()) - known)
        if foreign:
            raise InputError(f"{which} has {foreign[0]}; the potential is for {', '.join(sorted(known))}: leave it out")
        if not len(atoms):
            raise InputError(f"{which} has no atoms; leave it out")


def _has_labels(frames: Frames) -> bool:
    """Whether a structure has anything that may be a label: what cannot be used is then an error, not overlooked."""
    return any(
        atoms.calc is not None
        or any("energy" in key.lower() or "force" in key.lower() for key in [*atoms.info, *atoms.arrays])
        for atoms in frames.atoms
    )


def _unlabelled(atoms: Atoms) -> StructureLabels:
    return StructureLabels(float("nan"), np.full((len(atoms), 3), np.nan), np.full(6, np.nan))


def _write(found: Evaluation, folder: Path, structures: Sequence[Atoms], assessed: Sequence[Any]) -> None:
    from paretofit.report.figures import save_uncertainty_figures  # noqa: PLC0415  (matplotlib)

    write_table(folder, "evaluation", found.table)
    write_table(folder, "summary", found.summary)
    if len(found.thresholds):
        write_table(folder, "thresholds", found.thresholds)
    with atomic_path(folder / "evaluation.extxyz") as temporary:
        ase.io.write(
            temporary, [_with_arrays(*pair) for pair in zip(structures, assessed, strict=True)], format="extxyz"
        )
    own = found.potential.uncertainty
    made = {} if own is None else build_calibration_tables(own, found.table, found.components)
    derived = {name: one for name, one in made.items() if len(one)}
    for name, one in derived.items():
        write_table(folder / "tables", name, one)
    save_uncertainty_figures(folder / "figures", found.table, found.components, derived)


def _with_arrays(atoms: Atoms, one: Any) -> Atoms:
    """The structure with what is said of its atoms."""
    copy: Atoms = atoms.copy()
    copy.calc = None
    copy.arrays["predicted_forces"] = one.forces
    copy.info["predicted_energy"] = one.energy
    if isinstance(one, Assessment):
        copy.arrays |= {"forces_std": one.forces_std, "extrapolation_grade": one.grades}
        copy.arrays["forces_interval"] = one.forces_interval
        copy.info |= {
            "energy_std_per_atom": one.energy_std,
            "energy_interval_per_atom": one.energy_interval,
            "stress_std": one.stress_std,
            "extrapolation_grade_max": one.grade,
            "verdict": classify_grade(one.grade),
        }
    return copy
