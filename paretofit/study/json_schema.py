"""JSON Schema of a study, for completion and checks of YAML files in editors (yaml-language-server)."""

import json
from pathlib import Path
from typing import Any

from paretofit.core import check_new_paths, write_text
from paretofit.study.schema import Study

_TEXT = {"type": "string"}
# Forms of settings, by class and key, that validators expand before pydantic checks them; the schema of pydantic lacks
# these forms.
SHORT_FORMS: dict[tuple[str, str], dict[str, Any]] = {
    ("Study", "weights"): {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array"}]}},
    ("Study", "cluster"): _TEXT,
    ("NetworkSettings", "models"): {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
    ("LabelSettings", "ladder"): _TEXT,
    ("LabelSettings", "engine"): _TEXT,
    ("LearnSettings", "model"): {"anyOf": [_TEXT, {"type": "object"}]},
    ("LabelSettings", "structures"): _TEXT,
    ("AugmentSettings", "structures"): _TEXT,
    ("LearnSettings", "structures"): _TEXT,
    ("ExploreSettings", "start_structures"): _TEXT,
    ("ExploreSettings", "temperature_k"): {"type": ["number", "array"]},
    ("ExploreSettings", "pressure_kbar"): {"type": ["number", "array"]},
    ("SnapBasis", "radelem"): {"type": "number"},
    ("SnapBasis", "wj"): {"type": "number"},
}


def write_json_schema(path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the JSON Schema of a study with the sections of all verbs, and return its path.

    Parameters
    ----------
    path : path-like
        The JSON file to write.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    InputError
        If the file exists or cannot be written.
    """
    path = Path(path)
    check_new_paths([path], overwrite=overwrite)
    write_text(path, json.dumps(build_json_schema(), indent=1) + "\n")
    return path


def is_json_schema(path: Path) -> bool:
    """Check whether a file is a JSON Schema that any version of `write_json_schema` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("title") == Study.__name__ and "$defs" in content


def build_json_schema() -> dict[str, Any]:
    """Build the JSON Schema of a study; no key of the study is required, because a file may be for a single verb."""
    schema = Study.model_json_schema(by_alias=True)
    definitions = {**schema["$defs"], "Study": schema}
    for definition in definitions.values():
        for name, key_schema in definition.get("properties", {}).items():
            _allow_numbers_as_names(key_schema)
            short_form = SHORT_FORMS.get((definition["title"], name))
            if short_form is not None:
                # editors show the annotations of a key only beside 'anyOf', not in one of its branches
                annotations = {
                    key: key_schema.pop(key) for key in ("description", "default", "title") if key in key_schema
                }
                definition["properties"][name] = {**annotations, "anyOf": [short_form, key_schema]}
    definitions["SnapBasis"]["required"] = ["elements"]  # the 2Jmax has a default in a study
    del schema["required"]
    return schema


def _allow_numbers_as_names(node: Any) -> None:
    """Allow integers wherever a schema expects any text, because YAML reads the level name 5 as a number.

    Parameters
    ----------
    node : dict, list or any
        Schema, or a part of it, which is changed in place.
    """
    if isinstance(node, dict):
        if node.get("type") == "string" and "enum" not in node and "const" not in node:
            node["type"] = ["string", "integer"]
        for child in node.values():
            _allow_numbers_as_names(child)
    elif isinstance(node, list):
        for child in node:
            _allow_numbers_as_names(child)
