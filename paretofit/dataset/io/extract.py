"""Extraction of labels from ASE structures: from their calculators, or from keys of their info and arrays.

Labels are never computed here. Invalid labels raise an error, and a note lists the keys that were used although the
user did not specify them.
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
    """Extract the labels of one level from the structures of its file.

    Parameters
    ----------
    frames : Frames
        Structures of the file. Labels are removed from their info and arrays, but not from their calculators.
    level : str
    keys : mapping of quantity to str or None
        Keys of the energy, forces and stress; ``{level}`` is replaced by the name of the level. If a key is None, the
        results of the calculators are used, or else keys such as ``REF_energy``.
    seconds_key : str or None
        Key of the cost of a label; by default the first of `SECONDS_KEYS` that a structure has.

    Returns
    -------
    labels : list of mapping or None
        Label of each structure; None if it has neither an energy nor forces.
    notes : list of str
        Messages about keys that were used although the user did not specify them.

    Raises
    ------
    InputError
        If there are no labels, a key is unknown, or a label is not numeric or has the wrong shape.
    """
    patterns = {quantity: pattern for quantity, pattern in keys.items() if pattern is not None}
    label_keys, notes = _choose_keys(frames, {q: _format_key(q, pattern, level) for q, pattern in patterns.items()})
    labels: list[Label | None] = []
    seconds_keys = SECONDS_KEYS if seconds_key is None else (_format_key("seconds", seconds_key, level),)
    for k, atoms in enumerate(frames.atoms):
        frame_keys = {q: key or _get_result_name(atoms, q) for q, key in label_keys.items()}
        frame_keys["seconds"] = next((key for key in seconds_keys if key in atoms.info), seconds_keys[0])
        values = {q: _get_value(atoms, key, remove=label_keys.get(q) is not None) for q, key in frame_keys.items()}
        label = _parse_label(values, frame_keys, len(atoms), frames.describe_frame(k))
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
        Structures of the file; the labels are removed from them.
    levels : sequence of str
    keys : mapping of quantity to str or None
        Keys of the energy, forces and stress; ``{level}`` is replaced by the name of the level. The default is
        ``{level}_energy`` and so on.
    seconds_key : str or None
        Key of the cost of a label; by default ``{level}_seconds``.

    Returns
    -------
    mapping of level to list of mapping or None
        Label of each structure; None if it has neither an energy nor forces.

    Raises
    ------
    InputError
        If a key is invalid, a level has no labels, or a label is not numeric or has the wrong shape.
    """
    if not levels:
        raise InputError(f"{frames.path} is one file for all levels: specify the levels in order of cost")
    patterns = {quantity: pattern or f"{{level}}_{quantity}" for quantity, pattern in keys.items()}
    patterns["seconds"] = seconds_key or "{level}_seconds"
    level_keys = {level: {q: _format_key(q, pattern, level) for q, pattern in patterns.items()} for level in levels}
    _check_distinct(levels, level_keys, patterns)
    labels: dict[str, list[Label | None]] = {}
    for level in levels:
        labels[level] = []
        for k, atoms in enumerate(frames.atoms):
            values = {quantity: _get_value(atoms, key, remove=True) for quantity, key in level_keys[level].items()}
            labels[level].append(_parse_label(values, level_keys[level], len(atoms), frames.describe_frame(k)))
        if not any(labels[level]):
            raise InputError(
                f"{frames.path}: no structure has '{level_keys[level]['energy']}' or '{level_keys[level]['forces']}' "
                f"for level '{level}'; the keys of the first structure are {', '.join(_list_keys(frames.atoms[:1]))}"
            )
    return labels


def check_seconds_key(labels: Mapping[str, Sequence[Label | None]], seconds_key: str | None) -> None:
    """Raise an error if no labelled structure has the requested key of the cost."""
    has_cost = any(label.get("seconds") is not None for column in labels.values() for label in column if label)
    if seconds_key is not None and not has_cost:
        raise InputError(f"no labelled structure has the cost key '{seconds_key}'; specify an existing key")


def _choose_keys(frames: Frames, user_keys: Mapping[str, str]) -> tuple[KeyNames, list[str]]:
    """Return the key of each quantity, or None for results of calculators, and notes on keys that the user omitted."""
    keys = set(_list_keys(frames.atoms))
    results = {key for atoms in frames.atoms for key in _get_results(atoms)}
    for quantity, key in user_keys.items():
        if key not in keys | results:
            hint = suggest_match(key, keys | results) or f"; the keys are {', '.join(sorted(keys | results))}"
            raise InputError(f"{frames.path}: no structure has the {quantity} key '{key}'{hint}")
    has_results = bool(results & {"energy", "forces", "free_energy"})
    prefixes = [prefix for prefix in PREFIXES if {f"{prefix}energy", f"{prefix}forces"} & keys]
    if user_keys:
        prefix = next((key.removesuffix(q) for q, key in user_keys.items() if key.endswith(q)), None)
    else:
        prefix = None if has_results or not prefixes else prefixes[0]
    implied_keys = {q: f"{prefix}{q}" for q in QUANTITIES if prefix and f"{prefix}{q}" in keys and q not in user_keys}
    label_keys: KeyNames = {quantity: user_keys.get(quantity) or implied_keys.get(quantity) for quantity in QUANTITIES}
    notes = [f"{frames.path}: labels were taken from {', '.join(implied_keys.values())}"] if implied_keys else []
    if has_results and prefixes and not user_keys:
        key = f"{prefixes[0]}energy"
        advice = f"'energy' was used; to use '{key}', add --energy-key {key}"
        notes.append(f"{frames.path} has '{key}' and 'energy'; {advice}")
    return label_keys, notes


def _suggest_keys(frames: Frames) -> str:
    similar = [key for key in _list_keys(frames.atoms) if "energy" in key.lower() or "force" in key.lower()]
    return f"; keys in the file: {', '.join(similar)}; choose with --energy-key and --forces-key" if similar else ""


def _list_keys(structures: Sequence[Atoms]) -> list[str]:
    return list(dict.fromkeys(key for atoms in structures for key in [*atoms.info, *atoms.arrays]))


def _get_results(atoms: Atoms) -> dict[str, Any]:
    results = atoms.calc.results if isinstance(atoms.calc, SinglePointCalculator) else {}
    return {key: value for key, value in results.items() if value is not None}


def _get_result_name(atoms: Atoms, quantity: str) -> str:
    return "free_energy" if quantity == "energy" and "free_energy" in _get_results(atoms) else quantity


def _get_value(atoms: Atoms, key: str, *, remove: bool) -> Any:
    """Return a value from the info or the results; with `remove`, search the arrays too, and delete the value."""
    for mapping in (atoms.info, atoms.arrays) if remove else (atoms.info,):
        if key in mapping:
            return mapping.pop(key) if remove else mapping[key]
    return _get_results(atoms).get(key)


def _restore_metadata(atoms: Atoms, values: Mapping[str, Any], label: dict[str, Any] | None) -> Label | None:
    """Move metadata written by `paretofit export` into the label, and restore the info of the configuration."""
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
        reason = "'{level}' is the only allowed placeholder"
        raise InputError(f"the {quantity} key '{pattern}' is invalid: {reason}") from error


def _check_distinct(levels: Sequence[str], keys: Mapping[str, Mapping[str, str]], patterns: Mapping[str, str]) -> None:
    """Check that the keys of a quantity differ between levels."""
    for quantity, pattern in patterns.items():
        if len(set(levels)) < len(levels):
            raise InputError(f"a level is repeated in {', '.join(levels)}; list each level once")
        if len({keys[level][quantity] for level in levels}) < len(levels):
            raise InputError(
                f"the {quantity} key '{pattern}' must contain '{{level}}', because there are several levels"
            )


def _parse_label(
    values: Mapping[str, Any], keys: Mapping[str, str], n_atoms: int, context: str
) -> dict[str, Any] | None:
    """Convert the values of a label to arrays; return None if there is neither an energy nor forces."""
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
        raise InputError(f"{context}: '{keys['seconds']}' must be a cost of at least 0 seconds; got {seconds}")
    return label


def _parse_stress(components: Array, name: str) -> Array:
    """Convert 6 or 9 components to ``(6,)`` in ASE's Voigt order."""
    if components.size not in (6, 9):
        raise InputError(f"{name} must be 6 numbers (xx, yy, zz, yz, xz, xy) or 9; got {components.size}")
    return components if components.size == 6 else components[VOIGT_INDICES]
