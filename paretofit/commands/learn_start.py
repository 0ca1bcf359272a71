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
GROUP_KEYS = ("family", "trajectory")


def start_loop(
    settings: LearnStudy, folder: LearnFolder, context: RunContext, notify: Callable[[str], object] = str
) -> list[Atoms]:
    """Generate the candidates and the structures of the first iteration, unless they exist; return the candidates.

    With an initial potential, frames of its dynamics are candidates, too.

    Raises
    ------
    InputError
        If the existing candidates are corrupt, or settings that determine them have changed.
    """
    path = folder.path / CANDIDATES_FILE
    _write_or_check_candidates(settings, folder, path, context, notify)
    candidates = load_frames(path, RESTART_ADVICE)
    iteration, n_initial = folder.iteration(1), settings.learning.n_initial
    if iteration.read_record("label") is None:
        has_labels = settings.dataset is not None
        structures = [atoms for atoms in candidates if not has_labels or atoms.info.get(ABOVE_KEY, "unknown")]
        if n_initial is not None and n_initial < len(structures):
            rng = np.random.default_rng([settings.learning.seed, 0, 5])
            structures = [structures[k] for k in np.sort(rng.permutation(len(structures))[:n_initial])]
        write_frames(iteration.structures, structures)
    return candidates


def _write_or_check_candidates(
    settings: LearnStudy, folder: LearnFolder, path: Path, context: RunContext, notify: Callable[[str], object]
) -> None:
    record_path, inputs = folder.path / "start.json", _collect_inputs(settings)
    if not record_path.is_file():
        if settings.dataset is not None:
            _copy_dataset(settings.dataset, folder.dataset)
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
    if not (path.is_file() and record.get(CANDIDATES_FILE) in {None, hash_file(path)}):
        raise InputError(f"{path} is corrupt or missing; {RESTART_ADVICE}")


def _collect_inputs(settings: LearnStudy) -> dict[str, Any]:
    """Collect the settings and file hashes that determine the candidates, as JSON types."""
    learning, augmentation = settings.learning, settings.augmentation
    inputs = {
        "dataset": None if settings.dataset is None else hash_file(settings.dataset),
        "augmentation": augmentation and augmentation.model_dump(mode="json", exclude={"structures", "output"}),
        "augmentation.structures": [hash_file(path) for path in augmentation.structures] if augmentation else [],
        "learning.structures": [hash_file(path) for path in learning.structures if path.is_file()],
        "learning.n_initial": learning.n_initial,
        "learning.initial_potential": hash_potential_files(learning.initial_potential),
        "learning.sets": learning.sets.model_dump(mode="json"),
        "learning.seed": learning.seed,
    }
    return dict(json.loads(json.dumps(inputs)))


def _copy_dataset(source: Path, target: Path) -> None:
    """Copy the labelled dataset without the info that another loop wrote about its iterations.

    Values of group keys get a prefix, because this loop may give the same names to other groups.
    """
    with Dataset(source) as data:
        structures = list(data)
        for atoms in structures:
            for key in ("iteration", "started_from", ABOVE_KEY):
                atoms.info.pop(key, None)
            atoms.info |= {key: f"dataset:{atoms.info[key]}" for key in GROUP_KEYS if key in atoms.info}
        levels = {name: LevelData(read_labels(data, name), data.settings(name)) for name in data.levels}
        write_dataset(target, structures, levels, data.ids.tolist())


def _generate_candidates(settings: LearnStudy, folder: LearnFolder, context: RunContext) -> tuple[list[Atoms], int]:
    """Generate candidates by augmentation, and read those from files; return them and the next free id.

    The ids of the candidates start after those of the dataset.
    """
    first_id = 0
    if settings.dataset is not None:
        with Dataset(settings.dataset) as data:
            first_id = int(data.ids.max(initial=-1)) + 1
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
    """Run the dynamics of the initial potential, and return its frames as candidates."""
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
    """Hash the files of a potential by name: those of a folder, or those next to a file with the same stem."""
    if path is None:
        return None
    folder = path if path.is_dir() else path.parent
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and (path.is_dir() or file.stem == path.stem)]
    return hash_files(folder, [file.name for file in files])


def _number_structures(structures: Sequence[Atoms], first_id: int, source_name: str) -> list[Atoms]:
    """Copy structures with consecutive ids from `first_id`.

    A parent that is one of `structures` is replaced by its new id. Other values of group keys (parent, family,
    trajectory) get the name of the source as a prefix, so that structures of different sources are never in the same
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
        for key in ("started_from", ABOVE_KEY):  # keys that describe another loop
            copy.info.pop(key, None)
        copies.append(copy)
    return copies


def collect_elements(candidates: Sequence[Atoms], folder: LearnFolder) -> list[str]:
    """Collect the element symbols of the candidates and of the labelled configurations, sorted."""
    elements = set(list_elements(candidates))
    if folder.dataset.exists():
        with Dataset(folder.dataset) as data:
            elements |= set(describe_dataset(data).species)
    return sorted(elements)


def load_start_structures(
    settings: LearnSettings, candidates: Sequence[Atoms], folder: LearnFolder, elements: Sequence[str]
) -> list[Atoms]:
    """Load the start structures of the dynamics: from files, else the candidates, else the labelled configurations.

    Raises
    ------
    InputError
        If a start structure of the settings has an element that no candidate has.
    """
    if settings.explore.start_structures:
        structures = [atoms for path in settings.explore.start_structures for atoms in read_frames(path, None).atoms]
        if foreign_elements := sorted(set(list_elements(structures)) - set(elements)):
            raise InputError(
                f"'learning.explore.start_structures' contains {foreign_elements[0]}; the candidates contain only "
                f"{', '.join(elements)}"
            )
        for atoms in structures:
            atoms.info.pop("config_id", None)  # an id from outside this loop
        return structures
    if not candidates:
        with Dataset(folder.dataset) as data:
            return [atoms for atoms in data if int(atoms.info.get("iteration", 1)) == 1]
    return [atoms for atoms in candidates if str(atoms.info.get("config_type", "")) != "isolated"]
