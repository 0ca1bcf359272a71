"""Extraction of labels from ASE structures: from their calculators, or from keys of their info and arrays.

Labels are never computed here. Invalid labels raise an error, and a note lists the keys that were used although the
user did not specify them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, suggest_match
from paretofit.dataset.checks import VOIGT_INDICES, as_float_array
from paretofit.dataset.io.frame_keys import choose_frame_keys, has_volume
from paretofit.dataset.io.label_keys import (
    QUANTITIES,
    describe_conversion,
    describe_unused_keys,
    determine_energy_kind,
    get_results,
    is_gradient,
    is_per_atom,
    is_virial,
    list_candidate_keys,
    list_keys,
)
from paretofit.dataset.io.structure_files import Frames
from paretofit.dataset.writer import Label

SECONDS_KEYS = ("seconds", "cpu_seconds", "wall_seconds")
CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY = "config_info", "label_info", "label_status"  # keys of an export


@dataclass(frozen=True)
class FileLabels:
    """Labels of one level from one file.

    Attributes
    ----------
    labels : list of mapping or None
        Label of each structure; None if it has neither an energy nor forces.
    notes : list of str
        Messages about keys that were used although the user did not specify them, and about keys that were not used.
    energy_kind : str or None
        As `determine_energy_kind`; None if the user chose the key.
    """

    labels: list[Label | None]
    notes: list[str]
    energy_kind: str | None


RESULT_ENERGIES = {"energy", "free_energy"}  # of which one is read, and the other is known

UserKey = str | Mapping[str, str] | None
UserKeys = Mapping[str, UserKey]


def extract_file_labels(frames: Frames, level: str, keys: UserKeys, seconds_key: UserKey) -> FileLabels:
    """Extract the labels of one level from the structures of its file.

    Parameters
    ----------
    frames : Frames
        Structures of the file. Labels are removed from their info and arrays, but not from their calculators.
    level : str
    keys : mapping of quantity to str, mapping of level to str, or None
        Keys of the energy, forces and stress; ``{level}`` is replaced by the name of the level. If a key is None, the
        results of the calculators are used, or else keys such as ``REF_energy``. Virials (eV) become stresses.
    seconds_key : str, mapping of level to str, or None
        Key of the cost of a label; by default the first of `SECONDS_KEYS` that a structure has.

    Returns
    -------
    FileLabels

    Raises
    ------
    InputError
        If there are no labels, a key is unknown, a label is not numeric or has the wrong shape, or some structures
        have only free energies and others only energies.
    """
    patterns = {quantity: select_level_key(pattern, level) for quantity, pattern in keys.items()}
    user_keys = {q: _format_key(q, pattern, level) for q, pattern in patterns.items() if pattern is not None}
    _check_user_keys(frames, user_keys, level)
    label_keys, notes = choose_frame_keys(frames.path, frames.atoms, user_keys, level)
    labels: list[Label | None] = []
    cost_key = select_level_key(seconds_key, level)
    seconds_keys = SECONDS_KEYS if cost_key is None else (_format_key("seconds", cost_key, level),)
    stored_keys = set(list_keys(frames.atoms))
    n_unused_virials: Counter[str] = Counter()
    for k, atoms in enumerate(frames.atoms):
        cost_key = next((key for key in seconds_keys if key in atoms.info), seconds_keys[0])
        frame_keys = {**label_keys[k], "seconds": cost_key}
        values = {
            q: _get_value(atoms, key, remove=key in stored_keys and q in QUANTITIES) for q, key in frame_keys.items()
        }
        n_unused_virials[frame_keys["stress"]] += _drop_unusable_virial(values, frame_keys, atoms)
        label = _parse_label(values, frame_keys, atoms, frames.describe_frame(k))
        labels.append(_restore_metadata(atoms, values, label))
    if not any(labels):
        raise InputError(f"{frames.path}: no structure has an energy or forces{_suggest_keys(frames, level)}")
    notes += _describe_incomplete_labels(frames, labels, user_keys)
    notes += _describe_unused_virials(frames, n_unused_virials)
    used_keys = [set(keys.values()) | (RESULT_ENERGIES if keys["energy"] in RESULT_ENERGIES else set())
                 for keys in label_keys]  # fmt: skip
    notes += describe_unused_keys(frames.path, frames.atoms, used_keys, level, user_keys)
    energy_keys = [keys["energy"] for keys in label_keys]
    energy_kind = None if "energy" in user_keys else determine_energy_kind(frames.atoms, energy_keys)
    return FileLabels(labels, notes, energy_kind)


def extract_prefixed_labels(
    frames: Frames, levels: Sequence[str], keys: UserKeys, seconds_key: UserKey
) -> tuple[dict[str, list[Label | None]], list[str]]:
    """Extract the labels of all levels from the info and arrays of the structures of one file.

    Parameters
    ----------
    frames : Frames
        Structures of the file; the labels are removed from them.
    levels : sequence of str
    keys : mapping of quantity to str, mapping of level to str, or None
        Keys of the energy, forces and stress; ``{level}`` is replaced by the name of the level. The default is
        ``{level}_energy`` and so on.
    seconds_key : str, mapping of level to str, or None
        Key of the cost of a label; by default ``{level}_seconds``.

    Returns
    -------
    labels : mapping of level to list of mapping or None
        Label of each structure; None if it has neither an energy nor forces.
    notes : list of str
        Messages about keys that were not used.

    Raises
    ------
    InputError
        If a key is invalid, a level has no labels, or a label is not numeric or has the wrong shape.
    """
    if not levels:
        raise InputError(f"{frames.path} is one file for all levels: specify the levels in order of cost")
    patterns = {**keys, "seconds": seconds_key}
    level_keys = {
        level: {
            q: _format_key(q, select_level_key(pattern, level) or f"{{level}}_{q}", level)
            for q, pattern in patterns.items()
        }
        for level in levels
    }
    _check_distinct(levels, level_keys)
    labels: dict[str, list[Label | None]] = {}
    notes: list[str] = []
    n_unused_virials: Counter[str] = Counter()
    for level in levels:
        labels[level] = []
        for k, atoms in enumerate(frames.atoms):
            values = {quantity: _get_value(atoms, key, remove=True) for quantity, key in level_keys[level].items()}
            n_unused_virials[level_keys[level]["stress"]] += _drop_unusable_virial(values, level_keys[level], atoms)
            labels[level].append(_parse_label(values, level_keys[level], atoms, frames.describe_frame(k)))
        if not any(labels[level]):
            raise InputError(
                f"{frames.path}: no structure has '{level_keys[level]['energy']}' or '{level_keys[level]['forces']}' "
                f"for level '{level}'{_suggest_keys(frames, level)}"
            )
        level_notes = _describe_incomplete_labels(frames, labels[level], patterns)
        level_notes += [
            f"{frames.path}: '{key}' was read as {conversion}"
            for q, key in level_keys[level].items()
            if (conversion := describe_conversion(q, key))
        ]
        notes += [f"level {level}: {text}" for text in level_notes]
    notes += _describe_unused_virials(frames, n_unused_virials)
    return labels, notes + describe_unused_keys(frames.path, frames.atoms, [set()] * len(frames.atoms))


def check_seconds_key(labels: Mapping[str, Sequence[Label | None]], seconds_key: UserKey) -> None:
    """Raise an error if no labelled structure has the requested key of the cost."""
    keys = seconds_key if isinstance(seconds_key, Mapping) else dict.fromkeys(labels, seconds_key)
    has_cost = {level: any(label.get("seconds") is not None for label in column if label)
                for level, column in labels.items()}  # fmt: skip
    for level, key in keys.items():
        is_missing = not has_cost[level] if isinstance(seconds_key, Mapping) else not any(has_cost.values())
        if key is not None and is_missing:
            raise InputError(f"no labelled structure has the cost key '{key}'; specify an existing key")


def _check_user_keys(frames: Frames, user_keys: Mapping[str, str], level: str) -> None:
    """Check that each key of the user is in the results, info or arrays of a structure."""
    keys = {*list_keys(frames.atoms), *(key for atoms in frames.atoms for key in get_results(atoms))}
    for quantity, key in user_keys.items():
        if key not in keys:
            hint = suggest_match(key, keys) + _suggest_keys(frames, level, [quantity])
            raise InputError(f"{frames.path}: no structure has the {quantity} key '{key}'{hint}")


def _drop_unusable_virial(values: dict[str, Any], keys: Mapping[str, str], atoms: Atoms) -> bool:
    """Drop a virial of a structure without a volume, in place, and return whether there is one."""
    is_unusable = values["stress"] is not None and is_virial(keys["stress"]) and not has_volume(atoms)
    if is_unusable:
        values["stress"] = None
    return is_unusable


def _describe_unused_virials(frames: Frames, counts: Mapping[str, int]) -> list[str]:
    reason = "they are not periodic in three directions and have no volume, so that a virial gives no stress"
    return [
        f"{frames.path}: '{key}' of {count} structures was not used: {reason}" for key, count in counts.items() if count
    ]


def _describe_incomplete_labels(
    frames: Frames, labels: Sequence[Label | None], user_keys: Mapping[str, UserKey]
) -> list[str]:
    notes = []
    for present, absent in (("energy", "forces"), ("forces", "energy")):
        count = sum(1 for label in labels if label and label.get(present) is not None and label.get(absent) is None)
        if count:
            is_chosen = user_keys.get(absent) is not None
            advice = f"; if they are under another key, add --{absent}-key"
            advice = "" if is_chosen or absent != "forces" else advice
            notes.append(f"{frames.path}: {count} of {len(labels)} structures have {present} but no {absent}{advice}")
    return notes


def _suggest_keys(frames: Frames, level: str, quantities: Sequence[str] = ("energy", "forces")) -> str:
    """Name options with keys of the file whose values have the shape of a label, or all keys if there are none."""
    options = [f"--{q}-key {level}={key}" for q in quantities for key in list_candidate_keys(frames.atoms, q)]
    keys = list_keys(frames.atoms) + sorted({key for atoms in frames.atoms for key in get_results(atoms)})
    return f"; choose with {' or '.join(options)}" if options else f"; its keys are {', '.join(keys)}"


def _get_value(atoms: Atoms, key: str, *, remove: bool) -> Any:
    """Return a value from the info or the results; with `remove`, search the arrays too, and delete the value."""
    for mapping in (atoms.info, atoms.arrays) if remove else (atoms.info,):
        if key in mapping:
            return mapping.pop(key) if remove else mapping[key]
    return get_results(atoms).get(key)


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


def select_level_key(pattern: UserKey, level: str) -> str | None:
    """Select the key of a level from a key for all levels, or from keys by level."""
    return pattern.get(level) if isinstance(pattern, Mapping) else pattern


def _format_key(quantity: str, pattern: str, level: str) -> str:
    try:
        return pattern.format(level=level)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        reason = "'{level}' is the only allowed placeholder"
        raise InputError(f"the {quantity} key '{pattern}' is invalid: {reason}") from error


def _check_distinct(levels: Sequence[str], keys: Mapping[str, Mapping[str, str]]) -> None:
    """Check that the keys of a quantity differ between levels."""
    if len(set(levels)) < len(levels):
        raise InputError(f"a level is repeated in {', '.join(levels)}; list each level once")
    for quantity, key in keys[levels[0]].items():
        if len({keys[level][quantity] for level in levels}) < len(levels):
            raise InputError(f"the {quantity} key '{key}' must contain '{{level}}', because there are several levels")


def _parse_label(
    values: Mapping[str, Any], keys: Mapping[str, str], atoms: Atoms, context: str
) -> dict[str, Any] | None:
    """Convert the values of a label to arrays; return None if there is neither an energy nor forces."""
    if values["energy"] is None and values["forces"] is None:
        return None
    shapes = {"energy": (), "forces": (len(atoms), 3), "seconds": ()}
    label: dict[str, Any] = {}
    for quantity, value in values.items():
        name = f"{context}: '{keys[quantity]}'"
        label[quantity] = None if value is None else as_float_array(value, name, shapes.get(quantity))
        if quantity == "stress" and value is not None:
            label[quantity] = _parse_stress(label[quantity].ravel(), name)
            if is_virial(keys[quantity]):
                label[quantity] = -label[quantity] / atoms.cell.volume
        elif quantity == "energy" and value is not None and is_per_atom(keys[quantity]):
            label[quantity] = label[quantity] * len(atoms)
        elif quantity == "forces" and value is not None and is_gradient(keys[quantity]):
            label[quantity] = -label[quantity]
    if len(atoms) == 1 and label["forces"] is None:
        label["forces"] = np.zeros((1, 3))  # by symmetry, also in a periodic cell
    seconds = label["seconds"]
    if seconds is not None and (seconds < 0 or np.isinf(seconds)):
        raise InputError(f"{context}: '{keys['seconds']}' must be a cost of at least 0 seconds; got {seconds}")
    return label


def _parse_stress(components: Array, name: str) -> Array:
    """Convert 6 or 9 components to ``(6,)`` in ASE's Voigt order."""
    if components.size not in (6, 9):
        raise InputError(f"{name} must be 6 numbers (xx, yy, zz, yz, xz, xy) or 9; got {components.size}")
    return components if components.size == 6 else components[VOIGT_INDICES]
