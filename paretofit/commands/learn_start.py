"""Start of an active-learning loop: candidates, the labelled dataset, and start structures of the dynamics."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.commands.augment import augment_study
from paretofit.commands.study_sections import AugmentStudy
from paretofit.core import InputError, hash_file, hash_files, read_json_with_digest, write_json_with_digest
from paretofit.dataset import Dataset, LevelData, describe_dataset, write_dataset
from paretofit.dataset.io import read_frames, read_labels
from paretofit.execution import RunContext
from paretofit.learning import (
    ABOVE_KEY,
    RESTART_ADVICE,
    LearnFolder,
    LearnSettings,
    LearnStudy,
    explore_with_initial_potential,
    load_frames,
    write_frames,
)
from paretofit.potentials import read_potential
from paretofit.structures import list_elements

CANDIDATES_FILE = "candidates.extxyz"
GROUP_KEYS = ("family", "trajectory")  # info keys that name the group of a structure


def start_loop(
    settings: LearnStudy, folder: LearnFolder, context: RunContext, notify: Callable[[str], object] = str
) -> list[Atoms]:
    """Write the candidates, unless they exist, and the structures of the first iteration; return the candidates.

    The candidates come from augmentation and from files; with an initial potential, frames of its dynamics are added.
    The structures of the first iteration are all candidates or, if there are more, ``learning.n_initial`` of them drawn
    at random; they are not written again once they are labelled.

    Raises
    ------
    InputError
        If the existing candidates are corrupt, or settings that determine them have changed.
    """
    path = folder.path / CANDIDATES_FILE
    _write_or_check_candidates(settings, folder, path, context, notify)
    candidates = load_frames(path, RESTART_ADVICE)
    iteration, n_initial = folder.get_iteration(1), settings.learning.n_initial
    if iteration.read_record("label") is None:
        has_labels = settings.dataset is not None
        # With a labelled dataset, frames of the initial potential whose expected errors are below tolerance (an empty
        # `ABOVE_KEY`) are not labelled.
        structures = [atoms for atoms in candidates if not has_labels or atoms.info.get(ABOVE_KEY, "unknown")]
        if n_initial is not None and n_initial < len(structures):
            rng = np.random.default_rng([settings.learning.seed, 0, 5])  # iteration 0, a stream of its own
            structures = [structures[k] for k in np.sort(rng.permutation(len(structures))[:n_initial])]
        write_frames(iteration.structures_path, structures)
    return candidates


def _write_or_check_candidates(
    settings: LearnStudy, folder: LearnFolder, path: Path, context: RunContext, notify: Callable[[str], object]
) -> None:
    """Write the candidates to `path` with a record of their inputs; if the record exists, check both instead."""
    record_path, inputs = folder.path / "start.json", _collect_inputs(settings)
    if not record_path.is_file():
        if settings.dataset is not None:
            _copy_dataset(settings.dataset, folder.dataset_path)
        candidates, first_id = _generate_candidates(settings, folder, context)
        if settings.learning.initial_potential is not None:
            candidates += _explore_first(settings.learning, candidates, first_id, folder, context, notify)
        write_frames(path, candidates)
        write_json_with_digest(record_path, {**inputs, CANDIDATES_FILE: hash_file(path)})
        return
    record = read_json_with_digest(record_path, RESTART_ADVICE)
    if changed_keys := [key for key, value in inputs.items() if record.get(key) != value]:
        raise InputError(
            f"'{changed_keys[0]}' has changed since the candidates of {folder.path} were generated; choose another "
            "folder with --out, or undo the change"
        )
    # None: the record of an earlier version of paretofit has no hash of the candidates
    if not (path.is_file() and record.get(CANDIDATES_FILE) in {None, hash_file(path)}):
        raise InputError(f"{path} is corrupt or missing; {RESTART_ADVICE}")


def _collect_inputs(settings: LearnStudy) -> dict[str, Any]:
    """Collect the settings and file hashes that determine the candidates, as JSON types."""
    learning, augmentation = settings.learning, settings.augmentation
    inputs = {
        "dataset": None if settings.dataset is None else hash_file(settings.dataset),
        "augmentation": augmentation and augmentation.model_dump(mode="json", exclude={"structures", "output"}),
        "augmentation.structures": [hash_file(path) for path in augmentation.structures] if augmentation else [],
        # without folders of structures, whose files are not hashed
        "learning.structures": [hash_file(path) for path in learning.structures if path.is_file()],
        "learning.n_initial": learning.n_initial,
        "learning.initial_potential": hash_potential_files(learning.initial_potential),
        "learning.sets": learning.sets.model_dump(mode="json"),
        "learning.seed": learning.seed,
    }
    return dict(json.loads(json.dumps(inputs)))  # as they are read back from the record: tuples become lists


def _copy_dataset(source: Path, target: Path) -> None:
    """Copy the labelled dataset, but not the info keys in which another loop recorded its iterations.

    Values of group keys get a prefix, because this loop may give the same names to other groups.
    """
    with Dataset(source) as dataset:
        structures = list(dataset)
        for atoms in structures:
            for key in ("iteration", "started_from", ABOVE_KEY):
                atoms.info.pop(key, None)
            atoms.info |= {key: f"dataset:{atoms.info[key]}" for key in GROUP_KEYS if key in atoms.info}
        levels = {name: LevelData(read_labels(dataset, name), dataset.settings(name)) for name in dataset.levels}
        write_dataset(target, structures, levels, dataset.ids.tolist())


def _generate_candidates(settings: LearnStudy, folder: LearnFolder, context: RunContext) -> tuple[list[Atoms], int]:
    """Generate candidates by augmentation, and read candidates from files; return all of them and the next free id.

    The ids of the candidates start after the largest id of the dataset.
    """
    first_id = 0
    if settings.dataset is not None:
        with Dataset(settings.dataset) as dataset:
            first_id = int(dataset.ids.max(initial=-1)) + 1
    candidates: list[Atoms] = []
    if settings.augmentation is not None:
        augmentation = settings.augmentation.model_copy(update={"output": folder.path / "augmented.extxyz"})
        study = AugmentStudy(name=settings.name, augmentation=augmentation)
        result = augment_study(study, figures=False, overwrite=True, progress=context.progress)
        candidates += _number_structures(result.candidates.structures, first_id, "augmented")
    for path in settings.learning.structures:
        candidates += _number_structures(read_frames(path, None).atoms, first_id + len(candidates), path.stem)
    return candidates, first_id + len(candidates)


def _explore_first(
    settings: LearnSettings,
    candidates: Sequence[Atoms],
    first_id: int,
    folder: LearnFolder,
    context: RunContext,
    notify: Callable[[str], object],
) -> list[Atoms]:
    """Run dynamics with the initial potential, and return the frames as candidates with ids from `first_id`."""
    potential, elements = read_potential(Path(settings.initial_potential or "")), collect_elements(candidates, folder)
    if foreign_elements := sorted(set(elements) - set(potential.elements)):
        raise InputError(
            f"'learning.initial_potential' supports only {', '.join(potential.elements)}; the structures contain "
            f"{foreign_elements[0]}"
        )
    start_structures = load_start_structures(settings, candidates, folder, elements)
    frames, message = explore_with_initial_potential(
        potential, candidates, start_structures, settings, folder.path / "initial", first_id, context
    )
    notify(f"initial exploration: {message}")
    return frames


def hash_potential_files(path: Path | None) -> dict[str, str] | None:
    """Return the hash of each file of a potential by file name; None if `path` is None.

    The files of a potential are all files in a folder, or the file at `path` and those beside it with the same stem.
    """
    if path is None:
        return None
    folder = path if path.is_dir() else path.parent
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and (path.is_dir() or file.stem == path.stem)]
    return hash_files(folder, [file.name for file in files])


def _number_structures(structures: Sequence[Atoms], first_id: int, source_name: str) -> list[Atoms]:
    """Copy structures without calculators, with consecutive ids from `first_id`.

    In the info, a parent that is one of `structures` is replaced by its new id. Any other parent, and the values of
    `GROUP_KEYS`, get the name of the source as a prefix, so that structures of different sources are never in the same
    group.
    """
    copies = []
    old_ids = [str(atoms.info.get("config_id")) for atoms in structures]
    new_ids = {old_id: first_id + k for k, old_id in enumerate(old_ids)}
    for k, atoms in enumerate(structures):
        copy: Atoms = atoms.copy()
        copy.calc = None
        keys = [key for key in ("parent", *GROUP_KEYS) if key in atoms.info]
        groups: dict[str, str | int] = {key: f"{source_name}:{atoms.info[key]}" for key in keys}
        if (parent := str(atoms.info.get("parent", ""))) in new_ids:
            groups["parent"] = new_ids[parent]
        copy.info = {**atoms.info, **groups, "config_id": first_id + k, "iteration": 1}
        for key in ("started_from", ABOVE_KEY):  # these keys describe another loop
            copy.info.pop(key, None)
        copies.append(copy)
    return copies


def collect_elements(candidates: Sequence[Atoms], folder: LearnFolder) -> list[str]:
    """Collect the element symbols of the candidates and of the labelled configurations, sorted."""
    elements = set(list_elements(candidates))
    if folder.dataset_path.exists():
        with Dataset(folder.dataset_path) as dataset:
            elements |= set(describe_dataset(dataset).species)
    return sorted(elements)


def load_start_structures(
    settings: LearnSettings, candidates: Sequence[Atoms], folder: LearnFolder, elements: Sequence[str]
) -> list[Atoms]:
    """Load the start structures of the dynamics.

    These are the structures in the files of the settings, or else the candidates except isolated atoms, or else the
    labelled configurations of the first iteration.

    Raises
    ------
    InputError
        If a structure in these files has an element that is not among `elements`.
    """
    if settings.explore.start_structures:
        structures = [atoms for path in settings.explore.start_structures for atoms in read_frames(path, None).atoms]
        if foreign_elements := sorted(set(list_elements(structures)) - set(elements)):
            raise InputError(
                f"'learning.explore.start_structures' contains {foreign_elements[0]}; the candidates contain only "
                f"{', '.join(elements)}"
            )
        for atoms in structures:
            atoms.info.pop("config_id", None)  # the id is not one of this loop
        return structures
    if not candidates:
        with Dataset(folder.dataset_path) as dataset:
            return [atoms for atoms in dataset if int(atoms.info.get("iteration", 1)) == 1]
    return [atoms for atoms in candidates if str(atoms.info.get("config_type", "")) != "isolated"]
