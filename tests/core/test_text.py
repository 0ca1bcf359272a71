import pandas as pd
import pytest

from paretofit.core import InputError, check_choice, get_natural_sort_key, list_first, write_csv


def test_csv_has_the_digits_requested_and_unix_line_ends(tmp_path):
    table = pd.DataFrame({"name": ["a", "b"], "value": [1 / 3, float("nan")]})
    write_csv(table, tmp_path / "new" / "table.csv", digits=4)
    assert (tmp_path / "new" / "table.csv").read_bytes() == b"name,value\na,0.3333\nb,\n"
    write_csv(table, tmp_path / "exact.csv", digits=None)
    assert pd.read_csv(tmp_path / "exact.csv", float_precision="round_trip")["value"][0] == 1 / 3
    with pytest.raises(InputError, match="cannot be written"):
        write_csv(table, tmp_path)


def test_list_counts_the_items_that_it_omits():
    assert list_first([], 3) == ""
    assert list_first(["a", "b", 3], 3) == "a, b, 3"
    assert list_first("abcdefg", 3) == "a, b, c and 4 more"


def test_choice_is_checked_with_a_suggestion():
    check_choice("'strategy'", "random", ["random", "farthest"])
    with pytest.raises(
        InputError, match=r"'strategy' must be one of random, farthest; got 'randon'; did you mean 'ran"
    ):
        check_choice("'strategy'", "randon", {"random": 1, "farthest": 2})


def test_numbers_in_names_sort_by_value():
    names = ["run10.json", "run2.json", "10", "9", "a"]
    assert sorted(names, key=get_natural_sort_key) == ["9", "10", "a", "run2.json", "run10.json"]
