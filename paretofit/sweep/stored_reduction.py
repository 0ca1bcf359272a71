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
from paretofit.linear.reduction import KindMoments, Moments, ResidualFactor, Whitening

log = logging.getLogger(__name__)

REDUCTION_FILE = "reduction.h5"
MIN_REDUCTION_TIME_S = 60.0
# Names of the datasets, and the order of the fields that they store.
SIZES = ("sizes", "whitened_sizes", "n_levels", "unpenalised", "baseline")
WHITENING = ("kept", "dropped", "R")
MOMENTS = ("G", "c", "s", "norms", "n")
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
    path, key = folder / REDUCTION_FILE, hash_json(inputs)
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
    whitening = reduction.whitening
    arrays: dict[str, Any] = {name: getattr(reduction, name) for name in SIZES}
    fields = whitening.retained_columns, whitening.dropped_columns, whitening.R
    arrays |= {f"whitening/{name}": array for name, array in zip(WHITENING, fields, strict=True)}
    for kind, part in reduction.train_moments.by_kind.items():
        arrays |= {f"train/{int(kind)}/{name}": getattr(part, name) for name in MOMENTS}
    for kind, factor in reduction.test_factors.items():
        arrays |= {f"test/{int(kind)}/n": factor.n, f"test/{int(kind)}/R": factor.R}
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

        sizes, whitened_sizes, n_levels, unpenalised, baseline = read("", *SIZES)
        whitening = Whitening(*read("whitening", *WHITENING))
        train = Moments(len(whitening.retained_columns), 0, [])
        for kind in file["train"]:
            G, c, s, norms, n = read(f"train/{kind}", *MOMENTS)
            train.by_kind[RowKind(int(kind))] = KindMoments(G, c, s, norms, int(n[0]))
        test = {}
        for kind in file["test"]:
            n, R = read(f"test/{kind}", "n", "R")
            test[RowKind(int(kind))] = ResidualFactor(train.P, int(n[0]), R)
        scores = None
        if "scores" in file:
            rows, regular, block, rank = read("scores", *SCORES)
            scores = LeverageScores(rows, regular, block, int(rank[0]))
    models = sizes, whitened_sizes, int(n_levels[0])
    return Reduction(*models, whitening, baseline, train, test, int(unpenalised[0])), scores
