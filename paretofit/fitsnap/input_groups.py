"""Groups of configurations in FitSNAP's input files: sizes of the training and testing parts, and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from paretofit.core import InputError, read_text
from paretofit.fitsnap.ini import GROUP_OPTIONS, IniFile, parse_number, suggest_match_ignoring_case

Item = TypeVar("Item")

SIZES = ("size", "training_size", "testing_size")
WEIGHTS = ("eweight", "fweight", "vweight")


@dataclass(frozen=True)
class Group:
    """A group of configurations, the sizes of its parts, and the weights of its rows.

    A float size is a fraction of the group, from 0 to 1; an int size is a number of configurations. If `testing_size`
    is None, the testing part contains all configurations that are not in the training part (as with a fraction in
    FitSNAP's column ``size``). Rows are multiplied by weights, so that the loss contains squared weights; stress rows
    are in bar.
    """

    name: str
    training_size: float | int
    testing_size: float | int | None
    energy_weight: float
    force_weight: float
    stress_weight: float


@dataclass(frozen=True)
class GroupSplit(Generic[Item]):
    """Training and testing parts of a group, and a note if configurations are unused or missing, or an empty string."""

    training: list[Item]
    testing: list[Item]
    note: str


def read_groups(ini: IniFile) -> tuple[Group, ...]:
    """Read the groups of an input from the section [GROUPS] or, if it is specified, from ``groupFile``.

    Raises
    ------
    InputError
        If there are no groups, or a line is invalid.
    """
    names, kinds = _read_columns(ini)
    lines = _read_group_file(ini) if "groupFile" in ini.keys("PATH") else _read_group_section(ini)
    if not lines:
        raise InputError(
            f"{ini.path}: [GROUPS] has no groups; add a line for each, such as 'Liquid = 1.0 0.0 100 1 1e-8' with "
            f"values for {' '.join(names[1:])}"
        )
    return tuple(_parse_group(source, name, values, names[1:], kinds[1:]) for source, name, values in lines)


def _read_columns(ini: IniFile) -> tuple[list[str], list[str]]:
    """Read and check the names and types of the columns of GROUPS; the first column has the names of the groups."""
    names = ini.get_text("GROUPS", "group_sections", "name size eweight fweight vweight").split()
    kinds = ini.get_text("GROUPS", "group_types", "str float float float float").split()
    if names[0] != "name":
        raise ini.build_error("GROUPS", "group_sections", "must begin with 'name'")
    for column in names[1:]:
        if names.count(column) > 1:
            raise ini.build_error("GROUPS", "group_sections", f"has the column '{column}' twice")
        if column not in SIZES + WEIGHTS:
            hint = suggest_match_ignoring_case(column, SIZES + WEIGHTS)
            raise ini.build_error("GROUPS", "group_sections", f"has the unknown column '{column}'{hint}")
    if ("size" in names) == ("training_size" in names):
        raise ini.build_error("GROUPS", "group_sections", "must have either the column 'training_size' or 'size'")
    if len(kinds) != len(names):
        raise ini.build_error(
            "GROUPS", "group_types", f"must have {len(names)} types, one for each column; got {len(kinds)}"
        )
    if kinds[0] != "str" or not set(kinds[1:]) <= {"int", "float"}:
        raise ini.build_error("GROUPS", "group_types", "must be str for the name and float or int for the others")
    return names, kinds


def _read_group_section(ini: IniFile) -> list[tuple[str, str, list[str]]]:
    """Return ``(location, name, values)`` of each group in [GROUPS]; messages contain the location."""
    names = [key for key in ini.keys("GROUPS") if key not in GROUP_OPTIONS]
    return [(f"{ini.path}: [GROUPS] {name}", name, ini.get_text("GROUPS", name, "").split()) for name in names]


def _read_group_file(ini: IniFile) -> list[tuple[str, str, list[str]]]:
    path = ini.path.parent / ini.get_text("PATH", "groupFile", "")
    try:
        text = read_text(path, "file of groups")
    except InputError as error:
        raise InputError(f"{ini.path}: [PATH] groupFile: {error}") from error
    rows = [(k, line.partition("#")[0].split()) for k, line in enumerate(text.splitlines(), start=1)]
    return [(f"{path}, line {k}: {fields[0]}", fields[0], fields[1:]) for k, fields in rows if fields]


def _parse_group(source: str, name: str, values: Sequence[str], columns: Sequence[str], kinds: Sequence[str]) -> Group:
    if len(values) != len(columns):
        hint = suggest_match_ignoring_case(name, GROUP_OPTIONS)  # a mistyped option looks like a group
        raise InputError(
            f"{source} has {len(values)} values, but group_sections has {len(columns)}: {' '.join(columns)}{hint}"
        )
    row = dict(zip(columns, zip(values, kinds, strict=True), strict=True))
    weights = [_parse_weight(source, column, *row.get(column, ("1", "float"))) for column in WEIGHTS]
    training_size = _parse_size(source, "size" if "size" in row else "training_size", row)
    testing_size = _parse_size(source, "testing_size", row) if "testing_size" in row else 0
    has_complement = "size" in row and isinstance(training_size, float) and testing_size == 0
    return Group(name, training_size, None if has_complement else testing_size, *weights)


def _parse_size(source: str, column: str, row: Mapping[str, tuple[str, str]]) -> float | int:
    """Parse a size by FitSNAP's rule: floats up to 1 are fractions, other values are numbers of configurations."""
    text, kind = row[column]
    if kind == "int":
        count = parse_number(int, text)
        if count is not None and count >= 0:
            return count
        raise InputError(f"{source}: {column} is declared int and must be a number of configurations; got '{text}'")
    value = parse_number(float, text)
    if value is None or value < 0 or (value > 1 and not value.is_integer()):
        raise InputError(
            f"{source}: {column} must be a fraction from 0 to 1 or a whole number of configurations; got '{text}'"
        )
    return value if value <= 1 else int(value)


def _parse_weight(source: str, column: str, text: str, kind: str) -> float:
    value: float | None = parse_number(int, text) if kind == "int" else parse_number(float, text)
    if value is None or value < 0:
        expected_type = "whole number (group_types declares int)" if kind == "int" else "number"
        raise InputError(f"{source}: {column} must be a {expected_type} of at least 0; got '{text}'")
    return float(value)


def _count_configurations(size: float, n: int) -> int:
    if isinstance(size, int):
        return size
    return max(1, int(size * n + 0.5)) if 0 < size < 1 else int(size) * n


def split_group(items: Sequence[Item], group: Group, rng: np.random.Generator | None = None) -> GroupSplit[Item]:
    """Split the files or configurations of a group into a training and a testing part, as FitSNAP does.

    A fraction f of n configurations means max(1, ⌊f n + 1/2⌋) configurations, or none if f is 0. The testing part
    follows the training part; both end at n if they are too large. Remaining configurations are in neither part.

    Parameters
    ----------
    items : sequence
        Files (JSON) or configurations (XYZ) of the group.
    group : Group
    rng : numpy.random.Generator, optional
        Generator to shuffle the items before the split, for an input with ``random_sampling = 1``.

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
    middle, end = min(n_training, n), min(n_training + max(n_testing, 0), n)
    note = ""
    if n_training + n_testing > n:
        note = (
            f"group '{group.name}': {n_training} training and {n_testing} testing configurations exceed the {n} of the "
            f"group; used: {middle} and {end - middle}"
        )
    elif end < n:
        note = f"group '{group.name}': {n - end} of {n} configurations are in neither part"
    return GroupSplit([items[k] for k in order[:middle]], [items[k] for k in order[middle:end]], note)
