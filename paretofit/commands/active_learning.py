"""`paretofit learn`: run the section 'learning' of a study and write the potential and a report."""

from __future__ import annotations

import logging
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretofit import learning
from paretofit.commands.learn_start import CANDIDATES_FILE, collect_elements, load_start_structures, start_loop
from paretofit.core import InputError, check_choice, write_csv, write_text
from paretofit.execution import RunContext, use_cluster
from paretofit.labelling import open_label_journal
from paretofit.potentials import format_dispersion_commands, read_potential
from paretofit.potentials.mace import TRAINING_FOLDER, MaceSettings, check_foundation, check_mace, permit_unpickling
from paretofit.structures import build_mean_descriptor_function
from paretofit.study import (
    describe_other_versions,
    log_to_file,
    open_run_folder,
    read_record,
    read_sections,
    read_stage_versions,
    record_version,
    write_record,
)

log = logging.getLogger(__name__)

PAGE_INTERVAL_S = 300.0  # minimum time between two reports that are written before the end of a loop
# suffixes of the error columns of iterations.csv, see `tabulate_iterations`
ERROR_COLUMNS = ("weighted", "members", "spread", "labels")
CALIBRATION_COLUMNS = {
    "slope": "slope",
    "points": "points",
    "threshold": "threshold",
    "tpr": "true_positive_rate",
    "ppv": "positive_predictive_value",
}  # fmt: skip  (column of iterations.csv: key of a calibration)


@dataclass(frozen=True)
class LearnResult:
    """Result of an active-learning loop.

    Attributes
    ----------
    folder : Path
        Run folder.
    potential : Path
        Folder of the last committee; it does not exist if no iteration has trained one.
    iterations : DataFrame
        Table of ``iterations.csv``.
    stop_reason : str
        Why the loop ended, as text for the user.
    report : Path
        HTML report, or the log if no iteration has trained a committee.
    answers : dict of str to str
        Questions and answers at the top of the report; empty if no iteration has trained a committee.
    errors_by_kind : DataFrame
        Errors of the last committee on configurations outside its training set; see
        `paretofit.learning.tabulate_errors_by_kind`. Empty if no iteration has trained a committee.
    """

    folder: Path
    potential: Path
    iterations: pd.DataFrame
    stop_reason: str
    report: Path
    answers: dict[str, str] = field(default_factory=dict)
    errors_by_kind: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def has_failed(self) -> bool:
        """Whether the loop ended because it had no frames to continue with."""
        return self.stop_reason == learning.NO_FRAMES

    def __repr__(self) -> str:
        """Format the folder, the number of iterations and the reason for the end in one line."""
        return f"LearnResult('{self.folder}', {len(self.iterations)} iterations, ended: {self.stop_reason})"

    def _repr_html_(self) -> str:
        """Format the answers of the report, the reason for the end and the path of the report as HTML."""
        final_answers = {"Why did it end?": self.stop_reason, "Where are the details?": str(self.report)}
        answers = self.answers | final_answers
        return "".join(f"<p><b>{escape(question)}</b> {escape(answer)}</p>" for question, answer in answers.items())

    @property
    def text(self) -> str:
        """Table of the iterations, reason for the end, paths, progress and next step, as plain text."""
        error_names = {f"first_test_{name}_weighted": name for name in learning.PROPERTIES}  # by column
        columns = [
            "iteration",
            "n_train",
            "n_validate",
            "n_test",
            "labels",
            "label_seconds",
            "level",
            *error_names,
            "selected",
        ]
        table = self.iterations.reindex(columns=columns).rename(columns=error_names)
        table_text = table.to_string(index=False, float_format="{:.4g}".format, na_rep="–")
        title = "errors on the test set of the first iteration, weighted as in the training; meV/atom, meV/Å, GPa"
        paths = [f"page: {self.report}", f"potential: {self.potential}"]
        lines = [title, table_text, f"ended: {self.stop_reason}", *paths]
        records = list(learning.LearnFolder(self.folder).read_records("train"))
        if records:
            if progress_text := learning.describe_progress(records):
                lines.append(progress_text)
            lines.append(f"next: paretofit validate {self.potential} --quick -o validation")
        return "\n".join(lines)


def load_learn_study(path: Path | str) -> learning.LearnStudy:
    """Read the sections of a study (YAML) that `paretofit learn` uses; paths in the study are relative to its file.

    Raises
    ------
    InputError
        If the file is not valid, or sets 'labelling.structures'; the message names the file and the key.
    """
    study = read_sections(learning.LearnStudy, path)
    if study.labelling.structures:
        raise InputError(f"{path}: 'labelling.structures' is not used by 'paretofit learn'; set 'learning.structures'")
    return study


def learn(
    study: learning.LearnStudy | Path | str,
    *,
    out: Path | str | None = None,
    stage: str | None = None,
    jobs: int = 1,
    progress: bool = False,
    notify: Callable[[str], object] = str,
    allow_pickle: bool = False,
) -> LearnResult:
    """Run the active-learning loop of a study until it ends; a stopped loop resumes.

    The run folder then contains the log, the labels, the models of all iterations, ``iterations.csv``, the last
    committee (``potential``), and the report.

    Parameters
    ----------
    study : LearnStudy or path-like
        Sections of a study, or its YAML file.
    out : path-like, optional
        Run folder; by default ``runs/<name>-learn`` in the working directory.
    stage : {"label", "train", "explore", "select"}, optional
        Run only this stage of the current iteration.
    jobs : int
        Number of processes.
    progress : bool
        Show progress bars.
    notify : callable
        Function that is called with each message for the user, such as that of a finished stage; the default ignores
        the messages, which are also in the log.
    allow_pickle : bool
        Continue with MACE networks in the run folder that were not trained by this user on this computer.

    Raises
    ------
    InputError
        If the study, the stage or a file of the run folder cannot be used; the study is checked before anything is
        computed.
    """
    settings = study if isinstance(study, learning.LearnStudy) else load_learn_study(study)
    if stage is not None:
        check_choice("stage", stage, learning.STAGES)
    with permit_unpickling(allow_pickle):
        _check_study(settings)
    requested_path = Path(out) if out is not None else Path("runs") / f"{settings.name}-learn"
    with (
        permit_unpickling(allow_pickle),
        open_run_folder(requested_path, settings.name) as run_path,
        log_to_file(run_path / "learn.log"),
    ):
        for warning in describe_other_versions(run_path):
            log.warning("%s", warning)
            notify(warning)
        record_version(run_path, "learn")
        folder = learning.LearnFolder(run_path)
        write_text(run_path / "study.json", settings.model_dump_json(indent=1) + "\n")
        with open_label_journal(learning.get_journal_path(folder).parent) as journal:
            context = RunContext(jobs, progress)
            labeller = learning.Labeller(settings.labelling, settings.learning.level, folder, journal, context)
            loop = _build_loop(settings, labeller, stage, notify)
            with use_cluster(settings.cluster, jobs, run_path):
                reason = loop.run(only_stage=stage, on_iteration=lambda _: _write_progress(folder))
        return _write_result(folder, reason)


def _build_loop(
    settings: learning.LearnStudy, labeller: learning.Labeller, stage: str | None, notify: Callable[[str], object]
) -> learning.LearningLoop:
    """Prepare the candidates, check the input of all stages, and build the loop."""
    folder, section = labeller.folder, settings.learning

    def report_message(message: str) -> None:
        """Write a message to the log, and pass it to the user."""
        log.info("%s", message)
        notify(message)

    candidates = start_loop(settings, folder, labeller.context, report_message)
    elements = collect_elements(candidates, folder)
    will_label = bool(candidates) or section.max_iterations > 1
    labeller.check(folder.path / CANDIDATES_FILE, will_compute=will_label and stage in {None, "label"})
    start_structures = load_start_structures(section, candidates, folder, elements)
    _, note = learning.select_start_structures(start_structures, section.explore.max_atoms)
    if section.explore.dispersion != "none":
        format_dispersion_commands(section.explore.dispersion, elements)  # raises if parameters are missing
    if note:
        report_message(note)
    last_candidate_id = max((int(atoms.info["config_id"]) for atoms in candidates), default=-1)
    return learning.LearningLoop(
        folder,
        section,
        labeller,
        _create_model(section.model, elements, folder.path / "designs"),
        start_structures,
        build_mean_descriptor_function(elements),
        last_candidate_id,
        labeller.context,
        report_message,
    )


def _check_study(settings: learning.LearnStudy) -> None:
    """Check the levels, files and MACE options of a study, before anything is computed."""
    section = settings.learning
    levels, fixed_level = [level.name for level in settings.labelling.selected_levels], section.level.fixed
    if fixed_level is not None and fixed_level not in levels:
        raise InputError(f"'learning.level.fixed' is '{fixed_level}'; 'labelling' has the levels {', '.join(levels)}")
    if settings.augmentation is None and not section.structures and settings.dataset is None:
        raise InputError(
            "there are no structures to start from; set 'augmentation', 'learning.structures', or a labelled 'dataset'"
        )
    paths = {
        "learning.structures": section.structures,
        "learning.initial_potential": [] if section.initial_potential is None else [section.initial_potential],
        "learning.explore.start_structures": section.explore.start_structures,
        "augmentation.structures": [] if settings.augmentation is None else settings.augmentation.structures,
    }
    if isinstance(section.model, MaceSettings):
        check_mace(section.model.device, section.model.options)
        foundation_files = section.model.foundation_files
        paths |= {f"learning.model.foundation.{key}": [path] for key, path in foundation_files.items()}
    for key, key_paths in paths.items():
        for path in key_paths:
            if not path.exists():
                raise InputError(f"'{key}': no file at {path}; correct the path in the study")
    if section.initial_potential is not None:
        read_potential(section.initial_potential)  # raises if it cannot be read
    if settings.dataset is not None and not settings.dataset.exists():
        raise InputError(f"no dataset at {settings.dataset}; remove 'dataset' to start without labels")


def _create_model(
    settings: learning.LinearModelSettings | MaceSettings, elements: Sequence[str], design_folder: Path
) -> learning.Model:
    """Check that the settings of the model contain only elements of the structures, and create the model."""
    for key in ("isolated_atoms", "radelem", "wj", "reference_energies"):
        values_by_element = getattr(settings, key, None)  # a model may lack the key, or have one value for all elements
        elements_with_value = set(values_by_element) if isinstance(values_by_element, dict) else set()
        if absent_elements := sorted(elements_with_value - set(elements)):
            raise InputError(
                f"'learning.model.{key}' has {absent_elements[0]}; the structures have {', '.join(elements)}, so "
                f"remove {absent_elements[0]}"
            )
    if isinstance(settings, MaceSettings):
        check_foundation(settings, elements)
        return learning.MaceModel(settings, elements)
    return learning.LinearModel(settings, elements, design_folder)


def tabulate_iterations(folder: learning.LearnFolder) -> pd.DataFrame:
    """Tabulate the records of all iterations that have started, a row for each.

    ``train_*``, ``validate_*`` and ``test_*`` are root mean square errors of the potential, and ``*_weighted`` the same
    errors with each configuration weighted as in the training. ``*_members`` and ``*_spread`` are the mean and standard
    deviation of the errors of the individual members. All errors are in meV/atom, meV/Å or GPa. ``*_labels`` is the
    number of configurations with a label. ``slope_*`` is the slope of the calibration, and ``points_*`` the number of
    configurations to which it is fitted; ``tpr_*`` and ``ppv_*`` are its true-positive rate and positive predictive
    value at the ``threshold_*`` of the disagreement. For the frames labelled in this iteration, ``batch_ratio_*`` is
    the median ratio of true to predicted errors, and ``batch_inside_*`` the fraction of errors below the 90 % bound.

    ``n_*`` are the sizes of the sets, ``labels`` and ``failed`` the numbers of labels and of failures of the structures
    of the iteration, and ``level`` is the level that was chosen for them. ``frames``, ``picoseconds`` and
    ``ended_early`` (number of trajectories) describe the dynamics; ``selected`` and a column for each verdict are
    numbers of frames; ``label_seconds`` and ``wall_seconds`` are in s; ``ended`` is the reason why the loop ended.
    """
    rows = []
    for k in folder.list_iterations():
        iteration = folder.get_iteration(k)
        records = [iteration.read_record(stage) or {} for stage in learning.STAGES]
        label, train, explore, select = records
        row: dict[str, Any] = {"iteration": k}
        row |= {f"n_{set_name}": count for set_name, count in train.get("counts", {}).items()}
        row |= {key: label.get(key) for key in ("labels", "level")}
        row |= {"failed": len(label.get("failed", {})), "label_seconds": label.get("seconds")}
        for set_name, errors in train.get("rmse", {}).items():
            for name, error in errors.items():
                row[f"{set_name}_{name}"] = error["value"]
                row |= {f"{set_name}_{name}_{key}": error.get(key) for key in ERROR_COLUMNS}
        for name, batch_errors in train.get("batch", {}).items():
            row |= {f"batch_{key}_{name}": batch_errors[key] for key in ("ratio", "inside")}
        for name, calibration in select.get("calibration", {}).items():
            row |= {f"{column}_{name}": calibration.get(key) for column, key in CALIBRATION_COLUMNS.items()}
        row |= {key: explore.get(key) for key in ("frames", "picoseconds")}
        row |= {"ended_early": len(explore.get("events", [])), "warning": explore.get("warning", "")}
        row |= {verdict.replace(" ", "_"): count for verdict, count in select.get("verdicts", {}).items()}
        row |= {"selected": select.get("selected")}
        row |= {"wall_seconds": sum(record.get("wall_seconds", 0) for record in records)}
        row["ended"] = (iteration.read_record("stopped") or {}).get("reason", "")
        rows.append(row)
    return pd.DataFrame(rows)


def _write_progress(folder: learning.LearnFolder) -> None:
    """Write the result after an iteration, unless the report was written less than `PAGE_INTERVAL_S` ago.

    The interval limits the time that is spent on figures.
    """
    page = folder.path / learning.REPORT_FILE
    if not page.exists() or time.time() - page.stat().st_mtime > PAGE_INTERVAL_S:
        _write_result(folder, "not yet")


def _write_result(folder: learning.LearnFolder, reason: str) -> LearnResult:
    """Write the table of iterations, the last committee, the report and the record of the run; return the result."""
    table = tabulate_iterations(folder)
    for column in (*(f"test_{name}" for name in learning.PROPERTIES), "n_train", f"n_{learning.VALIDATE}", "n_test"):
        if column not in table:  # no iteration has such a number yet, but the report has the columns
            table[column] = np.nan
    write_csv(table, folder.path / "iterations.csv", digits=8)
    potential, report = folder.path / "potential", folder.path / "learn.log"
    summaries: dict[str, Any] = {}
    if trained_iterations := [k for k, _ in folder.read_records("train")]:
        ignore = shutil.ignore_patterns(TRAINING_FOLDER)  # large, and not needed to use the potential
        shutil.copytree(
            folder.get_iteration(max(trained_iterations)).model_folder, potential, ignore=ignore, dirs_exist_ok=True
        )
        report = learning.write_learn_report(folder, table, reason)
        errors_by_kind = learning.tabulate_errors_by_kind(learning.read_last_errors(folder))
        summaries = {"answers": dict(learning.build_facts(folder, table)), "errors_by_kind": errors_by_kind}
    record = {"study": read_record(folder.path)["study"], "ended": reason,
              "stage_versions": read_stage_versions(folder.path),
              "python": platform.python_version(), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}  # fmt: skip
    write_record(folder.path, record)
    return LearnResult(folder.path, potential, table, reason, report, **summaries)
