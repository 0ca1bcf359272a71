"""MACE networks next to the linear models of a study: trained, judged and timed on the same data, as points of a front.

A network trains on a subset that the sweep has drawn (of its first sampling, first repetition), less a share on which
its training is watched, and is judged on the study's test set, as every linear model is. Each point is kept in a folder
named by a hash of all that it depends on, so that an edit of the study trains only what is new.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from paretofit.core import InputError, RowKind, hash_array, hash_file, hash_json, remove_file, suggest_match, write_text
from paretofit.dataset import describe_dataset, split_configurations
from paretofit.descriptors import SnapBasis
from paretofit.potentials import (
    DISPLAY_UNITS,
    LabelledStructures,
    LinearPotential,
    collect_calibration_data,
    partition_training_rows,
    predict_spreads,
)
from paretofit.potentials.mace import MaceData, check_foundation, check_mace, train_mace_committee
from paretofit.study.analysis import select_md_cell, write_csv
from paretofit.study.run_folder import NETWORK_CALIBRATION_FILE, NETWORKS_FILE
from paretofit.sweep import list_draws
from paretofit.uncertainty import CommitteeFit, calibrate_conformal, min_calibration_size
from paretofit.validation import measure_network_speed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from paretofit.core import Array
    from paretofit.dataset.quality import LevelErrors
    from paretofit.linear import LeverageScores
    from paretofit.potentials import MacePotential
    from paretofit.potentials.mace import MaceSettings
    from paretofit.study.preparation import PreparedStudy
    from paretofit.sweep import SweepInput
    from paretofit.uncertainty import CalibrationData

log = logging.getLogger(__name__)

FOLDER = "mace"
LEAST_VALIDATION = 3  # configurations on which a training is watched
COVERAGE = 0.9
SNAP_MEMBERS = 8  # of the committee of linear models that stands beside
MD_SECONDS = 0.5
COLUMNS = [
    "model", "level", "n_train", "members", "parameters", "train_energy", "train_force", "test_energy", "test_force",
    "ref_energy", "ref_force", "ref_energy_shifted", "label_seconds", "train_seconds", "epochs",
    "md_us_per_atom_step", "events", "folder",
]  # fmt: skip


@dataclass(frozen=True)
class _Point:
    """One network to train."""

    name: str
    settings: MaceSettings
    level: str
    subset: Array  # positions in the dataset


def check_networks(prepared: PreparedStudy) -> None:
    """Refuse what cannot be, before anything is spent.

    Raises
    ------
    InputError
    """
    own = prepared.study.mace
    if own is None:
        return
    for model in own.models.values():
        check_mace(model.device, model.options)
    for key, path in own.foundation_files.items():
        if not path.exists():
            raise InputError(f"'{key}': there is no file at {path}")
    for model in own.models.values():
        check_foundation(model, list(describe_dataset(prepared.dataset).species))
    if foreign := [level for level in own.levels if level not in prepared.grid.levels]:
        raise InputError(
            f"'mace.levels' has '{foreign[0]}', which is no level of this study"
            f"{suggest_match(foreign[0], prepared.grid.levels)}; they are {', '.join(prepared.grid.levels)}"
        )
    if not len(prepared.split.test):
        raise InputError("'mace' needs a test set to judge networks by; set 'split.train_fraction' below 1")
    _check_sizes(prepared)


def _check_sizes(prepared: PreparedStudy) -> None:
    n_train = len(prepared.split.train)
    for size in _sizes(prepared):
        if size not in prepared.grid.sizes:
            raise InputError(
                f"'mace.sizes' has {size}, which is none of the study's 'sizes', so that no linear model stands beside "
                f"it; they are {', '.join('all' if one == n_train else str(one) for one in prepared.grid.sizes)}"
            )
        if size < 4 * LEAST_VALIDATION:
            raise InputError(f"'mace.sizes' has {size}; a network needs at least {4 * LEAST_VALIDATION} configurations")


def _sizes(prepared: PreparedStudy) -> list[int]:
    n_train = len(prepared.split.train)
    own = prepared.study.mace
    return [] if own is None else list(dict.fromkeys(n_train if size == "all" else size for size in own.sizes))


def evaluate_networks(
    prepared: PreparedStudy,
    data: SweepInput,
    scores: LeverageScores | None,
    results: pd.DataFrame,
    errors: LevelErrors,
    folder: Path,
    jobs: int = 1,
    progress: bool = False,
) -> None:
    """Train, judge and time the networks that the study asks for, and write ``mace.csv`` and ``mace_calibration.csv``.

    Parameters
    ----------
    prepared : Prepared
    data : SweepInput
    scores : LeverageScores or None
    results : DataFrame
        Of the linear models, which say which of them stands beside a network.
    errors : LevelErrors
    folder : Path
        The run folder.
    """
    if prepared.study.mace is None:
        for name in (NETWORKS_FILE, NETWORK_CALIBRATION_FILE):
            remove_file(folder / name)
        return
    rows, calibrations = [], []
    beside: set[tuple[str, int]] = set()
    for point in _points(prepared, data, scores):
        row, calibration = _done(point, prepared, errors, folder, jobs, progress)
        rows.append(row)
        calibrations += calibration
        if (point.level, len(point.subset)) not in beside:
            beside.add((point.level, len(point.subset)))
            calibrations += _linear(point, prepared, data, results, jobs, progress)
        table = pd.DataFrame(rows)[COLUMNS]  # a model's speed is that of its size: the fastest of what was measured
        table["md_us_per_atom_step"] = table.groupby("model")["md_us_per_atom_step"].transform("min")
        write_csv(table, folder / NETWORKS_FILE)
    write_csv(pd.DataFrame(calibrations), folder / NETWORK_CALIBRATION_FILE)


def _points(prepared: PreparedStudy, data: SweepInput, scores: LeverageScores | None) -> list[_Point]:
    own, grid = prepared.study.mace, prepared.grid
    if own is None:
        return []
    drawn: dict[int, Array] = {}
    for draw in list_draws(data, grid, scores):
        drawn.setdefault(draw.n_train, draw.configurations)  # the first sampling and repetition come first
    return [
        _Point(name, settings, level, drawn[size])
        for level in own.levels or [grid.levels[-1]]
        for size in _sizes(prepared)
        for name, settings in own.models.items()
    ]


def _done(
    point: _Point, prepared: PreparedStudy, errors: LevelErrors, folder: Path, jobs: int, progress: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A point's row and calibration, from its folder if it stands there."""
    place = folder.absolute() / FOLDER / f"{point.name}-{_hash(point, prepared)}"
    known = place / "point.json"
    with suppress(OSError, ValueError, KeyError):  # what is damaged is judged again
        content = json.loads(known.read_text(encoding="utf-8"))
        return content["row"], content["calibration"]
    row, calibration = _train(point, prepared, errors, place, jobs, progress)
    write_text(known, json.dumps({"row": row, "calibration": calibration}, indent=1) + "\n")
    return row, calibration


def _hash(point: _Point, prepared: PreparedStudy) -> str:
    """Of all that a point depends on."""
    own, dataset = prepared.study.mace, prepared.dataset
    used = dataset.select(np.concatenate([point.subset, prepared.split.test]))
    labels = [used.labels(level) for level in (point.level, prepared.grid.levels[-1])]
    values = [hash_array(np.nan_to_num(part)) for one in labels for part in (one.energy, one.forces, one.stress)]
    files = [hash_file(path) for path in point.settings.foundation_files.values()]
    settings = point.settings.model_dump(mode="json", exclude={"foundation": {"file", "replay"}})
    group = prepared.split.groups[point.subset].tolist()
    shared = None if own is None else [own.validation_fraction, own.seed]
    return hash_json([settings, files, shared, used.hash_structures(), len(point.subset), group, values])[:10]


def _train(
    point: _Point, prepared: PreparedStudy, errors: LevelErrors, place: Path, jobs: int, progress: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    own, dataset, split = prepared.study.mace, prepared.dataset, prepared.split
    if own is None:
        raise InputError("the study has no section 'mace'")
    log.info("network %s, level %s, %d configurations", point.name, point.level, len(point.subset))
    train, watch = _watched(split.groups[point.subset], own.validation_fraction, own.seed)
    training, watched = (
        LabelledStructures.from_dataset(dataset, point.level, point.subset[one], split.groups) for one in (train, watch)
    )
    potential = train_mace_committee(
        point.settings, MaceData(training, watched), place, calibration_set=watched, seed=own.seed, coverage=COVERAGE,
        level=point.level, jobs=jobs, progress=progress,
    )  # fmt: skip
    said, found = _judged(potential, prepared, point, jobs, progress)
    cell = select_md_cell(prepared, errors)
    speed = np.nan
    if cell is not None:
        speed = measure_network_speed(potential, cell, seconds=MD_SECONDS).us_per_atom_step
    record = potential.record or {}
    row = {
        "model": point.name,
        "level": point.level,
        "n_train": len(point.subset),
        "members": potential.n_members,
        "parameters": potential.n_parameters,
        **said,
        "label_seconds": float(_seconds(prepared, point.level, point.subset).sum()),
        "train_seconds": sum(one["seconds"] for one in record["members"]),
        "epochs": max(one["epochs"] for one in record["members"]),
        "md_us_per_atom_step": speed,
        "events": "; ".join(potential.events),
        "folder": f"{FOLDER}/{place.name}",
    }
    return row, _calibrations(f"MACE {point.name}", point, potential.n_members, found)


def _watched(group: Array, share: float, seed: int) -> tuple[Array, Array]:
    """Positions in a subset that train, and those on which training is watched; relatives stay together."""
    count = max(LEAST_VALIDATION, round(share * len(group)))
    split = split_configurations(group, 1 - count / len(group), seed)
    if not len(split.test):
        raise InputError(
            "the configurations of this subset are all relatives, so that none can be set aside to watch a network's "
            "training on; take a larger one, or other keys in 'split.group_by'"
        )
    return split.train, split.test


def _seconds(prepared: PreparedStudy, level: str, positions: Array) -> Array:
    """What labels cost, as the study says."""
    given = prepared.study.cost.label_seconds
    if isinstance(given, dict):
        return np.full(len(positions), float(given[level]))
    return np.asarray(prepared.dataset.labels(level).seconds[positions], dtype=float)


def _judged(
    potential: MacePotential | LinearPotential, prepared: PreparedStudy, point: _Point, jobs: int, progress: bool
) -> tuple[dict[str, float], dict[RowKind, CalibrationData]]:
    """Errors as in ``results.csv``, meV/atom and meV/Å, and what the committee says of the test set."""
    dataset, split, reference = prepared.dataset, prepared.split, prepared.grid.levels[-1]
    said: dict[str, float] = {}
    found: dict[RowKind, CalibrationData] = {}
    sets = (("train", point.subset, point.level), ("test", split.test, point.level), ("ref", split.test, reference))
    predicted = {}
    for name, positions, level in sets:
        labelled = LabelledStructures.from_dataset(dataset, level, positions, split.groups)
        key = name == "train"
        if key not in predicted:
            predicted[key] = predict_spreads(potential, labelled.structures, jobs=jobs, progress=progress)
        sizes = [len(atoms) for atoms in labelled.structures]
        own = collect_calibration_data(predicted[key], labelled.labels, sizes, labelled.groups)
        for kind, word in ((RowKind.ENERGY, "energy"), (RowKind.FORCE, "force")):
            residual = 1000 * own[kind].residual if kind in own else np.array([np.nan])
            said[f"{name}_{word}"] = float(np.sqrt(np.mean(residual**2)))
            if name == "ref" and kind == RowKind.ENERGY:
                said["ref_energy_shifted"] = float(np.std(residual))
        found = own if name == "test" else found
    return said, found


def _linear(
    point: _Point, prepared: PreparedStudy, data: SweepInput, results: pd.DataFrame, jobs: int, progress: bool
) -> list[dict[str, Any]]:
    """The calibration of a committee of the linear model that is best on the same subset, by its force error."""
    first = results[(results["level"] == point.level) & (results["n_train"] == len(point.subset))]
    first = first[(first["sampling"] == prepared.grid.sampling_methods[0]) & (first["repeat"] == 0)].dropna(
        subset="ref_force"
    )
    if first.empty:
        return []
    best = first.sort_values("ref_force").iloc[0]
    columns = data.design.columns_up_to(int(best["twojmax"]))
    own = point.subset
    rows = int((np.isin(data.design.configuration, own)).sum())
    if rows <= columns:
        return []
    fit = CommitteeFit.from_parts(
        partition_training_rows(data.design, point.level, own, columns),
        prepared.split.groups[own],
        np.array([best["w_energy"], best["w_force"], 1.0]),
        np.random.default_rng([prepared.study.seed, 9]),
        threads=jobs,
    )
    members = fit.draw_members(SNAP_MEMBERS, np.random.default_rng([prepared.study.seed, 10]), method="bootstrap")
    members += fit.coefficients - members.mean(axis=0)
    basis = SnapBasis(**{**prepared.study.basis.model_dump(), "twojmax": int(best["twojmax"])})
    _, found = _judged(LinearPotential(basis, members), prepared, point, jobs, progress)
    name = f"{'q' if basis.quadratic else ''}SNAP 2Jmax {int(best['twojmax'])}"
    return _calibrations(name, point, SNAP_MEMBERS, found)


def _calibrations(
    name: str, point: _Point, members: int, found: Mapping[RowKind, CalibrationData]
) -> list[dict[str, Any]]:
    """How far a committee's disagreement is to be trusted on the test set: one half calibrates, the other judges."""
    rows = []
    for kind, own in found.items():
        factor, unit = DISPLAY_UNITS[kind]
        spread, error = _by_configuration(own)
        inside, half = _halves(own, members)
        varies = len(spread) > 2 and np.ptp(spread) > 0 and np.ptp(error) > 0
        rows.append(
            {
                "model": name,
                "level": point.level,
                "n_train": len(point.subset),
                "members": members,
                "quantity": f"{kind.name.lower()} ({unit})",
                "rmse": factor * float(np.sqrt(np.mean(own.residual**2))),
                "spread": factor * float(np.sqrt(np.mean(own.spread**2))),
                "rank_correlation": float(spearmanr(spread, error).statistic) if varies else np.nan,
                "inside": inside,
                "half_width": factor * half,
            }
        )
    return rows


def _by_configuration(own: CalibrationData) -> tuple[Array, Array]:
    """Disagreement and error of the mean, root mean squares over each configuration."""
    _, number, counts = np.unique(own.configuration, return_inverse=True, return_counts=True)
    spread, error = (np.sqrt(np.bincount(number, one**2) / counts) for one in (own.spread, own.residual))
    return spread, error


def _halves(own: CalibrationData, members: int) -> tuple[float, float]:
    """Share of labels in the conformal intervals of the other half's calibration, and their median half width."""
    groups = np.unique(own.group)
    first = np.isin(own.group, np.random.default_rng(0).permutation(groups)[: len(groups) // 2])
    if min(len(np.unique(own.group[first])), len(np.unique(own.group[~first]))) < min_calibration_size(COVERAGE):
        return float("nan"), float("nan")
    inside, widths = [], []
    for calibrates in (first, ~first):
        spread, residual = own.spread[calibrates], own.residual[calibrates]
        made = calibrate_conformal(spread, residual, COVERAGE, own.group[calibrates], members)
        width = made.half_width(own.spread[~calibrates])
        inside.append(np.abs(own.residual[~calibrates]) <= width)
        widths.append(width)
    return float(np.mean(np.concatenate(inside))), float(np.median(np.concatenate(widths)))
