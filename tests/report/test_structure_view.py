"""Structures to look at: the selected ones, their page that works offline, and the worst of an evaluation."""

import json
import re
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from paretofit.commands.evaluation_result import estimate_rmse, list_worst, select_worst
from paretofit.report.page import select_view, structure_view

needs_viewer = pytest.mark.skipif(find_spec("chemiscope") is None, reason="the extra 'viewer' is not installed")
RANKED = {"energy error (meV/atom)": "largest energy errors", "leverage": "largest leverages"}


@pytest.fixture(scope="module")
def structures():
    return [bulk("Cu", a=a, cubic=True) for a in np.linspace(3.4, 3.9, 40)]


def make_table(n=40):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": range(n), "kind": "bulk", "energy error (meV/atom)": rng.normal(size=n)})
    return table.assign(leverage=np.where(np.arange(n) < 20, rng.random(n), np.nan))


def test_the_largest_values_of_each_column_are_shown_and_the_others_evenly(structures, monkeypatch):
    monkeypatch.setattr(structure_view, "N_LARGEST", 4)
    monkeypatch.setattr(structure_view, "MAX_STRUCTURES", 12)
    table = make_table()
    view = select_view("title", structures, table, RANKED)
    shown = view.table.set_index("id")["shown for"]
    worst = table["energy error (meV/atom)"].abs().nlargest(4).index
    assert (shown[worst] == "largest energy errors").all()
    assert set(table["leverage"].nlargest(4).index) <= set(shown.index)
    assert len(view.structures) == 12
    assert view.colour == "energy error (meV/atom)"
    for atoms, config_id in zip(view.structures, view.table["id"], strict=True):
        assert atoms is structures[config_id]


def test_without_values_or_structures_there_is_no_view(structures):
    assert select_view("title", structures[:2], make_table(2), RANKED) is None
    assert select_view("title", structures, make_table()[["id", "kind"]], RANKED) is None


def test_the_number_of_atoms_is_limited(structures, monkeypatch):
    monkeypatch.setattr(structure_view, "MAX_ATOMS", 20)
    assert len(select_view("title", structures, make_table(), RANKED).structures) == 5


@needs_viewer
def test_the_page_is_complete_and_works_offline(structures, tmp_path):
    view = select_view("<b>title", structures, make_table(), RANKED)
    assert view.write(tmp_path / "structures.html")
    page = (tmp_path / "structures.html").read_text()
    assert len(page) < 4_000_000
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "<h1>&lt;b&gt;title</h1>" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))
    assert len(data["structures"]) == 40
    assert data["properties"]["energy error"]["units"] == "meV/atom"
    assert data["settings"]["map"]["color"]["property"] == "energy error"
    components = np.array([data["properties"][f"main component {k}"]["values"] for k in (1, 2)])
    assert np.ptp(components[0]) > np.ptp(components[1])  # the volume is the only difference


def test_without_chemiscope_an_older_page_is_removed(structures, tmp_path, monkeypatch):
    monkeypatch.setattr(structure_view, "has_viewer", lambda: False)
    (tmp_path / "structures.html").write_text("old")
    view = select_view("title", structures, make_table(), RANKED)
    assert not view.write(tmp_path / "structures.html")
    assert not (tmp_path / "structures.html").exists()
    with pytest.raises(Exception, match=r"pip install 'paretofit\[viewer\]'"):
        view.show()


def make_evaluation_table():
    errors = np.array([1.0, -2.0, 3.0, -40.0, 5.0])
    return pd.DataFrame({"id": range(10, 15), "config_type": "bulk", "n_atoms": [1, 1, 1, 2, 2], "set": "new",
                         "energy_error": errors, "force_error": np.abs(errors), "stress_error": np.nan})  # fmt: skip


def test_the_worst_configurations_are_named():
    table = make_evaluation_table()
    lines = list_worst(table, 2)
    assert lines[0] == (
        "largest energy errors (meV/atom; median 3; 1 above 5 times the median): configurations 13 (bulk, new, 40), "
        "14 (bulk, new, 5)"
    )
    assert len(lines) == 2  # no stress labels
    worst = select_worst(table, 1)
    assert worst["id"].tolist() == [13]
    assert worst["reason"].tolist() == ["energy 13 × median; force 13 × median"]


def test_intervals_of_errors_contain_the_error_and_shrink_with_the_number_of_configurations():
    rng = np.random.default_rng(1)
    table = make_evaluation_table()
    rmse, low, high = estimate_rmse(table, "force", rng)
    squares = table["n_atoms"] * table["force_error"] ** 2
    assert rmse == pytest.approx(np.sqrt(squares.sum() / table["n_atoms"].sum()))
    assert low <= rmse <= high
    _, many_low, many_high = estimate_rmse(pd.concat([table] * 50, ignore_index=True), "force", rng)
    assert many_high - many_low < 0.3 * (high - low)
    assert np.isnan(estimate_rmse(table, "stress", rng)).all()
