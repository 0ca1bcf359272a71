import doctest
import itertools
import os
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit.core import InputError
from paretofit.pareto import (
    AGGREGATES,
    columns,
    compute_hypervolume,
    extract_front_from_csv,
    front,
    front_shape,
    pareto_front,
    read_table,
)

SHARED = Path(os.environ.get("PARETOFIT_SHARED", Path(__file__).parents[3] / "shared"))
PUBLISHED = SHARED / "data" / "published_pareto"
published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published tables are not in {PUBLISHED}")


@st.composite
def tables(draw, max_rows=60):
    """A table of 1 to 5 integer objectives from a range so small that there are many ties."""
    m = draw(st.integers(1, 5))
    top = draw(st.integers(1, 5))
    rows = draw(st.lists(st.tuples(*[st.integers(-top, top)] * m), min_size=1, max_size=max_rows))
    return pd.DataFrame(rows, columns=list("abcde")[:m])


def dominates(x, y):
    return all(a <= b for a, b in zip(x, y, strict=True)) and any(a < b for a, b in zip(x, y, strict=True))


def brute_force(points):
    return [i for i, y in enumerate(points) if not any(dominates(x, y) for x in points)]


def rows_of(frame):
    return sorted(frame.itertuples(index=False, name=None))


# --- definition of a front -------------------------------------------------------------------------------------


@given(tables())
def test_front_equals_brute_force_and_has_all_ties(table):
    result = pareto_front(table, list(table.columns))
    assert sorted(result.index) == brute_force(table.to_numpy().tolist())


@given(tables())
def test_no_row_of_the_front_is_dominated_and_every_other_row_is(table):
    result = pareto_front(table, list(table.columns))
    front_rows = result.to_numpy().tolist()
    assert not any(dominates(x, y) for x, y in itertools.product(table.to_numpy().tolist(), front_rows))
    for y in table.drop(index=result.index).to_numpy().tolist():
        assert any(dominates(x, y) for x in front_rows)


@pytest.mark.parametrize("m", range(1, 9))
def test_front_of_hundreds_of_points_equals_brute_force(m):
    # Above a few dozen points and three objectives moocore uses another algorithm.
    rng = np.random.default_rng(m)
    points = rng.integers(-4, 5, size=(300, m)).astype(float)
    points[points == 0] *= rng.choice([-1.0, 1.0], size=np.count_nonzero(points == 0))  # -0.0 ties with 0.0
    table = pd.DataFrame(points, columns=[f"f{k}" for k in range(m)])
    assert sorted(pareto_front(table, list(table.columns)).index) == brute_force(points.tolist())


@given(tables(), st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order_of_the_rows(table, random):
    order = list(range(len(table)))
    random.shuffle(order)
    names = list(table.columns)
    assert set(pareto_front(table.iloc[order], names).index) == set(pareto_front(table, names).index)


@given(tables(), st.sampled_from([lambda x: x**3, np.exp, lambda x: 1000 * x - 7, np.arctan]))
def test_front_does_not_depend_on_a_monotone_map_of_one_objective(table, monotone):
    names = list(table.columns)
    mapped = table.assign(a=monotone(table["a"].astype(float)))
    assert list(pareto_front(mapped, names).index) == list(pareto_front(table, names).index)


@given(tables())
def test_front_of_a_front_is_itself(table):
    names = list(table.columns)
    first_front = pareto_front(table, names)
    pd.testing.assert_frame_equal(pareto_front(first_front, names), first_front)


@given(tables())
def test_front_is_sorted_by_the_objectives_in_order(table):
    result = pareto_front(table, list(table.columns))
    keys = list(zip(*(result[name] for name in result), result.index, strict=True))
    assert keys == sorted(keys)


def test_front_has_every_column_and_the_index_and_does_not_change_the_table():
    table = pd.DataFrame({"name": ["p", "q", "r"], "cost": [3, 1, 2], "error": [1.0, 3.0, 9.0]}, index=["x", "y", "z"])
    before = table.copy(deep=True)
    result = pareto_front(table, ["cost", "error"])
    pd.testing.assert_frame_equal(result, table.loc[["y", "x"]])
    pd.testing.assert_frame_equal(table, before)
    assert not table.attrs
    assert result.attrs["dropped_rows"] == 0


def test_integers_that_differ_only_beyond_float64_do_not_tie():
    table = pd.DataFrame({"time": [2**62 + 1, 2**62], "error": [1, 1]})
    assert list(pareto_front(table, ["time", "error"]).index) == [1]


def test_text_and_booleans_are_compared_as_numbers():
    table = pd.DataFrame({"level": ["10", "9", "11"], "failed": [False, True, True]})
    assert list(pareto_front(table, ["level"]).index) == [1]
    assert list(pareto_front(table, ["failed", "level"]).index) == [0, 1]


# --- repetitions -----------------------------------------------------------------------------------------


REPETITIONS = pd.DataFrame(
    {
        "level": ["low", "low", "low", "high", "high", "low"],
        "n": [10, 10, 10, 10, 10, 20],
        "cost": [1.0, 1.0, 1.0, 4.0, 4.0, 2.0],
        "error": [9.0, 2.0, 3.0, 1.0, 2.0, 3.5],
    }
)


def test_median_over_repetitions_by_hand():
    # low 10: median 3; high 10: 1.5; low 20: 3.5, dearer and worse than low 10.
    result = pareto_front(REPETITIONS, ["cost", "error"], group_by=["level", "n"])
    expected = pd.DataFrame(
        {
            "level": ["low", "high"],
            "n": [10, 10],
            "cost": [1.0, 4.0],
            "error": [3.0, 1.5],
            "n_repeats": [3, 2],
        }
    )
    pd.testing.assert_frame_equal(result, expected)


@pytest.mark.parametrize(("aggregate", "low"), [("median", 3), ("mean", 14 / 3), ("min", 2), ("max", 9)])
def test_each_aggregate_by_hand(aggregate, low):
    result = pareto_front(REPETITIONS.query("n == 10"), ["cost", "error"], ["level"], aggregate)
    assert result["error"].iloc[0] == pytest.approx(low)


def test_missing_keys_form_one_group():
    table = pd.DataFrame({"key": ["a", None, None, "b"], "error": [2.0, 1.0, 3.0, 2.0]})
    result = pareto_front(table, ["error"], group_by=["key"])
    assert result["key"].isna().tolist() == [False, False, True]
    assert result["n_repeats"].tolist() == [1, 1, 2]


def test_categories_without_rows_are_not_points():
    table = pd.DataFrame({"key": pd.Categorical(["a", "b"], ["a", "b", "c"]), "error": [1.0, 1.0]})
    assert len(pareto_front(table, ["error"], group_by=["key"])) == 2


@given(tables(), st.randoms(use_true_random=False))
def test_grouped_front_does_not_depend_on_the_order_of_the_rows(table, random):
    order = list(range(len(table)))
    random.shuffle(order)
    names = list(table.columns)
    keyed = table.assign(key=np.arange(len(table)) % 4)
    shuffled = keyed.iloc[order]
    pd.testing.assert_frame_equal(pareto_front(shuffled, names, ["key"]), pareto_front(keyed, names, ["key"]))


# --- bad input -------------------------------------------------------------------------------------------


BAD = pd.DataFrame(
    {
        "cost": [1.0, 2.0, 3.0],
        "error": [1.0, np.nan, np.inf],
        "text": ["1", "2", "cheap"],
        "when": pd.to_datetime(["2020-01-01"] * 3),
        "level": ["a", "b", "a"],
        "n_repeats": [1, 1, 1],
    }
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"objectives": ["cots"]}, ["'cots'", "level", "did you mean 'cost'"]),
        ({"objectives": ["cost"], "group_by": ["levle"]}, ["'levle'", "did you mean 'level'"]),
        ({"objectives": ["text"]}, ["'text'", "numbers", "'cheap'", "data row 3"]),
        ({"objectives": ["when"]}, ["'when'", "numbers", "datetime64"]),
        ({"objectives": ["cost", "error"]}, ["2 of 3", "'error'", "data row 2", "--drop-missing"]),
        ({"objectives": []}, ["no objectives", "at least one"]),
        ({"objectives": ["cost", "cost"]}, ["'cost'", "twice"]),
        ({"objectives": "cost"}, ["list", "'cost'"]),
        ({"objectives": ["cost"], "group_by": ["cost"]}, ["'cost'", "both"]),
        ({"objectives": ["cost"], "group_by": ["level", "level"]}, ["'level'", "twice"]),
        ({"objectives": ["cost"], "group_by": ["n_repeats"]}, ["'n_repeats'", "rename"]),
        ({"objectives": ["cost"], "aggregate": "medain"}, ["'medain'", *AGGREGATES, "did you mean 'median'"]),
    ],
)
def test_invalid_input_raises_a_one_line_message(arguments, expected):
    with pytest.raises(InputError) as caught:
        pareto_front(BAD, **arguments)
    message = str(caught.value)
    assert all(part in message for part in expected), message
    assert "\n" not in message


def test_a_table_without_rows_or_with_a_repeated_column_name_is_rejected():
    with pytest.raises(InputError, match="no rows"):
        pareto_front(BAD.iloc[:0], ["cost"])
    with pytest.raises(InputError, match="2 columns are called 'a'"):
        pareto_front(pd.DataFrame([[1, 2]], columns=["a", "a"]), ["a"])


def test_dropped_rows_are_counted():
    result = pareto_front(BAD, ["cost", "error"], drop_missing=True)
    assert list(result.index) == [0]
    assert result.attrs["dropped_rows"] == 2
    grouped = pareto_front(BAD.drop(columns="n_repeats"), ["error"], ["level"], drop_missing=True)
    assert grouped.attrs["dropped_rows"] == 2
    assert grouped["n_repeats"].tolist() == [1]
    with pytest.raises(InputError, match="every one of the 2 rows"):
        pareto_front(BAD.iloc[1:], ["error"], drop_missing=True)


# --- hypervolume -----------------------------------------------------------------------------------------


def test_hypervolume_by_hand():
    # Below (4, 4) a staircase of strips 3, 2 and 1 long and 1 high; the other two points add nothing.
    table = pd.DataFrame({"x": [1, 2, 3, 3, 5], "y": [3, 2, 1, 3, 0]})
    assert compute_hypervolume(table, ["x", "y"], [4, 4]) == 6
    assert compute_hypervolume(table, ["x"], [4]) == 3
    assert compute_hypervolume(table, ["x", "y"], [1, 1]) == 0


@settings(max_examples=50)
@given(tables(max_rows=12))
def test_hypervolume_counts_the_dominated_unit_cells(table):
    names = list(table.columns)
    reference = np.full(len(names), 2)
    cells = itertools.product(range(int(table.to_numpy().min()), 2), repeat=len(names))
    points = table.drop_duplicates().to_numpy()
    volume = sum(bool((points <= cell).all(axis=1).any()) for cell in cells)
    assert compute_hypervolume(table, names, reference) == pytest.approx(volume)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [([1.0], "each of the 2"), ([1.0, np.nan], "finite"), (["a", "b"], "numbers"), (1.0, "each of the 2")],
)
def test_a_reference_that_does_not_match_the_objectives_is_rejected(reference, expected):
    with pytest.raises(InputError, match=expected):
        compute_hypervolume(BAD, ["cost", "n_repeats"], reference)
    with pytest.raises(InputError, match="'error'"):
        compute_hypervolume(BAD, ["cost", "error"], [9, 9])


# --- files -----------------------------------------------------------------------------------------------


def test_front_of_a_file_is_written_as_it_is_returned(tmp_path):
    source, out = tmp_path / "results.csv", tmp_path / "new" / "front.csv"
    REPETITIONS.to_csv(source, index=False)
    result = extract_front_from_csv(source, ["cost", "error"], ["level", "n"], out=out)
    pd.testing.assert_frame_equal(read_table(out), result, check_dtype=False)  # 4.0 is written as 4
    assert out.read_text().splitlines()[0] == "level,n,cost,error,n_repeats"
    assert not list(out.parent.glob(".*"))


def test_levels_are_read_as_text(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("level,n\n01,1\n1,2\n")
    assert read_table(path)["level"].tolist() == ["01", "1"]
    assert len(extract_front_from_csv(path, ["n"], ["level"])) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"\x89HDF\r\n\x1a\n\x00\xff\xfe", "binary"),
        ("a,b\nå,1\n".encode("latin-1"), "UTF-8"),
        (b"a\0b,c\n1,2\n", "binary"),
        (b"a,b\n1,2\n1,2,3\n", "line 3"),
        (b"a,b\n1,2,3\n1,2,3\n", "more fields than the header"),
        (b"a,b,c\n1,2,3\n\n1,2\n", "line 4 has 2 fields"),
        (b'a,b\n"1,2\n', "not a valid CSV"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\nx,2\n", "'x' in data row 2"),
        (b"b,c\n1,2\n", "unknown column 'a'"),
        (b"a,b\n1,2\n,3\n", "1 of 2 rows"),
        (b"a,a\n1,2\n", "2 columns are called 'a'"),
        (b'\xef\xbb\xbf\n  \n"b",a,b\n1,2,3\n', "2 columns are called 'b'"),
    ],
)
def test_an_invalid_file_is_named_and_nothing_is_written(tmp_path, content, expected):
    path, out = tmp_path / "table.csv", tmp_path / "front.csv"
    path.write_bytes(content)
    out.write_text("earlier content")
    with pytest.raises(InputError) as caught:
        extract_front_from_csv(path, ["a"], out=out, overwrite=True)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message
    assert out.read_text() == "earlier content"
    assert sorted(tmp_path.iterdir()) == [out, path]


@pytest.mark.parametrize(
    "content",
    [
        "error, cost\n1, 5\n2, 3\n3, 4\n",
        " error ,cost \n1 , 5 \n2,3\n3,4\n",
        "error;cost\n1;5\n2;3\n3;4\n",
        "error ; cost\n1,0;5,0\n2,0; 3\n3;4\n",
        "error\tcost\n1\t5\n2\t3\n3\t4\n",
        '"error";"cost"\n"1";"5"\n"2";"3"\n"3";"4"\n',
        '"cost, in h";error;cost\n1;1;5\n1;2;3\n1;3;4\n',
    ],
)
def test_blanks_semicolons_and_decimal_commas_are_read(tmp_path, content):
    (tmp_path / "t.csv").write_text(content)
    front = extract_front_from_csv(tmp_path / "t.csv", ["error", "cost"])
    assert front[["error", "cost"]].to_numpy().tolist() == [[1, 5], [2, 3]]


def test_levels_are_text_with_any_delimiter(tmp_path):
    (tmp_path / "t.csv").write_text("error; level \n1,5; 01 \n2; 1\n")
    table = read_table(tmp_path / "t.csv")
    assert table["level"].tolist() == ["01", "1"]
    assert table["error"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize("long", ["9" * 400, f"{'9' * 400}.5", "9" * 5000, f"0{'9' * 400}", "1e400"])
def test_numbers_of_hundreds_of_digits_are_compared(tmp_path, long):
    (tmp_path / "t.csv").write_text(f"a,b,level\n{long},1,x\n2,3,y\n-{long},4,z\n3,5,w\n")
    front = extract_front_from_csv(tmp_path / "t.csv", ["a", "b"], drop_missing=True)
    assert front["level"].tolist() == ["z", "y", "x"]
    (tmp_path / "t.csv").write_text(f"a,b\n{long},1\n2,cheap\n")
    with pytest.raises(InputError, match="'b' must contain numbers; got 'cheap'") as caught:
        extract_front_from_csv(tmp_path / "t.csv", ["b", "a"])
    assert len(str(caught.value)) < 400


def test_several_tables_are_one(tmp_path):
    (tmp_path / "a.csv").write_text("error,cost,name\n1,5,x\n3,4,y\n")
    (tmp_path / "b.csv").write_text("cost;error;size\n3;2,0;7\n9;9;8\n")
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    front = extract_front_from_csv(paths, ["error", "cost"])
    assert front[["error", "cost"]].to_numpy().tolist() == [[1, 5], [2, 3]]
    assert front["name"].tolist()[0] == "x"
    assert front["table"].tolist() == [str(path) for path in paths]
    assert "a.csv lacks columns of other tables, which are empty in its rows: 'size'" in front.attrs["notes"][0]
    (tmp_path / "c.csv").write_text("error,price\n1,5\n")
    with pytest.raises(InputError, match=r"c.csv: unknown column 'cost' in objectives; available: error, price"):
        extract_front_from_csv([*paths, tmp_path / "c.csv"], ["error", "cost"])
    (tmp_path / "c.csv").write_text("error,cost\n1,\n")
    with pytest.raises(InputError, match=r"c.csv: 1 of 1 rows are NaN or infinite in 'cost', the first is data row 1"):
        extract_front_from_csv([*paths, tmp_path / "c.csv"], ["error", "cost"])
    assert extract_front_from_csv([*paths, tmp_path / "c.csv"], ["cost"], drop_missing=True).attrs["dropped_rows"] == 1
    with pytest.raises(InputError, match="b.csv: the output file is also the input table"):
        extract_front_from_csv(paths, ["error"], out=paths[1], overwrite=True)
    with pytest.raises(InputError, match="there are no tables"):
        extract_front_from_csv([], ["error"])


STUDY_A = "level,n,energy,cost,md_us_per_atom_step\n1,10,5.5,10,1.0\n1,10,6.5,10,1.0\n2,10,3.5,40,1.0\n"
STUDY_B = "level,n,energy,cost,md_us_per_atom_step\n1,10,9.5,5,1.1\n1,10,9.25,5,1.1\n2,10,3.5,40,1.1\n"


@pytest.fixture
def studies(tmp_path):
    """Results of two studies with the same settings; the last fit is the same, with another measured MD time."""
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, text in zip(paths, (STUDY_A, STUDY_B), strict=True):
        path.write_text(text)
    return paths


def test_settings_of_two_studies_are_pooled_only_on_request(studies):
    a, b = map(str, studies)
    front = extract_front_from_csv(studies, ["energy", "cost"], ["level", "n"])
    assert front[["table", "level", "energy", "n_repeats"]].to_numpy().tolist() == [
        [a, "2", 3.5, 1],
        [a, "1", 6.0, 2],
        [b, "1", 9.375, 2],
    ]
    assert front.attrs["notes"] == [
        f"1 rows of {b} are equal to rows of an earlier table; each of them counts once",
        "1 of 2 settings occur in several tables and have a point for each table; --pool (pool) makes them repetitions",
    ]
    pooled = extract_front_from_csv(studies, ["energy"], ["level", "n"], pool=True)
    assert pooled.to_numpy().tolist() == [["2", 10, 3.5, 1]]
    assert extract_front_from_csv(studies, ["cost"], ["level"], pool=True)["n_repeats"].tolist() == [4]
    by_table = extract_front_from_csv(studies, ["energy", "cost"], ["table"])
    assert by_table[["table", "n_repeats"]].to_numpy().tolist() == [[a, 3], [b, 2]]
    with pytest.raises(InputError, match="pool .* requires .* group_by"):
        extract_front_from_csv(studies, ["energy"], pool=True)


def test_a_fit_in_two_tables_counts_once(studies, tmp_path):
    single = extract_front_from_csv(studies[0], ["energy", "cost"], ["level"])
    copy = tmp_path / "copy.csv"
    copy.write_text(STUDY_A)
    front = extract_front_from_csv([studies[0], copy], ["energy", "cost"], ["level"])
    pd.testing.assert_frame_equal(front.drop(columns="table"), single)
    assert set(front["table"]) == {str(studies[0])}
    assert front.attrs["notes"] == [f"3 rows of {copy} are equal to rows of an earlier table; each of them counts once"]
    (tmp_path / "link.csv").symlink_to(studies[0])
    for again in (studies[0], tmp_path / "link.csv", tmp_path / ".." / tmp_path.name / "a.csv"):
        with pytest.raises(InputError, match="is given twice"):
            extract_front_from_csv([studies[0], again], ["energy"])
    ties = tmp_path / "ties.csv"
    ties.write_text("energy,cost\n1,2\n1,2\n")  # within a table, they can be different measurements
    other = tmp_path / "other.csv"
    other.write_text("energy,cost\n1,2\n5,5\n")
    assert extract_front_from_csv([ties, other], ["energy", "cost"])["table"].tolist() == [str(ties)] * 2


def test_a_column_table_is_reserved_if_several_tables_are_joined(studies, tmp_path):
    out = tmp_path / "front.csv"
    extract_front_from_csv(studies, ["energy", "cost"], out=out)
    assert len(extract_front_from_csv(out, ["energy"])) == 1
    with pytest.raises(InputError, match="front.csv: 'table' is reserved for the name of the table; rename"):
        extract_front_from_csv([*studies, out], ["energy"])


def test_missing_files_folders_and_the_table_itself_are_rejected(tmp_path):
    path = tmp_path / "table.csv"
    with pytest.raises(InputError, match="no such file"):
        read_table(path)
    with pytest.raises(InputError, match="is a directory"):
        read_table(tmp_path)
    path.write_text("a\n1\n")
    with pytest.raises(InputError, match="is a directory"):
        extract_front_from_csv(path, ["a"], out=tmp_path)
    with pytest.raises(InputError, match="is also the input table"):
        extract_front_from_csv(path, ["a"], out=path)
    for out in (path / "front.csv", "/proc/front.csv", tmp_path / "a\0b"):
        with pytest.raises(InputError, match="cannot be written: .*; choose another path"):
            extract_front_from_csv(path, ["a"], out=out)
    assert path.read_text() == "a\n1\n"


def test_trailing_commas_and_missing_values_in_the_last_column_are_valid(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2,\r\n2,,\r\n")
    assert read_table(path)["b"].isna().tolist() == [False, True]


@given(st.binary(max_size=60) | st.text('ab01,"\n\r .e-', max_size=60).map(str.encode))
def test_any_bytes_give_a_table_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        assert isinstance(read_table(path), pd.DataFrame)
    except InputError as problem:
        assert str(problem).startswith(f"{path}: ")  # noqa: PT017 - a table is a valid result, too


# --- the published study ---------------------------------------------------------------------------------


@published
def test_published_fits_are_all_on_the_front_of_their_own_training_errors():
    # Each minimises w_E^2 E^2 + w_F^2 F^2 on these data, and no minimum of a weighted sum is dominated.
    table = read_table(PUBLISHED / "energy_force_front_twojmax6.csv")
    objectives = ["Training Energy RMSE (train precision)", "Training Force RMSE (train precision)"]
    for _, fits in table.groupby("Train Precision"):
        result = pareto_front(fits, objectives)
        assert len(result) == len(fits) == 17
        assert result["Energy Weight"].is_monotonic_decreasing


@published
def test_published_test_errors_against_brute_force():
    table = read_table(PUBLISHED / "energy_force_front_twojmax6.csv")
    objectives = [
        "Testing Energy RMSE (6th precision)",
        "Testing Force RMSE (6th precision)",
        "Train Precision",
    ]
    result = pareto_front(table, objectives)
    assert sorted(result.index) == brute_force(table[objectives].to_numpy().tolist())
    assert set(result["Train Precision"]) == {1, 2, 3, 4, 5, 6}


@published
def test_published_sampling_medians_against_the_standard_library():
    table = pd.concat([read_table(path) for path in sorted(PUBLISHED.glob("sampling_*.csv"))])
    objectives = ["Subsample size", "Testing Energy RMSE", "Testing Force RMSE"]
    table["size"] = table["Subsample size"]
    result = pareto_front(table, objectives, group_by=["size", "Sampling Method"])
    points = {
        key: tuple(statistics.median(rows[name]) for name in objectives)
        for key, rows in table.groupby(["size", "Sampling Method"])
    }
    front_keys = {list(points)[i] for i in brute_force(list(points.values()))}
    assert set(zip(result["size"], result["Sampling Method"], strict=True)) == front_keys
    assert (result["n_repeats"] == 50).all()
    for row in result.itertuples(index=False):
        assert row[2:5] == pytest.approx(points[row[:2]])


def test_the_examples_in_the_documentation_run():
    for module in (columns, front, front_shape):
        assert doctest.testmod(module, extraglobs={"pd": pd}).failed == 0
