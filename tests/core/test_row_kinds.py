"""Kinds of rows: names as text or bytes, numbers, and messages for everything else."""

import numpy as np
import pytest

from paretofit.core import InputError, RowKind, parse_row_kinds


@pytest.mark.parametrize(
    "kinds",
    [
        ["energy", "Force", "STRESS"],
        [b"energy", b"force", b"stress"],
        [0, 1, 2],
        [RowKind.ENERGY, RowKind.FORCE, RowKind.STRESS],
        np.array(["energy", "force", "stress"], dtype=object),
        np.array([0, "force", b"stress"], dtype=object),
        np.array([0, np.int64(1), RowKind.STRESS], dtype=object),
    ],
)
def test_names_and_numbers_are_converted(kinds):
    numbers = parse_row_kinds(kinds, 3)
    assert numbers.dtype == np.int8
    assert numbers.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("kinds", "shown"),
    [
        (["energy", "Virial"], "'Virial'"),
        ([b"energy", b"\xff"], r"b'\\xff'"),
        ([0, 3], "3"),
        ([0.0, 0.5], "0.5"),
        (np.array([0, None], dtype=object), "None"),
        (np.array([0, 3], dtype=object), "3"),
    ],
)
def test_unknown_kinds_are_shown_as_they_were_written(kinds, shown):
    with pytest.raises(InputError, match=f"the kind of row 1 must be 'energy', .* got {shown}$"):
        parse_row_kinds(kinds, 2)


def test_each_row_has_one_kind():
    for kinds in (["energy"], [["energy", "force"]], "energy"):
        with pytest.raises(InputError, match="one entry for each of the 2 rows; got the shape"):
            parse_row_kinds(kinds, 2)
