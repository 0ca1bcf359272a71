"""Page of structures for inspection: those with the largest residuals, label errors and leverages, and a map."""

from pathlib import Path

import numpy as np
import pandas as pd

from paretofit.dataset.quality import LevelErrors
from paretofit.report.page import StructureView, select_view
from paretofit.study.analysis import RESIDUALS_FILE, read_table_or_empty
from paretofit.study.preparation import PreparedStudy

VIEW_FILE = "structures.html"
RANKED = {  # reason for which the largest values of each column are shown, most important column first
    "force residual (meV/Å)": "largest force residuals",
    "energy residual (meV/atom)": "largest energy residuals",
    "label error, energy (meV/atom)": "largest label errors of the energy",
    "label error, force (meV/Å)": "largest label errors of the forces",
    "block leverage": "largest block leverages",
    "leverage": "largest leverages",
}


def build_run_view(folder: Path, prepared: PreparedStudy, errors: LevelErrors) -> StructureView | None:
    """Select structures of a run for inspection; None if there are too few, or none of the ranked quantities is known.

    Residuals are those of test configurations with the largest model at the reference level, leverages those of
    training configurations, and label errors those of the cheapest level.

    Parameters
    ----------
    folder : Path
        Run folder with ``split.csv`` and, if it was computed, ``test_residuals.csv``.
    prepared : PreparedStudy
    errors : LevelErrors
        Errors of the labels of each configuration.
    """
    dataset = prepared.dataset
    split = read_table_or_empty(folder / "split.csv")  # rows in the order of the dataset
    table = pd.DataFrame({"id": dataset.ids, "set": np.where(split["set"] == "train", "training", "test")})
    table["kind"] = [str(record.get("config_type", "")) for record in dataset.info_records]
    table["atoms"] = dataset.n_atoms
    residuals = (
        read_table_or_empty(folder / RESIDUALS_FILE, ["id", "energy", "force"]).set_index("id").reindex(table["id"])
    )
    table["energy residual (meV/atom)"] = residuals["energy"].to_numpy(dtype=float)
    table["force residual (meV/Å)"] = residuals["force"].to_numpy(dtype=float)
    for column in ("leverage", "block_leverage"):
        if column in split:
            table[column.replace("_", " ")] = split[column].to_numpy(dtype=float)
    level_rows = errors.configurations[errors.configurations["level"] == prepared.grid.levels[0]]
    if len(level_rows):
        aligned_rows = level_rows.set_index("config_id").reindex(table["id"])
        table["label error, energy (meV/atom)"] = aligned_rows["energy_error"].abs().to_numpy()
        table["label error, force (meV/Å)"] = aligned_rows["force_rmsd"].to_numpy()
    return select_view("Structures of the study", dataset, table, RANKED)
