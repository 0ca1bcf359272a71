"""The notebooks run from top to bottom in a fresh kernel, what they say is true, and what is stored is fit to publish.

``python tests/test_notebooks.py`` executes them and stores their outputs; with an argument such as 03, only
those that have it in their name.
"""

import json
import os
import re
import socket
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["01_pareto_study", "02_leverage_sampling", "03_plan_a_budget", "04_bring_your_own_data"]
LARGEST = 400_000  # bytes
CELL_SECONDS = 240
MACHINE = r"(?<![<\w])/(home|tmp|work|usr|root|Users|var|opt|private)\b|[A-Z]:\\|file:/"

# What the text of a notebook claims of its outputs, as code that runs in its kernel after the last cell.
CLAIMS = {
    "01_pareto_study": """
for name, value in by_hand.items():
    assert np.isclose(value, medians.query(same).iloc[0][name], rtol=1e-6), name
cheap_first = winners.sort_values("budget_from")
assert cheap_first["ref_force"].is_monotonic_decreasing
for _, step in stairs.iterrows():
    within = medians[medians["label_seconds"] <= step["budget_from"]]
    assert within["ref_force"].min() == step["ref_force"], "the staircase is that of a search through the table"
at_1 = errors.configurations.query("level == '1'")
small = at_1["shortest_vector"] < 2.3
wrong = at_1["energy_error"].abs()
assert wrong[small].median() > 2 * wrong[~small].median(), "at level 1 the smallest cells are far off"
""",
    "02_leverage_sampling": """
assert np.isclose(scores.rows.sum(), scores.rank)
of_6 = median_errors(results, 6)
assert (of_6["block-leverage"] < of_6["random"]).all(), "drawing by block leverage gains at every size"
assert of_6.loc[25, "top-block-leverage"] > of_6.loc[25, "random"], "the highest scores are worse for the fewest"
assert of_6.loc[140, "top-block-leverage"] < of_6.loc[140, "random"], "and good for many"
gain = {t: (1 - m["block-leverage"] / m["random"]) for t, m in ((4, median_errors(results, 4)), (6, of_6))}
assert gain[4].mean() < gain[6].mean(), "there is less to gain at 2Jmax = 4"
assert (at_6["leverage"] > at_4["leverage"]).all(), "regular leverage loses by scores at 2Jmax = 6"
assert (at_6["block-leverage"] < 1.1 * at_4["block-leverage"]).all(), "block leverage does not mind"
""",
    "03_plan_a_budget": """
assert checks["inside"].mean() > 0.4
assert cost["level 5"] > 0.5 * cost.sum(), "the reference level takes most of a pilot's cost"
assert (worse.max() < 40).all(), "the pilots' choices are not far from that of the finished study"
assert ten_minutes.chosen["label_seconds"] <= 600
""",
    "04_bring_your_own_data": """
assert difference < 1e-8, "LAMMPS and the rows give the same forces"
assert (best["cheap"] < 1.05 * best["good"]).all(), "models that are much worse than their labels do not notice"
assert (best.to_numpy() > 3 * label_error).all(), "and these models are"
""",
}


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel that works beside it, then its claims; what fails names its cell."""
    notebook = nbformat.read(path, 4)
    claims = nbformat.v4.new_code_cell(CLAIMS[path.stem])
    notebook.cells.append(claims)
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    with client.setup_kernel(cwd=str(path.parent), env=environment(folder)):
        for number, cell in enumerate(notebook.cells):
            what = "claims" if cell is claims else f"cell {number + 1}"
            try:
                client.execute_cell(cell, number, store_history=cell is not claims)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
                raise AssertionError(f"{path.name}, {what}: {plain[-3000:]}") from None
    notebook.cells.remove(claims)
    return notebook


def environment(folder: Path) -> dict[str, str]:
    """The kernel's: one thread, and temporary files in a folder of their own."""
    return {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(folder / "ipython")}


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_all_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_the_text_is_true(path, tmp_path):
    before = {name: listing(ROOT / name) for name in ("notebooks", "data", "studies")}
    execute(path, tmp_path)
    assert {name: listing(ROOT / name) for name in before} == before, "it leaves nothing behind in the checkout"
    assert not list(tmp_path.glob("paretofit-*")), "and cleans up its temporary folder"


def test_a_failure_names_its_cell(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("1 / 0")]
    )
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    monkeypatch.setitem(CLAIMS, "broken", "")
    with pytest.raises(AssertionError, match=r"(?s)broken\.ipynb, cell 2: .*1 / 0.*ZeroDivisionError"):
        execute(tmp_path / "broken.ipynb", tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_whole_and_small(path):
    assert path.stat().st_size < LARGEST
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "executed from top to bottom"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error", output
        assert output.get("name") != "stderr", output
    for cell in cells_of(path):
        assert cell["metadata"] == {}, "no times of execution, no state of an editor"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_stored(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        texts = ["".join(cell["source"])]
        for output in cell.get("outputs", []):
            data = {kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"}
            texts += ["".join(output.get("text", []))] + ["".join(value) for value in data.values()]
        for text in texts:
            assert not re.search(MACHINE, text), text
            assert socket.gethostname() not in text
            assert not re.search(r"0x[0-9a-f]{6,}", text), "no addresses in memory"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}


def store(path: Path) -> None:
    """Execute a notebook and write its outputs, without what belongs to this machine and this moment."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(path, Path(folder))
        for cell in notebook.cells:
            cell.metadata.clear()
            for output in cell.get("outputs", []):
                output.get("metadata", {}).clear()
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        text = nbformat.writes(notebook)
        text = re.sub(rf"(file://)?{re.escape(folder)}/paretofit-\w+", "TEMPORARY", text)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in NOTEBOOKS:
        if len(sys.argv) == 1 or any(word in chosen.stem for word in sys.argv[1:]):
            store(chosen)
            sys.stdout.write(f"{chosen.name}: {chosen.stat().st_size // 1000} kB\n")
