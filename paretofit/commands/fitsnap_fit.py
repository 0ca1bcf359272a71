"""`paretofit fit --fitsnap`: fit a FitSNAP input as FitSNAP does, and write the potential for LAMMPS.

The rows are those of energies per atom, of forces in the frame of LAMMPS, and of stresses. The reference potential is
subtracted from the labels, the rows are multiplied by group weights, and FitSNAP's table of errors is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from paretofit import fitsnap, potentials
from paretofit.commands import fitsnap_rows
from paretofit.commands.fitted_potential import FittedPotential, compare_with_lammps, select_evenly_spaced
from paretofit.core import InputError, RowKind, check_new_paths, remove_file, write_csv, write_text
from paretofit.descriptors import GPA_PER_BAR, SnapBasis
from paretofit.execution import RunContext
from paretofit.linear import OptimisedWeights, fit_wls

UNCALIBRATED_NOTE = "the input has no testing_size, so the committee is not calibrated and has no intervals"
JOURNAL_FILE = "descriptors.partial"  # computed rows, from which a stopped fit resumes
MAX_CHECKED_STRUCTURES = 100  # number of structures on which LAMMPS is compared with the model
# keys of [BISPECTRUM] that `SnapBasis` has under the same names: numbers, lists, and flags
BASIS_KEYS = ("twojmax", "rcutfac", "rfac0", "rmin0")
BASIS_LISTS = ("elements", "wj", "radelem")
BASIS_FLAGS = ("bzeroflag", "chemflag", "switchflag", "bnormflag", "wselfallflag")


@dataclass(frozen=True)
class FitsnapFit(FittedPotential):
    """Potential that was fitted to the data of a FitSNAP input.

    Attributes
    ----------
    metrics : DataFrame
        Errors as in FitSNAP's table: ``set``, ``group``, ``weighting``, ``kind``, ``ncount``, ``mae``, ``rmse``,
        ``rsq``; energies in eV/atom, forces in eV/Å, stresses in bar.
    rows : FitRows
        Rows with the weights of the fit.
    optimised_weights : OptimisedWeights or None
        None if the group weights were not optimised.
    unseen_error_ratio : float
        Factor by which the optimised weights change the geometric mean of the errors in the objective on configurations
        that the search did not use; NaN without optimised weights.
    """

    metrics: pd.DataFrame
    rows: fitsnap.FitRows
    optimised_weights: OptimisedWeights | None = None
    unseen_error_ratio: float = float("nan")


def fit_fitsnap(
    path: Path | str,
    out: Path | str = "potential",
    *,
    objectives: Sequence[str] = (),
    front: bool = False,
    regulariser: float = 0.01,
    seed: int = 1,
    committee: potentials.CommitteeSettings | None = None,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
) -> FitsnapFit:
    """Fit the data of a FitSNAP input.

    Parameters
    ----------
    path : path-like
        A FitSNAP input (``.in``).
    out : path-like
        Folder for the potential's files and the tables of errors and weights.
    objectives : sequence of str
        Held-out errors for which the group weights are optimised: "energy", "force", "stress"; the errors of a group,
        such as "Liquid:force"; or the error of the difference in energy per atom between two structures, given by their
        file names, such as "difference:A15_1/BCC_1". By default the weights of the input are used.
    front : bool
        Whether to compute the Pareto front of the two `objectives`, too, and write it to ``weights_front.csv``.
    regulariser : float
        Strength of the regularisation of the optimised weights towards the initial ones.
    seed : int
        Random seed of the held-out sets of the optimisation.
    committee : CommitteeSettings, optional
        Settings of a committee, which is calibrated on the testing structures if the input has any; by default a
        single model is fitted.
    overwrite : bool
        Replace existing files.
    jobs, progress
        Number of processes, and whether to show a progress bar.

    Raises
    ------
    InputError
        If the input, a group, an objective or a file cannot be used, an output exists, or an element is in no training
        configuration. If LAMMPS disagrees with the model, the files are written nevertheless, and the result has a
        `check_problem`.
    """
    if front and len(objectives) != 2:
        raise InputError(f"a front requires two objectives (energy,force); got {', '.join(objectives) or 'none'}")
    settings, folder = fitsnap.read_fitsnap_input(path), Path(out)
    potentials.check_potential_name(name := _get_potential_name(settings))
    check_new_paths(_list_outputs(folder, settings), overwrite=overwrite)
    basis = _build_basis(settings)
    context, journal = RunContext(jobs, progress), folder / JOURNAL_FILE
    grouped_structures, notes = fitsnap_rows.read_grouped_structures(settings)
    notes += fitsnap_rows.check_fitted_elements(settings, grouped_structures)
    if committee is not None:
        fitsnap.check_fitsnap_committee(committee, settings, grouped_structures.is_training)
        notes += [UNCALIBRATED_NOTE] if all(grouped_structures.is_training) else []
    rows = fitsnap_rows.compute_fit_rows(settings, basis, settings.reference, grouped_structures, context, journal)
    optimum, unseen_ratio, n_constant = None, float("nan"), count_constant_columns(settings)
    if objectives:
        table = folder / "weights_front.csv" if front else None
        optimum, unseen_ratio = fitsnap.search_weights(rows, n_constant, objectives, regulariser, seed, table)
        rows = fitsnap.replace_weights(rows, optimum.weights)
    coefficients, record = _fit_rows(rows, settings), _record_training(grouped_structures)
    potential = potentials.LinearPotential(basis, coefficients, settings.reference, training_record=record)
    if committee is not None:
        structures_and_flags = grouped_structures.structures, grouped_structures.is_training
        potential = fitsnap.build_fitsnap_committee(
            potential, rows, settings, n_constant, committee, structures_and_flags, context
        )
    if settings.ignored_keys:
        notes.append(f"keys without effect on the fit: {', '.join(settings.ignored_keys)}")
    files = potential.write(folder, name)
    metrics = fitsnap.compute_fit_metrics(rows, coefficients)
    _write_tables(folder, settings, metrics, optimum)
    remove_file(journal)
    positions = select_evenly_spaced(len(grouped_structures.structures), MAX_CHECKED_STRUCTURES)
    deviation, problem = compare_with_lammps(files, potential, [grouped_structures.structures[k] for k in positions])
    summary = _format_summary(metrics, optimum, unseen_ratio)
    return FitsnapFit(
        potential, files, deviation, summary, metrics, rows, optimum, unseen_ratio, notes=notes, check_problem=problem
    )


def _record_training(grouped_structures: fitsnap_rows.GroupedStructures) -> potentials.TrainingRecord:
    """Record which structures are in the training part and which are in the testing part of the input."""
    pairs = list(zip(grouped_structures.structures, grouped_structures.is_training, strict=True))
    training_structures = [atoms for atoms, is_training in pairs if is_training]
    testing_structures = [atoms for atoms, is_training in pairs if not is_training]
    return potentials.TrainingRecord.from_structures(training_structures, testing_structures)


def _format_summary(metrics: pd.DataFrame, optimum: OptimisedWeights | None, unseen_error_ratio: float) -> list[str]:
    """Format the errors over all groups, and the result of the weight optimisation, as lines."""
    table = metrics[(metrics["group"] == "*ALL") & (metrics["weighting"] == "Unweighted")]
    table = table.drop(columns=["group", "weighting"])
    lines = [table.to_string(index=False, float_format=lambda value: f"{value:.6g}")]
    if optimum is not None:
        initial_value, final_value = np.exp(optimum.objective)  # the objective is a logarithm
        lines.append(
            "weights: the geometric mean of the held-out errors in the objective is "
            f"{final_value / initial_value:.3f} of its initial value ({optimum.n_evaluations} fits), and "
            f"{unseen_error_ratio:.3f} on configurations that the search did not use; the weights are in weights.csv"
        )
        if unseen_error_ratio > 1:
            lines.append("warning: these weights are overfitted to the held-out configurations; increase --regulariser")
    return lines


def _build_basis(settings: fitsnap.FitsnapInput) -> SnapBasis:
    """Build the basis of the section [BISPECTRUM]."""
    section = settings.bispectrum
    if section.switchinnerflag:
        raise InputError(f"{settings.path}: [BISPECTRUM] 'switchinnerflag' is not supported; set it to 0")
    try:
        return SnapBasis(
            quadratic=bool(section.quadraticflag),
            **{key: getattr(section, key) for key in BASIS_KEYS},
            **{key: list(getattr(section, key)) for key in BASIS_LISTS},
            **{key: bool(getattr(section, key)) for key in BASIS_FLAGS},
        )
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"])) or "settings"
        raise InputError(f"{settings.path}: [BISPECTRUM] {key}: {problem['msg']}") from error


def count_constant_columns(settings: fitsnap.FitsnapInput) -> int:
    """Count the leading constant columns that FitSNAP does not fit: one per element with bzeroflag, or none."""
    return len(settings.bispectrum.elements) if settings.bispectrum.bzeroflag else 0


def _fit_rows(rows: fitsnap.FitRows, settings: fitsnap.FitsnapInput) -> np.ndarray:
    """Fit the training rows with the solver of the input; return the coefficients, ``(p,)``, eV.

    Both solvers are replaced by QR (see `fit_wls`). The coefficients are those of SVD if the rows have full rank;
    otherwise SVD omits small singular values (see `Solver`). The coefficients of constant columns that FitSNAP does not
    fit are zero.
    """
    is_training, n_constant = rows.is_training, count_constant_columns(settings)
    X, y, weight, kind = rows.X[:, n_constant:], rows.y, rows.weight, rows.kind
    if not is_training.all():  # a selection copies the rows, which may take gigabytes
        X, y, weight, kind = X[is_training], y[is_training], weight[is_training], kind[is_training]
    if settings.solver.name == "RIDGE":
        # Additional rows, whose squared residuals sum to alpha ‖β‖². The argument `ridge` of `fit_wls` is not suitable,
        # because its penalty scales with the norms of the columns, whereas FitSNAP penalises unscaled coefficients.
        penalty = np.sqrt(settings.solver.alpha) * np.eye(X.shape[1])
        X, y = np.vstack([X, penalty]), np.concatenate([y, np.zeros(X.shape[1])])
        weight = np.concatenate([weight, np.ones(len(penalty))])
        # The kind of the additional rows has no effect on the coefficients, because `weights` replaces its weight.
        kind = np.concatenate([kind, np.zeros(len(penalty), dtype=np.int8)])
    fit = fit_wls(X, y, kind, weights=weight)
    return np.concatenate([np.zeros(n_constant), fit.coefficients])


def _get_potential_name(settings: fitsnap.FitsnapInput) -> str:
    """Return the base name of the potential files in the input, by default ``potential``."""
    return Path(settings.potential_file).name or "potential"


def _get_metrics_file(settings: fitsnap.FitsnapInput) -> str:
    """Return the name of the file for FitSNAP's table of errors, with the suffix ``.md``."""
    return Path(settings.metrics_file).stem + ".md"


def _list_outputs(folder: Path, settings: fitsnap.FitsnapInput) -> list[Path]:
    """List the paths of all files that a fit may write."""
    names = ("metrics.csv", "weights.csv", "weights_front.csv", _get_metrics_file(settings))
    return [*potentials.list_potential_files(folder, _get_potential_name(settings)), *(folder / name for name in names)]


def _write_tables(
    folder: Path, settings: fitsnap.FitsnapInput, metrics: pd.DataFrame, optimum: OptimisedWeights | None
) -> None:
    """Write the tables of errors and, if the group weights were optimised, the table of weights."""
    write_csv(metrics, folder / "metrics.csv")
    write_text(folder / _get_metrics_file(settings), fitsnap.format_fitsnap_table(metrics))
    if optimum is None:
        return
    rows = []
    for (group, kind), weight in optimum.weights.items():
        factor = fitsnap.DISPLAY_FACTORS[kind]
        errors = [factor * table.get((group, kind), np.nan) for table in (optimum.initial_errors, optimum.final_errors)]
        shown_weight = weight * (GPA_PER_BAR if kind == RowKind.STRESS else 1.0)  # weight for bar, as in FitSNAP
        rows.append([group, kind.name.lower(), shown_weight, *errors])
    columns = ["group", "kind", "weight", "held_out_rmse_before", "held_out_rmse_after"]
    write_csv(pd.DataFrame(rows, columns=columns), folder / "weights.csv")
