"""Extraction of labels from ASE structures: from their calculators, or from keys of their info and arrays.

Labels are never computed here. Invalid labels raise an error, and a note lists the keys that were used although the
user did not specify them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, suggest_match
from paretofit.dataset.checks import VOIGT_INDICES, as_float_array
from paretofit.dataset.io.label_keys import (
    QUANTITIES,
    choose_energy_result,
    choose_family,
    describe_unused_keys,
    determine_energy_kind,
    get_results,
    group_keys,
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
    label_keys, notes = _choose_keys(frames, user_keys, level)
    labels: list[Label | None] = []
    cost_key = select_level_key(seconds_key, level)
    seconds_keys = SECONDS_KEYS if cost_key is None else (_format_key("seconds", cost_key, level),)
    stored_keys = set(list_keys(frames.atoms))
    for k, atoms in enumerate(frames.atoms):
        frame_keys = {
            **label_keys,
            "seconds": next((key for key in seconds_keys if key in atoms.info), seconds_keys[0]),
        }
        values = {
            q: _get_value(atoms, key, remove=key in stored_keys and q in QUANTITIES) for q, key in frame_keys.items()
        }
        label = _parse_label(values, frame_keys, atoms, frames.describe_frame(k))
        labels.append(_restore_metadata(atoms, values, label))
    if not any(labels):
        raise InputError(f"{frames.path}: no structure has an energy or forces{_suggest_keys(frames, level)}")
    notes += _describe_incomplete_labels(frames, labels)
    notes += describe_unused_keys(frames.path, frames.atoms, {*label_keys.values(), "energy", "free_energy"}, level)
    energy_kind = None if "energy" in user_keys else determine_energy_kind(frames.atoms, label_keys["energy"])
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
    for level in levels:
        labels[level] = []
        for k, atoms in enumerate(frames.atoms):
            values = {quantity: _get_value(atoms, key, remove=True) for quantity, key in level_keys[level].items()}
            labels[level].append(_parse_label(values, level_keys[level], atoms, frames.describe_frame(k)))
        if not any(labels[level]):
            raise InputError(
                f"{frames.path}: no structure has '{level_keys[level]['energy']}' or '{level_keys[level]['forces']}' "
                f"for level '{level}'{_suggest_keys(frames, level)}"
            )
        notes += [f"level {level}: {text}" for text in _describe_incomplete_labels(frames, labels[level])]
    return labels, notes + describe_unused_keys(frames.path, frames.atoms, set())


def check_seconds_key(labels: Mapping[str, Sequence[Label | None]], seconds_key: UserKey) -> None:
    """Raise an error if no labelled structure has the requested key of the cost."""
    keys = seconds_key if isinstance(seconds_key, Mapping) else dict.fromkeys(labels, seconds_key)
    has_cost = {level: any(label.get("seconds") is not None for label in column if label)
                for level, column in labels.items()}  # fmt: skip
    for level, key in keys.items():
        is_missing = not has_cost[level] if isinstance(seconds_key, Mapping) else not any(has_cost.values())
        if key is not None and is_missing:
            raise InputError(f"no labelled structure has the cost key '{key}'; specify an existing key")


def _choose_keys(frames: Frames, user_keys: Mapping[str, str], level: str) -> tuple[dict[str, str], list[str]]:
    """Return the key of each quantity in the results, info or arrays, and notes on keys that the user omitted."""
    keys = list_keys(frames.atoms)
    results = {key for atoms in frames.atoms for key in get_results(atoms)}
    for quantity, key in user_keys.items():
        if key not in results.union(keys):
            hint = suggest_match(key, results.union(keys)) + _suggest_keys(frames, level, [quantity])
            raise InputError(f"{frames.path}: no structure has the {quantity} key '{key}'{hint}")
    family = choose_family(keys, results, user_keys)
    is_result = {q: not user_keys and ({q, "free_energy"} if q == "energy" else {q}) & results for q in QUANTITIES}
    implied_keys = {q: family[q] for q in QUANTITIES if q in family and q not in user_keys and not is_result[q]}
    notes = [f"{frames.path}: labels were taken from {', '.join(implied_keys.values())}"] if implied_keys else []
    label_keys = {quantity: quantity for quantity in QUANTITIES} | implied_keys | dict(user_keys)
    if label_keys["energy"] == "energy" and results & {"energy", "free_energy"}:
        label_keys["energy"], note = choose_energy_result(frames.atoms)
        if not label_keys["energy"]:
            raise InputError(f"{frames.path}: {note}; the two must not be mixed: choose one with --energy-key")
        notes += [f"{frames.path}: {note}"] if note else []
    other = next((family["energy"] for affix, family in group_keys(keys).items() if affix and "energy" in family), None)
    if is_result["energy"] and other:
        advice = f"to use '{other}', add --energy-key {level}={other}"
        notes.append(f"{frames.path} has '{other}' and 'energy'; 'energy' was used; {advice}")
    return label_keys, notes


def _describe_incomplete_labels(frames: Frames, labels: Sequence[Label | None]) -> list[str]:
    notes = []
    for present, absent in (("energy", "forces"), ("forces", "energy")):
        count = sum(1 for label in labels if label and label.get(present) is not None and label.get(absent) is None)
        if count:
            advice = f"; if they are under another key, add --{absent}-key" if absent == "forces" else ""
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
                has_volume = atoms.pbc.all() and atoms.cell.rank == 3
                label[quantity] = -label[quantity] / atoms.cell.volume if has_volume else None
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
