"""Taking labels out of ASE structures: from their calculators, or from prefixed keys.

Nothing is computed, and nothing is guessed: what is there but is no label is refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from paretofit.dataset.checks import Array, real_numbers
from paretofit.dataset.writer import Label
from paretofit.errors import InputError

SECONDS_KEYS = ("seconds", "cpu_seconds", "wall_seconds")
VOIGT = [0, 4, 8, 5, 2, 1]  # xx, yy, zz, yz, xz, xy of a 3 x 3 tensor, row by row


def label_of(atoms: Atoms, shared: set[str], seconds_key: str | None, where: str) -> Label | None:
    """Labels that a structure's calculator holds; never start a calculation.

    Parameters
    ----------
    atoms : ase.Atoms
    shared : set of str
        Keys of ``atoms.info`` that belong to the configuration, not to the label.
    seconds_key : str or None
        The key of the label's cost; by default the first of `SECONDS_KEYS`.
    where : str
        File and structure, for the message.

    Returns
    -------
    mapping, or None where there is neither an energy nor forces.
    """
    calculator = atoms.calc
    results = dict(calculator.results) if isinstance(calculator, SinglePointCalculator) else {}
    energy_key = "free_energy" if results.get("free_energy") is not None else "energy"
    keys = SECONDS_KEYS if seconds_key is None else (seconds_key,)
    key = next((key for key in keys if key in atoms.info), keys[0])
    found = {
        "energy": results.get(energy_key),
        "forces": results.get("forces"),
        "stress": results.get("stress"),
        "seconds": atoms.info.get(key),
    }
    names = {"energy": energy_key, "forces": "forces", "stress": "stress", "seconds": key}
    label = _checked(found, names, len(atoms), where)
    if label is not None:
        label["info"] = {name: value for name, value in atoms.info.items() if name not in shared}
    return label


def prefixed_labels(
    path: Path,
    structures: Sequence[Atoms],
    levels: Sequence[str],
    keys: Mapping[str, str],
    seconds_key: str | None,
    where: Callable[[int], str],
) -> dict[str, list[Label | None]]:
    """Each level's labels from one file, taken out of the structures' info and arrays.

    Parameters
    ----------
    path : Path
    structures : sequence of ase.Atoms
        The labels are removed from them.
    levels : sequence of str
    keys : mapping of quantity to str
        With ``{level}`` for the level's name.
    seconds_key : str or None
        By default ``{level}_seconds``.
    where : callable
        File and structure of structure k, for messages.

    Raises
    ------
    InputError
        If a key cannot be used, or a level has no labels, or one is not numbers of the right shape.
    """
    if not levels:
        raise InputError(f"{path} is one file for all levels: name the levels, in order of cost")
    patterns = {**keys, "seconds": seconds_key or "{level}_seconds"}
    names = {level: {q: _key(q, pattern, level) for q, pattern in patterns.items()} for level in levels}
    _check_distinct(levels, names, patterns)
    labels: dict[str, list[Label | None]] = {}
    for level in levels:
        labels[level] = [_prefixed(atoms, names[level], where(k)) for k, atoms in enumerate(structures)]
        if not any(labels[level]):
            raise InputError(
                f"{path}: no structure has '{names[level]['energy']}' or '{names[level]['forces']}' for level "
                f"'{level}'; the keys of the first structure are "
                f"{', '.join([*structures[0].info, *structures[0].arrays])}"
            )
    return labels


def check_costs(labels: Mapping[str, Sequence[Label | None]], seconds_key: str | None) -> None:
    """Refuse a key of the cost that was named but that no structure has."""
    found = any(one.get("seconds") is not None for column in labels.values() for one in column if one)
    if seconds_key is not None and not found:
        raise InputError(f"no labelled structure has the key '{seconds_key}' of the cost; name one that is there")


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


def _prefixed(atoms: Atoms, names: Mapping[str, str], where: str) -> Label | None:
    found = {
        quantity: (atoms.arrays if quantity == "forces" else atoms.info).pop(name, None)
        for quantity, name in names.items()
    }
    return _checked(found, names, len(atoms), where)


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
            label[quantity] = real_numbers(value, what, shapes[quantity])
    seconds = label["seconds"]
    if seconds is not None and (seconds < 0 or np.isinf(seconds)):
        raise InputError(f"{where}: '{names['seconds']}' must be a cost in seconds, at least 0; got {seconds}")
    return label


def _voigt(value: Any, what: str) -> Array:
    """Six components in ASE's Voigt order from six or nine."""
    given = real_numbers(value, what).ravel()
    if given.size not in (6, 9):
        raise InputError(f"{what} must be 6 numbers (xx, yy, zz, yz, xz, xy) or 9; got {given.size}")
    return given if given.size == 6 else given[VOIGT]
