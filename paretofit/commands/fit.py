"""`paretofit fit DATASET`: fit a model, or a committee, to a dataset or a study.

By default, a single model is fitted to all configurations of a dataset, and leave-one-out errors choose the model and
measure its quality. A committee needs held-out configurations for its calibration.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paretofit import potentials
from paretofit.commands.fit_settings import FitOptions, build_fit_study, describe_settings
from paretofit.commands.fitted_potential import DesignFit, FittedPotential, check_committee_size, select_evenly_spaced
from paretofit.commands.mixed_labels import describe_draw, find_labelled, prepare_mixture
from paretofit.commands.model_choice import ModelChoice, choose_model
from paretofit.core import InputError, RowKind, check_new_paths, remove_file
from paretofit.dataset import Dataset
from paretofit.descriptors import DesignMatrix
from paretofit.execution import RunContext
from paretofit.study import PreparedStudy, load_or_compute_design, prepare_study
from paretofit.sweep import EV_TO_MEV, MixtureDraw

MAX_CHECKED_STRUCTURES = 20  # number of structures on which LAMMPS is compared with the model
MAX_STRESS_STRUCTURES = 300  # number of structures, for each set, on which stress errors are measured by LAMMPS
DESIGN_FILE = "design.h5"


@dataclass(frozen=True)
class DatasetFit(FittedPotential):
    """Potential that was fitted to a dataset.

    Attributes
    ----------
    n_train, n_held_out : int
        Numbers of configurations in the training and the held-out set, at any level.
    errors : dict of str to float
        Root mean square errors by set (train, held out) and kind, such as "train energy": meV/atom, meV/Å and GPa; NaN
        for an empty set. Stress errors are those of at most `MAX_STRESS_STRUCTURES` structures of each set that are
        periodic in 3D, if these have stress labels. Also "leave-one-out energy" and "leave-one-out force" if these
        errors were determined.
    """

    n_train: int
    n_held_out: int
    errors: dict[str, float]

    @property
    def description(self) -> str:
        """Model, weights and level, as a line of text."""
        return self.summary[0]


def fit_dataset(
    source: Path | str,
    out: Path | str = "potential",
    *,
    level: str | None = None,
    family: str | None = None,
    twojmax: int | None = None,
    cutoff: float | None = None,
    quadratic: bool | None = None,
    weight_ratio: float | None = None,
    held_out_fraction: float | None = None,
    committee: potentials.CommitteeSettings | None = None,
    reference_energies: str | Mapping[str, float] | None = None,
    seed: int | None = None,
    name: str | None = None,
    keep_design: bool = False,
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
        Folder to write to.
    level : str, optional
        Convergence level of the labels. By default: for a study with exactly one mixture, all labels at the levels of
        the mixture; for any other study, its last level; for a dataset, the last of the levels that `init` proposes.
    family : {"snap", "pod"}, optional
        Descriptors; by default those of the study, or SNAP.
    twojmax, weight_ratio : int, float, optional
        2Jmax, and w_E/w_F; by default those with the smallest product of leave-one-out errors on the training set,
        among the candidates of the study, or among those that `init` proposes for the dataset.
    cutoff : float, optional
        Largest cutoff of a pair of atoms, Å; by default as in the study, or as `init` proposes for the dataset.
    quadratic : bool, optional
        Whether products of components are features; by default as in the study, or true.
    held_out_fraction : float, optional
        Fraction of the configurations, in whole groups, that is excluded from training and calibrates the committee;
        by default as in the study, or 0.2 for a committee and 0 for a single model.
    committee : CommitteeSettings, optional
        Settings of the committee; by default a single model is fitted.
    reference_energies : str or mapping of str to float, optional
        Energies of free atoms, which the potential reproduces exactly: "isolated" for those of labelled isolated atoms,
        eV by element (also as text, "C=-1.25,O=-1.9"), or "fitted"; "auto" uses the energies of isolated atoms that are
        labelled, and fits those of the other elements. By default as in the study, or "auto".
    seed : int, optional
        Random seed of the split.
    name : str, optional
        Base name of the files; by default ``potential``.
    keep_design : bool
        Whether to keep the descriptors in ``design.h5`` of the output folder, so that the next fit to this folder
        reuses them. A file that existed before the fit is never removed.
    overwrite : bool
        Replace existing files.
    jobs, progress
        Number of processes, and whether to show progress bars.

    Raises
    ------
    InputError
        If the source, a level or a setting cannot be used, or a file of the potential exists. If LAMMPS disagrees with
        the model, the files are written nevertheless, and the result has a `check_problem`.
    """
    potentials.check_potential_name(name := "potential" if name is None else name)
    check_new_paths(potentials.list_potential_files(out, name), overwrite=overwrite)
    choices = twojmax, cutoff, quadratic, weight_ratio, held_out_fraction, seed, reference_energies
    options = FitOptions(level, family, *choices)
    study, mixture, reasons = build_fit_study(Path(source), options, is_committee=committee is not None)
    prepared, context = prepare_study(study, allow_partial=mixture is not None), RunContext(jobs, progress)
    prepared, draw = prepare_mixture(prepared, mixture, held_out_fraction)
    level, train = study.levels[-1], prepared.split.train
    if committee is not None:
        check_committee_size(committee, prepared)
        _check_row_count(source, prepared)
    with (
        prepared.dataset as dataset,
        _use_design(prepared, Path(out) / DESIGN_FILE, keep_design, context, overwrite=overwrite) as design,
    ):
        constrained = prepared.reference_energies.constrain(design)
        choice = _choose_model(prepared, design, draw, with_ridge=committee is None, jobs=jobs)
        fit = DesignFit(prepared, constrained, level, choice.twojmax, train, choice.weights, draw)
        potential = fit.fit_potential(committee, context, choice.ridge)
        sets = _list_sets(prepared, draw, level)
        errors = _compute_errors(design, level, potential.mean_coefficients, sets)
        errors |= _compute_stress_errors(potential, dataset.labels(level).stress, dataset, sets)
        files, deviation, problem = fit.write(potential, out, name, MAX_CHECKED_STRUCTURES)
    summary = describe_settings(prepared, choice, reasons, fit.basis)
    summary += [] if draw is None else [describe_draw(prepared, draw)]
    summary += _format_summary(sets, errors, choice)
    if choice.has_errors:
        errors |= {"leave-one-out energy": choice.energy_error, "leave-one-out force": choice.force_error}
    n_held_out = len(prepared.split.test)
    return DatasetFit(potential, files, deviation, summary, len(train), n_held_out, errors, check_problem=problem)


def _choose_model(
    prepared: PreparedStudy, design: DesignMatrix, draw: MixtureDraw | None, *, with_ridge: bool, jobs: int
) -> ModelChoice:
    """Choose 2Jmax, weights and penalty by leave-one-out errors.

    For a mixture, which has no such errors, return the only 2Jmax and weights of the study, and no penalty.
    """
    if draw is None:
        return choose_model(prepared, design, with_ridge=with_ridge, jobs=jobs)
    return ModelChoice(prepared.study.twojmax[0], prepared.study.weights[0])


def _list_sets(prepared: PreparedStudy, draw: MixtureDraw | None, level: str) -> dict[str, np.ndarray]:
    """Return the positions of the configurations with labels at a level in the training and in the held-out set."""
    train = prepared.split.train if draw is None else draw.configurations[-1]
    return {"train": train, "held out": find_labelled(prepared, level, prepared.split.test)}


@contextmanager
def _use_design(
    prepared: PreparedStudy, path: Path, keep: bool, context: RunContext, *, overwrite: bool
) -> Iterator[DesignMatrix]:
    """Yield the labelled design matrix; remove its file at the end, unless `keep` is set or the file existed before."""
    is_kept = keep or path.exists()
    try:
        design = load_or_compute_design(prepared.dataset, prepared.study.basis, path, context, overwrite=overwrite)
        yield design.with_labels(prepared.dataset, prepared.study.levels)
    finally:
        if not is_kept:
            remove_file(path)


def _check_row_count(source: Path | str, prepared: PreparedStudy) -> None:
    """Check that the training set of a committee has more rows than the smallest model has coefficients."""
    train, twojmax = prepared.split.train, min(prepared.study.twojmax)
    n_rows = int(len(train) + 3 * prepared.dataset.n_atoms[train].sum())
    n_columns = prepared.study.basis.count_columns_up_to(twojmax)
    if n_rows <= n_columns:
        raise InputError(
            f"{source}: the {n_rows} rows of the training set do not determine the {n_columns} coefficients at 2Jmax "
            f"{twojmax}; use a smaller --twojmax, or more configurations"
        )


def _compute_errors(
    design: DesignMatrix, level: str, coefficients: np.ndarray, sets: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Compute root mean square errors of energies (meV/atom) and forces (meV/Å) in one pass over the rows.

    The keys of the errors are the name of a set and the kind, such as "train energy"; errors of an empty set are NaN.
    """
    # sum of squared errors and number of rows, by set and kind
    totals = {(name, kind): [0.0, 0] for name in sets for kind in (RowKind.ENERGY, RowKind.FORCE)}
    for window, rows in design.iterate_blocks():
        squared_errors = (rows[:, : len(coefficients)] @ coefficients - design.targets[level][window]) ** 2
        for (name, kind), total in totals.items():
            is_in_set = np.isin(design.configuration[window], sets[name]) & (design.kind[window] == kind)
            total[0] += float(squared_errors[is_in_set].sum())
            total[1] += int(is_in_set.sum())
    return {
        f"{name} {kind.name.lower()}": EV_TO_MEV * float(np.sqrt(total / count)) if count else float("nan")
        for (name, kind), (total, count) in totals.items()
    }


def _compute_stress_errors(
    potential: potentials.LinearPotential, stresses: np.ndarray, dataset: Dataset, sets: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Compute root mean square stress errors (GPa) by LAMMPS, on a sample of the structures of each set.

    `stresses`, ``(n, 6)`` in eV/Å³, are the labels of all configurations, NaN if missing. Only structures that are
    periodic in 3D and have a stress label are used; a set without any has no error.
    """
    factor, _ = potentials.DISPLAY_UNITS[RowKind.STRESS]
    errors = {}
    calculator = None  # created only if a structure needs it, then reused
    for name, positions in sets.items():
        labelled_positions = positions[np.isfinite(stresses[positions]).all(axis=1)]
        sample = (
            labelled_positions[select_evenly_spaced(len(labelled_positions), MAX_STRESS_STRUCTURES)]
            if len(labelled_positions)
            else labelled_positions
        )
        residuals = []
        for atoms, label in zip(dataset.select(sample), stresses[sample], strict=True):
            if atoms.pbc.all():
                calculator = calculator or potential.without_uncertainty().create_calculator()
                atoms.calc = calculator
                residuals.append(atoms.get_stress() - label)
        if residuals:
            errors[f"{name} stress"] = factor * float(np.sqrt(np.mean(np.square(residuals))))
    return errors


def _format_summary(sets: Mapping[str, np.ndarray], errors: dict[str, float], choice: ModelChoice) -> list[str]:
    """Format the errors of the training and the held-out set, and the leave-one-out errors, as lines."""
    lines = []
    for name, positions in sets.items():
        if len(positions):
            energy, force = (errors[f"{name} {kind}"] for kind in ("energy", "force"))
            stress = f", {errors[f'{name} stress']:.4g} GPa (not fitted)" if f"{name} stress" in errors else ""
            lines.append(
                f"{name}: {len(positions)} configurations, rmse {energy:.4g} meV/atom and {force:.4g} meV/Å{stress}"
            )
    if choice.has_errors:
        lines.append(
            f"leave-one-out: rmse {choice.energy_error:.4g} meV/atom and {choice.force_error:.4g} meV/Å on the "
            "training set, with whole groups excluded"
        )
    return lines
