"""Cache of the reduction in the run folder.

A reduction that took longer than `MIN_REDUCTION_TIME_S` is stored and reused after an interruption or an edit of the
study.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from paretofit.core import CORRUPT_FILE_ERRORS, RowKind, atomic_hdf5, hash_json, raise_system_error
from paretofit.descriptors import write_array
from paretofit.linear import LeverageScores, Reduction
from paretofit.linear.reduction import RowFactor, Whitening

log = logging.getLogger(__name__)

REDUCTION_FILE = "reduction.h5"
MIN_REDUCTION_TIME_S = 60.0
VERSION = 2  # of the contents of the file
# Names of the datasets, and the order of the fields that they store.
ARRAYS = ("sizes", "whitened_sizes", "weights", "baseline", "unpenalised")
WHITENING = ("retained_columns", "dropped_columns", "R", "dropped_coefficients")
FACTOR = ("content", "n", "is_matrix", "is_gram")
SCORES = ("rows", "regular", "block", "rank")

ReductionAndScores = tuple[Reduction, LeverageScores | None]


def load_or_compute_reduction(
    folder: Path | None, inputs: Any, compute: Callable[[], ReductionAndScores]
) -> ReductionAndScores:
    """Load the reduction of these inputs from the folder, or compute it and store it if it was expensive.

    Parameters
    ----------
    folder : Path or None
        The run folder; None stores nothing.
    inputs
        All inputs of the reduction, as a value for `hash_json`.
    compute : callable
        Computes the reduction and the leverage scores.
    """
    if folder is None:
        return compute()
    path, key = folder / REDUCTION_FILE, hash_json([VERSION, inputs])
    try:
        stored_result = _read(path, key)
    except CORRUPT_FILE_ERRORS as error:
        raise_system_error(error, path)
        log.warning("%s cannot be read (%s); the reduction is computed again", path, error)
        stored_result = None
    if stored_result is not None:
        log.info("reduction: read from %s", path)
        return stored_result
    start = time.perf_counter()
    result = compute()
    if time.perf_counter() - start >= MIN_REDUCTION_TIME_S:
        _write(path, key, *result)
    return result


def _write(path: Path, key: str, reduction: Reduction, scores: LeverageScores | None) -> None:
    arrays: dict[str, Any] = {name: getattr(reduction, name) for name in ARRAYS}
    arrays |= {f"whitening/{name}": getattr(reduction.whitening, name) for name in WHITENING}
    for part, factors in (("train", reduction.train_factors), ("test", reduction.test_factors)):
        for kind, factor in factors.items():
            fields = factor.content, factor.n, factor.matrix is not None, factor.is_gram
            arrays |= {f"{part}/{int(kind)}/{name}": field for name, field in zip(FACTOR, fields, strict=True)}
    arrays |= {f"norms/{int(kind)}": norm for kind, norm in reduction.train_norms.items()}
    if scores is not None:
        arrays |= {f"scores/{name}": getattr(scores, name) for name in SCORES}
    with atomic_hdf5(path) as (file, check):
        for name, array in arrays.items():
            write_array(file, name, np.atleast_1d(array))  # HDF5 has checksums only for arrays
            check()
        file.attrs["key"] = key


def _read(path: Path, key: str) -> ReductionAndScores | None:
    """Read the file; None if the file does not exist or was computed from other inputs."""
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        if file.attrs.get("key") != key:
            return None

        def read(group: str, *names: str) -> list[Any]:
            return [np.asfortranarray(file[f"{group}/{name}"][()]) for name in names]

        def read_factors(part: str) -> dict[RowKind, RowFactor]:
            factors = {}
            for kind in file[part]:
                content, n, is_matrix, is_gram = read(f"{part}/{kind}", *FACTOR)
                form = {"is_matrix": bool(is_matrix[0]), "is_gram": bool(is_gram[0])}
                factors[RowKind(int(kind))] = RowFactor.from_arrays(content, int(n[0]), **form)
            return factors

        sizes, whitened_sizes, weights, baseline, unpenalised = read("", *ARRAYS)
        whitening = Whitening(*read("whitening", *WHITENING))
        norms = {RowKind(int(kind)): file[f"norms/{kind}"][()] for kind in file["norms"]}
        factors = read_factors("train"), read_factors("test")
        scores = None
        if "scores" in file:
            rows, regular, block, rank = read("scores", *SCORES)
            scores = LeverageScores(rows, regular, block, int(rank[0]))
    result = Reduction(sizes, whitened_sizes, whitening, weights, baseline, *factors, norms, int(unpenalised[0]))
    return result, scores
