"""What a run computes besides its fits: the errors of the labels, how much of them models ignore, and the MD speed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paretofit.core import atomic_path
from paretofit.linear import fit_wls
from paretofit.potentials import write_snap
from paretofit.sweep import FastEngine, correlate_label_noise
from paretofit.validation import measure_md_speed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms

    from paretofit.dataset.quality import LevelErrors
    from paretofit.study.preparation import PreparedStudy
    from paretofit.sweep import PlainEngine, SweepInput

log = logging.getLogger(__name__)

MD_FILE = "md_speed.csv"
NOISE_FILE = "label_noise.csv"
NOISE_POINTS_FILE = "label_noise_points.csv"
PAPER_RATIOS = (12.25, 150.0)  # of Tables 4 and 5: higher force weight, higher energy weight
MD_SECONDS = 0.3  # for each of three timings
FIT_ON = 40  # configurations that the timed potential is fitted to; its speed does not depend on them


def select_paper_weights(weights: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The two weightings of Tables 4 and 5: those nearest to the paper's 12.25 and 150, or the two extremes.

    Parameters
    ----------
    weights : sequence of (float, float)
        Pairs w_E, w_F.
    """
    ratios = np.array([w_energy / w_force for w_energy, w_force in weights])
    near = [int(np.argmin(np.abs(np.log(ratios / wanted)))) for wanted in PAPER_RATIOS]
    if near[0] == near[1] and len(weights) > 1:
        near = [int(np.argmin(ratios)), int(np.argmax(ratios))]
    return [(weights[k][0], weights[k][1]) for k in dict.fromkeys(near)]


def measure_md_cost(prepared: PreparedStudy, data: SweepInput, errors: LevelErrors, folder: Path) -> pd.DataFrame:
    """MD cost of each 2Jmax, once for a run folder: LAMMPS is timed with the exported potential.

    Returns
    -------
    DataFrame
        ``twojmax``, ``md_us_per_atom_step``, ``spread``, ``atoms``; what the study gives is taken as it is.
    """
    given = prepared.study.cost.md_us_per_atom_step
    path = folder / MD_FILE
    known = read_table_or_empty(path, ["twojmax", "md_us_per_atom_step", "spread", "atoms"])
    cell = select_md_cell(prepared, errors)
    for twojmax in prepared.grid.twojmax:
        if twojmax in given or twojmax in set(known["twojmax"]) or not prepared.study.cost.measure_md or cell is None:
            continue
        speed = measure_md_speed(*_potential(prepared, data, twojmax, folder), cell, seconds=MD_SECONDS)
        log.info(
            "MD at 2Jmax %d: %.3g µs for each atom and step, %d atoms", twojmax, speed.us_per_atom_step, speed.n_atoms
        )
        row = [twojmax, speed.us_per_atom_step, speed.max_min_ratio, speed.n_atoms]
        known = pd.concat([known, pd.DataFrame([row], columns=known.columns)], ignore_index=True)
        write_csv(known, path)
    known = known[~known["twojmax"].isin(list(given))]
    told = pd.DataFrame([[t, us, np.nan, 0] for t, us in given.items()], columns=known.columns)
    table = pd.concat([known, told], ignore_index=True) if len(told) else known
    table = table[table["twojmax"].isin(prepared.grid.twojmax)].astype({"twojmax": int, "atoms": int})
    return table.sort_values("twojmax", ignore_index=True)


def measure_label_noise(
    prepared: PreparedStudy, engine: FastEngine | PlainEngine, folder: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Residuals against label errors at the two weightings of Tables 4 and 5, written beside the results."""
    if not isinstance(engine, FastEngine) or not len(prepared.split.test) or len(prepared.grid.levels) < 2:
        for name in (NOISE_FILE, NOISE_POINTS_FILE):
            (folder / name).unlink(missing_ok=True)
        return pd.DataFrame(), pd.DataFrame()
    table, points = correlate_label_noise(engine, prepared.grid, select_paper_weights(prepared.grid.weights))
    write_csv(table, folder / NOISE_FILE)
    write_csv(points, folder / NOISE_POINTS_FILE)
    return table, points


def add_md_cost(results: pd.DataFrame, md: pd.DataFrame) -> pd.DataFrame:
    """The results with the MD cost of each 2Jmax."""
    costs = dict(zip(md["twojmax"], md["md_us_per_atom_step"], strict=True))
    return results.assign(md_us_per_atom_step=results["twojmax"].map(costs).astype(float))


def read_table_or_empty(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table that an earlier run wrote; empty where there is none or it is damaged."""
    try:
        table = pd.read_csv(path, dtype={"level": str})
    except (FileNotFoundError, ValueError):  # pandas: an empty or damaged file
        return pd.DataFrame(columns=list(columns))
    return table if set(columns) <= set(table.columns) else pd.DataFrame(columns=list(columns))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Ten significant digits, whole or not at all."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def select_md_cell(prepared: PreparedStudy, errors: LevelErrors) -> Atoms | None:
    """What MD is timed on: the bulk configuration, or the first that is periodic in three directions."""
    dataset = prepared.dataset
    order = np.arange(len(dataset))
    if errors.reference_configuration is not None:
        order = np.argsort(dataset.ids != errors.reference_configuration, kind="stable")
    for position in order.tolist():
        (atoms,) = dataset.select(np.array([position]))
        if atoms.pbc.all():
            return atoms
    return None


def _potential(prepared: PreparedStudy, data: SweepInput, twojmax: int, folder: Path) -> tuple[list[str], list[str]]:
    """The exported potential of a 2Jmax as LAMMPS commands and elements."""
    rows = data.select_rows(data.train[:FIT_ON])
    p, level = data.design.columns_up_to(twojmax), prepared.grid.levels[-1]
    X, y, kind = data.design.take(rows, p), data.design.targets[level][rows], data.design.kind[rows]
    fit = fit_wls(X, y, kind, energy_weight=PAPER_RATIOS[0], force_weight=1.0)
    files = write_snap(folder / "md_speed", f"twojmax_{twojmax}", prepared.study.basis, fit.coefficients)
    return files.commands, files.elements
