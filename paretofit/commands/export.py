"""One fit of a finished run as a potential: fitted again from its rows, compared with the table, written for LAMMPS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from paretofit.core import FIT_COPIES, InputError
from paretofit.descriptors import DesignMatrix, SnapBasis
from paretofit.linear import LeverageScores, fit_wls
from paretofit.pareto import describe_setting
from paretofit.potentials import (
    CommitteeSettings,
    LabelledStructures,
    LinearPotential,
    SnapFiles,
    build_committee,
    check_exported_files,
    format_committee,
    partition_training_rows,
)
from paretofit.study import RESULTS_FILE, build_sweep_input, check_finished, load_study, prepare_study
from paretofit.sweep import EV_TO_MEV
from paretofit.uncertainty import CommitteeFit

if TYPE_CHECKING:
    from paretofit.study import PreparedStudy

SAME = 1e-6  # relative difference of training errors within which a fit is the one of the table
CHECKED = 100  # structures of the test set, at most, on which LAMMPS is compared with the model


@dataclass(frozen=True)
class Exported:
    """A potential that was written.

    Attributes
    ----------
    files : SnapFiles
    row : pandas.Series
        Its row of the results table.
    potential : LinearPotential
    deviation : float
        Largest relative deviation of LAMMPS with these files from the model.
    """

    files: SnapFiles
    row: pd.Series
    potential: LinearPotential
    deviation: float

    @property
    def text(self) -> str:
        """Where it is and what it is worth, as plain text."""
        row = self.row
        errors = f"{row['ref_energy']:.4g} meV/atom and {row['ref_force']:.4g} meV/Å"
        return "\n".join(
            [
                f"{describe_setting(row)}: test errors against the reference {errors}",
                *([format_committee(self.potential)] if self.potential.uncertainty is not None else []),
                f"LAMMPS gives the model's energies, forces and stress within {self.deviation:.1e}",
                *(str(path) for path in (self.files.coefficients, self.files.parameters, self.files.include)),
            ]
        )


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
    committee: CommitteeSettings | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Exported:
    """Write one fit of a run as a LAMMPS potential.

    Parameters
    ----------
    run : path-like
        A finished run.
    out : path-like
        The folder to write to.
    level, twojmax, weight_ratio, n_train, sampling, repeat, ridge
        Which fit; by default the reference level, the largest 2Jmax and training subset, and of what is left the
        lowest product of test errors.
    name : str
        Of the files.
    committee : CommitteeSettings, optional
        A committee around the fit, drawn from its training subset and calibrated on the run's test set.
    jobs, progress
        Processes of the calibration, and whether to show bars.

    Returns
    -------
    Exported

    Raises
    ------
    InputError
        If the run is not finished or has no such fit, or LAMMPS does not agree with the model.
    """
    folder = Path(run)
    check_finished(folder)
    results = pd.read_csv(folder / RESULTS_FILE, dtype={"level": str, "ridge": str})
    wanted = {"level": level, "twojmax": twojmax, "n_train": n_train, "sampling": sampling, "ridge": ridge}
    row = _row(results, {**wanted, "repeat": repeat}, weight_ratio)
    study = load_study(folder / "study.yaml").model_copy(update={"dataset": folder / "dataset.h5"})
    prepared = prepare_study(study)
    if committee is not None:
        _check_committee(committee, prepared, row)
    with prepared.dataset:
        design = DesignMatrix.open(folder / "design.h5")
        members = _members(prepared, row, folder)
        coefficients = _fit(prepared, design, row, members)
        basis = SnapBasis(**{**study.basis.model_dump(), "twojmax": int(row["twojmax"])})
        potential = LinearPotential(basis, coefficients)
        if committee is not None:
            potential = _committee(potential, prepared, design, row, members, committee, jobs, progress)
        files = potential.write(out, name)
        tested = prepared.split.test if len(prepared.split.test) else prepared.split.train
        structures = list(
            prepared.dataset.select(tested[np.unique(np.linspace(0, len(tested) - 1, CHECKED).astype(int))])
        )
    return Exported(files, row, potential, check_exported_files(files, potential, structures))


def _check_committee(committee: CommitteeSettings, prepared: PreparedStudy, row: pd.Series) -> None:
    if float(row.get("ridge_lambda", 0.0)) > 0:
        raise InputError("a committee of a fit with a ridge is not supported; name another fit with --ridge 0")
    families = np.unique(prepared.split.groups[prepared.split.test])
    committee.check(len(families) or None)


def _committee(
    fitted: LinearPotential,
    prepared: PreparedStudy,
    design: DesignMatrix,
    row: pd.Series,
    members: np.ndarray,
    committee: CommitteeSettings,
    jobs: int,
    progress: bool,
) -> LinearPotential:
    """The committee around a fit of the run, families drawn together."""
    level, w = str(row["level"]), np.array([row["w_energy"], row["w_force"], 1.0], dtype=float)
    data = build_sweep_input(prepared, design)
    parts = partition_training_rows(data.design, level, members, len(fitted.coefficients))
    rng = np.random.default_rng([committee.seed, 0])
    return build_committee(
        fitted.basis,
        CommitteeFit.from_parts(parts, prepared.split.groups[members], w, rng, threads=jobs),
        committee,
        list(prepared.dataset.select(members)),
        LabelledStructures.from_dataset(prepared.dataset, level, prepared.split.test, prepared.split.groups),
        centre=fitted.coefficients,
        energy_weight=float(w[0]),
        level=level,
        jobs=jobs,
        progress=progress,
    )


def _row(results: pd.DataFrame, wanted: dict[str, Any], ratio: float | None) -> pd.Series:
    """The row of the table that is asked for; what is not asked for is the best there is."""
    table = results.assign(_score=np.sqrt(results["ref_energy"] * results["ref_force"]))
    for column, value in wanted.items():
        if column not in table or (value is None and column not in {"level", "twojmax", "n_train"}):
            continue
        if value is None:
            value = table["level"].iloc[-1] if column == "level" else table[column].max()  # noqa: PLW2901
        found = table[table[column] == value]
        if found.empty:
            there = ", ".join(map(str, dict.fromkeys(table[column])))
            raise InputError(f"the run has no fit with {column} {value}; it has {there}")
        table = found
    if ratio is not None:
        ratios = table["w_energy"] / table["w_force"]
        found = table[np.isclose(ratios, ratio, rtol=1e-6)]
        if found.empty:
            there = ", ".join(f"{one:g}" for one in dict.fromkeys(ratios))
            raise InputError(f"the run has no fit with w_E/w_F = {ratio:g}; it has {there}")
        table = found
    return table.sort_values("_score", kind="stable").iloc[0].drop("_score")


def _members(prepared: PreparedStudy, row: pd.Series, folder: Path) -> np.ndarray:
    """Positions of the configurations that the fit was trained on, drawn again as the sweep has drawn them."""
    train = prepared.split.train
    if int(row["n_train"]) == len(train):
        return train
    split = pd.read_csv(folder / "split.csv")
    own = split.iloc[train]
    scores = None
    if "leverage" in own:
        empty = np.empty(0)
        scores = LeverageScores(empty, own["leverage"].to_numpy(), own["block_leverage"].to_numpy(), 0)
    for subset in prepared.grid.draw_subsets(scores, len(train)):
        key = subset.sampling, subset.repeat, subset.n_train
        if key == (row["sampling"], int(row["repeat"]), int(row["n_train"])):
            return np.asarray(train[list(subset.positions)])
    raise InputError("the study has changed since the run; run it again")


def _fit(prepared: PreparedStudy, design: DesignMatrix, row: pd.Series, members: np.ndarray) -> np.ndarray:
    data = build_sweep_input(prepared, design)
    rows = data.select_rows(members)
    p = data.design.columns_up_to(int(row["twojmax"]))
    fit = fit_wls(
        data.design.take(rows, p, copies=FIT_COPIES),
        data.design.targets[str(row["level"])][rows],
        data.design.kind[rows],
        energy_weight=float(row["w_energy"]),
        force_weight=float(row["w_force"]),
        ridge=float(row.get("ridge_lambda", 0.0)),
        unpenalised=data.design.n_constant,
    )
    for kind in ("energy", "force"):
        again, before = EV_TO_MEV * fit.rmse[kind], float(row[f"train_{kind}"])
        if abs(again - before) > SAME * max(before, 1.0):
            raise InputError(
                f"fitted again, the training {kind} error is {again:.8g}, in the table {before:.8g}: the run's files "
                "do not belong together; run the study again"
            )
    return np.asarray(fit.coefficients)
