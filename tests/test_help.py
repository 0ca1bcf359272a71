"""The help topics: each is listed and rendered, and its first example runs as printed."""

import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec

import pytest
from conftest import ROOT
from helpers.command_line import call
from typer.testing import CliRunner

from paretofit.cli import app
from paretofit.commands import list_topics, read_topic

EXAMPLE = re.compile(r"```(sh|python) run\n(.*?)```", re.DOTALL)
REQUIRED = {"mace": "mace", "gpu": "torch", "clusters": "distributed", "validation": "phonopy"}  # modules, by topic
LIST_COMMANDS = "paretofit() { printf '%q ' \"$@\"; echo; }\n"
SLOW_EXAMPLES = {
    *("clusters", "data", "mace", "material-properties", "planning", "potentials", "run-folder", "uncertainty"),
    "validation",
}
WITHOUT_EXAMPLE = {"fitsnap", "gpu", "published"}  # need foreign files, a GPU, a download
TOPICS = [name for name, _ in list_topics()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run folders of all topics."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def folder(tmp_path, runs):
    """A folder as a checkout has it, with the quick study of one repetition."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "runs").symlink_to(runs)
    quick = tmp_path / "studies" / "quick.yaml"
    quick.write_text(re.sub(r"repetitions: \d+", "repetitions: 1", quick.read_text()))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_EXAMPLES else [])
        for name in sorted(set(TOPICS) - WITHOUT_EXAMPLE)
    ],
)
def test_example_runs(name, folder):
    """The shell runs the example and lists the commands of paretofit, which run in this process."""
    if name in REQUIRED and find_spec(REQUIRED[name]) is None:
        pytest.skip(f"{REQUIRED[name]} is not installed")
    language, code = EXAMPLE.search(read_topic(name)).groups()
    if language == "python":
        exec(code, {})  # noqa: S102  (our own example)
        return
    code = re.sub(r"^pip install.*$", "", code, flags=re.MULTILINE)
    shell = subprocess.run(["/bin/bash", "-ec", LIST_COMMANDS + code], cwd=folder, capture_output=True, check=True)
    commands = shell.stdout.decode().splitlines()
    assert commands
    for command in commands:
        result = call(*shlex.split(command), cwd=folder)
        assert result.returncode == 0, result.stdout + result.stderr


def test_topics_are_listed_and_shown():
    listing = CliRunner().invoke(app, ["help"]).output
    for name in TOPICS:
        assert re.search(rf"^{name} ", listing, re.MULTILINE)
        shown = CliRunner().invoke(app, ["help", name])
        assert shown.exit_code == 0
        assert dict(list_topics())[name] in shown.output
    assert "U = X R₀⁻¹" in CliRunner().invoke(app, ["help", "maths"]).output


def test_verbs_show_their_help_and_unknown_topics_a_suggestion():
    assert "--jobs" in CliRunner().invoke(app, ["help", "run"]).output
    error = CliRunner().invoke(app, ["help", "labeling"]).exception
    assert "did you mean 'labelling'" in str(error)


def test_readme_is_short_and_names_every_topic():
    readme = (ROOT / "README.md").read_text()
    assert readme.count("\n") <= 160
    for name in TOPICS:
        assert f"`{name}`" in readme
