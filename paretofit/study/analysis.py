"""Further analyses of a run: MD cost, residuals of the test set, and their correlation with label errors."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit.core import remove_file, restore_formulas, write_csv
from paretofit.dataset.quality import LevelErrors
from paretofit.descriptors import RowsBasis, require_descriptors
from paretofit.linear import fit_wls
from paretofit.pareto import ASSUMED_COLUMN
from paretofit.potentials import write_linear_potential
from paretofit.study.preparation import PreparedStudy
from paretofit.study.schema import Study
from paretofit.sweep import FastEngine, PlainEngine, SweepInput, compute_configuration_residuals, correlate_label_noise
from paretofit.validation import measure_md_speed

log = logging.getLogger(__name__)

MD_FILE = "md_speed.csv"
NOISE_FILES: tuple[str, ...] = ("label_noise.csv", "label_noise_points.csv")
RESIDUALS_FILE = "test_residuals.csv"
PAPER_RATIOS = (12.25, 150.0)  # w_E/w_F of Tables 4 and 5 of the paper: emphasis on forces, emphasis on energies
MD_SECONDS = 0.3  # s, duration of each of three timings
N_MD_TRAINING = 40  # training configurations of the timed potential; few, because its speed does not depend on them
MD_COLUMNS = ["twojmax", "md_us_per_atom_step", "spread", "atoms"]


def select_paper_weights(weights: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Select the two weightings whose ratios w_E/w_F are nearest to those of the paper, 12.25 and 150.

    If the same weighting is nearest to both, the weightings with the smallest and the largest ratio are selected.

    Parameters
    ----------
    weights : sequence of (float, float)
        Pairs (w_E, w_F).

    Returns
    -------
    list of (float, float)
        Two pairs, or one if `weights` has only one.
    """
    ratios = np.array([w_energy / w_force for w_energy, w_force in weights])
    indices = [int(np.argmin(np.abs(np.log(ratios / paper_ratio)))) for paper_ratio in PAPER_RATIOS]
    if indices[0] == indices[1] and len(weights) > 1:
        indices = [int(np.argmin(ratios)), int(np.argmax(ratios))]
    return [(weights[k][0], weights[k][1]) for k in dict.fromkeys(indices)]


def measure_md_cost(
    prepared: PreparedStudy, sweep_input: SweepInput, errors: LevelErrors, folder: Path
) -> pd.DataFrame:
    """Measure the MD cost of each 2Jmax of a study with LAMMPS and an exported potential.

    Measured costs are written to `MD_FILE` in the run folder, and are read from there when the study runs again. A cost
    that the study states is not measured. Nothing is measured with given rows, or without a periodic configuration.

    Parameters
    ----------
    prepared : PreparedStudy
    sweep_input : SweepInput
        Rows and training set of the timed potentials.
    errors : LevelErrors
        Errors of the labels, with the reference configuration, which is timed if it is periodic.
    folder : Path
        Run folder, where the potentials are written to ``md_speed``.

    Returns
    -------
    DataFrame
        A row for each 2Jmax with a known cost: ``twojmax``; ``md_us_per_atom_step``; ``spread``, the slowest timing
        divided by the fastest (NaN for a cost from the study); and ``atoms``, their number in the timed cell (0 for
        such a cost).
    """
    cost, path = prepared.study.cost, folder / MD_FILE
    table = read_table_or_empty(path, MD_COLUMNS)[MD_COLUMNS].apply(pd.to_numeric, errors="coerce")
    rows_by_twojmax = {int(row[0]): row for row in table.dropna(subset=MD_COLUMNS[:2]).to_numpy().tolist()}
    cell = select_md_cell(prepared, errors)
    can_measure = cost.measure_md and cell is not None and not isinstance(prepared.study.basis, RowsBasis)
    for twojmax in prepared.grid.twojmax:
        if cell is None or not can_measure or twojmax in cost.md_us_per_atom_step or twojmax in rows_by_twojmax:
            continue
        speed = measure_md_speed(
            *_export_md_potential(prepared, sweep_input, twojmax, folder), cell, seconds=MD_SECONDS
        )
        log.info("MD at 2Jmax %d: %.3g µs per atom and step, %d atoms", twojmax, speed.us_per_atom_step, speed.n_atoms)
        rows_by_twojmax[twojmax] = [twojmax, speed.us_per_atom_step, speed.slowest_to_fastest_ratio, speed.n_atoms]
        write_csv(pd.DataFrame(list(rows_by_twojmax.values()), columns=MD_COLUMNS), path)
    rows_by_twojmax |= {
        twojmax: [twojmax, known_cost, np.nan, 0] for twojmax, known_cost in cost.md_us_per_atom_step.items()
    }
    selected_rows = [rows_by_twojmax[twojmax] for twojmax in sorted(set(rows_by_twojmax) & set(prepared.grid.twojmax))]
    return pd.DataFrame(selected_rows, columns=MD_COLUMNS).astype({"twojmax": int, "atoms": int})


def measure_label_noise(prepared: PreparedStudy, engine: FastEngine | PlainEngine, folder: Path) -> None:
    """Correlate residuals with label errors at the weights of `select_paper_weights`, and write `NOISE_FILES`.

    If the engine is not the fast one, or there is no test set or only one level, files of an earlier run are removed.
    """
    if not isinstance(engine, FastEngine) or not len(prepared.split.test) or len(prepared.grid.levels) < 2:
        for name in NOISE_FILES:
            (folder / name).unlink(missing_ok=True)
        return
    tables = correlate_label_noise(engine, prepared.grid, select_paper_weights(prepared.grid.weights))
    for name, table in zip(NOISE_FILES, tables, strict=True):
        write_csv(table, folder / name)


def measure_test_residuals(prepared: PreparedStudy, engine: FastEngine | PlainEngine, folder: Path) -> None:
    """Write the residuals of test configurations at the first weights of `select_paper_weights` to `RESIDUALS_FILE`.

    If the engine is not the fast one, or there is no test set, a file of an earlier run is removed.
    """
    if not isinstance(engine, FastEngine) or not len(prepared.split.test):
        remove_file(folder / RESIDUALS_FILE)
        return
    pair = select_paper_weights(prepared.grid.weights)[0]
    table = compute_configuration_residuals(engine, prepared.grid, pair)
    table.insert(0, "id", prepared.dataset.ids[table.pop("configuration").to_numpy(dtype=int)])
    write_csv(table, folder / RESIDUALS_FILE)


def add_md_cost(results: pd.DataFrame, md_costs: pd.DataFrame) -> pd.DataFrame:
    """Return a results table with ``md_us_per_atom_step`` from the table of `measure_md_cost`; NaN if not known."""
    costs = dict(zip(md_costs["twojmax"], md_costs["md_us_per_atom_step"], strict=True))
    return results.assign(md_us_per_atom_step=results["twojmax"].map(costs).astype(float))


def mark_assumed_costs(results: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Mark the results of levels whose label cost is assumed; return the table with the column ``cost_is_assumed``.

    If the study assumes no label cost, the table is returned without this column.
    """
    assumed_levels = study.cost.assumed_levels
    return results.assign(**{ASSUMED_COLUMN: results["level"].isin(assumed_levels)}) if assumed_levels else results


def read_table_or_empty(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV table of a run; return an empty table if the file is missing or corrupt, or lacks one of `columns`."""
    try:
        table = restore_formulas(pd.read_csv(path, dtype={"level": str, "basis": str}))
    except (FileNotFoundError, ValueError):  # pandas raises ValueError for an empty or corrupt file
        return pd.DataFrame(columns=list(columns))
    return table if set(columns) <= set(table.columns) else pd.DataFrame(columns=list(columns))


def select_md_cell(prepared: PreparedStudy, errors: LevelErrors) -> Atoms | None:
    """Select a periodic configuration for the MD timing, preferably the reference; None if none is periodic."""
    dataset = prepared.dataset
    positions = np.arange(len(dataset))
    if errors.reference_configuration is not None:
        positions = np.argsort(dataset.ids != errors.reference_configuration, kind="stable")
    for position in positions.tolist():
        (atoms,) = dataset.select(np.array([position]))
        if atoms.pbc.all():
            return atoms
    return None


def _export_md_potential(
    prepared: PreparedStudy, sweep_input: SweepInput, twojmax: int, folder: Path
) -> tuple[list[str], list[str]]:
    """Fit a potential of one 2Jmax, and write it to ``folder/md_speed``; return its LAMMPS commands and elements.

    The potential is fitted to the reference labels of the first `N_MD_TRAINING` training configurations.
    """
    design, level = sweep_input.design, prepared.grid.levels[-1]
    rows = sweep_input.find_row_indices(sweep_input.train[:N_MD_TRAINING])
    n_columns = design.count_columns_up_to(twojmax)
    X, y, kind = design.read_rows(rows, n_columns), design.targets[level][rows], design.kind[rows]
    fit = fit_wls(X, y, kind, energy_weight=PAPER_RATIOS[0], force_weight=1.0)
    basis = require_descriptors(prepared.study.basis)
    coefficients = design.expand_coefficients(fit.coefficients, level)
    files = write_linear_potential(folder / "md_speed", f"twojmax_{twojmax}", basis, coefficients)
    return files.commands, files.elements
