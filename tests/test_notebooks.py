"""The notebooks run from top to bottom in a fresh kernel, their statements hold, and their stored outputs are clean.

``python tests/test_notebooks.py`` executes all notebooks and stores their outputs; an argument such as 03 selects the
notebooks whose name contains it.
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
# Minutes in all; CI runs them beside the tests of networks, which keep one process busy.
MARKS = (pytest.mark.slow, pytest.mark.notebook)
MAX_NOTEBOOK_BYTES = 400_000
CELL_TIMEOUT_S = 600
LOCAL_PATH_PATTERN = r"(?<![<\w])/(home|tmp|work|usr|root|Users|var|opt|private)\b|[A-Z]:\\|file:/"

# Statements of the text about the outputs, as code that runs in the kernel after the last cell.
CLAIMS = {
    "01_pareto_study": """
for name, value in recomputed.items():
    assert np.isclose(value, medians.query(same_setting).iloc[0][name], rtol=1e-6), name
assert best_levels.sort_values("budget_from")["ref_force"].is_monotonic_decreasing
for _, step in best_settings.iterrows():
    affordable = medians[medians["label_seconds"] <= step["budget_from"]]
    assert affordable["ref_force"].min() == step["ref_force"], "an exhaustive search finds the same setting"
errors_at_1 = errors.configurations.query("level == '1'")
is_small = errors_at_1["shortest_vector"] < 2.3
energy_errors = errors_at_1["energy_error"].abs()
assert energy_errors[is_small].median() > 2 * energy_errors[~is_small].median(), "level 1 is poor for small cells"
""",
    "02_leverage_sampling": """
assert np.isclose(scores.rows.sum(), scores.rank)
errors_at_6 = median_errors(results, 6)
assert (errors_at_6["block-leverage"] < errors_at_6["random"]).all(), "block leverage is better at every size"
assert errors_at_6.loc[25, "top-block-leverage"] > errors_at_6.loc[25, "random"], "few: the highest scores are worse"
assert errors_at_6.loc[140, "top-block-leverage"] < errors_at_6.loc[140, "random"], "many: they are better"
gain = {t: (1 - m["block-leverage"] / m["random"]) for t, m in ((4, median_errors(results, 4)), (6, errors_at_6))}
assert gain[4].mean() < gain[6].mean(), "the gain is smaller at 2Jmax = 4"
assert (at_6["leverage"] > at_4["leverage"]).all(), "regular leverage is worse with scores at 2Jmax = 6"
assert (at_6["block-leverage"] < 1.1 * at_4["block-leverage"]).all(), "block leverage is not"
""",
    "03_plan_a_budget": """
assert checks["in_range"].mean() > 0.4
assert cost["level 5"] > 0.5 * cost.sum(), "the reference level takes most of a pilot's cost"
assert (excess.max() < 40).all(), "the pilots' choices are similar to that of the finished study"
assert ten_minutes.choice["label_seconds"] <= 600
""",
    "04_bring_your_own_data": """
assert difference < 1e-8, "LAMMPS and the rows give the same forces"
assert (best["cheap"] < 1.05 * best["good"]).all(), "the level hardly matters if the model has much larger errors"
assert (best.to_numpy() > 3 * label_error).all(), "as these models have"
""",
    "05_active_learning": """
first, last = loop.iterations.iloc[0], loop.iterations.iloc[-1]
for name in ("energy", "stress"):
    assert last[f"first_test_{name}_weighted"] < first[f"first_test_{name}_weighted"], "the errors fall"
assert max(first["first_test_forces_weighted"], last["first_test_forces_weighted"]) < 200, "within the tolerance"
assert loop.answers["Is the potential good?"].startswith("Not yet for energy and stress.")
kinds = loop.errors_by_kind.set_index("kind")
assert kinds["energy"].drop("all").idxmax() == kinds["stress"].drop("all").idxmax() == "strained (3D)"
assert checks["ratio"]["energy"].iloc[0] > 1.5, "predicted energy errors of the first batch are too low"
assert checks["ratio"].iloc[-1].between(0.5, 2).all(), "and those of the last one are right"
ended_early = trajectories["reason"].ne("").groupby("iteration").sum()
assert ended_early[1] >= 2 > ended_early[2], "the second committee is more stable"
assert is_inside.mean() > 0.9, "intervals of the equation of state contain the labels"
assert curve["energy_interval"].max() > 20 * curve["energy_interval"].min(), "and widen with extrapolation"
""",
    "06_uncertainty": """
medians = unseen.groupby("data")[columns].median()
assert medians.loc["far", "force_error"] > medians.loc["near", "force_error"], "other kinds have larger errors"
assert medians.loc["far", "force_std"] > medians.loc["near", "force_std"], "which the disagreement shows"
assert medians.loc["far", "extrapolation_grade"] > medians.loc["near", "extrapolation_grade"], "and the grade"
assert rank["force_std"] > 0.5, "disagreement and error rise together"
""",
}


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel in its folder, then its claims; an error names the cell that failed."""
    notebook = nbformat.read(path, 4)
    claims = nbformat.v4.new_code_cell(CLAIMS[path.stem])
    notebook.cells.append(claims)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    with client.setup_kernel(cwd=str(path.parent), env=kernel_environment(folder)):
        for number, cell in enumerate(notebook.cells):
            cell_name = "claims" if cell is claims else f"cell {number + 1}"
            try:
                client.execute_cell(cell, number, store_history=cell is not claims)
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                message = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
                raise AssertionError(f"{path.name}, {cell_name}: {message[-3000:]}") from None
    notebook.cells.remove(claims)
    return notebook


def kernel_environment(folder: Path) -> dict[str, str]:
    """Return an environment with one thread and a separate folder for temporary files."""
    return {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(folder / "ipython")}


def read_cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def list_modification_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_every_notebook_has_claims():
    assert [path.stem for path in NOTEBOOKS] == list(CLAIMS)


@pytest.mark.parametrize("path", [pytest.param(path, marks=MARKS) for path in NOTEBOOKS], ids=lambda path: path.stem)
def test_every_cell_runs_and_its_claims_hold(path, tmp_path):
    before = {name: list_modification_times(ROOT / name) for name in ("notebooks", "data", "studies")}
    execute(path, tmp_path)
    assert {name: list_modification_times(ROOT / name) for name in before} == before, "the checkout is unchanged"
    # the files of a calculator would be removed at the end of the kernel, which is killed
    folders = [path for path in tmp_path.glob("paretofit-*") if not path.name.startswith("paretofit-potential-")]
    assert not folders, "the temporary folder is removed"


def test_error_names_its_cell(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("1 / 0")]
    )
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    monkeypatch.setitem(CLAIMS, "broken", "")
    with pytest.raises(AssertionError, match=r"(?s)broken\.ipynb, cell 2: .*1 / 0.*ZeroDivisionError"):
        execute(tmp_path / "broken.ipynb", tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_complete_and_small(path):
    assert path.stat().st_size < MAX_NOTEBOOK_BYTES
    code = [cell for cell in read_cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "executed from top to bottom"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output["output_type"] != "error", output
        assert output.get("name") != "stderr", output
    for cell in read_cells(path):
        assert cell["metadata"] == {}, "no execution times and no editor state"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_name_no_machine(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        texts = ["".join(cell["source"])]
        for output in cell.get("outputs", []):
            data = {kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"}
            texts += ["".join(output.get("text", []))] + ["".join(value) for value in data.values()]
        for text in texts:
            assert not re.search(LOCAL_PATH_PATTERN, text), text
            assert socket.gethostname() not in text
            assert not re.search(r"0x[0-9a-f]{6,}", text), "no memory addresses"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}


def store(path: Path) -> None:
    """Execute a notebook and store its outputs without times, paths and metadata of this machine."""
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
    for notebook_path in NOTEBOOKS:
        if len(sys.argv) == 1 or any(argument in notebook_path.stem for argument in sys.argv[1:]):
            store(notebook_path)
            sys.stdout.write(f"{notebook_path.name}: {notebook_path.stat().st_size // 1000} kB\n")
