"""Fits of a finished run, which are repeated from its design matrix and compared with its results table."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from paretofit.commands.fitted_potential import DesignFit
from paretofit.core import InputError, restore_formulas
from paretofit.descriptors import DesignMatrix
from paretofit.linear import Fit, LeverageScores
from paretofit.study import RESULTS_FILE, PreparedStudy, build_sweep_input, check_finished, load_study, prepare_study
from paretofit.sweep import EV_TO_MEV

MAX_ERROR_DIFFERENCE = 1e-6  # relative difference of training errors between a repeated fit and the results table


@dataclass(frozen=True)
class RunFits:
    """Study and labelled design matrix of a finished run, from which any of its fits can be repeated.

    Attributes
    ----------
    folder : Path
        Run folder.
    prepared : PreparedStudy
    design : DesignMatrix
        Design matrix with labels, constrained by the energies of free atoms.
    """

    folder: Path
    prepared: PreparedStudy
    design: DesignMatrix

    def repeat_fit(self, row: pd.Series) -> tuple[DesignFit, Fit]:
        """Repeat the fit of a row of the results table.

        Raises
        ------
        InputError
            If its training subset or its training errors differ from those of the run.
        """
        weights = float(row["w_energy"]), float(row["w_force"])
        training_set = self._draw_training_set(row)
        design_fit = DesignFit(
            self.prepared, self.design, str(row["level"]), int(row["twojmax"]), training_set, weights
        )
        fit = design_fit.fit_single(float(row.get("ridge_lambda", 0.0)))
        _check_same_errors(fit, row)
        return design_fit, fit

    def _draw_training_set(self, row: pd.Series) -> np.ndarray:
        """Draw the training subset of a fit as in the sweep; return the positions of its configurations."""
        train = self.prepared.split.train
        if int(row["n_train"]) == len(train):
            return train
        split = pd.read_csv(self.folder / "split.csv").iloc[train]
        scores = None
        if "leverage" in split:
            empty_array = np.empty(0)
            scores = LeverageScores(empty_array, split["leverage"].to_numpy(), split["block_leverage"].to_numpy(), 0)
        key = row["sampling"], int(row["repeat"]), int(row["n_train"])
        for subset in self.prepared.grid.draw_subsets(scores, len(train)):
            if (subset.sampling, subset.repeat, subset.n_train) == key:
                return np.asarray(train[list(subset.positions)])
        raise InputError("the study has changed since the run, so the fit cannot be repeated; run the study again")


@contextmanager
def open_run_fits(folder: Path) -> Iterator[RunFits]:
    """Open the dataset and the design matrix of a finished run, to repeat its fits."""
    study = load_study(folder / "study.yaml").model_copy(update={"dataset": folder / "dataset.h5"})
    prepared = prepare_study(study)
    with prepared.dataset:
        yield RunFits(folder, prepared, build_sweep_input(prepared, DesignMatrix.open(folder / "design.h5")).design)


def read_run_table(folder: Path, name: str = RESULTS_FILE) -> pd.DataFrame:
    """Read a table of a finished run, with levels and ridge penalties as text.

    Raises
    ------
    InputError
        If the folder is not a run folder, the run is not finished, or its files have changed.
    """
    check_finished(folder)
    return restore_formulas(pd.read_csv(folder / name, dtype={"level": str, "ridge": str}))


def _check_same_errors(fit: Fit, row: pd.Series) -> None:
    for kind in ("energy", "force"):
        error, recorded_error = EV_TO_MEV * fit.rmse[kind], float(row[f"train_{kind}"])
        if abs(error - recorded_error) > MAX_ERROR_DIFFERENCE * max(recorded_error, 1.0):
            raise InputError(
                f"the training {kind} error of the repeated fit is {error:.8g}, but {recorded_error:.8g} in "
                f"{RESULTS_FILE}: the files of the run are inconsistent; run the study again"
            )
