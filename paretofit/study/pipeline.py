"""Stages of a study, which read and write files of the run folder.

A stage is finished when its file exists under its final name and was computed from the same inputs. A repeated run
therefore computes only results that are missing or depend on edited settings.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from paretofit import sweep
from paretofit.core import (
    ExecutionError,
    InputError,
    atomic_path,
    check_new_paths,
    hash_files,
    hash_json,
    remove_file,
    show_message,
    write_csv,
)
from paretofit.dataset import Dataset
from paretofit.dataset.quality import compute_level_errors, find_pairs
from paretofit.descriptors import DesignMatrix, PodBasis, RowsBasis, StudyBasis, compute_design, parse_basis
from paretofit.execution import LabelJobSettings, RunContext, use_cluster
from paretofit.linear import LeverageScores
from paretofit.linear.reduction import get_device
from paretofit.potentials.mace import permit_unpickling
from paretofit.study import run_folder
from paretofit.study.analysis import (
    add_md_cost,
    mark_assumed_costs,
    measure_label_noise,
    measure_md_cost,
    measure_test_residuals,
)
from paretofit.study.further_bases import BASES_FILE, BASES_FOLDER, derive_studies, join_bases
from paretofit.study.given_rows import check_given_rows, copy_given_rows, has_current_rows
from paretofit.study.grid_labels import check_grid_labels
from paretofit.study.networks import check_networks, evaluate_networks
from paretofit.study.preparation import PreparedStudy, add_properties, prepare_study
from paretofit.study.provenance import StageUsage, collect_provenance, measure_peak_memory_mb
from paretofit.study.result import RunResult
from paretofit.study.run_cost import RunCost, estimate_run_cost
from paretofit.study.run_report import DESIGN_FILE, OPTIONAL_FILES, STAGE_BY_FILE, write_run_report
from paretofit.study.run_summary import collect_run_warnings, summarise_run
from paretofit.study.schema import Study, load_study
from paretofit.study.split_confidence import add_intervals
from paretofit.study.sweep_data import build_sweep_input, check_group_names

log = logging.getLogger(__name__)


def run_study(
    study: Study | Path | str,
    *,
    out: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
    allow_pickle: bool = False,
) -> RunResult:
    """Run a study from its dataset to its report, and write all results to its run folder.

    Parameters
    ----------
    study : Study or path-like
        YAML file, or the study itself.
    out : path-like, optional
        Run folder; by default ``runs/<name>-<hash>`` in the working directory. The hash depends only on the structures
        and the basis except its 2Jmax, so that a study resumes in the same folder after other edits.
    jobs : int
        Number of processes; results do not depend on it.
    progress : bool
        Show progress bars.
    allow_pickle : bool
        Load MACE networks in the run folder even if they were not trained by this user on this computer; pickled files
        of others can execute any code.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the study, its dataset or the run folder cannot be used; raised before expensive computations.
    """
    settings, prepared = _load_and_check(study)
    basis = settings.basis.model_dump(exclude={"twojmax"})
    digest = hash_json([prepared.dataset.hash_structures(), basis])
    target = Path(out) if out is not None else Path("runs") / f"{settings.name}-{digest[:8]}"
    # If the folder contains descriptors, this run resumes an earlier one, and costs less than a whole run.
    cost_text = "" if (target / DESIGN_FILE).exists() else estimate_run_cost(prepared, jobs=jobs).text
    show_message(cost_text, enabled=progress and bool(cost_text))
    with (
        prepared.dataset,
        permit_unpickling(allow_pickle),
        run_folder.open_run_folder(target, settings.name) as folder,
        run_folder.log_to_file(folder / "run.log"),
        use_cluster(None if isinstance(settings.cluster, LabelJobSettings) else settings.cluster, jobs, folder),
    ):
        for warning in run_folder.describe_other_versions(folder):
            log.warning("%s", warning)
        log.info("study %s, dataset %s, %d fits", settings.name, settings.dataset, prepared.grid.count_fits())
        if cost_text:
            log.info(cost_text)
        _write_study(settings, folder)
        run_folder.link_dataset(settings.dataset, folder / "dataset.h5")
        if settings.engine == "fast":  # fail before the computation of descriptors, which may take hours
            sweep.check_reduction_memory(settings.basis.n_features, jobs, get_device(settings.device))
        return _run_stages(prepared, folder, RunContext(jobs, progress))


def estimate_study_cost(study: Study | Path | str, *, jobs: int = 1) -> RunCost:
    """Check a study as `run_study` does, and estimate the cost of its run without running it.

    Parameters
    ----------
    study : Study or path-like
    jobs : int
        Number of processes.

    Raises
    ------
    InputError
        If the study or its dataset cannot be used.
    """
    _, prepared = _load_and_check(study)
    with prepared.dataset:
        return estimate_run_cost(prepared, jobs=jobs)


def _run_stages(prepared: PreparedStudy, folder: Path, context: RunContext) -> RunResult:
    """Run all stages of a study, each of which writes its files to the run folder."""
    settings, grid = prepared.study, prepared.grid
    usage: dict[str, StageUsage] = {}
    with _measure_usage(usage, "describe", folder):
        design = load_or_compute_design(prepared.dataset, settings.basis, folder / "design.h5", context)
    sweep_input = build_sweep_input(prepared, design, context)
    with _measure_usage(usage, "reduce", folder):
        engine = sweep.make_engine(
            sweep_input, grid, settings.engine, jobs=context.jobs, device=settings.device, folder=folder
        )
        _write_split(prepared, engine.scores, folder / "split.csv")
    with _measure_usage(usage, "sweep", folder):
        results = sweep.run_sweep(
            sweep_input, grid, engine=engine, journal=folder, jobs=context.jobs, progress=context.progress
        )
    with _measure_usage(usage, "confidence", folder):
        results = add_intervals(prepared, sweep_input, engine, results, folder, context)
    with _measure_usage(usage, "analyse", folder):
        errors = compute_level_errors(
            prepared.dataset, grid.levels, reference_configuration=settings.reference_configuration
        )
        results = add_md_cost(results, measure_md_cost(prepared, sweep_input, errors, folder))
        results = mark_assumed_costs(results, settings)
        sweep.write_results(results, folder / run_folder.RESULTS_FILE)
        measure_label_noise(prepared, engine, folder)
        measure_test_residuals(prepared, engine, folder)
        _write_weight_paths(engine, prepared, folder)
    with _measure_usage(usage, "networks", folder):
        evaluate_networks(prepared, sweep_input, engine.scores, results, errors, folder, context)
    with _measure_usage(usage, "bases", folder):
        _run_further_bases(settings, results, folder, context)
    with _measure_usage(usage, "report", folder):
        summary = summarise_run(prepared, design, engine, results, usage)
        warnings = collect_run_warnings(prepared, engine, sweep_input) + run_folder.describe_other_versions(folder)
        report = write_run_report(folder, prepared, errors, summary, warnings)
    files = [name for name in OPTIONAL_FILES if (folder / name).exists()]
    hashed_files = [*STAGE_BY_FILE, *(name for name in files if name != DESIGN_FILE)]  # a design has its own checksums
    record = collect_provenance(settings, usage, context) | {"summary": summary, "warnings": warnings, "files": files}
    record |= {"stage_versions": run_folder.read_stage_versions(folder), "sha256": hash_files(folder, hashed_files)}
    run_folder.write_record(folder, record)
    log.info("done: %s", report.path)
    seconds = {name: stage.seconds for name, stage in usage.items()}
    return RunResult(folder, results, report.front, report.path, report.warnings, seconds, report.answer)


def _run_further_bases(study: Study, results: pd.DataFrame, folder: Path, context: RunContext) -> None:
    """Run the study of each further basis, and write the results of all bases to `BASES_FILE`, if there are any."""
    remove_file(folder / BASES_FILE)  # its results may be those of an earlier version of the study
    further_results = {}
    for name, further_study in derive_studies(study).items():
        show_message(f"basis {name}", enabled=context.progress)
        target = folder / BASES_FOLDER / name
        try:
            run = run_study(further_study, out=target, jobs=context.jobs, progress=context.progress)
        except InputError as error:
            raise InputError(f"'bases', {name}: {error}") from error
        further_results[name] = run.results
    if further_results:
        sweep.write_results(join_bases(results, further_results), folder / BASES_FILE)


def _load_and_check(study: Study | Path | str) -> tuple[Study, PreparedStudy]:
    """Load a study and check all of its settings; return the settings and the prepared study.

    If the study is a file, the messages of errors begin with its path.
    """
    settings = study if isinstance(study, Study) else load_study(study)
    try:
        prepared = add_properties(prepare_study(settings))
        check_group_names(prepared)
        check_networks(prepared)
        check_grid_labels(settings)
        _check_bases(prepared)
    except InputError as error:
        if settings is study:
            raise
        raise InputError(f"{study}: {error}") from error
    return settings, prepared


def _check_bases(prepared: PreparedStudy) -> None:
    """Check all bases against the dataset: files of given rows, and inner radii of POD."""
    has_free_atoms = any(prepared.reference_energies.energies.values())
    for study in (prepared.study, *derive_studies(prepared.study).values()):
        if isinstance(study.basis, RowsBasis):
            check_given_rows(study.basis, list(study.twojmax), prepared.dataset, has_free_atoms=has_free_atoms)
        elif isinstance(study.basis, PodBasis):
            _check_inner_radius(study.basis, prepared.dataset)


def _check_inner_radius(basis: PodBasis, dataset: Dataset) -> None:
    """Raise InputError if atoms are closer than the inner radius, where the radial functions of POD diverge."""
    for config_id, atoms in zip(dataset.ids, dataset, strict=True):
        _, _, vectors = find_pairs(atoms, basis.rin)
        if len(vectors):
            distance = float(np.linalg.norm(vectors, axis=1).min())
            raise InputError(
                f"'rin' of the POD basis is {basis.rin:g} Å, but configuration {config_id} has atoms at "
                f"{distance:.3g} Å; choose a smaller 'rin'"
            )


def _write_weight_paths(engine: sweep.FastEngine | sweep.PlainEngine, prepared: PreparedStudy, folder: Path) -> None:
    """Write the errors of the whole training set as functions of the weight ratio, and their knees, to `WEIGHT_FILES`.

    Without the fast engine or a test set, or if the first ridge penalty is not zero, the files are removed.
    """
    paths = [folder / name for name in run_folder.WEIGHT_FILES]
    if not isinstance(engine, sweep.FastEngine) or prepared.grid.ridge[0] != 0.0 or not len(prepared.split.test):
        for path in paths:
            path.unlink(missing_ok=True)
        return
    for table, path in zip(sweep.compute_weight_paths(engine, prepared.grid), paths, strict=True):
        write_csv(table, path)


def load_or_compute_design(
    dataset: Dataset, basis: StudyBasis, path: Path | str, context: RunContext, *, overwrite: bool = True
) -> DesignMatrix:
    """Load the design matrix of a dataset in a basis from a file, or compute the matrix and write it to the file.

    The rows of a `RowsBasis` are copied from the user's file instead of computed.

    Parameters
    ----------
    dataset : Dataset
    basis : StudyBasis
    path : path-like
        Design file. It is used again if it contains the same structures, the same basis up to this 2Jmax or a larger
        one and, for a `RowsBasis`, a copy of the current rows of the user's file.
    context : RunContext
    overwrite : bool
        Whether to replace an existing file whose contents differ.

    Raises
    ------
    InputError
        Without `overwrite`, if the file at `path` has other contents or is corrupt.
    ExecutionError
        If the system cannot open the file at `path`, with or without `overwrite`.
    """
    path = Path(path)
    if path.exists():
        try:
            design = DesignMatrix.open(path)
            has_structures = design.attributes.get("structures") == dataset.hash_structures()
            if has_structures and _has_basis(design, basis) and has_current_rows(design, basis):
                log.info("design: %s is used again", path)
                show_message(f"the descriptors in {path} are used again", enabled=context.progress)
                return design
        except ExecutionError:
            # A subclass of InputError: the system cannot open the file, whose contents, which may have taken hours to
            # compute, are probably intact and must not be replaced.
            raise
        except InputError as error:
            log.warning("%s; the file is not used again", error)
    check_new_paths([path], overwrite=overwrite)
    if isinstance(basis, RowsBasis):
        design = copy_given_rows(dataset, basis, path)
    else:
        design = compute_design(dataset, basis, path, jobs=context.jobs, progress=context.progress)
    log.info("design: %d rows, %d columns, %d bytes", design.n_rows, design.n_features, path.stat().st_size)
    return design


def _has_basis(design: DesignMatrix, basis: StudyBasis) -> bool:
    """Check whether a design has the columns of a basis; columns of a larger 2Jmax may follow them."""
    design_basis = parse_basis(design.attributes["basis"])
    return design_basis.twojmax >= basis.twojmax and design_basis.resize(basis.twojmax) == basis


def _write_study(study: Study, folder: Path) -> None:
    """Write the settings of a study to ``study.yaml``, with the absolute path of its dataset."""
    content = json.loads(study.model_dump_json(by_alias=True))
    content["dataset"] = str(study.dataset.resolve())
    with atomic_path(folder / "study.yaml") as temporary, temporary.open("w", encoding="utf-8") as stream:
        YAML().dump(content, stream)


def _write_split(prepared: PreparedStudy, scores: LeverageScores | None, path: Path) -> None:
    """Write the set and the group of each configuration, and the leverage scores of the training set, if any."""
    ids, split = prepared.dataset.ids, prepared.split
    table = pd.DataFrame({"id": ids, "set": "test", "group": split.groups})
    table.loc[split.train, "set"] = "train"
    if scores is not None:
        table.loc[split.train, "leverage"] = scores.regular
        table.loc[split.train, "block_leverage"] = scores.block
    write_csv(table, path)


@contextmanager
def _measure_usage(usage: dict[str, StageUsage], stage: str, folder: Path) -> Iterator[None]:
    """Measure the time and memory of a stage, and record the version of paretofit that executes it.

    If the stage succeeds, its usage is added to `usage`.
    """
    run_folder.record_version(folder, stage)
    begin = time.perf_counter()
    log.info("%s: started", stage)
    yield
    usage[stage] = StageUsage(time.perf_counter() - begin, measure_peak_memory_mb())
    log.info("%s: %.2f s, peak memory so far %.0f MB", stage, *usage[stage])
