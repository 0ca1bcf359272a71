"""CSV tables: text is never a formula of a spreadsheet, and is read back as it was."""

import csv

import numpy as np
import pandas as pd
import pytest
from helpers.studies import SMALL, study_file
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from paretofit import run_study
from paretofit.cli import app
from paretofit.commands import export_potential
from paretofit.core import escape_formulas, restore_formulas, write_csv
from paretofit.dataset import Dataset, LevelData, write_dataset
from paretofit.dataset.io import read_labels
from paretofit.pareto import read_table
from paretofit.sweep import read_results

FORMULAS = [
    "=1+1",
    "+U",
    "-D3",
    "@SUM(A1)",
    "=cmd|' /C calc'!A0",
    "-2+3",
    "\t=1",
    "＝1",
    "'=1",
    "--",
    "+",
    "=-",
]
TEXTS = ["low", "-1.5", "+3", "-inf", "-1e-5", "-", "a=b", "'quoted'", "", "é"]


def read_cells(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_written_as_text_and_read_again(text, tmp_path):
    table = pd.DataFrame({"level": [text, "low"], text: [-1.5, 2.0], "n": [-1, 2]})
    write_csv(table, tmp_path / "a.csv")
    cells = read_cells(tmp_path / "a.csv")
    assert cells[0][1] == cells[1][0] == f"'{text}"
    assert cells[1][1:] == ["-1.5", "-1"], "numbers stay numbers"
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.csv"), table)


@pytest.mark.parametrize("text", TEXTS)
def test_other_text_is_not_changed(text, tmp_path):
    write_csv(pd.DataFrame({"a": [text], "b": [None], "c": [np.nan]}, dtype=object), tmp_path / "a.csv")
    assert read_cells(tmp_path / "a.csv")[1] == [text, "", ""]


@given(st.lists(st.text() | st.floats() | st.integers() | st.none(), min_size=1))
def test_restored_text_is_that_before(cells):
    table = pd.DataFrame({"a": pd.Series(cells, dtype=object)})
    pd.testing.assert_frame_equal(restore_formulas(escape_formulas(table)), table)


def test_categories_and_duplicate_columns_are_escaped():
    table = pd.DataFrame([["=1", "=1"]], columns=["a", "a"]).astype("category")
    assert escape_formulas(table).to_numpy().tolist() == [["'=1", "'=1"]]


@pytest.mark.slow
def test_levels_with_names_of_formulas_are_studied_and_exported(tmp_path):
    with Dataset(SMALL["dataset"]) as data:
        labels = {name: read_labels(data, level) for name, level in (("=1+1", "2"), ("@D3", "5"))}
        structures = list(data)[:60]
    write_dataset(tmp_path / "a.h5", structures, {name: LevelData(rows[:60]) for name, rows in labels.items()})
    study = study_file(tmp_path, dataset="a.h5", levels=["=1+1", "@D3"], twojmax=[2], sizes=["all"], repetitions=1,
                       sampling_methods=["random"])  # fmt: skip
    result = run_study(study, out=tmp_path / "run")
    for path in result.folder.rglob("*.csv"):
        for cell in (cell for cells in read_cells(path) for cell in cells if cell[:1] in {"=", "+", "-", "@"} and cell):
            float(cell)
    assert set(read_results(result.folder / "results.csv")["level"]) == {"=1+1", "@D3"}
    assert export_potential(result.folder, tmp_path / "potential", level="=1+1").row["level"] == "=1+1"
    front = CliRunner().invoke(
        app, ["pareto", str(result.folder / "results.csv"), "--minimize", "ref_energy,ref_force"]
    )
    assert "'=1+1" in front.output or "'@D3" in front.output
    run_study(study, out=tmp_path / "run")  # resumes
