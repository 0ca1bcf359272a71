"""Extraction of labels from ASE structures: from their calculators, or from keys of their info and arrays.

Labels are never computed here. Invalid labels raise an error, and a note lists the keys that were used although the
user did not specify them.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, list_first, suggest_match
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

SECONDS_KEYS = ("seconds", "cpu_seconds", "wall_seconds")  # info keys of the cost of a label, in order of preference
# Info keys under which `paretofit export` writes metadata.
CONFIG_INFO_KEY, LABEL_INFO_KEY, LABEL_STATUS_KEY = "config_info", "label_info", "label_status"
RESULT_ENERGIES = {"energy", "free_energy"}  # if one of these is read, the other one is not reported as unused

UserKey = str | Mapping[str, str] | None
"""Key that the user chose for a quantity: for all levels or by level, with ``{level}`` for the name of the level."""
UserKeys = Mapping[str, UserKey]
"""The user's key of each quantity."""


def extract_file_labels(
    frames: Frames, level: str, keys: UserKeys, seconds_key: UserKey
) -> tuple[list[Label | None], list[str], str | None]:
    """Extract the labels of one level from the structures of its file.

    Parameters
    ----------
    frames : Frames
        Structures of the file, modified in place: energies, forces, stresses and the metadata that `paretofit export`
        wrote are removed from their info and arrays; costs and results of calculators remain.
    level : str
    keys : mapping of quantity to UserKey
        Keys of the energy, forces and stress. If a key is None, the results of the calculators are used, or else keys
        such as ``REF_energy``. Virials (eV) become stresses.
    seconds_key : UserKey
        Key of the cost of a label (s); by default the first of `SECONDS_KEYS` that a structure has.

    Returns
    -------
    labels : list of mapping or None
        Label of each structure; None if it has neither an energy nor forces nor a status.
    notes : list of str
        Messages about keys that were used although the user did not specify them, about unused keys and virials, and
        about incomplete labels.
    energy_kind : str or None
        See `determine_energy_kind`; None if the user chose the key.

    Raises
    ------
    InputError
        If there are no labels, a key is unknown, a label is not numeric or has the wrong shape, a cost is negative, or
        some structures have only free energies and others only energies.
    """
    patterns = {quantity: select_level_key(pattern, level) for quantity, pattern in keys.items()}
    user_keys = {
        quantity: _format_key(quantity, pattern, level) for quantity, pattern in patterns.items() if pattern is not None
    }
    _check_user_keys(frames, user_keys, level)
    label_keys, notes = choose_frame_keys(frames.path, frames.atoms, user_keys, level)
    seconds_pattern = select_level_key(seconds_key, level)
    seconds_keys = SECONDS_KEYS if seconds_pattern is None else (_format_key("seconds", seconds_pattern, level),)
    frame_keys = []
    for atoms, keys_of_label in zip(frames.atoms, label_keys, strict=True):
        cost_key = next((key for key in seconds_keys if key in atoms.info), seconds_keys[0])
        frame_keys.append({**keys_of_label, "seconds": cost_key})
    labels, n_unused_virials = _extract_labels(frames, frame_keys, QUANTITIES)
    labels = [
        _restore_metadata(atoms, keys_of_frame["seconds"], label)
        for atoms, keys_of_frame, label in zip(frames.atoms, frame_keys, labels, strict=True)
    ]
    if not any(labels):
        raise InputError(f"{frames.path}: no structure has an energy or forces{_suggest_keys(frames, level)}")
    notes += _describe_incomplete_labels(frames, labels, user_keys)
    notes += _describe_unused_virials(frames, n_unused_virials)
    energy_keys = [keys_of_label["energy"] for keys_of_label in label_keys]
    used_keys = [
        {*keys_of_label.values(), *(RESULT_ENERGIES if energy_key in RESULT_ENERGIES else ())}
        for keys_of_label, energy_key in zip(label_keys, energy_keys, strict=True)
    ]
    notes += describe_unused_keys(frames.path, frames.atoms, used_keys, level, user_keys)
    energy_kind = None if "energy" in user_keys else determine_energy_kind(frames.atoms, energy_keys)
    return labels, notes, energy_kind


def extract_prefixed_labels(
    frames: Frames, levels: Sequence[str], keys: UserKeys, seconds_key: UserKey
) -> tuple[dict[str, list[Label | None]], list[str]]:
    """Extract the labels of all levels from the info and arrays of the structures of one file.

    Parameters
    ----------
    frames : Frames
        Structures of the file, modified in place: the labels are removed from their info and arrays.
    levels : sequence of str
    keys : mapping of quantity to UserKey
        Keys of the energy, forces and stress; by default ``{level}_energy`` and so on.
    seconds_key : UserKey
        Key of the cost of a label (s); by default ``{level}_seconds``.

    Returns
    -------
    labels : mapping of level to list of mapping or None
        Label of each structure; None if it has neither an energy nor forces.
    notes : list of str
        Messages about unused keys and virials, incomplete labels and conversions.

    Raises
    ------
    InputError
        If there are no levels or a level is repeated, a key is invalid or the same for several levels, a level has no
        labels, a label is not numeric or has the wrong shape, or a cost is negative.
    """
    if not levels:
        raise InputError(f"{frames.path} is one file for all levels: specify the levels in order of cost")
    patterns = {**keys, "seconds": seconds_key}
    level_keys = {
        level: {
            quantity: _format_key(quantity, select_level_key(pattern, level) or f"{{level}}_{quantity}", level)
            for quantity, pattern in patterns.items()
        }
        for level in levels
    }
    _check_distinct_keys(levels, level_keys)
    labels: dict[str, list[Label | None]] = {}
    notes: list[str] = []
    n_unused_virials: Counter[str] = Counter()
    for level in levels:
        labels[level], counts = _extract_labels(frames, [level_keys[level]] * len(frames.atoms), patterns)
        n_unused_virials += counts
        if not any(labels[level]):
            raise InputError(
                f"{frames.path}: no structure has '{level_keys[level]['energy']}' or '{level_keys[level]['forces']}' "
                f"for level '{level}'{_suggest_keys(frames, level)}"
            )
        level_notes = _describe_incomplete_labels(frames, labels[level], patterns)
        level_notes += [
            f"{frames.path}: '{key}' was read as {conversion}"
            for quantity, key in level_keys[level].items()
            if (conversion := describe_conversion(quantity, key))
        ]
        notes += [f"level {level}: {text}" for text in level_notes]
    notes += _describe_unused_virials(frames, n_unused_virials)
    return labels, notes + describe_unused_keys(frames.path, frames.atoms, [set()] * len(frames.atoms))


def check_seconds_key(labels: Mapping[str, Sequence[Label | None]], seconds_key: UserKey) -> None:
    """Check that labelled structures have a cost under the key that the user chose.

    Parameters
    ----------
    labels : mapping of level to sequence of mapping or None
    seconds_key : UserKey
        A key for all levels must exist at one level at least; a key of a level must exist at this level. With None,
        nothing is checked.

    Raises
    ------
    InputError
        If no labelled structure has the key.
    """
    keys = seconds_key if isinstance(seconds_key, Mapping) else dict.fromkeys(labels, seconds_key)
    has_cost = {level: any(label.get("seconds") is not None for label in level_labels if label)
                for level, level_labels in labels.items()}  # fmt: skip
    for level, key in keys.items():
        is_missing = not has_cost[level] if isinstance(seconds_key, Mapping) else not any(has_cost.values())
        if key is not None and is_missing:
            raise InputError(f"no labelled structure has the cost key '{key}'; specify an existing key")


def _check_user_keys(frames: Frames, user_keys: Mapping[str, str], level: str) -> None:
    """Check that each key that the user chose is in the results, info or arrays of at least one structure."""
    keys = {*list_keys(frames.atoms), *(key for atoms in frames.atoms for key in get_results(atoms))}
    for quantity, key in user_keys.items():
        if key not in keys:
            hint = suggest_match(key, keys) + _suggest_keys(frames, level, [quantity])
            raise InputError(f"{frames.path}: no structure has the {quantity} key '{key}'{hint}")


def _extract_labels(
    frames: Frames, keys: Sequence[Mapping[str, str]], removed_quantities: Collection[str]
) -> tuple[list[Label | None], Counter[str]]:
    """Extract the label of each structure, and remove the quantities in `removed_quantities` from its info and arrays.

    Return the labels and, for each key of virials, the number of structures without a volume, whose virial is not used.
    """
    labels: list[Label | None] = []
    n_unused_virials: Counter[str] = Counter()
    for k, (atoms, frame_keys) in enumerate(zip(frames.atoms, keys, strict=True)):
        values = {
            quantity: _get_value(atoms, key, remove=quantity in removed_quantities)
            for quantity, key in frame_keys.items()
        }
        if values["stress"] is not None and is_virial(frame_keys["stress"]) and not has_volume(atoms):
            values["stress"] = None
            n_unused_virials[frame_keys["stress"]] += 1
        labels.append(_parse_label(values, frame_keys, atoms, frames.describe_frame(k)))
    return labels, n_unused_virials


def _describe_unused_virials(frames: Frames, counts: Mapping[str, int]) -> list[str]:
    """Return a note for each key whose virials were not used, with the number of structures from `counts`."""
    reason = "they are not periodic in three directions and have no volume, so that a virial gives no stress"
    return [
        f"{frames.path}: '{key}' of {count} structures was not used: {reason}" for key, count in counts.items() if count
    ]


def _describe_incomplete_labels(
    frames: Frames, labels: Sequence[Label | None], user_keys: Mapping[str, UserKey]
) -> list[str]:
    """Return notes on labels with an energy but no forces, with forces but no energy, and with values not finite."""
    notes = []
    for quantity, partner in (("energy", "forces"), ("forces", "energy")):
        count = sum(1 for label in labels if label and label.get(quantity) is not None and label.get(partner) is None)
        if count:
            needs_key = partner == "forces" and user_keys.get(partner) is None
            advice = "; if they are under another key, add --forces-key" if needs_key else ""
            notes.append(f"{frames.path}: {count} of {len(labels)} structures have {quantity} but no {partner}{advice}")
    for quantity, noun in (("energy", "the energy"), ("forces", "a force"), ("stress", "a stress component")):
        names = [
            frames.describe_frame(k).removeprefix(f"{frames.path}: ")
            for k, label in enumerate(labels)
            if label and label.get(quantity) is not None and not np.isfinite(label[quantity]).all()
        ]
        if names:
            loss = "the stress is not used" if quantity == "stress" else "such a label counts as missing"
            notes.append(f"{frames.path}: {noun} is NaN or infinite in {list_first(names)}; {loss}: correct the file")
    return notes


def _suggest_keys(frames: Frames, level: str, quantities: Sequence[str] = ("energy", "forces")) -> str:
    """Return advice for the end of an error message.

    The advice lists, for each quantity, the keys whose values have its shape, as options of `paretofit import`. If
    there are no such keys, the advice lists all keys.
    """
    examples = []
    for quantity in quantities:
        options = [f"--{quantity}-key {level}={key}" for key in list_candidate_keys(frames.atoms, quantity)]
        if options:
            examples.append(f"with {' or '.join(options)} for the {quantity}")
    if examples:
        return f"; specify the key, for example {' and '.join(examples)}"
    keys = list_keys(frames.atoms) + sorted({key for atoms in frames.atoms for key in get_results(atoms)})
    return f"; the keys in the file are {', '.join(keys) or 'none'}"


def _get_value(atoms: Atoms, key: str, *, remove: bool) -> Any:
    """Return a value from the info or the results, or None; with `remove`, search the arrays too, and delete the value.

    Results are not deleted.
    """
    # The only values that are not removed are costs, which are never in the arrays.
    for mapping in (atoms.info, atoms.arrays) if remove else (atoms.info,):
        if key in mapping:
            return mapping.pop(key) if remove else mapping[key]
    return get_results(atoms).get(key)


def _restore_metadata(atoms: Atoms, seconds_key: str, label: Label | None) -> Label | None:
    """Restore the metadata that `paretofit export` stored in the info of a structure, and remove them from there.

    The metadata of the label move to the label, and the entries of ``config_info`` become info again. Return
    the label with its metadata; None if there is neither a label nor a status, such as ``failed``.
    """
    info, status = atoms.info.pop(LABEL_INFO_KEY, None), atoms.info.pop(LABEL_STATUS_KEY, None)
    config_info = atoms.info.pop(CONFIG_INFO_KEY, None)
    atoms.info.update(config_info if isinstance(config_info, Mapping) else {})
    if label is None and status is None:
        return None
    metadata: dict[str, Any] = {"info": dict(info) if isinstance(info, Mapping) else {}}
    metadata |= {} if status is None else {"status": str(status)}
    return {"seconds": atoms.info.get(seconds_key), **(label or {}), **metadata}


def select_level_key(pattern: UserKey, level: str) -> str | None:
    """Return the user's key of a quantity at one level, or None if the user chose none for this level."""
    return pattern.get(level) if isinstance(pattern, Mapping) else pattern


def _format_key(quantity: str, pattern: str, level: str) -> str:
    """Replace ``{level}`` in a key by the name of the level; raise `InputError` for any other placeholder."""
    try:
        return pattern.format(level=level)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        reason = "'{level}' is the only allowed placeholder"
        raise InputError(f"the {quantity} key '{pattern}' is invalid: {reason}") from error


def _check_distinct_keys(levels: Sequence[str], keys: Mapping[str, Mapping[str, str]]) -> None:
    """Check that no level is repeated, and that the keys of each quantity differ between levels."""
    if len(set(levels)) < len(levels):
        raise InputError(f"a level is repeated in {', '.join(levels)}; list each level once")
    for quantity, key in keys[levels[0]].items():
        if len({keys[level][quantity] for level in levels}) < len(levels):
            raise InputError(f"the {quantity} key '{key}' must contain '{{level}}', because there are several levels")


def _parse_label(
    values: Mapping[str, Any], keys: Mapping[str, str], atoms: Atoms, context: str
) -> dict[str, Any] | None:
    """Convert the values of a label to arrays in ASE's units and signs.

    Return None if the label has neither an energy nor forces. Missing quantities are None, but missing forces on a
    single atom are zero. Raise `InputError` if a value has the wrong shape, or the cost is negative or infinite.
    """
    if values["energy"] is None and values["forces"] is None:
        return None
    shapes = {"energy": (), "forces": (len(atoms), 3), "seconds": ()}
    label: dict[str, Any] = dict.fromkeys(values)
    for quantity, value in values.items():
        if value is not None:
            label[quantity] = as_float_array(value, f"{context}: '{keys[quantity]}'", shapes.get(quantity))
    if label["energy"] is not None and is_per_atom(keys["energy"]):
        label["energy"] = label["energy"] * len(atoms)
    if label["forces"] is not None and is_gradient(keys["forces"]):
        label["forces"] = -label["forces"]
    if label["stress"] is not None:
        components = _select_voigt_components(label["stress"].ravel(), f"{context}: '{keys['stress']}'")
        label["stress"] = -components / atoms.cell.volume if is_virial(keys["stress"]) else components
    if len(atoms) == 1 and label["forces"] is None:
        label["forces"] = np.zeros((1, 3))  # zero by symmetry, also in a periodic cell
    seconds = label["seconds"]
    if seconds is not None and (seconds < 0 or np.isinf(seconds)):
        raise InputError(f"{context}: '{keys['seconds']}' must be a cost of at least 0 seconds; got {seconds}")
    return label


def _select_voigt_components(components: Array, name: str) -> Array:
    """Return six components unchanged, or ASE's Voigt order of nine; raise `InputError` for any other number."""
    if components.size not in (6, 9):
        raise InputError(f"{name} must be 6 numbers (xx, yy, zz, yz, xz, xy) or 9; got {components.size}")
    return components if components.size == 6 else components[VOIGT_INDICES]
