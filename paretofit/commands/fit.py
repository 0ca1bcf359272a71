"""`paretofit fit DATASET`: fit a model, or a committee, to a dataset or a study, with held-out configurations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from paretofit.commands.fitted_potential import DesignFit, FittedPotential, check_committee_size
from paretofit.core import InputError, RowKind, check_new_paths, format_validation_error
from paretofit.dataset import Dataset
from paretofit.descriptors import DesignMatrix
from paretofit.execution import RunContext
from paretofit.potentials import CommitteeSettings, LinearPotential, list_snap_files
from paretofit.study import (
    PreparedStudy,
    Study,
    infer_default_settings,
    load_or_compute_design,
    load_study,
    prepare_study,
)

MAX_CHECKED_STRUCTURES = 20  # on which LAMMPS is compared with the model
DEFAULT_HELD_OUT_FRACTION = 0.2  # of the configurations of a dataset; a study defines its own split
MILLI = 1000.0


@dataclass(frozen=True)
class DatasetFit(FittedPotential):
    """Potential that was fitted to a dataset.

    Attributes
    ----------
    n_train, n_held_out : int
        Numbers of configurations in the training and the held-out set.
    errors : dict
        Root mean square errors, "train energy" and so on, meV/atom and meV/Å.
    """

    n_train: int
    n_held_out: int
    errors: dict[str, float]

    @property
    def description(self) -> str:
        """Model, weights and level, as one line of text."""
        return self.summary[0]


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
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> DatasetFit:
    """Fit a model and write it as a potential.

    Parameters
    ----------
    source : path-like
        A dataset (HDF5), or a study (YAML) with dataset, basis and train/test split.
    out : path-like
        Folder to write to; its ``design.h5`` is reused by the next fit.
    level : str, optional
        Convergence level of the labels; by default the last level of the study, or the last level of the dataset with
        at least half as many labels as the most complete one.
    twojmax : int, optional
        By default the largest 2Jmax of the study, or the largest for which the dataset has enough rows, up to 8.
    weight_ratio : float, optional
        w_E/w_F; by default the median ratio of the study, or 12.25.
    held_out_fraction : float, optional
        Fraction of the configurations, in whole groups, that is excluded from training and calibrates the committee.
    committee : CommitteeSettings, optional
        Settings of the committee; by default a single model is fitted.
    seed : int, optional
        Random seed of the split.
    name : str
        Base name of the files.
    overwrite : bool
        Replace existing files.
    jobs, progress
        Number of processes, and whether to show progress bars.

    Raises
    ------
    InputError
        If the source, a level or a setting cannot be used, or a file of the potential exists.
    """
    check_new_paths(list_snap_files(out, name), overwrite=overwrite)
    study = _make_single_fit_study(Path(source), level, twojmax, weight_ratio, held_out_fraction, seed)
    prepared, context = prepare_study(study), RunContext(jobs, progress)
    split, level, (twojmax,) = prepared.split, study.levels[0], study.twojmax
    if committee is not None:
        check_committee_size(committee, prepared)
        _check_row_count(source, prepared)
    with prepared.dataset as dataset:
        design = load_or_compute_design(dataset, study.basis, Path(out) / "design.h5", context, overwrite=overwrite)
        design = design.with_labels(dataset, [level])
        fit = DesignFit(prepared, design, level, twojmax, split.train, study.weights[0])
        if committee is None:
            potential = LinearPotential(fit.basis, np.asarray(fit.fit_single().coefficients))
        else:
            potential = fit.fit_committee(committee, context)
        errors = _compute_errors(design, level, potential.mean_coefficients, prepared)
        files, deviation = fit.write(potential, out, name, MAX_CHECKED_STRUCTURES)
    summary = _format_summary(prepared, design.columns_up_to(twojmax), errors)
    return DatasetFit(potential, files, deviation, summary, len(split.train), len(split.test), errors)


def _check_row_count(source: Path | str, prepared: PreparedStudy) -> None:
    """Check that a committee has more training rows than coefficients."""
    train, twojmax = prepared.split.train, prepared.study.twojmax[0]
    n_rows = int(len(train) + 3 * prepared.dataset.n_atoms[train].sum())
    n_columns = prepared.study.basis.columns_up_to(twojmax)
    if n_rows <= n_columns:
        raise InputError(
            f"{source}: the {n_rows} rows of the training set do not determine the {n_columns} coefficients at 2Jmax "
            f"{twojmax}; use a smaller --twojmax, or more configurations"
        )


def _make_single_fit_study(
    source: Path,
    level: str | None,
    twojmax: int | None,
    ratio: float | None,
    held_out_fraction: float | None,
    seed: int | None,
) -> Study:
    """Make a study with a single fit from a study or a dataset."""
    if is_study_path(source):
        study = load_study(source)
        values = {key: getattr(study, key) for key in Study.model_fields}
        with Dataset(study.dataset) as data:
            levels, dataset_levels = study.levels or data.levels, data.levels
    else:
        with Dataset(source) as data:
            values = {"dataset": source, **infer_default_settings(data, DEFAULT_HELD_OUT_FRACTION)}
            levels, dataset_levels = values.pop("levels"), data.levels
    if level is not None and level not in dataset_levels:
        raise InputError(f"{source} has no level '{level}'; available: {', '.join(dataset_levels) or 'none'}")
    level = levels[-1] if level is None else level
    ratios = sorted(pair[0] / pair[1] for pair in values["weights"])
    basis, twojmax = dict(values["basis"]), twojmax if twojmax is not None else max(values["twojmax"])
    split = dict(values["split"])
    if held_out_fraction is not None:
        if not 0 <= held_out_fraction < 1:
            raise InputError(f"the held-out fraction must be at least 0 and below 1; got {held_out_fraction:g}")
        split["train_fraction"] = 1 - held_out_fraction
    if seed is not None:
        split["seed"] = seed
    settings = {
        **values,
        "basis": {**basis, "twojmax": max(twojmax, basis.get("twojmax", twojmax))},
        "split": split,
        "levels": [level],
        "twojmax": [twojmax],
        "weights": [(ratio if ratio is not None else ratios[len(ratios) // 2], 1.0)],
        "leave_one_out": split.get("train_fraction") == 1,  # required without a test set
        "missing_labels": "drop",
        "sizes": ["all"],
        "ridge": [0.0],
        "leverage": {},
        "group_weights": {},
        "cost": {"label_seconds": {level: 1.0}},  # the cost is not used
    }
    try:
        return Study.model_validate(settings)
    except ValidationError as error:
        raise InputError(f"{source}: {format_validation_error(error, Study)}") from error


def is_study_path(path: Path | str) -> bool:
    """Check whether a path has the suffix of a study (YAML)."""
    return Path(path).suffix in {".yaml", ".yml"}


def _compute_errors(
    design: DesignMatrix, level: str, coefficients: np.ndarray, prepared: PreparedStudy
) -> dict[str, float]:
    """Compute root mean square errors of energies per atom (meV) and forces (meV/Å) in one pass over the rows."""
    sets = {"train": prepared.split.train, "held out": prepared.split.test}
    squares = {(name, kind): [0.0, 0] for name in sets for kind in (RowKind.ENERGY, RowKind.FORCE)}
    for window, rows in design.blocks():
        squared = (rows[:, : len(coefficients)] @ coefficients - design.targets[level][window]) ** 2
        for (name, kind), total in squares.items():
            is_in_set = np.isin(design.configuration[window], sets[name]) & (design.kind[window] == kind)
            total[0] += float(squared[is_in_set].sum())
            total[1] += int(is_in_set.sum())
    return {
        f"{name} {kind.name.lower()}": MILLI * float(np.sqrt(total / count)) if count else float("nan")
        for (name, kind), (total, count) in squares.items()
    }


def _format_summary(prepared: PreparedStudy, n_columns: int, errors: dict[str, float]) -> list[str]:
    """Format the model and the errors of the training and the held-out set as lines."""
    study, split, n_dropped = prepared.study, prepared.split, len(prepared.dropped_ids)
    model = "quadratic SNAP" if study.basis.quadratic else "SNAP"
    note = f"; {n_dropped} configurations without a label at this level are not used" if n_dropped else ""
    if prepared.unconverged_ids:
        note += f"; {len(prepared.unconverged_ids)} configurations whose DFT did not converge are not used"
    twojmax, ratio = study.twojmax[0], study.weights[0][0]
    lines = [f"{model}, 2Jmax {twojmax} ({n_columns} columns), w_E/w_F {ratio:g}, level {study.levels[0]}{note}"]
    for name, positions in (("train", split.train), ("held out", split.test)):
        if len(positions):
            energy, force = (errors[f"{name} {kind}"] for kind in ("energy", "force"))
            lines.append(f"{name}: {len(positions)} configurations, rmse {energy:.4g} meV/atom and {force:.4g} meV/Å")
    return lines
