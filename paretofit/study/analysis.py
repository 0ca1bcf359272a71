"""Further analyses of a run: label errors, their correlation with residuals, and MD speed."""

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
MD_SECONDS = 0.3  # duration of each of three timings
N_MD_TRAINING = 40  # training configurations of the timed potential; few, because the speed does not depend on them
MD_COLUMNS = ["twojmax", "md_us_per_atom_step", "spread", "atoms"]


def select_paper_weights(weights: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Select the two weightings nearest to the paper's ratios 12.25 and 150; if they coincide, the two extremes.

    Parameters
    ----------
    weights : sequence of (float, float)
        Pairs (w_E, w_F).
    """
    ratios = np.array([w_energy / w_force for w_energy, w_force in weights])
    indices = [int(np.argmin(np.abs(np.log(ratios / ratio)))) for ratio in PAPER_RATIOS]
    if indices[0] == indices[1] and len(weights) > 1:
        indices = [int(np.argmin(ratios)), int(np.argmax(ratios))]
    return [(weights[k][0], weights[k][1]) for k in dict.fromkeys(indices)]


def measure_md_cost(prepared: PreparedStudy, data: SweepInput, errors: LevelErrors, folder: Path) -> pd.DataFrame:
    """Measure the MD cost of each 2Jmax with LAMMPS and an exported potential, once per run folder.

    Returns
    -------
    DataFrame
        ``twojmax``, ``md_us_per_atom_step``, ``spread``, ``atoms``; costs given in the study are not measured, nor are
        those of given rows.
    """
    cost, path = prepared.study.cost, folder / MD_FILE
    table = read_table_or_empty(path, MD_COLUMNS)[MD_COLUMNS].apply(pd.to_numeric, errors="coerce")
    rows = {int(row[0]): row for row in table.dropna(subset=MD_COLUMNS[:2]).to_numpy().tolist()}
    cell = select_md_cell(prepared, errors)
    can_measure = cost.measure_md and cell is not None and not isinstance(prepared.study.basis, RowsBasis)
    for twojmax in prepared.grid.twojmax:
        if cell is None or not can_measure or twojmax in cost.md_us_per_atom_step or twojmax in rows:
            continue
        speed = measure_md_speed(*_export_md_potential(prepared, data, twojmax, folder), cell, seconds=MD_SECONDS)
        log.info("MD at 2Jmax %d: %.3g µs per atom and step, %d atoms", twojmax, speed.us_per_atom_step, speed.n_atoms)
        rows[twojmax] = [twojmax, speed.us_per_atom_step, speed.slowest_to_fastest_ratio, speed.n_atoms]
        write_csv(pd.DataFrame(list(rows.values()), columns=MD_COLUMNS), path)
    rows |= {twojmax: [twojmax, us, np.nan, 0] for twojmax, us in cost.md_us_per_atom_step.items()}
    chosen_rows = [rows[twojmax] for twojmax in sorted(set(rows) & set(prepared.grid.twojmax))]
    return pd.DataFrame(chosen_rows, columns=MD_COLUMNS).astype({"twojmax": int, "atoms": int})


def measure_label_noise(prepared: PreparedStudy, engine: FastEngine | PlainEngine, folder: Path) -> None:
    """Correlate residuals with label errors at the weights of `select_paper_weights`, and write the tables.

    Without the fast engine, a test set and at least two levels, the tables are removed.
    """
    if not isinstance(engine, FastEngine) or not len(prepared.split.test) or len(prepared.grid.levels) < 2:
        for name in NOISE_FILES:
            (folder / name).unlink(missing_ok=True)
        return
    tables = correlate_label_noise(engine, prepared.grid, select_paper_weights(prepared.grid.weights))
    for name, table in zip(NOISE_FILES, tables, strict=True):
        write_csv(table, folder / name)


def measure_test_residuals(prepared: PreparedStudy, engine: FastEngine | PlainEngine, folder: Path) -> None:
    """Write the residuals of test configurations at the first weights of `select_paper_weights`.

    Without the fast engine and a test set, the table is removed.
    """
    if not isinstance(engine, FastEngine) or not len(prepared.split.test):
        remove_file(folder / RESIDUALS_FILE)
        return
    pair = select_paper_weights(prepared.grid.weights)[0]
    table = compute_configuration_residuals(engine, prepared.grid, pair)
    table.insert(0, "id", prepared.dataset.ids[table.pop("configuration").to_numpy(dtype=int)])
    write_csv(table, folder / RESIDUALS_FILE)


def add_md_cost(results: pd.DataFrame, md_costs: pd.DataFrame) -> pd.DataFrame:
    """Add the MD cost of each 2Jmax (table of `measure_md_cost`) to a results table."""
    costs = dict(zip(md_costs["twojmax"], md_costs["md_us_per_atom_step"], strict=True))
    return results.assign(md_us_per_atom_step=results["twojmax"].map(costs).astype(float))


def mark_assumed_costs(results: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Add the column ``cost_is_assumed`` to a results table, if the label cost of any level is assumed."""
    assumed_levels = study.cost.assumed_levels
    return results.assign(**{ASSUMED_COLUMN: results["level"].isin(assumed_levels)}) if assumed_levels else results


def read_table_or_empty(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table of a run; return an empty one if the file is missing or corrupt, or lacks one of the columns."""
    try:
        table = restore_formulas(pd.read_csv(path, dtype={"level": str, "basis": str}))
    except (FileNotFoundError, ValueError):  # pandas raises ValueError for an empty or corrupt file
        return pd.DataFrame(columns=list(columns))
    return table if set(columns) <= set(table.columns) else pd.DataFrame(columns=list(columns))


def select_md_cell(prepared: PreparedStudy, errors: LevelErrors) -> Atoms | None:
    """Select a periodic cell for the MD timing, preferably the reference configuration; None if there is none."""
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
    prepared: PreparedStudy, data: SweepInput, twojmax: int, folder: Path
) -> tuple[list[str], list[str]]:
    """Fit and export a potential of one 2Jmax; return its LAMMPS commands and elements."""
    rows = data.find_row_indices(data.train[:N_MD_TRAINING])
    p, level = data.design.count_columns_up_to(twojmax), prepared.grid.levels[-1]
    X, y, kind = data.design.read_rows(rows, p), data.design.targets[level][rows], data.design.kind[rows]
    fit = fit_wls(X, y, kind, energy_weight=PAPER_RATIOS[0], force_weight=1.0)
    basis = require_descriptors(prepared.study.basis)
    coefficients = data.design.expand_coefficients(fit.coefficients, level)
    files = write_linear_potential(folder / "md_speed", f"twojmax_{twojmax}", basis, coefficients)
    return files.commands, files.elements
