"""What notebooks show of a dataset, a run and a plan: the numbers are there, and nothing from data becomes markup."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from conftest import first_configurations

from paretofit import Dataset, plan
from paretofit.core import html_tables
from paretofit.dataset import LevelData, write_dataset
from paretofit.dataset import dataset_html as html
from paretofit.study import RunResult, Study, run_study

HOSTILE = '<script>alert("1")</script>&amp;\'$x$'
ALLOWED = {"p", "b", "a", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code"}


class Reader(HTMLParser):
    """Cells, tags and links of a piece of HTML; fails where tags are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.cells, self.links, self.text = [], set(), [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name == "href"]
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data


def shown(thing):
    actual = Reader(thing._repr_html_())
    assert actual.tags <= ALLOWED
    return actual


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {
        "dataset": first_configurations(),
        "basis": {"elements": ["Be"]},
        "levels": ["3", "5"],
        "twojmax": [2],
        "weights": [1, 12.25],
        "sizes": [20, 60],
        "repetitions": 2,
        "cost": {"md_us_per_atom_step": {2: 20}},
    }
    return run_study(Study(**settings), out=tmp_path_factory.mktemp("html") / "run")


def hostile_dataset(path):
    atoms = [Atoms("Be", cell=[2, 2, 2 + 0.1 * k], pbc=True) for k in range(3)]
    for item in atoms:
        item.info["config_type"] = HOSTILE
    labels = [{"energy": -3.0 - k, "forces": np.zeros((1, 3)), "seconds": 1.0 + k} for k in range(3)]
    levels = {"a": LevelData(labels, {"functional": HOSTILE, "scf": {"x": 1}}), "b": LevelData([*labels[:2], None])}
    write_dataset(path, atoms, levels)
    return path


def test_a_dataset_shows_its_counts_levels_and_costs(beryllium):
    actual = shown(beryllium)
    cells = actual.cells
    assert cells[cells.index("configurations") + 1] == f"{len(beryllium)}"
    assert cells[cells.index("atoms") + 1].startswith(f"{beryllium.n_atoms.sum():,} (")
    assert f"Be {beryllium.n_atoms.sum():,}" in cells
    kinds = pd.Series([record["config_type"] for record in beryllium.info_records]).value_counts()
    assert f"{kinds.index[0]} {kinds.iloc[0]}" in actual.text
    for level in beryllium.levels:
        row = cells[cells.index(level) :][:6]
        labels = beryllium.labels(level)
        assert row[1:3] == [f"{labels.is_complete.sum()}", "0"]
        assert float(row[3]) == pytest.approx(np.nanmean(labels.seconds), rel=1e-3)
        assert row[4] == str(beryllium.settings(level)["cutoff_ev"])


def test_a_selection_shows_its_own_counts(beryllium):
    cells = shown(beryllium[:7]).cells
    assert cells[cells.index("configurations") + 1] == "7"


def test_names_from_a_dataset_are_escaped(tmp_path):
    with Dataset(hostile_dataset(tmp_path / "<b>.h5")) as data:
        actual = shown(data)
        assert "script" not in actual.tags
        assert HOSTILE in actual.text
        assert "<b>.h5" in actual.text
        assert "label is missing" in actual.text, "warnings are shown"


def test_endless_texts_and_lists_are_cut():
    assert len(html_tables.escape_text("x" * 10_000)) < 300
    assert html_tables.render_list([str(k) for k in range(100)]).count("<li>") == html_tables.MAX_SHOWN_ITEMS + 1
    assert "and 92 more" in html_tables.render_list([str(k) for k in range(100)])


def test_cells_say_what_is_missing_and_put_numbers_on_the_right():
    text = html_tables.render_table(("a",), [(None,), (float("nan"),), (1234567,), (0.123456,), ("word",)])
    assert Reader(text).cells == ["a", "–", "–", "1,234,567", "0.1235", "word"]
    assert text.count("text-align:right") == 4


def test_large_datasets_are_not_searched_for_trouble(beryllium, monkeypatch):
    monkeypatch.setattr(html, "MAX_CHECKED_CONFIGURATIONS", 10)
    monkeypatch.setattr(html, "describe_dataset", None)
    assert "More than 10 configurations" in shown(beryllium).text


def test_unlabelled_empty_and_closed_datasets_can_be_shown(tmp_path, small_dataset, beryllium):
    write_dataset(tmp_path / "unlabelled.h5", [Atoms("Be")], {})
    with Dataset(tmp_path / "unlabelled.h5") as unlabelled:
        assert "no configuration is labelled yet" in shown(unlabelled).text
    assert "none" in shown(beryllium[:0]).cells
    closed = Dataset(small_dataset)
    closed.close()
    assert "small.h5" in shown(closed).text


def test_a_run_shows_what_was_run_its_lowest_errors_and_its_report(run):
    actual = shown(run)
    cells = actual.cells
    assert cells[cells.index("fits") + 1].startswith(f"{len(run.results)} in ")
    assert cells[cells.index("levels") + 1] == "3 and 5"
    assert cells[cells.index("w_E/w_F") + 1] == "1 and 12.25"
    overall = run.front[run.front["overall"]]
    for name, column, folder in (("energy error", "ref_energy", 6), ("force error", "ref_force", 7)):
        shown_value = cells[cells.index(name) + folder].replace(",", "")
        assert float(shown_value) == pytest.approx(overall[column].min(), rel=6e-3)
    assert f"{len(overall)} point" in actual.text
    assert actual.links == [run.report.resolve().as_uri()]


def test_the_report_of_a_run_under_the_working_folder_has_a_relative_link(run, monkeypatch):
    monkeypatch.chdir(run.folder.parent)
    assert shown(run).links == ["run/report.html"]


def test_names_from_a_run_are_escaped(run):
    results = run.results.assign(level=HOSTILE, sampling=HOSTILE)
    front = run.front.assign(level=HOSTILE, sampling=HOSTILE)
    odd = RunResult(Path("<i>"), results, front, Path('"<i>.html'), [HOSTILE], {"sweep": 1.0})
    actual = shown(odd)
    assert "i" not in actual.tags
    assert HOSTILE in actual.text
    assert len(actual.links) == 1


def test_a_run_and_a_plan_are_one_line_of_text(run):
    assert repr(run).startswith(f"RunResult('{run.folder}', {len(run.results)} fits")
    result = plan(run.results, budget="10 min")
    assert repr(result).startswith("Plan(with 10 min")
    for item in (run, result):
        assert len(repr(item).splitlines()) == 1


def test_a_run_without_a_front_can_be_shown(run):
    empty = RunResult(run.folder, run.results, run.front.iloc[:0], run.report, [], {})
    assert "0 points" in shown(empty).text
    assert "0 on the fronts" in repr(empty)


def test_a_plan_shows_its_choice_and_alternatives(run):
    result = plan(run.results, budget="10 min")
    cells = shown(result).cells
    row = cells[cells.index("recommended") :][:9]
    assert row[1:4] == [result.choice["level"], f"{int(result.choice['n_train'])}", "2"]
    assert float(row[6].split()[0].replace(",", "")) == pytest.approx(result.choice["energy"], rel=6e-3)
    assert "for twice the budget" in cells
    assert len(result.by_level) == 1 or "extrapolated" in cells


def test_names_from_a_plan_are_escaped(run):
    result = plan(run.results.assign(sampling=HOSTILE), budget="10 min")
    actual = shown(result)
    assert "script" not in actual.tags
    assert HOSTILE in actual.text
