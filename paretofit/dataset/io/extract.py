"""Extraction of labels from ASE structures: from their calculators, or from keys of their info and arrays.

Nothing is computed. Values that are no valid labels are refused, and a note reports labels that were taken from a key
that the user did not name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from paretofit.core import Array, InputError, suggest_match
from paretofit.dataset.checks import VOIGT_INDICES, as_float_array
from paretofit.dataset.io.structure_files import Frames
from paretofit.dataset.writer import Label

SECONDS_KEYS = ("seconds", "cpu_seconds", "wall_seconds")
CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY = "config_info", "label_info", "label_status"  # keys of an export
QUANTITIES = ("energy", "forces", "stress")
PREFIXES = ("REF_", "ref_", "DFT_", "dft_", "QM_", "qm_")

KeyNames = dict[str, str | None]


def extract_file_labels(
    frames: Frames, level: str, keys: Mapping[str, str | None], seconds_key: str | None
) -> tuple[list[Label | None], list[str]]:
    """Extract the labels of one level from its file, without starting a calculation.

    Parameters
    ----------
    frames : Frames
        Labels under keys are removed from its structures; results of calculators are not.
    level : str
    keys : mapping of quantity to str or None
        Keys of energy, forces and stress; ``{level}`` stands for the name of the level. None: the results of the
        calculators, or else keys such as ``REF_energy``.
    seconds_key : str or None
        Key of the cost of a label; by default the first of `SECONDS_KEYS` that a structure has.

    Returns
    -------
    labels : list of mapping or None
        None if there is neither an energy nor forces.
    notes : list of str
        Keys that were used although the user did not name them.

    Raises
    ------
    InputError
        If there are no labels, a key is unknown, or a label is not numeric or has the wrong shape.
    """
    patterns = {quantity: pattern for quantity, pattern in keys.items() if pattern is not None}
    names, notes = _choose_keys(frames, {q: _format_key(q, pattern, level) for q, pattern in patterns.items()})
    labels: list[Label | None] = []
    seconds_keys = SECONDS_KEYS if seconds_key is None else (_format_key("seconds", seconds_key, level),)
    for k, atoms in enumerate(frames.atoms):
        used_keys = {q: key or _get_result_name(atoms, q) for q, key in names.items()}
        used_keys["seconds"] = next((key for key in seconds_keys if key in atoms.info), seconds_keys[0])
        values = {q: _take_value(atoms, key, remove=names.get(q) is not None) for q, key in used_keys.items()}
        label = _parse_label(values, used_keys, len(atoms), frames.describe_frame(k))
        labels.append(_restore_metadata(atoms, values, label))
    if not any(labels):
        raise InputError(f"{frames.path}: no structure has an energy or forces{_suggest_keys(frames)}")
    return labels, notes


def extract_prefixed_labels(
    frames: Frames, levels: Sequence[str], keys: Mapping[str, str | None], seconds_key: str | None
) -> dict[str, list[Label | None]]:
    """Extract the labels of all levels from the info and arrays of the structures of one file.

    Parameters
    ----------
    frames : Frames
        The labels are removed from its structures.
    levels : sequence of str
    keys : mapping of quantity to str or None
        ``{level}`` stands for the name of the level; by default ``{level}_energy`` and so on.
    seconds_key : str or None
        By default ``{level}_seconds``.

    Raises
    ------
    InputError
        If a key is invalid, a level has no labels, or a label is not numeric or has the wrong shape.
    """
    if not levels:
        raise InputError(f"{frames.path} is one file for all levels: name the levels in order of cost")
    patterns = {quantity: pattern or f"{{level}}_{quantity}" for quantity, pattern in keys.items()}
    patterns["seconds"] = seconds_key or "{level}_seconds"
    names = {level: {q: _format_key(q, pattern, level) for q, pattern in patterns.items()} for level in levels}
    _check_distinct(levels, names, patterns)
    labels: dict[str, list[Label | None]] = {}
    for level in levels:
        labels[level] = []
        for k, atoms in enumerate(frames.atoms):
            values = {quantity: _take_value(atoms, key, remove=True) for quantity, key in names[level].items()}
            labels[level].append(_parse_label(values, names[level], len(atoms), frames.describe_frame(k)))
        if not any(labels[level]):
            raise InputError(
                f"{frames.path}: no structure has '{names[level]['energy']}' or '{names[level]['forces']}' for level "
                f"'{level}'; the keys of the first structure are {', '.join(_list_keys(frames.atoms[:1]))}"
            )
    return labels


def check_seconds_key(labels: Mapping[str, Sequence[Label | None]], seconds_key: str | None) -> None:
    """Refuse a key of the cost that no labelled structure has."""
    has_cost = any(label.get("seconds") is not None for column in labels.values() for label in column if label)
    if seconds_key is not None and not has_cost:
        raise InputError(f"no labelled structure has the key '{seconds_key}' of the cost; name an existing key")


def _choose_keys(frames: Frames, user_keys: Mapping[str, str]) -> tuple[KeyNames, list[str]]:
    """Return the key of each quantity, None for the results of calculators, and notes on keys that the user omitted."""
    keys = set(_list_keys(frames.atoms))
    results = {key for atoms in frames.atoms for key in _get_results(atoms)}
    for quantity, key in user_keys.items():
        if key not in keys | results:
            hint = suggest_match(key, keys | results) or f"; the keys are {', '.join(sorted(keys | results))}"
            raise InputError(f"{frames.path}: no structure has the key '{key}' of the {quantity}{hint}")
    has_results = bool(results & {"energy", "forces", "free_energy"})
    prefixes = [prefix for prefix in PREFIXES if {f"{prefix}energy", f"{prefix}forces"} & keys]
    if user_keys:
        prefix = next((key.removesuffix(q) for q, key in user_keys.items() if key.endswith(q)), None)
    else:
        prefix = None if has_results or not prefixes else prefixes[0]
    implied = {q: f"{prefix}{q}" for q in QUANTITIES if prefix and f"{prefix}{q}" in keys and q not in user_keys}
    names: KeyNames = {quantity: user_keys.get(quantity) or implied.get(quantity) for quantity in QUANTITIES}
    notes = [f"{frames.path}: labels were taken from {', '.join(implied.values())}"] if implied else []
    if has_results and prefixes and not user_keys:
        key = f"{prefixes[0]}energy"
        notes.append(
            f"{frames.path}: it has '{key}' and 'energy'; 'energy' was used: to use the other, add --energy-key {key}"
        )
    return names, notes


def _suggest_keys(frames: Frames) -> str:
    similar = [key for key in _list_keys(frames.atoms) if "energy" in key.lower() or "force" in key.lower()]
    return f"; it has {', '.join(similar)}: choose keys with --energy-key and --forces-key" if similar else ""


def _list_keys(structures: Sequence[Atoms]) -> list[str]:
    return list(dict.fromkeys(key for atoms in structures for key in [*atoms.info, *atoms.arrays]))


def _get_results(atoms: Atoms) -> dict[str, Any]:
    results = atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}
    return {key: value for key, value in results.items() if value is not None}


def _get_result_name(atoms: Atoms, quantity: str) -> str:
    return "free_energy" if quantity == "energy" and "free_energy" in _get_results(atoms) else quantity


def _take_value(atoms: Atoms, key: str, *, remove: bool) -> Any:
    """Return a value of the info, the arrays (if `remove`) or the results; `remove` deletes it from the first two."""
    for mapping in (atoms.info, atoms.arrays) if remove else (atoms.info,):
        if key in mapping:
            return mapping.pop(key) if remove else mapping[key]
    return _get_results(atoms).get(key)


def _restore_metadata(atoms: Atoms, values: Mapping[str, Any], label: dict[str, Any] | None) -> Label | None:
    """Move the metadata that `paretofit export` wrote into the label, and restore the info of the configuration."""
    info, status = atoms.info.pop(LABEL_INFO_KEY, None), atoms.info.pop(LABEL_STATUS_KEY, None)
    config_info = atoms.info.pop(CONFIG_INFO_KEY, None)
    atoms.info.update(config_info if isinstance(config_info, Mapping) else {})
    if label is None and status is not None:
        label = {"seconds": values["seconds"]}
    if label is not None:
        label["info"] = dict(info) if isinstance(info, Mapping) else {}
        label.update({} if status is None else {"status": str(status)})
    return label


def _format_key(quantity: str, pattern: str, level: str) -> str:
    try:
        return pattern.format(level=level)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"the key of the {quantity}, '{pattern}', cannot be used: the only placeholder is '{{level}}'"
        ) from error


def _check_distinct(levels: Sequence[str], names: Mapping[str, Mapping[str, str]], patterns: Mapping[str, str]) -> None:
    """Refuse keys that several levels would share."""
    for quantity, pattern in patterns.items():
        if len({names[level][quantity] for level in levels}) < len(levels):
            if len(set(levels)) < len(levels):
                raise InputError(f"a level is named twice in {', '.join(levels)}; name each once")
            raise InputError(f"the key of the {quantity}, '{pattern}', must contain '{{level}}' for several levels")


def _parse_label(
    values: Mapping[str, Any], keys: Mapping[str, str], n_atoms: int, context: str
) -> dict[str, Any] | None:
    """Convert the values of a label to arrays; None if there is neither an energy nor forces."""
    if values["energy"] is None and values["forces"] is None:
        return None
    shapes = {"energy": (), "forces": (n_atoms, 3), "seconds": ()}
    label: dict[str, Any] = {}
    for quantity, value in values.items():
        name = f"{context}: '{keys[quantity]}'"
        label[quantity] = None if value is None else as_float_array(value, name, shapes.get(quantity))
        if quantity == "stress" and value is not None:
            label[quantity] = _parse_stress(label[quantity].ravel(), name)
    seconds = label["seconds"]
    if seconds is not None and (seconds < 0 or np.isinf(seconds)):
        raise InputError(f"{context}: '{keys['seconds']}' must be a cost in seconds, at least 0; got {seconds}")
    return label


def _parse_stress(components: Array, name: str) -> Array:
    """Convert 6 or 9 components to ``(6,)`` in ASE's Voigt order."""
    if components.size not in (6, 9):
        raise InputError(f"{name} must be 6 numbers (xx, yy, zz, yz, xz, xy) or 9; got {components.size}")
    return components if components.size == 6 else components[VOIGT_INDICES]
