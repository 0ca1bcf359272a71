"""Base class and common types of all settings, and their validation errors in the terms of the YAML file."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python
from ruamel.yaml import YAML

from paretofit.core.errors import suggest_match
from paretofit.core.files import join_lines
from paretofit.core.text import format_count

MAX_QUOTED_LENGTH = 200  # number of characters of a value in a message
TAG_KEYS = ("family", "name")  # keys that discriminate the sections of a union
MAX_YAML_WIDTH = 10_000  # number of characters of a line, so that defaults have no line breaks

StrictInt = Annotated[int, Field(strict=True)]  # integer other than true and false, which pydantic converts by default
PositiveInt = Annotated[int, Field(ge=1, strict=True)]
StrictPositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
# YAML reads a name such as 600 as an integer.
Name = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]


def _check_file_name(value: str) -> str:
    """Return the value if it is a portable file name without separators; raise ValueError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError("must be at most 100 letters, digits, '.', '_' and '-', the first a letter or a digit")
    return value


# Name without separators, so that no file is written to another directory.
FileName = Annotated[Name, AfterValidator(_check_file_name)]


class StrictSettings(BaseModel):
    """Base class of all sections of the settings; sections are immutable and refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def format_validation_error(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe one of the problems of a validation error, preferably an unknown key, and count the other problems.

    Parameters
    ----------
    error : pydantic.ValidationError
    model : type
        Class of the settings that were validated.

    Returns
    -------
    str
        A message of one line, with the key in the terms of the YAML file.
    """
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    location = problem["loc"]
    # The location of these problems ends with the unknown or missing key, which no section resolves.
    ends_with_key = problem["type"] in {"extra_forbidden", "missing"}
    keys, sections = _resolve_location(model, location[:-1] if ends_with_key else location)
    key = _format_key([*keys, str(location[-1])] if ends_with_key else keys)
    # The other forms that the same value may have, such as a literal instead of a number, are not other problems.
    alternatives = [other for other in problems[1:] if _resolve_location(model, other["loc"])[0] == keys]
    n_others = len(problems) - 1 - (0 if ends_with_key else len(alternatives))
    fields = {name: field for section in sections for name, field in section.model_fields.items()}
    if problem["type"] == "extra_forbidden":
        text = f"unknown key {key}{suggest_match(str(location[-1]), fields)}"
        if "did you mean" not in text:
            text += f"; available keys: {', '.join(fields)}"
    elif problem["type"] == "missing" and isinstance(location[-1], int):
        text = f"{_format_key(keys)} lacks an entry; got {_truncate(repr(problem['input']))}"
    elif problem["type"] == "missing":
        description = fields[str(location[-1])].description
        text = f"the key {key} is missing{f': {description}' if description else ''}"
    else:
        literals = [other["ctx"]["expected"] for other in alternatives if other["type"] == "literal_error"]
        text = (f"{key}: " if key else "") + _describe_problem(problem, literals)
    return join_lines(text) + (f" (and {n_others} more)" if n_others else "")


def list_settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the key, default and description of every setting, including the settings of nested sections.

    Keys begin with `prefix`. The entries of a list are marked by ``[]``, the alternatives of a union by their names.
    """
    for name, field in model.model_fields.items():
        sections = _find_sections(field.annotation)
        if sections == [field.annotation]:  # the field is a section itself, which has no default of its own
            yield from list_settings(sections[0], f"{prefix}{name}.")
            continue
        yield prefix + name, _format_default(field), field.description or ""
        is_list = get_origin(field.annotation) in {list, tuple}
        for section in sections:
            tag = _get_tag(section)
            suffix = "[]" if is_list else f"({tag})" if tag else ""
            yield from list_settings(section, f"{prefix}{name}{suffix}.")


def _format_default(field: Any) -> str:
    """Format the default of a field as YAML on one line, or return a note such as "required"."""
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return str(getattr(default, "name", "see below"))
    has_sections = isinstance(default, list | tuple) and default and isinstance(default[0], BaseModel)
    if has_sections or default is PydanticUndefined:
        return "see below"
    if isinstance(default, dict):
        default = {
            key: entry.model_dump(exclude_unset=True) if isinstance(entry, BaseModel) else entry
            for key, entry in default.items()
        }
    stream, yaml = io.StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = True, MAX_YAML_WIDTH
    yaml.dump(to_jsonable_python(default), stream)
    return stream.getvalue().removesuffix("...\n").strip()  # YAML ends a scalar with "..."


def _describe_problem(problem: Any, literals: Sequence[str] = ()) -> str:
    """Translate a pydantic problem, an entry of ``ValidationError.errors()``, into the terms of the YAML file.

    `literals` are further values that are allowed.
    """
    value = problem["input"]
    quoted_value = "" if isinstance(value, dict | BaseModel) else f"; got {_truncate(repr(value))}"
    if problem["type"] == "too_short":
        return f"must have at least {format_count(problem['ctx']['min_length'], 'entry', 'entries')}{quoted_value}"
    if problem["type"] in {"list_type", "tuple_type"}:
        return f"must be a list{quoted_value}; write [{_truncate(str(value))}]" if quoted_value else "must be a list"
    if problem["type"] in {"model_type", "dict_type", "model_attributes_type"}:
        return f"must be a mapping of keys to values{quoted_value}"
    if problem["type"] == "path_type":
        return f"must be the path of a file{quoted_value}"
    if problem["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        expected_tags = problem["ctx"].get("expected_tags", "")
        names = [name.strip(" '") for name in expected_tags.split(",")]
        tag = str(problem["ctx"].get("tag", ""))
        return f"'{tag}' is not one of {', '.join(names)}{suggest_match(tag, names)}" if tag else "must have a 'name'"
    if problem["type"] == "value_error" and isinstance(value, list | dict):
        quoted_value = ""
    return f"{', or '.join([_translate_message(problem), *literals])}{quoted_value}"


def _translate_message(problem: Any) -> str:
    """Translate pydantic's message, which says what a value should be."""
    if problem["type"].startswith("int_"):
        return "must be a whole number"
    if problem["type"].startswith("bool_"):
        return "must be true or false"
    if problem["type"] != "value_error" and isinstance(problem["input"], float) and not math.isfinite(problem["input"]):
        return "must be a finite number"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{message[:1].lower()}{message[1:]}"


def _truncate(text: str) -> str:
    """Cut a text after `MAX_QUOTED_LENGTH` characters."""
    return text if len(text) <= MAX_QUOTED_LENGTH else f"{text[:MAX_QUOTED_LENGTH]}..."


def _format_key(keys: Sequence[str | int]) -> str:
    """Format keys and indices of list entries: ``"'split.seed'"``, ``"'name' in entry 2 of 'bases'"``."""
    parts: list[str] = []
    names: list[str] = []
    for key, next_key in zip(keys, [*keys[1:], ""], strict=False):
        if isinstance(key, str):
            names.append(key)
        if names and (isinstance(next_key, int) or not next_key):
            entry = f"entry {next_key + 1} of " if isinstance(next_key, int) else ""
            parts.append(f"{entry}'{'.'.join(names)}'")
            names = []
    return " in ".join(reversed(parts))


def _resolve_location(
    model: type[BaseModel], location: tuple[Any, ...]
) -> tuple[list[str | int], list[type[BaseModel]]]:
    """Return the YAML keys of a problem's location, and the section classes that the value there can be or contain.

    The index of a list's entry is an integer; any other key is text. Pydantic's locations also contain the branches of
    unions, which do not appear in the YAML file and are skipped.
    """
    keys: list[str | int] = []
    sections, is_mapping = [model], False
    for part in location:
        field = next((section.model_fields[part] for section in sections if part in section.model_fields), None)
        if field is not None:
            sections, is_mapping = _find_sections(field.annotation), "dict[" in str(field.annotation)
        elif tagged_sections := [section for section in sections if _get_tag(section) == part]:
            sections = tagged_sections
            continue
        elif _is_union_branch(part):
            continue
        keys.append(part if isinstance(part, int) and not is_mapping else str(part))
    return keys, sections


def _get_tag(section: type[BaseModel]) -> Any:
    """Return the name by which a union selects a section: the default of its first key in `TAG_KEYS`, or None."""
    fields = [section.model_fields[key] for key in TAG_KEYS if key in section.model_fields]
    return fields[0].default if fields else None


def _is_union_branch(part: Any) -> bool:
    """Return whether part of a location is pydantic's name of a type, one of several that a setting may have."""
    branches = ("literal[", "constrained-", "dict[", "[")
    return isinstance(part, str) and (part.startswith(branches) or part in {"int", "float"})


def _find_sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the section classes that a value of the annotated type can be or contain."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = get_origin(annotation)
    is_union_operator = str(origin) == "<class 'types.UnionType'>"  # X | Y
    if is_union_operator or origin in {list, tuple, dict, Union, Annotated}:
        return [section for argument in get_args(annotation) for section in _find_sections(argument)]
    return []
