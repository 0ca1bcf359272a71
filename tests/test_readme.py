"""The examples in the README, in the help topics, in the notebooks' text and in the headers of the studies are valid.

YAML is loaded as a study, options are those of the verbs, and names that Python code imports exist.
"""

import ast
import io
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from paretofit.cli import app
from paretofit.commands import list_topics, read_topic
from paretofit.study import Study, load_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MINIMAL_STUDY = {"dataset": "my.h5", "basis": {"elements": ["Be"]}}
TOPICS = {name: read_topic(name) for name, _ in list_topics()}
PROSE = "\n".join([README, *TOPICS.values()])
YAML_BLOCKS = re.findall(r"```yaml\n(.*?)```", PROSE, re.DOTALL)
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", PROSE, re.DOTALL)
INLINE_KEY = re.compile(rf"`((?:{'|'.join(Study.model_fields)}): [^`]+)`")
SHELL_BLOCK = re.compile(r"```sh(?: run)?\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^(?:# .*?|.*&& )?(?:\.venv/bin/)?(paretofit [a-z]+ [^#\n|(]*)", re.MULTILINE)
INLINE_COMMAND = re.compile(r"`(paretofit [a-z]+ [^`]+)`")
OPTION = re.compile(r"--?[a-z][a-z-]*")


def read_texts() -> dict[str, str]:
    """Return the texts with examples by file name."""
    texts = {"README.md": README, **TOPICS}
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        texts[path.name] = path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path.name] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return texts


def find_commands(name: str, text: str) -> list[str]:
    """Return the commands in shell blocks, in backticks, and in the header of a study."""
    shell = text if name.endswith(".yaml") else "\n".join(SHELL_BLOCK.findall(text))
    return [*COMMAND.findall(shell), *INLINE_COMMAND.findall(text)]


TEXTS = read_texts()
INLINE_YAML = [re.sub(r"\s+", " ", text) for source in TEXTS.values() for text in INLINE_KEY.findall(source)]
COMMANDS = sorted(
    {
        (name, re.sub(r"\s+", " ", command.strip()))
        for name, text in TEXTS.items()
        for command in find_commands(name, text)
    }
)


@pytest.mark.parametrize("text", [*YAML_BLOCKS, *INLINE_YAML])
def test_yaml_example_loads(text, tmp_path):
    yaml = YAML(typ="safe")
    study = MINIMAL_STUDY | yaml.load(text)
    buffer = io.StringIO()
    yaml.dump(study, buffer)
    path = tmp_path / "study.yaml"
    path.write_text(buffer.getvalue(), encoding="utf-8")
    assert load_study(path).dataset == tmp_path / "my.h5"


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_command_has_the_options_of_its_verb(name, command):
    group = typer.main.get_command(app)
    verb, *arguments = shlex.split(command)[1:]
    known_verb = group.get_command(None, verb)
    assert known_verb is not None, f"{name}: '{verb}' is not a verb"
    known = {option for parameter in known_verb.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {argument for argument in arguments if OPTION.fullmatch(argument)}
    assert options <= known | {"--help"}, f"{name}: {command}"


@pytest.mark.parametrize("code", PYTHON_BLOCKS)
def test_python_example_imports_names_that_exist(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_examples_were_collected():
    assert len(YAML_BLOCKS) >= 5
    assert len(INLINE_YAML) >= 10
    assert len(COMMANDS) >= 40
    assert len(PYTHON_BLOCKS) >= 3
