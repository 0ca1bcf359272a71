"""Build the API reference with pdoc from the doors of the package, and fail on broken references.

``python tests/api_reference.py FOLDER`` writes the HTML pages. A reference is a dotted name in backticks, such as
`paretofit.dataset.Dataset`, in a docstring of the package or in a Markdown file; it must resolve.
"""

import ast
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pdoc

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "paretofit"
REFERENCE = re.compile(r"(?<!`)`{1,2}(paretofit(?:\.\w+)+)(?:\(\))?`{1,2}(?!`)")
FILE_SUFFIXES = {"jinja", "mplstyle", "h5", "csv", "yaml", "html", "md", "committee", "json", "py"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def list_doors() -> list[str]:
    """Return the dotted names of all packages that export public names."""
    stubs = sorted(PACKAGE.rglob("__init__.pyi"))
    return [".".join(stub.parent.relative_to(ROOT).parts) for stub in stubs]


def is_resolvable(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[length:]:
                value = getattr(value, part)
        except AttributeError:
            fields = getattr(value, "__annotations__", {})  # dataclass fields without defaults are no attributes
            return length + 2 == len(parts) and parts[-1] in fields
        return True
    return False


def find_texts() -> list[tuple[Path, str]]:
    """Return all docstrings of the package, and the Markdown files, each with its path."""
    texts = [(path, path.read_text()) for path in (ROOT / "README.md", *ROOT.glob(".github/*.md"))]
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, DOCUMENTED)]
        texts += [(path, ast.get_docstring(node) or "") for node in nodes]
    return texts


def find_broken_references() -> list[str]:
    """Return one line for each reference that does not resolve."""
    references = {(path.relative_to(ROOT), name) for path, text in find_texts() for name in REFERENCE.findall(text)}
    names = sorted((path, name) for path, name in references if name.rsplit(".", 1)[1] not in FILE_SUFFIXES)
    return [f"{path}: `{name}` does not resolve" for path, name in names if not is_resolvable(name)]


def find_undocumented_names(folder: Path, doors: list[str]) -> list[str]:
    """Return one line for each public name that its page does not contain."""
    lines = []
    for door in doors:
        page = folder.joinpath(*door.split(".")).with_suffix(".html").read_text()
        lines += [
            f"{door}.{name} is not on its page" for name in import_module(door).__all__ if f'id="{name}"' not in page
        ]
    return lines


def main(folder: Path) -> int:
    """Build the reference; return the number of errors."""
    doors = list_doors()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # pdoc warns of names that it cannot import or document
        # pdoc 16 cannot evaluate names imported under TYPE_CHECKING in the __init__ of a dataclass; it prints the text
        warnings.filterwarnings("ignore", message="Error parsing type annotation")
        pdoc.pdoc(*doors, output_directory=folder)
    errors = find_undocumented_names(folder, doors) + find_broken_references()
    sys.stderr.writelines(f"{error}\n" for error in errors)
    return len(errors)


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1])) else 0)
