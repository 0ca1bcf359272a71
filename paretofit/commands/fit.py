"""`paretofit fit DATASET`: one model of a dataset or a study, a part held out, and a committee if it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from paretofit.core import FIT_COPIES, InputError, RowKind, format_validation_error
from paretofit.dataset import Dataset
from paretofit.descriptors import SnapBasis
from paretofit.linear import fit_wls
from paretofit.potentials import (
    CommitteeSettings,
    LabelledStructures,
    LinearPotential,
    build_committee,
    check_exported_files,
    format_committee,
    partition_training_rows,
)
from paretofit.study import (
    PreparedStudy,
    Study,
    infer_default_settings,
    load_or_compute_design,
    load_study,
    prepare_study,
)
from paretofit.uncertainty import CommitteeFit

if TYPE_CHECKING:
    from paretofit.descriptors import DesignMatrix
    from paretofit.potentials import SnapFiles

CHECKED = 20  # held-out structures, at most, on which LAMMPS is compared with the model
HOLD_OUT = 0.2  # of the configurations, unless the study says
MILLI = 1000.0


@dataclass(frozen=True)
class DatasetFit:
    """A potential that was fitted to a dataset.

    Attributes
    ----------
    potential : LinearPotential
    files : SnapFiles
    n_train, n_held_out : int
    errors : dict
        "train energy" and so on: root mean squared, meV/atom and meV/Å.
    deviation : float
        Of LAMMPS with the files from the model.
    description : str
        In words.
    """

    potential: LinearPotential
    files: SnapFiles
    n_train: int
    n_held_out: int
    errors: dict[str, float]
    deviation: float
    description: str

    @property
    def text(self) -> str:
        """What was fitted and how good it is, as plain text."""
        lines = [self.description]
        for part, count in (("train", self.n_train), ("held out", self.n_held_out)):
            if count:
                energy, force = (self.errors[f"{part} {kind}"] for kind in ("energy", "force"))
                lines.append(f"{part}: {count} configurations, rmse {energy:.4g} meV/atom and {force:.4g} meV/Å")
        if self.potential.uncertainty is not None:
            lines.append(format_committee(self.potential))
        lines.append(f"LAMMPS gives the model's energies, forces and stress within {self.deviation:.1e}")
        return "\n".join([*lines, *map(str, (self.files.coefficients, self.files.parameters, self.files.include))])


def fit_dataset(
    source: Path | str,
    out: Path | str = "potential",
    *,
    level: str | None = None,
    twojmax: int | None = None,
    weight_ratio: float | None = None,
    held_out_fraction: float | None = None,
    committee: CommitteeSettings | None = None,
    seed: int | None = None,
    name: str = "potential",
    jobs: int = 1,
    progress: bool = False,
) -> DatasetFit:
    """Fit one model and write it as a potential.

    Parameters
    ----------
    source : path-like
        A dataset (HDF5), or a study (YAML) whose dataset, basis and split are taken.
    out : path-like
        The folder to write to; ``design.h5`` in it is used again by the next fit.
    level : str, optional
        By default the last that at least half of the configurations have: the reference.
    twojmax : int, optional
        By default the study's largest, or the largest for which the dataset has enough rows, up to 8.
    weight_ratio : float, optional
        w_E/w_F; by default the middle one of the study, or 12.25.
    held_out_fraction : float, optional
        Share of the configurations, by families of relatives, that does not train and calibrates the committee.
    committee : CommitteeSettings, optional
    seed : int, optional
        Of what is held out.
    name : str
        Of the files.
    jobs : int
        Processes.
    progress : bool
        Show bars.

    Raises
    ------
    InputError
        If the source, a level or a setting cannot be used.
    """
    study = _study(Path(source), level, twojmax, weight_ratio, held_out_fraction, seed)
    prepared = prepare_study(study)
    split, chosen = prepared.split, study.levels[0]
    if committee is not None:
        committee.check(len(np.unique(split.groups[split.test])) or None)
    rows = int(len(split.train) + 3 * prepared.dataset.n_atoms[split.train].sum())
    if committee is not None and rows <= study.basis.columns_up_to(study.twojmax[0]):
        raise InputError(
            f"{source}: {rows} rows that train do not determine the {study.basis.columns_up_to(study.twojmax[0])} "
            f"coefficients of 2Jmax {study.twojmax[0]}; take a smaller --twojmax, or more configurations"
        )
    with prepared.dataset as dataset:
        design = load_or_compute_design(dataset, study.basis, Path(out) / "design.h5", jobs=jobs, progress=progress)
        design = design.with_labels(dataset, [chosen])
        basis = SnapBasis(**{**study.basis.model_dump(), "twojmax": study.twojmax[0]})
        w = np.array([study.weights[0][0], study.weights[0][1], 1.0])
        aside = LabelledStructures.from_dataset(dataset, chosen, split.test, split.groups)
        p = design.columns_up_to(study.twojmax[0])
        if committee is None:
            potential = LinearPotential(basis, _plain(design, chosen, split.train, p, w))
        else:
            parts = partition_training_rows(design, chosen, split.train, p)
            rng = np.random.default_rng([committee.seed, 0])
            fit = CommitteeFit.from_parts(parts, split.groups[split.train], w, rng, threads=jobs)
            training = list(dataset.select(split.train))
            potential = build_committee(
                basis,
                fit,
                committee,
                training,
                aside,
                energy_weight=float(w[0]),
                level=chosen,
                jobs=jobs,
                progress=progress,
            )
        errors = _errors(design, chosen, potential.mean_coefficients, {"train": split.train, "held out": split.test})
        files = potential.write(out, name)
        some = split.test if len(split.test) else split.train
        some = some[np.unique(np.linspace(0, len(some) - 1, CHECKED).astype(int))]
        deviation = check_exported_files(files, potential, list(dataset.select(some)))
    return DatasetFit(
        potential, files, len(split.train), len(split.test), errors, deviation, _words(prepared, chosen, p)
    )


def _study(
    source: Path, level: str | None, twojmax: int | None, ratio: float | None, hold_out: float | None, seed: int | None
) -> Study:
    """One setting, as a study of one fit."""
    if source.suffix in {".yaml", ".yml"}:
        given = load_study(source)
        values = {key: getattr(given, key) for key in Study.model_fields}
        with Dataset(given.dataset) as data:
            levels, known = given.levels or data.levels, data.levels
    else:
        with Dataset(source) as data:
            values = {"dataset": source, **infer_default_settings(data, HOLD_OUT)}
            levels, known = values.pop("levels"), data.levels
    if level is not None and level not in known:
        raise InputError(f"{source} has no level '{level}'; it has {', '.join(known) or 'none'}")
    ratios = sorted(pair[0] / pair[1] for pair in values["weights"])
    basis, size = values["basis"], twojmax if twojmax is not None else max(values["twojmax"])
    split = dict(values["split"])
    if hold_out is not None:
        if not 0 <= hold_out < 1:
            raise InputError(f"the share that is held out must be from 0 to below 1; got {hold_out:g}")
        split["train_fraction"] = 1 - hold_out
    if seed is not None:
        split["seed"] = seed
    own = {
        **values,
        "basis": {**dict(basis), "twojmax": max(size, dict(basis).get("twojmax", size))},
        "split": split,
        "levels": [level if level is not None else levels[-1]],
        "twojmax": [size],
        "weights": [(ratio if ratio is not None else ratios[len(ratios) // 2], 1.0)],
        "leave_one_out": split.get("train_fraction") == 1,  # what a study without a test set needs
        "missing_labels": "drop",
        "sizes": ["all"],
        "ridge": [0.0],
        "leverage": {},
        "group_weights": {},
        "cost": {
            "label_seconds": dict.fromkeys([level if level is not None else levels[-1]], 1.0)
        },  # of no account here
    }
    try:
        return Study.model_validate(own)
    except ValidationError as error:
        raise InputError(f"{source}: {format_validation_error(error, Study)}") from error


def _plain(design: DesignMatrix, level: str, members: np.ndarray, p: int, w: np.ndarray) -> np.ndarray:
    """Coefficients of the plain fit."""
    rows = np.flatnonzero(np.isin(design.configuration, members))
    fit = fit_wls(
        design.take(rows, p, copies=FIT_COPIES),
        design.targets[level][rows],
        design.kind[rows],
        energy_weight=float(w[0]),
        force_weight=float(w[1]),
    )
    return np.asarray(fit.coefficients)


def _errors(design: DesignMatrix, level: str, beta: np.ndarray, parts: dict[str, np.ndarray]) -> dict[str, float]:
    """Root mean squared residuals of energies per atom and forces, in thousandths, in one pass over the rows."""
    squares = {(name, kind): [0.0, 0] for name in parts for kind in (RowKind.ENERGY, RowKind.FORCE)}
    for window, rows in design.blocks():
        residual = (rows[:, : len(beta)] @ beta - design.targets[level][window]) ** 2
        for (name, kind), total in squares.items():
            own = np.isin(design.configuration[window], parts[name]) & (design.kind[window] == kind)
            total[0] += float(residual[own].sum())
            total[1] += int(own.sum())
    return {
        f"{name} {kind.name.lower()}": MILLI * float(np.sqrt(total / count)) if count else float("nan")
        for (name, kind), (total, count) in squares.items()
    }


def _words(prepared: PreparedStudy, level: str, p: int) -> str:
    study: Any = prepared.study
    left = (
        f"; {len(prepared.dropped_ids)} configurations without a label at this level left out"
        if prepared.dropped_ids
        else ""
    )
    kind = "quadratic SNAP" if study.basis.quadratic else "SNAP"
    return f"{kind}, 2Jmax {study.twojmax[0]} ({p} columns), w_E/w_F {study.weights[0][0]:g}, level {level}{left}"
