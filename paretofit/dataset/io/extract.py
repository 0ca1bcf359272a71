"""Taking labels out of ASE structures: from their calculators, or from keys of their info and arrays.

Nothing is computed, and nothing is guessed: what is there but is no label is refused by name, and where a label has
been taken from a key that nobody named, this is said.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from paretofit.core import Array, InputError, suggest_match
from paretofit.dataset.checks import as_float_array
from paretofit.dataset.io.structure_files import Frames
from paretofit.dataset.writer import Label

SECONDS_KEYS = ("seconds", "cpu_seconds", "wall_seconds")
CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY = (
    "config_info",
    "label_info",
    "label_status",
)  # as `paretofit export` writes them
QUANTITIES = ("energy", "forces", "stress")
PREFIXES = ("REF_", "ref_", "DFT_", "dft_", "QM_", "qm_")
VOIGT = [0, 4, 8, 5, 2, 1]  # xx, yy, zz, yz, xz, xy of a 3 x 3 tensor, row by row

Names = dict[str, str | None]


def extract_file_labels(
    frames: Frames, level: str, keys: Mapping[str, str | None], seconds_key: str | None
) -> tuple[list[Label | None], list[str]]:
    """One level's labels out of a file of its own; never start a calculation.

    Parameters
    ----------
    frames : Frames
        Labels under keys are removed from its structures, results of calculators are not.
    level : str
    keys : mapping of quantity to str or None
        Where energy, forces and stress are; ``{level}`` stands for the level's name. None: the calculators'
        results, or else keys such as ``REF_energy``.
    seconds_key : str or None
        The key of a label's cost; by default the first of `SECONDS_KEYS` that a structure has.

    Returns
    -------
    labels : list of mapping or None
        None where there is neither an energy nor forces.
    notes : list of str
        What was taken from keys that nobody named.

    Raises
    ------
    InputError
        If there are no labels, a key is unknown, or a label is not numbers of the right shape.
    """
    patterns = {quantity: pattern for quantity, pattern in keys.items() if pattern is not None}
    names, notes = _names(frames, {q: _key(q, pattern, level) for q, pattern in patterns.items()})
    labels: list[Label | None] = []
    for k, atoms in enumerate(frames.atoms):
        seconds_keys = SECONDS_KEYS if seconds_key is None else (_key("seconds", seconds_key, level),)
        cost = next((key for key in seconds_keys if key in atoms.info), seconds_keys[0])
        own = {**{quantity: name or _result(atoms, quantity) for quantity, name in names.items()}, "seconds": cost}
        found = {quantity: _take(atoms, name, remove=names.get(quantity) is not None) for quantity, name in own.items()}
        labels.append(_with_info(atoms, found, _checked(found, own, len(atoms), frames.describe_frame(k))))
    if not any(labels):
        raise InputError(f"{frames.path}: no structure has an energy or forces{_hint(frames)}")
    return labels, notes


def extract_prefixed_labels(
    frames: Frames, levels: Sequence[str], keys: Mapping[str, str | None], seconds_key: str | None
) -> dict[str, list[Label | None]]:
    """Each level's labels from one file, taken out of the structures' info and arrays.

    Parameters
    ----------
    frames : Frames
        The labels are removed from its structures.
    levels : sequence of str
    keys : mapping of quantity to str or None
        With ``{level}`` for the level's name; by default ``{level}_energy`` and so on.
    seconds_key : str or None
        By default ``{level}_seconds``.

    Raises
    ------
    InputError
        If a key cannot be used, or a level has no labels, or one is not numbers of the right shape.
    """
    if not levels:
        raise InputError(f"{frames.path} is one file for all levels: name the levels, in order of cost")
    patterns = {quantity: pattern or f"{{level}}_{quantity}" for quantity, pattern in keys.items()}
    patterns["seconds"] = seconds_key or "{level}_seconds"
    names = {level: {q: _key(q, pattern, level) for q, pattern in patterns.items()} for level in levels}
    _check_distinct(levels, names, patterns)
    labels: dict[str, list[Label | None]] = {}
    for level in levels:
        labels[level] = []
        for k, atoms in enumerate(frames.atoms):
            found = {quantity: _take(atoms, name, remove=True) for quantity, name in names[level].items()}
            labels[level].append(_checked(found, names[level], len(atoms), frames.describe_frame(k)))
        if not any(labels[level]):
            raise InputError(
                f"{frames.path}: no structure has '{names[level]['energy']}' or '{names[level]['forces']}' for level "
                f"'{level}'; the keys of the first structure are {', '.join(_known_keys(frames.atoms[:1]))}"
            )
    return labels


def check_seconds_key(labels: Mapping[str, Sequence[Label | None]], seconds_key: str | None) -> None:
    """Refuse a key of the cost that was named but that no structure has."""
    found = any(one.get("seconds") is not None for column in labels.values() for one in column if one)
    if seconds_key is not None and not found:
        raise InputError(f"no labelled structure has the key '{seconds_key}' of the cost; name one that is there")


def _names(frames: Frames, given: Mapping[str, str]) -> tuple[Names, list[str]]:
    """The key of each quantity, None for the calculators' results; and what was found without being named."""
    there = set(_known_keys(frames.atoms))
    results = {key for atoms in frames.atoms for key in _results(atoms)}
    for quantity, name in given.items():
        if name not in there | results:
            hint = suggest_match(name, there | results) or f"; the keys are {', '.join(sorted(there | results))}"
            raise InputError(f"{frames.path}: no structure has the key '{name}' of the {quantity}{hint}")
    labelled = bool(results & {*QUANTITIES, "free_energy"} - {"stress"})
    others = [prefix for prefix in PREFIXES if {f"{prefix}energy", f"{prefix}forces"} & there]
    if given:
        prefix = next((name.removesuffix(q) for q, name in given.items() if name.endswith(q)), None)
    else:
        prefix = None if labelled or not others else others[0]
    implied = {q: f"{prefix}{q}" for q in QUANTITIES if prefix and f"{prefix}{q}" in there and q not in given}
    names: Names = {quantity: given.get(quantity) or implied.get(quantity) for quantity in QUANTITIES}
    notes = [f"{frames.path}: taken from {', '.join(implied.values())}"] if implied else []
    if labelled and others and not given:
        key = f"{others[0]}energy"
        notes.append(
            f"{frames.path}: has '{key}' beside 'energy'; 'energy' was taken, --energy-key {key} takes the other"
        )
    return names, notes


def _hint(frames: Frames) -> str:
    like = [key for key in _known_keys(frames.atoms) if "energy" in key.lower() or "force" in key.lower()]
    return f"; it has {', '.join(like)}: name the ones to take with --energy-key and --forces-key" if like else ""


def _known_keys(structures: Sequence[Atoms]) -> list[str]:
    return list(dict.fromkeys(key for atoms in structures for key in [*atoms.info, *atoms.arrays]))


def _results(atoms: Atoms) -> dict[str, Any]:
    held = dict(atoms.calc.results) if isinstance(atoms.calc, SinglePointCalculator) else {}
    return {key: value for key, value in held.items() if value is not None}


def _result(atoms: Atoms, quantity: str) -> str:
    return "free_energy" if quantity == "energy" and "free_energy" in _results(atoms) else quantity


def _take(atoms: Atoms, name: str, *, remove: bool) -> Any:
    """A value of a structure's info, arrays or results; `remove` takes it out of the first two."""
    for holder in (atoms.info, atoms.arrays) if remove else (atoms.info,):
        if name in holder:
            return holder.pop(name) if remove else holder[name]
    return _results(atoms).get(name)


def _with_info(atoms: Atoms, found: Mapping[str, Any], label: dict[str, Any] | None) -> Label | None:
    """The label with what `paretofit export` keeps with one: what is known of it, and that it failed.

    What it set aside of a configuration's info, so that it is not read as a label, goes back there.
    """
    info, status = atoms.info.pop(LABEL_INFO_KEY, None), atoms.info.pop(LABEL_STATUS_KEY, None)
    aside = atoms.info.pop(CONFIG_INFO_KEY, None)
    atoms.info.update(aside if isinstance(aside, Mapping) else {})
    if label is None and status is not None:
        label = {"seconds": found["seconds"]}
    if label is not None:
        label["info"] = dict(info) if isinstance(info, Mapping) else {}
        label.update({} if status is None else {"status": str(status)})
    return label


def _key(quantity: str, pattern: str, level: str) -> str:
    try:
        return pattern.format(level=level)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"the key of the {quantity}, '{pattern}', cannot be used: only '{{level}}' may stand in braces"
        ) from error


def _check_distinct(levels: Sequence[str], names: Mapping[str, Mapping[str, str]], patterns: Mapping[str, str]) -> None:
    """Every level needs keys of its own, or the labels of one would be taken for those of another."""
    for quantity, pattern in patterns.items():
        if len({names[level][quantity] for level in levels}) < len(levels):
            if len(set(levels)) < len(levels):
                raise InputError(f"a level is named twice in {', '.join(levels)}; name each once")
            raise InputError(f"the key of the {quantity}, '{pattern}', must contain '{{level}}' for several levels")


def _checked(found: Mapping[str, Any], names: Mapping[str, str], n: int, where: str) -> dict[str, Any] | None:
    """The labels as numbers; None where there is neither an energy nor forces."""
    if found["energy"] is None and found["forces"] is None:
        return None
    shapes = {"energy": (), "forces": (n, 3), "seconds": ()}
    label: dict[str, Any] = {}
    for quantity, value in found.items():
        what = f"{where}: '{names[quantity]}'"
        if value is None:
            label[quantity] = None
        elif quantity == "stress":
            label[quantity] = _voigt(value, what)
        else:
            label[quantity] = as_float_array(value, what, shapes[quantity])
    seconds = label["seconds"]
    if seconds is not None and (seconds < 0 or np.isinf(seconds)):
        raise InputError(f"{where}: '{names['seconds']}' must be a cost in seconds, at least 0; got {seconds}")
    return label


def _voigt(value: Any, what: str) -> Array:
    """Six components in ASE's Voigt order from six or nine."""
    given = as_float_array(value, what).ravel()
    if given.size not in (6, 9):
        raise InputError(f"{what} must be 6 numbers (xx, yy, zz, yz, xz, xy) or 9; got {given.size}")
    return given if given.size == 6 else given[VOIGT]
