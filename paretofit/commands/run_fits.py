"""Repetition of fits of a finished run from its design matrix, with a check against the results table of the run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from paretofit.commands.fitted_potential import DesignFit
from paretofit.core import InputError, restore_formulas
from paretofit.descriptors import DesignMatrix
from paretofit.linear import Fit, LeverageScores
from paretofit.pareto import TEXT_COLUMNS, find_mixtures
from paretofit.study import RESULTS_FILE, PreparedStudy, build_sweep_input, check_finished, load_study, prepare_study
from paretofit.sweep import EV_TO_MEV, MixtureDraw, SweepInput, list_mixture_draws

CHANGED_STUDY = "the study has changed since the run, so the fit cannot be repeated; run the study again"
# difference of training errors between a repeated fit and the results table, relative to the error or to 1 meV/atom
# (1 meV/Å), whichever is larger
MAX_ERROR_DIFFERENCE = 1e-6


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
        """Repeat the fit of a row of the results table; return its input and the fit.

        Raises
        ------
        InputError
            If the training subset cannot be drawn again, or the training errors differ from those in the row.
        """
        weights = float(row["w_energy"]), float(row["w_force"])
        mixture = self.draw_mixture(row) if find_mixtures(row.to_frame().T).item() else None
        training_set = self._draw_training_set(row) if mixture is None else _join_sets(mixture.configurations)
        level = str(row["level"]) if mixture is None else mixture.mixture.levels[-1]
        design_fit = DesignFit(self.prepared, self.design, level, int(row["twojmax"]), training_set, weights, mixture)
        fit = design_fit.fit_single(float(row.get("ridge_lambda", 0.0)))
        _check_same_errors(fit, row)
        return design_fit, fit

    def _draw_training_set(self, row: pd.Series) -> np.ndarray:
        """Draw the training subset of a fit again; return the positions of its configurations, ``(n_train,) int``."""
        train = self.prepared.split.train
        if int(row["n_train"]) == len(train):
            return train
        key = row["sampling"], int(row["repeat"]), int(row["n_train"])
        for subset in self.prepared.grid.draw_subsets(self._read_scores(), len(train)):
            if (subset.sampling, subset.repeat, subset.n_train) == key:
                return np.asarray(train[list(subset.positions)])
        raise InputError(CHANGED_STUDY)

    def draw_mixture(self, row: pd.Series) -> MixtureDraw:
        """Draw the training set of a mixture again.

        Parameters
        ----------
        row : Series
            Row of the results table, of which ``level``, ``repeat`` and ``n_train`` are used.

        Raises
        ------
        InputError
            If the sweep has no such draw.
        """
        split, key = self.prepared.split, (row["level"], int(row["repeat"]), int(row["n_train"]))
        sweep_input = SweepInput(self.design, split.train, split.test)
        for draw in list_mixture_draws(sweep_input, self.prepared.grid, self._read_scores()):
            if (draw.mixture.name, draw.repeat, draw.n_train) == key:
                return draw
        raise InputError(CHANGED_STUDY)

    def _read_scores(self) -> LeverageScores | None:
        """Read the leverage scores of the training set; None if the run has not computed any."""
        split = pd.read_csv(self.folder / "split.csv").iloc[self.prepared.split.train]
        if "leverage" not in split:
            return None
        # Sampling uses neither the leverages of single rows nor the rank, which the run does not store.
        return LeverageScores(np.empty(0), split["leverage"].to_numpy(), split["block_leverage"].to_numpy(), 0)


@contextmanager
def open_run_fits(folder: Path) -> Iterator[RunFits]:
    """Open the dataset and the design matrix of a finished run for repeating its fits; close the dataset at the end.

    Raises
    ------
    InputError
        If a file of the run cannot be read, or the study is not valid.
    """
    study = load_study(folder / "study.yaml").model_copy(update={"dataset": folder / "dataset.h5"})
    prepared = prepare_study(study)
    with prepared.dataset:
        yield RunFits(folder, prepared, build_sweep_input(prepared, DesignMatrix.open(folder / "design.h5")).design)


def read_run_table(folder: Path, name: str = RESULTS_FILE) -> pd.DataFrame:
    """Read a table of a finished run, by default the results table; the columns `TEXT_COLUMNS` are text.

    Raises
    ------
    InputError
        If the folder is not a run folder, the run is not finished, or its files have changed.
    """
    check_finished(folder)
    return restore_formulas(pd.read_csv(folder / name, dtype=TEXT_COLUMNS))


def _join_sets(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the positions of all configurations of a mixture, sorted and without duplicates."""
    return np.unique(np.concatenate(sets))


def _check_same_errors(fit: Fit, row: pd.Series) -> None:
    """Check that the training errors of a repeated fit are those in its row of the results table."""
    for kind in ("energy", "force"):
        error, recorded_error = EV_TO_MEV * fit.rmse[kind], float(row[f"train_{kind}"])
        if abs(error - recorded_error) > MAX_ERROR_DIFFERENCE * max(recorded_error, 1.0):
            raise InputError(
                f"the training {kind} error of the repeated fit is {error:.8g}, but {recorded_error:.8g} in "
                f"{RESULTS_FILE}: the files of the run are inconsistent; run the study again"
            )
