"""The help topics: each is listed and rendered, and its first example runs as printed."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from paretofit.cli import app
from paretofit.commands import list_topics, read_topic

EXAMPLE = re.compile(r"```(sh|python) run\n(.*?)```", re.DOTALL)
REQUIRED = {"mace": "mace", "gpu": "torch", "clusters": "distributed", "validation": "phonopy"}  # modules, by topic
WITHOUT_EXAMPLE = {"fitsnap", "gpu", "published"}  # need foreign files, a GPU, a download
TOPICS = [name for name, _ in list_topics()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a checkout has it, with the quick study of one repetition."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "studies", folder / "studies")
    (folder / "data").symlink_to(ROOT / "data")
    quick = folder / "studies" / "quick.yaml"
    quick.write_text(re.sub(r"repetitions: \d+", "repetitions: 1", quick.read_text()))
    return folder


@pytest.mark.parametrize("name", sorted(set(TOPICS) - WITHOUT_EXAMPLE))
def test_example_runs(name, folder):
    if name in REQUIRED and find_spec(REQUIRED[name]) is None:
        pytest.skip(f"{REQUIRED[name]} is not installed")
    language, code = EXAMPLE.search(read_topic(name)).groups()
    code = re.sub(r"^pip install.*$", "", code, flags=re.MULTILINE)
    command = ["bash", "-e", "-c", code] if language == "sh" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shutil.rmtree(folder / "potential", ignore_errors=True)  # of another topic
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_topics_are_listed_and_shown():
    listing = CliRunner().invoke(app, ["help"]).output
    for name in TOPICS:
        assert re.search(rf"^{name} ", listing, re.MULTILINE)
        shown = CliRunner().invoke(app, ["help", name])
        assert shown.exit_code == 0
        assert dict(list_topics())[name] in shown.output
    assert "D⁻¹ XᵀW²X D⁻¹" in CliRunner().invoke(app, ["help", "maths"]).output


def test_verbs_show_their_help_and_unknown_topics_a_suggestion():
    assert "--jobs" in CliRunner().invoke(app, ["help", "run"]).output
    error = CliRunner().invoke(app, ["help", "labeling"]).exception
    assert "did you mean 'labelling'" in str(error)


def test_readme_is_short_and_names_every_topic():
    readme = (ROOT / "README.md").read_text()
    assert readme.count("\n") <= 160
    for name in TOPICS:
        assert f"`{name}`" in readme
