"""Cache of the factors of all rows in the run folder.

Factors that took longer than `MIN_REDUCTION_TIME_S` are stored and reused after an interruption or an edit of the
study.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from paretofit.core import CORRUPT_FILE_ERRORS, atomic_hdf5, hash_json, raise_if_system_error
from paretofit.descriptors import write_array
from paretofit.linear import LeverageScores
from paretofit.linear.reduction import RawFactors, RowFactor

log = logging.getLogger(__name__)

REDUCTION_FILE = "reduction.h5"
MIN_REDUCTION_TIME_S = 60.0
VERSION = 3  # version of the contents of the file
SCORES = ("rows", "regular", "block", "rank")  # datasets, in the order of the fields

FactorsAndScores = tuple[RawFactors, LeverageScores | None]


def load_reduction(folder: Path | None, inputs: Any) -> FactorsAndScores | None:
    """Load the factors and scores from the folder; None if they are missing, corrupt, or of other inputs.

    Parameters
    ----------
    folder : Path or None
        The run folder.
    inputs
        All inputs of the reduction, as JSON data for `hash_json`.
    """
    path = None if folder is None else folder / REDUCTION_FILE
    if path is None or not path.is_file():
        return None
    try:
        with h5py.File(path, "r") as file:
            stored = _read(file) if file.attrs.get("key") == hash_json([VERSION, inputs]) else None
    except CORRUPT_FILE_ERRORS as error:
        raise_if_system_error(error, path)
        log.warning("%s cannot be read (%s); the reduction is computed again", path, error)
        return None
    if stored is not None:
        log.info("the reduction was read from %s", path)
    return stored


def store_reduction(
    folder: Path | None, inputs: Any, raw_factors: RawFactors, scores: LeverageScores | None, *, seconds: float
) -> None:
    """Store factors and scores in the folder, if there is one and they took `MIN_REDUCTION_TIME_S` to compute."""
    if folder is None or seconds < MIN_REDUCTION_TIME_S:
        return
    arrays: dict[str, Any] = {"shape": [raw_factors.n_columns, raw_factors.width]}
    for number, factor in enumerate(raw_factors.factors.values()):
        arrays |= {f"factors/{number}/rows": factor.get_equivalent_rows(), f"factors/{number}/n": factor.n}
    if scores is not None:
        arrays |= {f"scores/{name}": getattr(scores, name) for name in SCORES}
    with atomic_hdf5(folder / REDUCTION_FILE) as (file, check):
        for name, array in arrays.items():
            write_array(file, name, np.atleast_1d(array))  # HDF5 has checksums only for arrays
            check()
        file.attrs["key"] = hash_json([VERSION, inputs])


def _read(file: h5py.File) -> FactorsAndScores:
    """Read factors and scores; single numbers are stored as arrays of one element."""
    n_columns, width = file["shape"][()].tolist()
    raw_factors = RawFactors(n_columns, width - n_columns)
    for number, key in enumerate(raw_factors.factors):
        content, n_rows = (file[f"factors/{number}/{name}"][()] for name in ("rows", "n"))  # a triangle, or rows
        raw_factors.factors[key] = RowFactor.from_rows(content, int(n_rows[0]))
    scores = None
    if "scores" in file:
        row_leverages, regular, block, rank = (file[f"scores/{name}"][()] for name in SCORES)
        scores = LeverageScores(row_leverages, regular, block, int(rank[0]))
    return raw_factors, scores
