"""The page's explorer: its data against pandas, and the page itself in a real browser."""

import base64
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.results import LEVELS as REPORT_LEVELS
from helpers.results import POOL, front_of, synthetic
from ruamel.yaml import YAML

from paretofit.commands import plan
from paretofit.pareto import pareto_front
from paretofit.report import find_answer, format_duration, write_report
from paretofit.report.figures import style
from paretofit.report.page.explorer import QUANTITIES, build_explorer_data, embed_explorer_data
from paretofit.report.page.sweep_page import render_report
from paretofit.report.tables import compute_medians
from paretofit.report.tables.summaries import drop_duplicate_fits
from paretofit.study import Study

LEVELS = ["1", "2", "3"]
ERRORS = ["ref_energy", "ref_force"]
STUDY = {
    "name": "be", "dataset": "be.h5", "basis": {"elements": ["Be"]}, "levels": LEVELS, "twojmax": [4, 6],
    "weights": [1, 5], "sizes": [20], "sampling_methods": ["random"], "leverage": {"twojmax": 4}, "ridge": [0.0, 0.1],
    "cost": {"label_seconds": {"1": 1.0, "2": 3.0, "3": 40.0}}, "labelling": None,
}  # fmt: skip


def settings(levels=LEVELS, sizes=(20, 40, 80), samplings=("random", "leverage"), twojmax=(4, 6), seed=0):
    """A table as `compute_medians` gives it, with errors that are random, so that no two points tie."""
    grid = itertools.product(twojmax, levels, samplings, sizes, (1.0, 12.25, 50.0))
    table = pd.DataFrame(grid, columns=["twojmax", "level", "sampling", "n_train", "weight_ratio"])
    rng, seconds = np.random.default_rng(seed), {level: 4.0**k for k, level in enumerate(levels)}
    errors = ["ref_energy", "ref_energy_shifted", "ref_force", "test_energy", "test_force"]
    table["label_seconds"] = table["n_train"] * table["level"].map(seconds) * rng.uniform(0.9, 1.1, len(table))
    falling = table[["label_seconds"]].to_numpy() ** -0.3  # what costs more tends to be better
    table[errors] = falling * np.exp(rng.normal(6.0, 0.7, (len(table), len(errors))))
    return table.assign(md_us_per_atom_step=np.nan, n_features=120, n_repeats=10)


def best_row(table, goal, budget=np.inf):
    """Brute force: the row with the lowest goal among those that the budget pays for."""
    affordable = table[table["label_seconds"] <= budget]
    goals = {
        "energy": affordable["ref_energy"],
        "force": affordable["ref_force"],
        "both": affordable["ref_energy"] * affordable["ref_force"],
    }
    return int(goals[goal].idxmin())


def page_of(data):
    return render_report(
        title="t", opening="o", findings=[], figures=[], tables=[], summary={}, warnings=[], explorer=data
    )  # fmt: skip


# The data.


def test_columns_are_the_table():
    table = settings()
    data = build_explorer_data(table, LEVELS)
    columns = data["columns"]
    assert {len(values) for values in columns.values()} == {len(table)}
    for name in ("ref_energy", "ref_force", "label_seconds"):
        assert np.allclose(columns[name], table[name], rtol=1e-6)
    assert [data["levels"][k]["name"] for k in columns["level"]] == list(table["level"])
    assert [data["samplings"][k] for k in columns["sampling"]] == list(table["sampling"])
    assert columns["md_us_per_atom_step"] == [None] * len(table)
    assert [level["colour"] for level in data["levels"]] == [style.get_level_colour(level, LEVELS) for level in LEVELS]
    assert data["reference"] == "3"
    assert data["left_out"] == 0


def test_every_marker_of_the_figures_has_a_symbol():
    levels = [f"l{k}" for k in range(2 * len(style.MARKERS))]
    shapes = [level["symbol"] for level in build_explorer_data(settings(levels=levels), levels)["levels"]]
    assert len(set(shapes)) == len(style.MARKERS)


def test_values_that_are_not_finite_are_unknown():
    table = settings()
    table.loc[0, "ref_energy"], table.loc[1, "label_seconds"] = np.inf, np.nan
    columns = build_explorer_data(table, LEVELS)["columns"]
    assert columns["ref_energy"][0] is None
    assert columns["label_seconds"][1] is None
    assert embed_explorer_data({"columns": columns})  # JSON that refuses NaN


def test_text_in_a_script_element_cannot_end_it():
    evil = "</script><script>alert('1')</script>\u2028<!--\"&"
    text = embed_explorer_data(build_explorer_data(settings(levels=[evil, "b"]), [evil, "b"], STUDY))["data"]
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["levels"][0]["name"] == evil


def test_the_library_is_complete():
    packed = embed_explorer_data({})["plotly"]
    assert gzip.decompress(base64.b64decode(packed)).startswith(b"/**\n* plotly.js")
    assert packed is embed_explorer_data({})["plotly"] or packed == embed_explorer_data({})["plotly"]


@pytest.mark.parametrize("goal", ["energy", "force", "both"])
def test_thinning_changes_no_recommendation(goal):
    table = settings(sizes=tuple(range(20, 420, 10)))
    data = build_explorer_data(table, LEVELS, max_settings=400)
    columns = pd.DataFrame(data["columns"])
    assert len(columns) == 400
    assert data["left_out"] == len(table) - 400
    for level, twojmax, sampling in itertools.product((None, "1", "3"), (4, 6), ("random", "leverage")):
        mask = (table["twojmax"] == twojmax) & (table["sampling"] == sampling)
        selected = (columns["twojmax"] == twojmax) & (columns["sampling"] == data["samplings"].index(sampling))
        if level is not None:
            mask &= table["level"] == level
            selected &= columns["level"] == LEVELS.index(level)
        for budget in (30.0, 100.0, 500.0, 3000.0, np.inf):
            if not (table[mask]["label_seconds"] <= budget).any():
                continue
            whole = table.loc[best_row(table[mask], goal, budget), ERRORS]
            thin = columns.loc[best_row(columns[selected], goal, budget), ERRORS]
            assert np.allclose(whole.astype(float), thin, rtol=1e-6)


def test_twenty_thousand_settings_are_a_page_of_few_megabytes():
    table = settings(sizes=tuple(range(20, 660)), levels=["1", "2", "3"])
    assert len(table) > 20_000
    data = build_explorer_data(table, LEVELS)
    assert len(data["columns"]["level"]) == 20_000
    assert data["left_out"] == len(table) - 20_000
    assert len(page_of(data)) < 5e6


# The page in a browser.


class Page:
    """A tab of a headless Chromium, controlled through the DevTools protocol."""

    def __init__(self, socket):
        self.socket, self.count, self.complaints = socket, itertools.count(1), []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        number = next(self.count)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=180))
            self._listen(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def _listen(self, message):
        """Record errors of the console and requests that would leave the page."""
        kind, parameters = message.get("method"), message.get("params", {})
        address = parameters.get("request", {}).get("url", "")
        is_complaint = {
            "Runtime.exceptionThrown": True,
            "Runtime.consoleAPICalled": parameters.get("type") in ("error", "warning", "assert"),
            "Log.entryAdded": parameters.get("entry", {}).get("level") in ("error", "warning"),
            "Network.requestWillBeSent": not address.startswith(("file:", "data:", "blob:")),
        }  # fmt: skip
        if is_complaint.get(kind):
            self.complaints.append(message)

    def eval(self, expression):
        """The value of a JavaScript expression, promises waited for."""
        reply = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def open(self, path, fragment=""):
        """Show a page from its beginning, and wait for its plot."""
        self.send("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.send("Page.navigate", url=path.absolute().as_uri() + fragment)
        self.wait("document.querySelector('.explorer')?.dataset.ready === 'yes'")

    def wait(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not self.eval(condition):
            assert time.monotonic() < end, (condition, self.complaints)
            time.sleep(0.05)

    def settle(self):
        """Wait until the page has drawn what was last chosen."""
        self.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def click(self, selector):
        self.eval(f"document.querySelector({json.dumps(selector)}).click()")
        self.settle()

    def choose(self, selector, value, event="change"):
        """Give a control a value, as its user would."""
        self.eval(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)}; "
            f"e.dispatchEvent(new Event('{event}', {{bubbles: true}})); }})()"
        )
        self.settle()

    def text(self, selector):
        return self.eval(f"document.querySelector({json.dumps(selector)}).innerText")

    @property
    def state(self):
        """What the explorer shows: numbers of rows, drawn points and front points; the best row or None."""
        dataset = self.eval("({...document.querySelector('.explorer').dataset})")
        return {name: int(dataset[name]) if dataset[name] else None for name in ("rows", "drawn", "front", "best")}


@contextmanager
def chromium(folder):
    """A page of a new headless Chromium whose profile is in `folder`."""
    connect = pytest.importorskip("websockets.sync.client").connect
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed, so the page cannot be tried")
    arguments = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    arguments += "--disable-component-update --disable-sync --remote-debugging-port=0 --remote-allow-origins=*"
    process = subprocess.Popen(
        [program, *arguments.split(), f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        with connect(_tab(Path(folder) / "DevToolsActivePort", process), max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _tab(port_file, process, seconds=60):
    """The address of the browser's first tab, once it listens."""
    opener, end = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if port_file.exists() and port_file.read_text().count("\n"):
            port = port_file.read_text().split("\n")[0]
            tabs = json.load(opener.open(f"http://127.0.0.1:{port}/json/list", timeout=30))
            pages = [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]
            if pages:
                return pages[0]
        time.sleep(0.1)
    pytest.skip("Chromium does not start here")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def table():
    return settings()


@pytest.fixture
def page(browser, table, tmp_path):
    """The explorer of `table`, newly opened; whatever the test does, the console stays empty."""
    path = tmp_path / "report.html"
    path.write_text(page_of(build_explorer_data(table, LEVELS, STUDY)), encoding="utf-8")
    browser.path = path
    browser.open(path)
    yield browser
    browser.settle()
    assert not browser.complaints


def test_it_loads_without_complaints_and_draws_every_setting(page, table):
    front = pareto_front(table, ["label_seconds", "ref_energy"])
    assert page.state == {
        "rows": len(table), "drawn": len(table), "front": len(front), "best": best_row(table, "both")
    }  # fmt: skip
    assert page.eval("document.querySelectorAll('#ex-plot .point').length") >= len(table)
    assert not page.complaints
    labels = page.eval("[...document.querySelectorAll('#ex-plot .ytick text')].map((e) => e.textContent)")
    values = [float(label.replace(",", "")) for label in labels]
    assert values == sorted(values), "numbers, not digits of numbers"
    assert f"{len(front)} on the front of DFT cost and energy error" in page.text("#ex-count")


@pytest.mark.slow
def test_a_filter_changes_the_points(page, table):
    page.click("#ex-level input[value='1']")
    shown = table[table["level"] != "1"]
    assert page.state["rows"] == page.state["drawn"] == len(shown)
    page.click("#ex-twojmax input[value='4']")
    page.click("#ex-sampling input[value='random']")
    shown = shown[(shown["twojmax"] == 6) & (shown["sampling"] == "leverage")]
    assert page.state["rows"] == len(shown)
    assert page.state["best"] == best_row(shown, "both")
    assert f"{len(shown)} of {len(table)} settings" in page.text("#ex-count")
    page.click("#ex-twojmax input[value='6']")
    assert page.state["rows"] == 0
    assert "No setting passes" in page.text("#ex-advice")
    page.click("#ex-reset")
    assert page.state["rows"] == len(table)


@pytest.mark.parametrize(
    "goal", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("energy", "force")), "both"]
)
def test_the_slider_moves_the_recommendation_as_brute_force_does(page, table, goal):
    page.choose("#ex-best", goal)
    seen = set()
    for place in (0, 1, 150, 300, 450, 600, 750, 900, 999, 1000):
        page.choose("#ex-budget", str(place), "input")
        budget = float(page.eval("new URLSearchParams(location.hash.slice(1)).get('budget')") or "inf")
        assert page.state["best"] == best_row(table, goal, budget)
        row = table.loc[page.state["best"]]
        advice = page.text("#ex-advice")
        assert f"level {row['level']}, 2Jmax = {row['twojmax']}, {row['n_train']} configurations" in advice
        seen.add(page.state["best"])
    assert len(seen) > 2


def test_a_budget_pays_for_what_costs_exactly_as_much(page, table):
    best = best_row(table, "both")
    cost = build_explorer_data(table, LEVELS)["columns"]["label_seconds"][best]
    page.open(page.path, f"#budget={cost}")
    assert page.state["best"] == best
    page.open(page.path, f"#budget={cost * 0.999}")
    assert page.state["best"] != best


@pytest.mark.parametrize(
    ("x", "y"), [("ref_force", "ref_energy"), pytest.param("n_train", "ref_energy_shifted", marks=pytest.mark.slow)]
)
def test_the_front_is_that_of_the_axes_and_the_cost(page, table, x, y):
    page.choose("#ex-x", x)
    page.choose("#ex-y", y)
    front = pareto_front(table, [x, y, "label_seconds"])
    assert page.state["front"] == len(front)
    page.click("[name=ex-show][value=front]")
    assert page.state["drawn"] == len(front)
    assert page.state["rows"] == len(table)


@pytest.mark.slow
def test_equal_fits_of_the_whole_training_set_count_once(browser, tmp_path, table):
    twin = table[table["n_train"] == 80].groupby(["twojmax", "level", "weight_ratio"]).transform("first")
    same = table.copy()
    same.loc[twin.index, [*ERRORS, "label_seconds"]] = twin[[*ERRORS, "label_seconds"]]
    same.loc[twin.index, ERRORS] /= 10
    same = same.sort_values("sampling", ignore_index=True)  # leverage first
    path = tmp_path / "report.html"
    path.write_text(page_of(build_explorer_data(same, LEVELS)), encoding="utf-8")
    browser.open(path, "#x=ref_force")
    assert browser.state["front"] == len(
        drop_duplicate_fits(pareto_front(same, ["ref_force", "ref_energy", "label_seconds"]))
    )
    best = same.loc[browser.state["best"]]
    assert (best["n_train"], best["sampling"]) == (80, "random")


@pytest.mark.slow
def test_the_address_holds_the_view(page, table):
    page.open(page.path, "#level=2&level=3&budget=600&best=energy&x=ref_force&xlog=0&colour=n_train")
    shown = table[table["level"] != "1"]
    assert page.state["rows"] == len(shown)
    assert page.state["best"] == best_row(shown, "energy", 600)
    assert "10 min" in page.text("#ex-budget-text")
    page.click("#ex-twojmax input[value='4']")
    address = page.eval("location.hash")
    before = page.state
    page.open(page.path, address)
    assert page.state == before
    page.open(page.path, "#level=2&budget=-1&best=nonsense&x=md_us_per_atom_step&point=99999&y=<b>")
    assert page.state["best"] == best_row(table[table["level"] == "2"], "both")


def test_a_cost_below_the_cheapest_names_the_cheapest(page, table):
    page.open(page.path, "#level=3&budget=30")
    assert page.state["best"] is None
    cheapest = table[table["level"] == "3"]["label_seconds"].min()
    assert f"the cheapest costs {cheapest / 60:.3g} min" in page.text("#ex-advice")
    assert page.eval("document.querySelector('#ex-copy-best').disabled")


@pytest.mark.slow
def test_a_click_selects_a_point_and_so_do_the_buttons(page, table):
    hidden = "[...document.querySelector('#ex-table').rows].filter((e) => e.hidden).map((e) => e.cells[0].textContent)"
    assert page.eval(hidden) == [], "each value of a measured point is known"
    assert page.text("#ex-selected") == "Selected: click a point"
    page.click("[name=ex-show][value=front]")
    position = page.eval(
        "(() => { document.querySelector('#ex-plot').scrollIntoView(); "
        "const r = document.querySelector('#ex-plot .point').getBoundingClientRect(); "
        "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.send("Input.dispatchMouseEvent", type=kind, x=position[0], y=position[1], button="left", clickCount=1)
        time.sleep(0.3)
    page.wait("location.hash.includes('point=')")
    page.settle()
    row = table.loc[int(page.eval("new URLSearchParams(location.hash.slice(1)).get('point')"))]
    assert page.eval("document.querySelector('#ex-table').rows[0].cells[2].innerText") == row["level"]
    assert page.text("#ex-selected") == "Selected"
    front = pareto_front(table, ["label_seconds", "ref_energy"])
    visited = set()
    for _ in front.index:
        page.click("#ex-next")
        visited.add(int(page.eval("new URLSearchParams(location.hash.slice(1)).get('point')")))
    assert visited == set(front.index)


@pytest.mark.slow
def test_every_front_marker_selects_its_own_setting(page, table):
    """A click at the centre of a marker selects its setting, even below faint markers of others."""
    page.eval("document.querySelector('#ex-plot').scrollIntoView()")
    places = page.eval(
        "(() => { const gd = document.querySelector('#ex-plot'), box = gd.getBoundingClientRect(), at = []; "
        "for (const trace of gd.data) if (trace.marker?.line?.width === 1.3 && trace.customdata) "
        "trace.customdata.forEach((row, k) => at.push([row, "
        "box.x + gd._fullLayout.xaxis._offset + gd._fullLayout.xaxis.d2p(trace.x[k]), "
        "box.y + gd._fullLayout.yaxis._offset + gd._fullLayout.yaxis.d2p(trace.y[k])])); return at; })()"
    )
    front = pareto_front(table, ["label_seconds", "ref_energy"])
    assert {row for row, _, _ in places} == set(front.index)
    for row, x, y in places:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            page.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            time.sleep(0.1)
        page.wait(f"location.hash.includes('point={row}')", 10)


@pytest.fixture(scope="module")
def planned():
    """Results and the explorer's data with the curves of the planner."""
    results = synthetic()
    answer = find_answer(results)
    return results, answer, build_explorer_data(compute_medians(results, REPORT_LEVELS), REPORT_LEVELS, None, answer)


def test_the_explorer_gives_the_answer_of_plan_and_opens_at_the_knee(browser, tmp_path, planned):
    results, answer, data = planned
    path = tmp_path / "report.html"
    path.write_text(page_of(data), encoding="utf-8")
    browser.open(path)
    advice = browser.text("#ex-advice")
    assert f"With {format_duration(answer.knee)}" in advice
    assert "energy error, shifted" not in browser.text("#ex-table"), "unknown between measured points"
    assert "unknown" not in browser.text("#ex-table")
    for budget, prefer in ((answer.knee, "both"), (answer.table["budget"].iloc[1], "energy")):
        browser.open(path, f"#budget={float(budget)!r}&best={prefer}")
        shown = json.loads(browser.eval("document.querySelector('.explorer').dataset.plan"))
        choice = plan(results, budget=float(budget), prefer=prefer).choice
        assert REPORT_LEVELS[shown["level"]] == choice["level"]
        assert (shown["n_train"], shown["twojmax"]) == (choice["n_train"], choice["twojmax"])
        assert shown["weight_ratio"] == pytest.approx(choice["w_energy"] / choice["w_force"], rel=1e-5)
        assert shown["ref_energy"] == pytest.approx(choice["energy"], rel=1e-3)
        assert shown["ref_force"] == pytest.approx(choice["force"], rel=1e-3)
    assert not browser.complaints


def test_several_bases_are_filtered_and_a_point_has_the_study_of_its_basis(browser, tmp_path):
    parts = {"basis": synthetic(), "pod": synthetic()}
    for error in ERRORS:
        parts["pod"][error] *= np.where(parts["pod"]["n_train"] > 100, 0.8, 1.2)
    results = pd.concat([part.assign(basis=name) for name, part in parts.items()], ignore_index=True)
    further_studies = {"pod": {**STUDY, "basis": {"elements": ["Be"], "family": "pod"}}}
    answer = find_answer(results, STUDY, further_studies=further_studies)
    table = compute_medians(results, REPORT_LEVELS)
    data = build_explorer_data(table, REPORT_LEVELS, STUDY, answer, further_studies=further_studies)
    assert [entry["name"] for entry in data["bases"]] == ["basis", "pod"]
    path = tmp_path / "report.html"
    path.write_text(page_of(data), encoding="utf-8")
    for budget in answer.table["budget"]:
        browser.open(path, f"#budget={float(budget)!r}")
        shown = json.loads(browser.eval("document.querySelector('.explorer').dataset.plan"))
        choice = plan(results, budget=float(budget)).choice
        assert data["bases"][shown["basis"]]["name"] == choice["basis"]
        assert (shown["n_train"], shown["twojmax"]) == (choice["n_train"], choice["twojmax"])
    assert browser.state["rows"] == len(table)
    browser.click("#ex-basis input[value=basis]")
    assert browser.state["rows"] == (table["basis"] == "pod").sum()
    browser.click("#ex-copy-best")
    content = YAML(typ="safe").load(browser.eval("document.querySelector('#ex-yaml').value"))
    assert content["basis"]["family"] == "pod"
    assert "basis pod, 2Jmax = " in browser.text("#ex-advice")
    assert not browser.complaints


def test_the_yaml_of_a_point_is_a_study_of_that_point(page, table):
    page.eval("navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'))")
    page.choose("#ex-budget", "500", "input")
    page.click("#ex-copy-best")
    page.wait("!document.querySelector('#ex-yaml-part').hidden")
    row = table.loc[page.state["best"]]
    content = YAML(typ="safe").load(page.eval("document.querySelector('#ex-yaml').value"))
    study = Study.model_validate(content)
    assert study.levels == list(dict.fromkeys([row["level"], "3"]))  # with the reference
    assert study.twojmax == [row["twojmax"]]
    assert study.weights == [(row["weight_ratio"], 1.0)]
    assert study.sizes == [row["n_train"]]
    assert study.sampling_methods == [row["sampling"]]
    assert study.basis.twojmax == 6
    assert study.leverage.twojmax == 4
    assert study.cost.label_seconds == {level: STUDY["cost"]["label_seconds"][level] for level in study.levels}
    assert study.ridge == [0.0]
    page.eval("navigator.clipboard.writeText = (text) => { window.taken = text; return Promise.resolve(); }")
    page.click("#ex-copy-best")
    page.wait("document.querySelector('#ex-copied').innerText === 'Copied.'")
    assert YAML(typ="safe").load(page.eval("window.taken")) == content


@pytest.mark.slow
def test_the_colours_follow_light_and_dark(page):
    ink = "getComputedStyle(document.querySelector('#ex-plot .xtitle')).fill"
    fill = "[...document.querySelectorAll('#ex-plot .legendpoints path')].map((e) => getComputedStyle(e).fill)"
    colours, fills = [], []
    for theme in ("light", "dark", "light"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        page.settle()
        colours.append(page.eval(ink))
        fills.append(page.eval(fill))
    page.send("Emulation.setEmulatedMedia", features=[])
    assert colours[0] == colours[2] != colours[1]
    assert fills[0] == fills[2]
    for colour in fills[1][: len(LEVELS)]:
        red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
        assert 0.3 * red + 0.59 * green + 0.11 * blue > 120, "seen on a dark background"


def test_every_control_has_a_name_and_the_advice_is_read_out(page):
    nameless = page.eval(
        "[...document.querySelectorAll('.explorer input, .explorer select, .explorer textarea')]"
        ".filter((e) => !e.labels.length).map((e) => e.id)"
    )
    assert nameless == []
    assert page.eval("document.querySelector('#ex-advice').getAttribute('aria-live')") == "polite"


def test_a_phone_needs_no_sideways_scrolling_and_print_leaves_it_out(page):
    page.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    page.open(page.path)
    assert page.eval("document.documentElement.scrollWidth") <= 360
    page.send("Emulation.clearDeviceMetricsOverride")
    page.send("Emulation.setEmulatedMedia", media="print")
    assert page.eval("getComputedStyle(document.querySelector('.explorer')).display") == "none"
    page.send("Emulation.setEmulatedMedia", media="")


@pytest.mark.slow
def test_a_picture_can_be_saved_and_nothing_can_be_uploaded(page, tmp_path):
    titles = page.eval("[...document.querySelectorAll('#ex-plot .modebar-btn')].map((e) => e.dataset.title)")
    assert len(titles) == 7
    assert not [title for title in titles if "cloud" in title.lower() or "share" in title.lower()]
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#ex-plot .modebar-btn")
    for _ in range(200):
        if (tmp_path / "front.svg").exists():
            break
        time.sleep(0.05)
    assert "<svg" in (tmp_path / "front.svg").read_text()


def odd_tables():
    table = settings()
    evil = "</script><b>\"'&%{x}${y}"
    yield "single", settings(levels=["1"], sizes=(20,), samplings=("random",), twojmax=(4,)).iloc[:1], ["1"]
    yield "no_cost", table.assign(label_seconds=np.nan), LEVELS
    yield "free", table.assign(label_seconds=0.0), LEVELS
    yield "one_cost", table.assign(label_seconds=5.0), LEVELS
    yield "hopeless", table.assign(ref_energy=np.inf), LEVELS
    yield "nothing", table.assign(**dict.fromkeys(set(QUANTITIES) - {"n_train"}, np.nan)), LEVELS
    yield "names", settings(levels=[evil, "b,c"]), [evil, "b,c"]
    yield "md", table.assign(md_us_per_atom_step=table["twojmax"] * 1.5), LEVELS


@pytest.mark.parametrize(
    ("table", "levels"),
    [
        pytest.param(*rest, id=name, marks=[] if name in {"no_cost", "names"} else [pytest.mark.slow])
        for name, *rest in odd_tables()
    ],
)
def test_odd_tables_are_shown_without_complaint(browser, tmp_path, table, levels):
    path = tmp_path / "report.html"
    path.write_text(page_of(build_explorer_data(table, levels)), encoding="utf-8")
    browser.open(path)
    for axes in ("", "#colour=ref_force&x=n_train", "#colour=label_seconds&xlog=0&ylog=0&y=label_seconds&x=ref_force"):
        browser.eval(f"location.hash = {json.dumps(axes)}")
        browser.settle()
        assert not browser.complaints
        assert browser.state["rows"] == len(table)
        assert browser.eval("document.querySelector('#ex-problem').hidden")
        if np.isfinite(table[ERRORS]).all(axis=None):
            known = table["label_seconds"].notna().any()
            assert browser.state["best"] == best_row(table if known else table.assign(label_seconds=0.0), "both")
    assert not browser.complaints
    assert browser.eval("document.querySelector('#ex-level input').value") == levels[0]
    assert browser.eval("document.querySelector('#ex-plot .legendtext').textContent") == f"level {levels[0]}"


@pytest.mark.slow
def test_the_page_of_a_report_recommends_as_plan_does(browser, tmp_path):
    results = synthetic(repeats=3, twojmax=(4,), sizes=(20, 40, POOL))
    table = compute_medians(results, REPORT_LEVELS)
    path = write_report(tmp_path, results, front_of(results), REPORT_LEVELS, title="t", summary={})
    assert path.stat().st_size < 6e6
    browser.open(path, "#budget=300&best=force")
    assert browser.state["rows"] == len(table)
    shown = json.loads(browser.eval("document.querySelector('.explorer').dataset.plan"))
    choice = plan(results, budget=300.0, prefer="force").choice
    assert (shown["n_train"], shown["ref_force"]) == (choice["n_train"], pytest.approx(choice["force"], rel=1e-3))
    assert not browser.complaints
    browser.send("Emulation.setDeviceMetricsOverride", width=390, height=840, deviceScaleFactor=2, mobile=True)
    browser.open(path)
    edges = browser.eval(
        "[...document.querySelectorAll('.answer td.error')].map((e) => e.getBoundingClientRect().right)"
    )
    assert edges
    assert max(edges) < 390, "errors are seen without sideways scrolling"
    assert browser.eval("document.documentElement.scrollWidth") <= 390
    hint = browser.eval("getComputedStyle(document.querySelector('#answer-figure'), '::before').content")
    assert "sideways" in hint, "the figure is wider than the screen"
    headings = browser.eval(
        "[...document.querySelectorAll('#ex-parallel .xtick')].map((e) => e.getBoundingClientRect())"
        ".map((box) => [box.left, box.right])"
    )
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(sorted(headings)))
    browser.send("Emulation.clearDeviceMetricsOverride")
    browser.send("Emulation.setEmulatedMedia", media="print")
    folded = "[...document.querySelectorAll('details')].every((e) => getComputedStyle(e).display === 'none')"
    assert browser.eval(folded), "folded parts are left out of print"
    assert browser.eval("getComputedStyle(document.querySelector('#details')).display") == "none"
    assert "not printed" in browser.eval("getComputedStyle(document.body, '::after').content")
    browser.send("Emulation.setEmulatedMedia", media="")


def test_without_javascript_a_sentence_links_to_the_figures(table):
    text = page_of(build_explorer_data(table, LEVELS))
    assert "<noscript>" in text
    assert 'id="ex-body" hidden' in text
    assert "unsafe-eval" not in text
    assert "explore" not in page_of(None)
