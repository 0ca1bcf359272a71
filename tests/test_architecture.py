"""The architecture: layers without import cycles, doors, unique names, short files and functions, plain words.

These tests read the source, so that they also see imports for type checking; only the names of doors are loaded.
``lint-imports`` checks layers and doors as well; see pyproject.toml.
"""

import ast
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "paretofit"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
BANNED_NAMES = frozenset(
    ["one", "own", "found", "said", "there", "here", "made", "kept", "told", "given", "some", "both", "what", "who"]
)
"""Names that do not tell what they hold."""
EARLIER_PATHS = {
    "paretofit.errors",
    "paretofit.lammps_library",
    "paretofit.potentials.mace.files",
    "paretofit.potentials.mace.settings",
}
"""Modules that only keep the earlier paths of names for scripts, under the names of the modules of that time."""
MODULES_WITHOUT_ROOM = {"paretofit.early_signals"}
"""Modules that are imported before any door, because a door takes time."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SOURCES = sorted(path for folder in ("paretofit", "tests") for path in (ROOT / folder).rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
    if path.is_relative_to(PACKAGE)
}
ROOMS = [name for name, path in MODULES.items() if path.name == "__init__.py"]
DOORS = [name for name in ROOMS if (MODULES[name].parent / "__init__.pyi").exists()]


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def read_door(room: str) -> dict[str, str]:
    """Return the names that a room exports, each with the module that its stub imports it from."""
    stub = parse(MODULES[room].parent / "__init__.pyi")
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: f"{room}.{node.module}" for node in imports for alias in node.names}


def resolve_door(module: str, name: str) -> str:
    """Return the module that defines a name, following doors."""
    while module in DOORS and name in read_door(module):
        module = read_door(module)[name]
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


def list_imports(module: str) -> list[tuple[str, str]]:
    """Return (module, name) of every import from the package, also inside functions and for type checking."""
    imports = []
    for node in ast.walk(parse(MODULES[module])):
        if isinstance(node, ast.Import):
            imports += [(alias.name, "") for alias in node.names if alias.name.split(".")[0] == "paretofit"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute"
            if (node.module or "").split(".")[0] == "paretofit":
                imports += [(node.module or "", alias.name) for alias in node.names]
    return imports


def get_room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def find_assigned_names(tree: ast.AST) -> list[tuple[str, int]]:
    """Return each variable, parameter, attribute and function that a module defines, with its line."""
    names = []
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                names.append((name, node.lineno))
            case (
                ast.Attribute(attr=name, ctx=ast.Store()) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name))
            ):
                names.append((name, node.lineno))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.append((name, node.lineno))
            case ast.alias(asname=str(name)):
                names.append((name, node.lineno))
    return names


def test_modules_import_without_cycles():
    graph = {module: {resolve_door(*edge) for edge in list_imports(module)} - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(reversed(error.args[1]))}")


def test_rooms_are_imported_from_their_doors():
    problems = []
    for module in MODULES:
        for target, name in list_imports(module):
            if get_room(target) == get_room(module) or f"{target}.{name}" in ROOMS:
                continue
            if target not in {*ROOMS, *MODULES_WITHOUT_ROOM}:
                problems.append(f"{module}: from {target} import {name}, which is no door")
            elif target in DOORS and name not in {*read_door(target), "__version__"}:
                problems.append(f"{module}: the door {target} does not export {name}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("room", DOORS)
def test_names_of_a_door_resolve(room):
    door = import_module(room)
    assert sorted(door.__all__) == sorted(read_door(room))
    for name in door.__all__:
        assert getattr(door, name) is not None


@pytest.mark.parametrize("room", DOORS)
def test_no_module_has_the_name_of_an_export(room):
    """Loading the module would replace the lazy attribute of its room, so that the name depends on what ran before."""
    modules = {module.rpartition(".")[2] for module in MODULES if module.rpartition(".")[0] == room}
    assert not modules & set(read_door(room))


def test_module_names_are_unique():
    modules = [name for name, path in MODULES.items() if path.name != "__init__.py" and name not in EARLIER_PATHS]
    names = Counter(module.rpartition(".")[2] for module in modules)
    assert [name for name, count in names.items() if count > 1] == []


def count_function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring, which has its own length."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    n_docstring_lines = 0 if docstring is None else (docstring.end_lineno or 0) - docstring.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - n_docstring_lines


def test_files_and_functions_are_short():
    problems = []
    for path in MODULES.values():
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        if n_lines > MAX_FILE_LINES:
            problems.append(f"{path.relative_to(ROOT)}: {n_lines} lines, at most {MAX_FILE_LINES} are allowed")
        for function in (node for node in ast.walk(parse(path)) if isinstance(node, FUNCTIONS)):
            if (n_lines := count_function_lines(function)) > MAX_FUNCTION_LINES:
                place = f"{path.relative_to(ROOT)}:{function.lineno}"
                problems.append(
                    f"{place}: {function.name} has {n_lines} lines, at most {MAX_FUNCTION_LINES} are allowed"
                )
    assert not problems, "\n".join(problems)


def test_names_are_plain():
    problems = [
        f"{path.relative_to(ROOT)}:{line}: '{name}' does not say what it holds"
        for path in SOURCES
        for name, line in find_assigned_names(parse(path))
        if name.strip("_") in BANNED_NAMES
    ]
    assert not problems, "\n".join(problems)
