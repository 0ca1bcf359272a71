"""`paretofit learn`: from a study's section 'learning' to a potential, and a report of how it came about."""

from __future__ import annotations

import logging
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from paretofit.commands.learn_start import CANDIDATES_FILE, collect_elements, load_start_structures, start_loop
from paretofit.core import InputError, write_text
from paretofit.execution import use_cluster
from paretofit.labelling import (
    open_label_journal,
)
from paretofit.learning import (
    NO_FRAMES,
    PROPERTIES,
    STAGES,
    VALIDATE,
    Labeller,
    LearnFolder,
    LearningLoop,
    LearnStudy,
    MaceModel,
    Model,
    SnapModel,
    SnapModelSettings,
    journal_path,
    select_start_structures,
    write_csv,
)
from paretofit.potentials import format_dispersion_commands
from paretofit.potentials.mace import TRAINING_FOLDER, MaceSettings, check_foundation, check_mace
from paretofit.structures import (
    make_mean_descriptor,
)
from paretofit.study import log_to_file, open_run_folder, read_record, read_sections, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


log = logging.getLogger(__name__)

CALIBRATED = {
    "slope": "slope",
    "threshold": "threshold",
    "tpr": "true_positive_rate",
    "ppv": "positive_predictive_value",
}  # columns of iterations.csv


@dataclass(frozen=True)
class LearnResult:
    """What a loop came to.

    Attributes
    ----------
    folder : Path
    potential : Path
        The folder of the last committee.
    iterations : DataFrame
        As ``iterations.csv``.
    stop_reason : str
        Why it ended.
    report : Path
    """

    folder: Path
    potential: Path
    iterations: pd.DataFrame
    stop_reason: str
    report: Path

    @property
    def failed(self) -> bool:
        """Whether it ended because nothing could be done, and not because it was done."""
        return self.stop_reason == NO_FRAMES

    @property
    def text(self) -> str:
        """How it went, as plain text."""
        columns = ["iteration", "n_train", "n_validate", "n_test", "labels", "label_seconds", "level",
                   "test_energy", "test_forces", "test_stress", "selected"]  # fmt: skip
        shown = self.iterations[columns].to_string(index=False, float_format=lambda one: f"{one:.4g}", na_rep="–")
        return "\n".join([
            "errors on the test set in meV/atom, meV/Å, meV/Å³", shown, f"ended: {self.stop_reason}",
            str(self.potential), str(self.report),
        ])  # fmt: skip


def load_learn_study(path: Path | str) -> LearnStudy:
    """Read what `paretofit learn` needs from a study's YAML file; paths in it are relative to the file.

    Raises
    ------
    InputError
        With one sentence that names the file and the key.
    """
    study = read_sections(LearnStudy, path)
    if study.labelling.structures:
        raise InputError(f"{path}: 'labelling.structures' has no meaning here; name files under 'learning.structures'")
    return study


def learn(
    study: LearnStudy | Path | str,
    *,
    out: Path | str | None = None,
    stage: str | None = None,
    jobs: int = 1,
    progress: bool = False,
    notify: Callable[[str], object] = str,
) -> LearnResult:
    """Run the loop until it ends by itself; run again, it goes on where it was stopped.

    Parameters
    ----------
    study : LearnStudy or path-like
    out : path-like, optional
        The run folder; by default ``runs/<name>-learn`` in the working folder.
    stage : {"label", "train", "explore", "select"}, optional
        Do this stage of the present iteration, and no other.
    jobs : int
        Processes.
    progress : bool
        Show bars.
    notify : callable
        Told each stage that is over.

    Raises
    ------
    InputError
        If the study cannot be used; nothing has been spent then.
    """
    settings = study if isinstance(study, LearnStudy) else load_learn_study(study)
    if stage is not None and stage not in STAGES:
        raise InputError(f"there is no stage '{stage}'; there are {', '.join(STAGES)}")
    _check(settings)
    target = Path(out) if out is not None else Path("runs") / f"{settings.name}-learn"
    with open_run_folder(target, settings.name) as place, log_to_file(place / "learn.log"):
        folder = LearnFolder(place)
        write_text(place / "study.json", settings.model_dump_json(indent=1) + "\n")
        candidates = start_loop(settings, folder, progress)
        elements = collect_elements(candidates, folder)
        with open_label_journal(journal_path(folder).parent) as journal:
            labeller = Labeller(settings.labelling, settings.learning.level, folder, journal, jobs, progress)
            labels = bool(candidates) or settings.learning.max_iterations > 1
            labeller.check(folder.path / CANDIDATES_FILE, will_compute=labels and stage in {None, "label"})
            starts = load_start_structures(settings.learning, candidates, folder, elements)
            select_start_structures(starts, settings.learning.explore.max_atoms)
            if settings.learning.explore.dispersion != "none":
                format_dispersion_commands(settings.learning.explore.dispersion, elements)  # says what it lacks
            model = _model(settings.learning.model, elements, place / "designs")

            def told(words: str) -> None:
                log.info("%s", words)
                notify(words)

            reserved = max((int(atoms.info["config_id"]) for atoms in candidates), default=-1)
            how = jobs, progress, told
            loop = LearningLoop(
                folder, settings.learning, labeller, model, starts, make_mean_descriptor(elements), reserved, *how
            )
            with use_cluster(settings.cluster, jobs, folder.path):
                reason = loop.run(only_stage=stage, on_iteration=lambda _: _result(folder, "not yet"))
        return _result(folder, reason)


def _check(settings: LearnStudy) -> None:
    """What can be known to be wrong before anything is spent."""
    levels = [one.name for one in settings.labelling.selected_levels]
    fixed = settings.learning.level.fixed
    if fixed is not None and fixed not in levels:
        raise InputError(f"'learning.level.fixed' is '{fixed}', and 'labelling' has the levels {', '.join(levels)}")
    if settings.augmentation is None and not settings.learning.structures and settings.dataset is None:
        raise InputError(
            "there are no structures to begin with: give an 'augmentation', 'learning.structures', or a labelled "
            "'dataset'"
        )
    own = settings.learning
    sources = {"learning.structures": own.structures, "learning.explore.start": own.explore.start_structures}
    if isinstance(own.model, MaceSettings):
        check_mace(own.model.device, own.model.options)
        sources |= {f"learning.model.foundation.{key}": [path] for key, path in own.model.foundation_files.items()}
    sources["augmentation.structures"] = [] if settings.augmentation is None else settings.augmentation.structures
    for key, paths in sources.items():
        for path in paths:
            if not path.exists():
                raise InputError(f"'{key}': there is no file at {path}")
    if settings.dataset is not None and not settings.dataset.exists():
        raise InputError(f"no dataset at {settings.dataset}; leave 'dataset' out to begin without labels")


def _model(settings: SnapModelSettings | MaceSettings, elements: Sequence[str], designs: Path) -> Model:
    """The model that is trained, checked against the elements."""
    own = ("isolated_atoms",) if isinstance(settings, MaceSettings) else ("radelem", "wj")
    for key in own:
        if foreign := sorted(set(getattr(settings, key)) - set(elements)):
            raise InputError(f"'learning.model.{key}' names {foreign[0]}; the structures have {', '.join(elements)}")
    if isinstance(settings, MaceSettings):
        check_foundation(settings, elements)
        return MaceModel(settings, elements)
    return SnapModel(settings, elements, designs)


def iterations_table(folder: LearnFolder) -> pd.DataFrame:
    """A row for each iteration that has begun, from the records of its stages.

    ``train_*``, ``validate_*``, ``test_*``: root mean squared errors of the potential; ``*_members``, ``*_spread``:
    mean and standard deviation of those of the members by themselves; meV/atom, meV/Å, meV/Å³. ``slope_*``: of the
    calibration.
    """
    rows = []
    for k in folder.list_iterations():
        here = folder.iteration(k)
        label, train, explore, select = (here.read_record(stage) or {} for stage in STAGES)
        row: dict[str, Any] = {"iteration": k}
        row |= {f"n_{name}": count for name, count in train.get("counts", {}).items()}
        row |= {key: label.get(key) for key in ("labels", "level")}
        row |= {"failed": len(label.get("failed", {})), "label_seconds": label.get("seconds")}
        for name, errors in train.get("rmse", {}).items():
            for one, values in errors.items():
                row[f"{name}_{one}"] = values["value"]
                row |= {f"{name}_{one}_{what}": values[what] for what in ("members", "spread")}
        for one, line in select.get("calibration", {}).items():
            row |= {f"{short}_{one}": line[name] for short, name in CALIBRATED.items()}
        row |= {key: explore.get(key) for key in ("frames", "picoseconds")}
        row |= {"ended_early": len(explore.get("events", []))}
        row |= {name.replace(" ", "_"): count for name, count in select.get("verdicts", {}).items()}
        row |= {"selected": select.get("selected")}
        row |= {"wall_seconds": sum(one.get("wall_seconds", 0) for one in (label, train, explore, select))}
        row["ended"] = (here.read_record("stopped") or {}).get("reason", "")
        rows.append(row)
    return pd.DataFrame(rows)


def _result(folder: LearnFolder, reason: str) -> LearnResult:
    from paretofit.learning import write_learn_report  # noqa: PLC0415  (matplotlib)

    table = iterations_table(folder)
    for column in (*(f"test_{name}" for name in PROPERTIES), "n_train", f"n_{VALIDATE}", "n_test"):
        if column not in table:
            table[column] = np.nan
    write_csv(table, folder.path / "iterations.csv")
    trained = [k for k in folder.list_iterations() if folder.iteration(k).read_record("train")]
    potential = folder.path / "potential"
    if trained:
        apart = shutil.ignore_patterns(TRAINING_FOLDER)
        shutil.copytree(folder.iteration(max(trained)).model, potential, ignore=apart, dirs_exist_ok=True)
    report = write_learn_report(folder, table, reason) if trained else folder.path / "learn.log"
    record = {"study": read_record(folder.path)["study"], "ended": reason,
              "python": platform.python_version(), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}  # fmt: skip
    write_record(folder.path, record)
    return LearnResult(folder.path, potential, table, reason, report)
