"""What a loop begins with: candidates, the labelled dataset, and structures for the dynamics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from paretofit.commands.augment import augment_study
from paretofit.commands.study_sections import AugmentStudy
from paretofit.core import InputError, hash_file, read_json_with_digest, write_json_with_digest
from paretofit.dataset import Dataset, LevelData, describe_dataset, write_dataset
from paretofit.dataset.io import read_frames, read_labels
from paretofit.learning import RESTART_ADVICE, LearnFolder, load_frames, write_frames

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms

    from paretofit.learning import LearnSettings, LearnStudy

CANDIDATES_FILE = "candidates.extxyz"


def start_loop(settings: LearnStudy, folder: LearnFolder, progress: bool) -> list[Atoms]:
    """The first candidates, made once; and the first iteration's structures.

    Raises
    ------
    InputError
        If the study asks for other candidates than those that are there, or they are damaged.
    """
    place, mark = folder.path / CANDIDATES_FILE, folder.path / "start.json"
    own = settings.learning
    made = settings.augmentation
    asked = {
        "dataset": None if settings.dataset is None else hash_file(settings.dataset),
        "augmentation": None if made is None else made.model_dump(mode="json", exclude={"structures", "output"}),
        "augmentation.structures": [] if made is None else [hash_file(one) for one in made.structures],
        "learning.structures": [hash_file(one) for one in own.structures if one.is_file()],
        "learning.n_initial": own.n_initial,
        "learning.sets": own.sets.model_dump(mode="json"),
        "learning.seed": own.seed,
    }
    asked = json.loads(json.dumps(asked))
    if mark.is_file():
        before = read_json_with_digest(mark, RESTART_ADVICE)
        changed = [key for key, value in asked.items() if before.get(key) != value]
        if changed:
            raise InputError(
                f"'{changed[0]}' has changed since {folder.path} was begun with other candidates; name another folder "
                "with --out, or undo the change"
            )
        if not (place.is_file() and before.get(CANDIDATES_FILE) in {None, hash_file(place)}):
            raise InputError(f"{place} is damaged or missing: it is not what the run has written; {RESTART_ADVICE}")
    else:
        if settings.dataset is not None:
            _copy_dataset(settings.dataset, folder.dataset)
        write_frames(place, _candidates(settings, folder, progress))
        write_json_with_digest(mark, {**asked, CANDIDATES_FILE: hash_file(place)})
    candidates = load_frames(place, RESTART_ADVICE)
    first = folder.iteration(1)
    if first.read_record("label") is None:
        count = settings.learning.n_initial
        chosen = candidates
        if count is not None and count < len(candidates):
            rng = np.random.default_rng([settings.learning.seed, 0, 5])
            chosen = [candidates[k] for k in np.sort(rng.permutation(len(candidates))[:count])]
        write_frames(first.structures, chosen)
    return candidates


def _copy_dataset(source: Path, target: Path) -> None:
    """The labelled dataset as the loop's own; what it says of iterations was another loop's."""
    with Dataset(source) as data:
        structures = list(data)
        for atoms in structures:
            for key in ("iteration", "started_from"):
                atoms.info.pop(key, None)
        levels = {name: LevelData(read_labels(data, name), data.settings(name)) for name in data.levels}
        write_dataset(target, structures, levels, data.ids.tolist())


def _candidates(settings: LearnStudy, folder: LearnFolder, progress: bool) -> list[Atoms]:
    """Of the augmentation and of files, with ids of their own."""
    found: list[Atoms] = []
    if settings.augmentation is not None:
        own = settings.augmentation.model_copy(update={"output": folder.path / "augmented.extxyz"})
        made = augment_study(AugmentStudy(name=settings.name, augmentation=own), figures=False, progress=progress)
        found += _numbered(made.candidates.structures, 0, "augmented")
    for path in settings.learning.structures:
        found += _numbered(read_frames(path, None).atoms, len(found), path.stem)
    if settings.dataset is None:
        return found
    with Dataset(settings.dataset) as data:
        highest = int(data.ids.max(initial=-1))
    for atoms in found:
        atoms.info["config_id"] += highest + 1
    return found


def _numbered(structures: Sequence[Atoms], first: int, name: str) -> list[Atoms]:
    """Copies with new ids; what says who is related to whom belongs to their file."""
    made = []
    for k, atoms in enumerate(structures):
        copy: Atoms = atoms.copy()
        copy.calc = None
        kin = {key: f"{name}:{atoms.info[key]}" for key in ("parent", "family", "trajectory") if key in atoms.info}
        copy.info = {**atoms.info, **kin, "config_id": first + k, "iteration": 1}
        made.append(copy)
    return made


def collect_elements(candidates: Sequence[Atoms], folder: LearnFolder) -> list[str]:
    """Symbols of the candidates and of what is labelled, sorted."""
    found = {symbol for atoms in candidates for symbol in atoms.get_chemical_symbols()}
    if folder.dataset.exists():
        with Dataset(folder.dataset) as data:
            found |= set(describe_dataset(data).species)
    return sorted(found)


def load_start_structures(
    settings: LearnSettings, candidates: Sequence[Atoms], folder: LearnFolder, elements: Sequence[str]
) -> list[Atoms]:
    """What the dynamics starts from: as given, the first candidates, or what was labelled before.

    Raises
    ------
    InputError
        If what is given has an element that no candidate has.
    """
    if settings.explore.start_structures:
        found = [atoms for path in settings.explore.start_structures for atoms in read_frames(path, None).atoms]
        foreign = sorted({symbol for atoms in found for symbol in atoms.get_chemical_symbols()} - set(elements))
        if foreign:
            raise InputError(
                f"'learning.explore.start_structures' has {foreign[0]}, which no candidate has; the study is for "
                f"{', '.join(elements)}"
            )
        for atoms in found:
            atoms.info.pop("config_id", None)  # not one of ours
        return found
    if not candidates:
        with Dataset(folder.dataset) as data:
            return [atoms for atoms in data if int(atoms.info.get("iteration", 1)) == 1]
    return [atoms for atoms in candidates if str(atoms.info.get("config_type", "")) != "isolated"]
