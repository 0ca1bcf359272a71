"""JSON Schema of a study, for completion and checks of YAML files in editors (yaml-language-server)."""

import json
from pathlib import Path
from typing import Any

from paretofit.core import check_new_paths, write_text
from paretofit.study.schema import Study

_TEXT = {"type": "string"}
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
}  # forms that validators expand before pydantic checks a value, so that they are not in its schema


def write_json_schema(path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the JSON Schema of a study with the sections of all verbs, and return its path.

    Parameters
    ----------
    path : path-like
        The JSON file to write.
    overwrite : bool
        Replace an existing file.

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
    """Build the JSON Schema of a study; no key is required, because a file may be for a single verb."""
    schema = Study.model_json_schema(by_alias=True)
    definitions = {**schema["$defs"], "Study": schema}
    for definition in definitions.values():
        for name, value in definition.get("properties", {}).items():
            _allow_numbers_as_names(value)
            short_form = SHORT_FORMS.get((definition["title"], name))
            if short_form is not None:
                annotations = {key: value.pop(key) for key in ("description", "default", "title") if key in value}
                definition["properties"][name] = {**annotations, "anyOf": [short_form, value]}
    definitions["SnapBasis"]["required"] = ["elements"]  # the 2Jmax has a default in a study
    del schema["required"]
    return schema


def _allow_numbers_as_names(value: Any) -> None:
    """Allow integers, in place, wherever text is expected, because YAML reads the level name 5 as a number."""
    if isinstance(value, dict):
        if value.get("type") == "string" and "enum" not in value and "const" not in value:
            value["type"] = ["string", "integer"]
        for item in value.values():
            _allow_numbers_as_names(item)
    elif isinstance(value, list):
        for item in value:
            _allow_numbers_as_names(item)
