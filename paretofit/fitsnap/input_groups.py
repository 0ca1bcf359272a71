"""Groups of configurations in FitSNAP's input files: their weights, and their split into training and testing parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from paretofit.core import InputError, read_text
from paretofit.fitsnap.ini import GROUP_OPTIONS, IniFile, parse_number, suggest_match_ignoring_case

Item = TypeVar("Item")

SIZE_COLUMNS = ("size", "training_size", "testing_size")
WEIGHT_COLUMNS = ("eweight", "fweight", "vweight")


@dataclass(frozen=True)
class Group:
    """A group of configurations, the sizes of its parts, and the weights of its rows.

    A float size is a fraction of the group, from 0 to 1; an int size is a number of configurations. If `testing_size`
    is None, the testing part contains all configurations that are not in the training part; this is the meaning of a
    fraction in FitSNAP's column ``size``. A row is multiplied by its weight, so that the loss contains squared weights.
    The weights are for rows in eV/atom, eV/Å and bar.
    """

    name: str
    training_size: float | int
    testing_size: float | int | None
    energy_weight: float
    force_weight: float
    stress_weight: float


@dataclass(frozen=True)
class GroupSplit(Generic[Item]):
    """Training and testing part of a group.

    The note says whether configurations are unused, or fewer than requested; otherwise, it is an empty string.
    """

    training: list[Item]
    testing: list[Item]
    note: str


def read_groups(ini: IniFile) -> tuple[Group, ...]:
    """Read the groups of an input from the file ``groupFile`` in [PATH] or, without this key, from [GROUPS].

    Raises
    ------
    InputError
        If a column is unknown, there are no groups, or the line of a group is invalid.
    """
    names, types = _read_columns(ini)
    groups = _read_group_file(ini) if "groupFile" in ini.list_keys("PATH") else _read_group_section(ini)
    if not groups:
        raise InputError(
            f"{ini.path}: [GROUPS] has no groups; add a line for each, such as 'Liquid = 1.0 0.0 100 1 1e-8' with "
            f"values for {' '.join(names[1:])}"
        )
    return tuple(_parse_group(location, name, words, names[1:], types[1:]) for location, name, words in groups)


def _read_columns(ini: IniFile) -> tuple[list[str], list[str]]:
    """Read the names and types of the columns of GROUPS, of which the first is ``name``.

    If a name or type is invalid, or there are not as many types as names, an `InputError` is raised.
    """
    names = ini.get_text("GROUPS", "group_sections", "name size eweight fweight vweight").split()
    types = ini.get_text("GROUPS", "group_types", "str float float float float").split()
    if names[0] != "name":
        raise ini.build_error("GROUPS", "group_sections", "must begin with 'name'")
    for column in names[1:]:
        if names.count(column) > 1:
            raise ini.build_error("GROUPS", "group_sections", f"has the column '{column}' twice")
        if column not in SIZE_COLUMNS + WEIGHT_COLUMNS:
            hint = suggest_match_ignoring_case(column, SIZE_COLUMNS + WEIGHT_COLUMNS)
            raise ini.build_error("GROUPS", "group_sections", f"has the unknown column '{column}'{hint}")
    if ("size" in names) == ("training_size" in names):
        raise ini.build_error("GROUPS", "group_sections", "must have either the column 'training_size' or 'size'")
    if len(types) != len(names):
        raise ini.build_error(
            "GROUPS", "group_types", f"must have {len(names)} types, one for each column; got {len(types)}"
        )
    if types[0] != "str" or not set(types[1:]) <= {"int", "float"}:
        raise ini.build_error("GROUPS", "group_types", "must be str for the name and float or int for the others")
    return names, types


def _read_group_section(ini: IniFile) -> list[tuple[str, str, list[str]]]:
    """Return ``(location, name, words)`` of each group in [GROUPS]; error messages begin with the location."""
    names = [key for key in ini.list_keys("GROUPS") if key not in GROUP_OPTIONS]
    return [(f"{ini.path}: [GROUPS] {name}", name, ini.get_text("GROUPS", name, "").split()) for name in names]


def _read_group_file(ini: IniFile) -> list[tuple[str, str, list[str]]]:
    """Return ``(location, name, words)`` of each group in ``groupFile``, whose comments begin with ``#``.

    If the file cannot be read, an `InputError` is raised.
    """
    path = ini.path.parent / ini.get_text("PATH", "groupFile", "")
    try:
        text = read_text(path, "file of groups")
    except InputError as error:
        raise InputError(f"{ini.path}: [PATH] groupFile: {error}") from error
    numbered_lines = [(k, line.partition("#")[0].split()) for k, line in enumerate(text.splitlines(), start=1)]
    return [(f"{path}, line {k}: {words[0]}", words[0], words[1:]) for k, words in numbered_lines if words]


def _parse_group(location: str, name: str, words: Sequence[str], columns: Sequence[str], types: Sequence[str]) -> Group:
    """Parse the words of a group, one for each column; missing weights are 1, and a missing testing size is 0.

    If the number of words, a size or a weight is invalid, an `InputError` is raised that begins with `location`.
    """
    if len(words) != len(columns):
        hint = suggest_match_ignoring_case(name, GROUP_OPTIONS)  # a mistyped option looks like a group
        raise InputError(
            f"{location} has {len(words)} values, but group_sections has {len(columns)}: {' '.join(columns)}{hint}"
        )
    entries = dict(zip(columns, zip(words, types, strict=True), strict=True))
    weights = [_parse_weight(location, column, *entries.get(column, ("1", "float"))) for column in WEIGHT_COLUMNS]
    size_column = "size" if "size" in entries else "training_size"
    training_size = _parse_size(location, size_column, *entries[size_column])
    testing_size = _parse_size(location, "testing_size", *entries.get("testing_size", ("0", "int")))
    is_complement = "size" in entries and isinstance(training_size, float) and testing_size == 0
    return Group(name, training_size, None if is_complement else testing_size, *weights)


def _parse_size(location: str, column: str, text: str, type_name: str) -> float | int:
    """Parse a size by FitSNAP's rule: a float up to 1 is a fraction; an int or a larger float is a number.

    If the size is negative or not such a number, an `InputError` is raised.
    """
    if type_name == "int":
        count = parse_number(int, text)
        if count is not None and count >= 0:
            return count
        raise InputError(f"{location}: {column} is declared int and must be a number of configurations; got '{text}'")
    size = parse_number(float, text)
    if size is None or size < 0 or (size > 1 and not size.is_integer()):
        raise InputError(
            f"{location}: {column} must be a fraction from 0 to 1 or a whole number of configurations; got '{text}'"
        )
    return size if size <= 1 else int(size)


def _parse_weight(location: str, column: str, text: str, type_name: str) -> float:
    """Parse a weight; raise `InputError` unless it is at least 0 and, if it is declared int, a whole number."""
    weight: float | None = parse_number(int, text) if type_name == "int" else parse_number(float, text)
    if weight is None or weight < 0:
        expected_type = "whole number (group_types declares int)" if type_name == "int" else "number"
        raise InputError(f"{location}: {column} must be a {expected_type} of at least 0; got '{text}'")
    return float(weight)


def _count_configurations(size: float, n: int) -> int:
    """Convert a size to a number of configurations; an int is such a number already, which may exceed `n`."""
    if isinstance(size, int):
        return size
    return max(1, int(size * n + 0.5)) if 0 < size < 1 else int(size) * n  # 0.0: none; 1.0: all


def split_group(items: Sequence[Item], group: Group, rng: np.random.Generator | None = None) -> GroupSplit[Item]:
    """Split the files or configurations of a group into a training and a testing part, as FitSNAP does.

    A fraction f of n configurations means max(1, ⌊f n + 1/2⌋) configurations, or none if f is 0. The training part
    contains the first configurations, and the testing part those that follow. If the group has too few configurations,
    the testing part is shortened first. Any further configurations are in neither part.

    Parameters
    ----------
    items : sequence
        Files (JSON) or configurations (XYZ) of the group.
    group : Group
    rng : numpy.random.Generator, optional
        Generator that shuffles the items before the split, for an input with ``random_sampling = 1``; without it, the
        order is kept.

    Returns
    -------
    GroupSplit

    Examples
    --------
    >>> split = split_group(range(5), Group("Liquid", 0.5, 0.2, 100.0, 1.0, 1e-8))
    >>> split.training, split.testing, split.note
    ([0, 1, 2], [3], "group 'Liquid': 1 of 5 configurations are in neither part")
    """
    n = len(items)
    n_training = _count_configurations(group.training_size, n)
    n_testing = n - n_training if group.testing_size is None else _count_configurations(group.testing_size, n)
    order = range(n) if rng is None else rng.permutation(n)
    # n_testing is negative for a complement of more training configurations than the group has
    training_end, testing_end = min(n_training, n), min(n_training + max(n_testing, 0), n)
    note = ""
    if n_training + n_testing > n:
        note = (
            f"group '{group.name}': {n_training} training and {n_testing} testing configurations exceed the {n} of the "
            f"group; used: {training_end} and {testing_end - training_end}"
        )
    elif testing_end < n:
        note = f"group '{group.name}': {n - testing_end} of {n} configurations are in neither part"
    training_items = [items[k] for k in order[:training_end]]
    return GroupSplit(training_items, [items[k] for k in order[training_end:testing_end]], note)
