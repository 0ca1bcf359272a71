"""A reduction that took its time is kept in the run folder: neither a stop nor an edit of the study repeats it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from paretofit.core import CORRUPT_FILE_ERRORS, RowKind, atomic_hdf5, hash_json
from paretofit.descriptors import write_array
from paretofit.linear import LeverageScores, Reduction
from paretofit.linear.reduction import KindMoments, Moments, ResidualFactor, Whitening

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

REDUCTION = "reduction.h5"
MIN_REDUCTION_TIME_S = 60.0  # seconds that it must have taken
MOMENTS = ("G", "c", "s", "norms")
SCORES = ("rows", "regular", "block")

Made = tuple[Reduction, LeverageScores | None]


def load_or_compute_reduction(folder: Path | None, inputs: Any, compute: Callable[[], Made]) -> Made:
    """The reduction of these inputs: that of the folder if it is there, else a new one, kept if it was expensive.

    Parameters
    ----------
    folder : Path or None
        The run folder; without it nothing is kept.
    inputs
        All that it depends on, for a hash.
    compute : callable
    """
    if folder is None:
        return compute()
    path, key = folder / REDUCTION, hash_json(inputs)
    try:
        found = _read(path, key)
    except CORRUPT_FILE_ERRORS as error:  # a damaged one is made again
        log.warning("%s cannot be read (%s) and is made again", path, error)
        found = None
    if found is not None:
        log.info("reduction: %s stands", path)
        return found
    start = time.perf_counter()
    made = compute()
    if time.perf_counter() - start >= MIN_REDUCTION_TIME_S:
        _write(path, key, *made)
    return made


def _write(path: Path, key: str, reduction: Reduction, scores: LeverageScores | None) -> None:
    whitening = reduction.whitening
    arrays: dict[str, Any] = {
        "sizes": reduction.sizes,
        "whitened_sizes": reduction.whitened_sizes,
        "baseline": reduction.baseline,
    }
    arrays |= {
        "whitening/kept": whitening.retained_columns,
        "whitening/dropped": whitening.dropped_columns,
        "whitening/R": whitening.R,
    }
    for kind, part in reduction.train_moments.by_kind.items():
        arrays |= {f"train/{int(kind)}/{name}": getattr(part, name) for name in MOMENTS}
    arrays |= {f"test/{int(kind)}/R": factor.R for kind, factor in reduction.test_factors.items()}
    if scores is not None:
        arrays |= {f"scores/{name}": getattr(scores, name) for name in SCORES}
        arrays["scores/rank"] = scores.rank
    arrays |= {f"train/{int(kind)}/n": part.n for kind, part in reduction.train_moments.by_kind.items()}
    arrays |= {f"test/{int(kind)}/n": factor.n for kind, factor in reduction.test_factors.items()}
    arrays |= {"n_levels": reduction.n_levels, "unpenalised": reduction.unpenalised}
    with atomic_hdf5(path) as (file, check):
        for name, array in arrays.items():
            write_array(file, name, np.atleast_1d(array))  # numbers too: HDF5 has checksums for arrays only
            check()
        file.attrs["key"] = key


def _read(path: Path, key: str) -> Made | None:
    """What is in the file, if it is of these inputs."""
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        if file.attrs.get("key") != key:
            return None

        def array(name: str) -> Any:
            return np.asfortranarray(file[name][()])

        whitening = Whitening(*(array(f"whitening/{name}") for name in ("kept", "dropped", "R")))
        P = len(whitening.retained_columns)
        train = Moments(P, 0, [])
        for kind in file["train"]:
            G, c, s, norms = (array(f"train/{kind}/{name}") for name in MOMENTS)
            train.by_kind[RowKind(int(kind))] = KindMoments(G, c, s, norms, int(array(f"train/{kind}/n")[0]))
        test = {
            RowKind(int(kind)): ResidualFactor(P, int(array(f"test/{kind}/n")[0]), array(f"test/{kind}/R"))
            for kind in file["test"]
        }
        made = Reduction(
            array("sizes"),
            array("whitened_sizes"),
            int(array("n_levels")[0]),
            whitening,
            array("baseline"),
            train,
            test,
            int(array("unpenalised")[0]),
        )
        scores = None
        if "scores" in file:
            rows, regular, block = (array(f"scores/{name}") for name in SCORES)
            scores = LeverageScores(rows, regular, block, int(array("scores/rank")[0]))
        return made, scores
