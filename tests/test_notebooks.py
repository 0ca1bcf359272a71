"""The notebooks run as plain Python against a fresh small run, and what is stored in them is fit to publish."""

import json
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, first_configurations
from matplotlib import pyplot as plt
from ruamel.yaml import YAML

from paretofit import run_study

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STUDY = {
    "dataset": str(first_configurations()),
    "basis": {"elements": ["Be"]},
    "levels": [3, 4, 5],
    "twojmax": [2, 4],
    "weights": [1, 12.25],
    "sizes": [20, 60, "all"],
    "samplings": ["random", "leverage"],
    "repetitions": 2,
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A small finished run."""
    folder = tmp_path_factory.mktemp("notebooks")
    with (folder / "study.yaml").open("w") as stream:
        YAML().dump(STUDY, stream)
    return run_study(folder / "study.yaml", out=folder / "run").folder


@pytest.fixture
def namespace_of(monkeypatch):
    """A function that executes a notebook on a run folder, no Jupyter involved, and returns its variables."""

    def execute(notebook: Path, run: Path) -> dict:
        monkeypatch.setenv("PARETOFIT_RUN", str(run))
        monkeypatch.chdir(notebook.parent)
        namespace: dict = {"__name__": "__main__"}
        for number, cell in enumerate(cells(notebook), 1):
            if cell["cell_type"] == "code":
                code = compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec")
                exec(code, namespace)  # noqa: S102  (the project's own notebook, and running it is the test)
        return namespace

    plt.switch_backend("Agg")
    monkeypatch.setattr(plt, "show", draw_and_close)
    with mpl.rc_context(), pd.option_context("display.precision", 6):
        yield execute
    plt.close("all")


def draw_and_close():
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def cells(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(notebook, run_folder, namespace_of):
    namespace_of(notebook, run_folder)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_missing_run_is_said_with_its_remedy(notebook, tmp_path, namespace_of):
    with pytest.raises(FileNotFoundError, match=r"no-such-run.*'paretofit run studies/"):
        namespace_of(notebook, tmp_path / "no-such-run")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_whole_small_and_without_paths(notebook):
    assert notebook.stat().st_size < 600_000
    counts = [cell["execution_count"] for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "executed once, from top to bottom"
    outputs = [output for cell in cells(notebook) for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output
        text = json.dumps({**output, "data": {**output.get("data", {}), "image/png": ""}})
        assert not re.search(r"(?<![<\w])/(home|tmp|work|usr|root|Users)\b|[A-Z]:\\\\", text), text


def test_the_fit_of_analyse_front_is_that_of_the_study(run_folder, namespace_of):
    found = namespace_of(ROOT / "notebooks" / "analyse_front.ipynb", run_folder)
    table = found["medians"].query(found["same"], local_dict=found)
    tested = ~found["row_trains"]
    for name, kind in (("ref_energy", 0), ("ref_force", 1)):
        error = (found["predicted"] - found["reference"])[tested & (found["design"].kind == kind)]
        assert 1000 * np.sqrt(np.mean(error**2)) == pytest.approx(table[name].item(), rel=1e-6), name


def test_the_answers_of_analyse_front_are_those_of_the_table(run_folder, namespace_of):
    found = namespace_of(ROOT / "notebooks" / "analyse_front.ipynb", run_folder)
    medians = found["medians"]
    within = medians[medians["label_seconds"] <= 600]
    assert found["best_force"]["ref_force"].item() == within["ref_force"].min()
    close = within[within["ref_force"] <= 1.2 * within["ref_force"].min()]
    assert found["best_energy"]["ref_energy"].item() == close["ref_energy"].min()
