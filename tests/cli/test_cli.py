"""The command line as a user meets it: help, exit codes, one sentence and no traceback."""

import os
import signal
import subprocess
import sys
import warnings
from types import SimpleNamespace

import joblib
import pandas as pd
import pytest
from conftest import ROOT
from helpers.command_line import call
from helpers.studies import SMALL
from typer.main import get_command

from paretofit.cli import app
from paretofit.cli.stopping import LOST_TASKS_WARNING
from paretofit.cli.verb_help import WORKFLOW

VERBS = [
    *("init", "run", "info", "import", "pareto", "export", "label", "augment", "select", "plan", "report", "fit"),
    *("evaluate", "validate", "learn", "explore"),
]
BERYLLIUM = str(ROOT / "data" / "beryllium.h5")


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb):
    done = call(verb, "--help")
    assert done.returncode == 0
    assert f"paretofit {verb}" in done.stdout


def test_help_lists_every_verb_once_with_a_whole_sentence():
    listing = " ".join(call("--help").stdout.partition("\nData:\n")[2].split())
    assert "..." not in listing
    assert sorted(name for names in WORKFLOW.values() for name in names) == sorted(get_command(app).commands)
    for name, verb in get_command(app).commands.items():
        assert f"{name} {verb.get_short_help_str(limit=10_000)}" in listing


def test_info_shows_what_is_there():
    done = call("info", SMALL["dataset"])
    assert done.returncode == 0, done.stderr
    for text in ("197 configurations, 963 atoms", "kspacing_per_angstrom 0.25", "32.61"):
        assert text in done.stdout


def test_output_into_a_closed_pipe_ends_silently():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "paretofit.cli", "init", "--keys"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_joblib_does_not_warn_of_tasks_that_a_stop_discards():
    tasks = SimpleNamespace(n_completed_tasks=3, _nb_consumed=2, n_dispatched_tasks=5, _is_completed=lambda: False)
    warn = joblib.Parallel._warn_exit_early
    for n_consumed in (2, 3):
        tasks._nb_consumed = n_consumed
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("ignore", LOST_TASKS_WARNING, UserWarning)
            warn(tasks)
        assert not caught


@pytest.mark.slow
def test_info_on_the_shipped_data():
    done = call("info", BERYLLIUM)
    assert done.returncode == 0, done.stderr
    for text in ("426 configurations, 2,006 atoms", "kspacing_per_angstrom 0.25", "33.73", "no warnings"):
        assert text in done.stdout


def test_init_import_pareto_in_a_row(tmp_path):
    assert call("init", BERYLLIUM, "-o", "s.yaml", cwd=tmp_path).returncode == 0
    assert "dataset:" in (tmp_path / "s.yaml").read_text()
    table = pd.DataFrame({"cost": [1, 2, 3, 3], "error": [9.0, 4.0, 4.0, 1.0], "level": ["01", "2", "3", "4"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    done = call("pareto", tmp_path / "t.csv", "--minimize", "cost,error", "--out", tmp_path / "f.csv")
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "f.csv", dtype=str)["level"].tolist() == ["01", "2", "4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "none.h5"], "no dataset at none.h5"),
        (["run", "none.yaml"], "no file at none.yaml"),
        (["pareto", "t.csv", "--minimize", "cots"], "did you mean 'cost'"),
        (["pareto", "t.csv", "--minimize", "name"], "name"),
        (["pareto", "none.csv", "--minimize", "a"], "none.csv"),
        (["import", "d.h5", "--level", "a"], "--level must be NAME=FILE"),
        (["import", "d.h5", "--level", "a=none.xyz"], "no file at none.xyz"),
        (["init"], "init requires a dataset"),
        (["run"], "study"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_wrong_input_is_exit_code_2_and_one_sentence(tmp_path, arguments, message):
    pd.DataFrame({"cost": [1, 2], "name": ["x", "y"]}).to_csv(tmp_path / "t.csv", index=False)
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert message.lower() in done.stderr.lower(), "typer may write names of arguments in capitals"
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported_where_it_is_not_needed():
    script = (
        "import sys, paretofit, paretofit.pareto, paretofit.sweep, paretofit.report, paretofit.study, paretofit.cli\n"
        "from paretofit import Dataset, pareto_front, SnapBasis, DesignMatrix, Study, fit_wls, run_study\n"
        "heavy = [name for name in ('lammps', 'torch', 'mpi4py', 'mace', 'fitsnap3lib') if name in sys.modules]\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_no_large_packages():
    script = (
        "import sys\nfrom paretofit.cli.application import app\n"
        "heavy = [name for name in ('pandas', 'scipy', 'ase', 'matplotlib') if name in sys.modules]\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_missing_mpi_is_said(monkeypatch):
    from paretofit import InputError
    from paretofit.core import lammps_library

    def no_library(*_, **__):
        raise OSError("libmpi.so.12: cannot open shared object file")

    monkeypatch.setattr("lammps.lammps", no_library)
    with pytest.raises(InputError, match="pip install mpich"):
        lammps_library.create_lammps()
