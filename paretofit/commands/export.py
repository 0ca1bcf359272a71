"""Export of a fit of a finished run, which is repeated, compared with the results table, and written for LAMMPS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretofit.commands.fitted_potential import FittedPotential, check_committee_size
from paretofit.commands.run_fits import open_run_fits, read_run_table
from paretofit.core import InputError, check_new_paths
from paretofit.execution import RunContext
from paretofit.pareto import BASIS_COLUMN, describe_setting, find_mixtures
from paretofit.potentials import CommitteeSettings, check_potential_name, list_potential_files
from paretofit.study import BASES_FILE, get_basis_folder, has_potentials

MAX_CHECKED_STRUCTURES = 100  # number of structures on which LAMMPS is compared with the model


@dataclass(frozen=True)
class ExportedFit(FittedPotential):
    """Fit of a run that was written as a potential.

    Attributes
    ----------
    row : pandas.Series
        Row of the fit in the results table.
    """

    row: pd.Series


def export_potential(
    run: Path | str,
    out: Path | str,
    *,
    level: str | None = None,
    twojmax: int | None = None,
    weight_ratio: float | None = None,
    n_train: int | None = None,
    sampling: str | None = None,
    repeat: int = 0,
    ridge: str | None = None,
    name: str = "potential",
    overwrite: bool = False,
    committee: CommitteeSettings | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> ExportedFit:
    """Write one fit of a run as a LAMMPS potential.

    Parameters
    ----------
    run : path-like
        Folder of a finished run.
    out : path-like
        Folder to write to.
    level, sampling, ridge : str, optional
    twojmax, n_train : int, optional
    weight_ratio : float, optional
        Setting of the fit; `weight_ratio` is w_E/w_F. By default the reference level, the largest 2Jmax, and the
        largest training subset. Among the fits with this setting, the one with the lowest product of errors against the
        reference is exported.
    repeat : int
        Number of the repetition, from 0.
    name : str
        Base name of the files.
    overwrite : bool
        Replace existing files.
    committee : CommitteeSettings, optional
        Settings of a committee with the fit as its mean, which is drawn from the training subset of the fit and
        calibrated on the test set of the run. By default a single potential is written.
    jobs, progress
        Number of processes for the calibration, and whether to show progress bars.

    Raises
    ------
    InputError
        If the run is not finished or has no such fit, or a file of the potential exists. If LAMMPS disagrees with the
        model, the files are written nevertheless, and the result has a `check_problem`.
    """
    check_potential_name(name)
    check_new_paths(list_potential_files(out, name), overwrite=overwrite)
    results = read_run_table(Path(run))
    choice = {"level": level, "twojmax": twojmax, "n_train": n_train, "sampling": sampling, "ridge": ridge}
    row = _select_row(results, {**choice, "repeat": repeat}, weight_ratio)
    if committee is not None and float(row.get("ridge_lambda", 0.0)) > 0:
        raise InputError("a committee of a fit with a ridge penalty is not supported; choose a fit with --ridge 0")
    if committee is not None and find_mixtures(row.to_frame().T).item():
        raise InputError("a committee of a mixture of levels is not supported; choose a single level with --level")
    with open_run_fits(Path(run)) as fits:
        if committee is not None:
            check_committee_size(committee, fits.prepared)
        design_fit, fit = fits.repeat_fit(row)
        potential = design_fit.build_potential(fit)
        if committee is not None:
            potential = design_fit.fit_committee(committee, RunContext(jobs, progress), potential.coefficients)
        files, deviation, problem = design_fit.write(potential, out, name, MAX_CHECKED_STRUCTURES)
    errors = f"{row['ref_energy']:.4g} meV/atom and {row['ref_force']:.4g} meV/Å"
    summary = [f"{describe_setting(row)}: test errors against the reference {errors}"]
    summary += _describe_better_basis(Path(run), row)
    return ExportedFit(potential, files, deviation, summary, row, check_problem=problem)


def _describe_better_basis(run: Path, row: pd.Series) -> list[str]:
    """Return a line on the fit with another basis that has the lowest errors, and on how to export it.

    The list is empty unless the product of these errors is lower than that of the exported fit in `row`.
    """
    if not (run / BASES_FILE).is_file():
        return []
    table = read_run_table(run, BASES_FILE)
    names = [name for name in dict.fromkeys(table[BASIS_COLUMN]) if has_potentials(get_basis_folder(run, name))]
    table = table[table[BASIS_COLUMN].isin(names)]
    best = table.iloc[int((table["ref_energy"] * table["ref_force"]).argmin())]
    if best["ref_energy"] * best["ref_force"] >= row["ref_energy"] * row["ref_force"]:
        return []
    folder = get_basis_folder(run, str(best[BASIS_COLUMN]))
    errors = f"{best['ref_energy']:.4g} meV/atom and {best['ref_force']:.4g} meV/Å"
    return [f"a fit of the basis '{best[BASIS_COLUMN]}' has lower errors, {errors}: paretofit export {folder}"]


def _select_row(results: pd.DataFrame, choice: dict[str, Any], ratio: float | None) -> pd.Series:
    """Select the row of a fit, with the defaults of `export_potential` for columns without a value in `choice`."""
    table = results.assign(_score=np.sqrt(results["ref_energy"] * results["ref_force"]))  # geometric mean
    for column, value in choice.items():
        if column not in table:
            continue
        # The default is taken from the remaining rows, so that it occurs together with the values chosen before.
        if value is None and column in {"level", "twojmax", "n_train"}:
            single_levels = table.loc[~find_mixtures(table), "level"]  # in their order; the last one is the reference
            value = single_levels.iloc[-1] if column == "level" else table[column].max()  # noqa: PLW2901  (a default)
        if value is not None:
            table = _filter_rows(table, column, value, table[column] == value, table[column])
    if ratio is not None:
        ratios = table["w_energy"] / table["w_force"]
        ratio_texts = ratios.map("{:g}".format)
        table = _filter_rows(table, "w_E/w_F =", f"{ratio:g}", np.isclose(ratios, ratio, rtol=1e-6), ratio_texts)
    return table.sort_values("_score", kind="stable").iloc[0].drop("_score")


def _filter_rows(
    table: pd.DataFrame, name: str, value: Any, is_selected: pd.Series | np.ndarray, available_values: pd.Series
) -> pd.DataFrame:
    """Return the rows with `is_selected`; if there are none, raise an error that lists the available values.

    `name` and `value` describe the required setting in the message, such as "twojmax" and 6.
    """
    if not is_selected.any():
        available_text = ", ".join(map(str, dict.fromkeys(available_values)))
        raise InputError(f"the run has no fit with {name} {value}; available: {available_text}")
    return table.loc[is_selected]
