"""What all settings have in common: a base class, a few types, and errors in the words of somebody who writes YAML."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined

from paretofit.core.errors import suggest_match
from paretofit.core.files import one_line

LONGEST = 200  # characters of a value that messages repeat

StrictInt = Annotated[int, Field(strict=True)]  # strict: true and false are no numbers here
StrictPositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Name = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]


def _file_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError("must be at most 100 letters, digits, '.', '_' and '-', the first a letter or a digit")
    return value


FileName = Annotated[Name, AfterValidator(_file_name)]  # a part of a path that leads nowhere else


class StrictSettings(BaseModel):
    """A part of the settings: unknown keys are errors, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def format_validation_error(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing wrong, in words, and how many more there are; unknown keys first.

    Parameters
    ----------
    error : pydantic.ValidationError
    model : type
        The settings that were read.
    """
    problems = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first, more = problems[0], len(problems) - 1
    absent = first["type"] in {"extra_forbidden", "missing"}  # its last part is no key of the sections around it
    keys, sections = _walk(model, first["loc"][:-1] if absent else first["loc"])
    key = ".".join([*keys, str(first["loc"][-1])] if absent else keys)
    fields = {name: field for section in sections for name, field in section.model_fields.items()}
    if first["type"] == "extra_forbidden":
        text = f"unknown key '{key}'{suggest_match(str(first['loc'][-1]), fields)}"
        if "did you mean" not in text:
            text += f"; the keys there are {', '.join(fields)}"
    elif first["type"] == "missing":
        meaning = fields[str(first["loc"][-1])].description
        text = f"the key '{key}' is missing; it gives {meaning or 'a value that has no default'}"
    else:
        text = f"'{key}': {_plain(first)}" if key else _plain(first)
    return one_line(text) + (f" (and {more} more)" if more else "")


def list_settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of every setting, sections inside others unfolded."""
    for name, field in model.model_fields.items():
        inner = _sections(field.annotation)
        if isinstance(field.annotation, type) and inner == [field.annotation]:
            yield from list_settings(inner[0], f"{prefix}{name}.")
            continue
        yield prefix + name, _default(field), field.description or ""
        for one in inner:
            mark = "[]" if get_origin(field.annotation) in {list, tuple} else f"({_tag(one)})" if _tag(one) else ""
            yield from list_settings(one, f"{prefix}{name}{mark}.")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return str(getattr(value, "name", "see below"))
    nested = isinstance(value, list | tuple) and value and isinstance(value[0], BaseModel)
    return "see below" if nested or value is PydanticUndefined else str(value)


def _plain(problem: Any) -> str:
    """Pydantic's message in the words of somebody who writes YAML."""
    given = problem["input"]
    value = "" if isinstance(given, dict | BaseModel) else f"; got {_cut(repr(given))}"
    if problem["type"] == "too_short":
        return f"must have at least {problem['ctx']['min_length']} of them{value}"
    if problem["type"] in {"list_type", "tuple_type"}:
        return f"must be a list{value}; write [{_cut(str(given))}]" if value else "must be a list"
    if problem["type"] in {"model_type", "dict_type"}:
        return f"must be keys and values of its own{value}"
    if problem["type"] == "path_type":
        return f"must be the path of a file{value}"
    if problem["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        expected = problem["ctx"].get("expected_tags", "")
        known = [tag.strip(" '") for tag in expected.split(",")]
        tag = str(problem["ctx"].get("tag", ""))
        return f"'{tag}' is not one of {', '.join(known)}{suggest_match(tag, known)}" if tag else "needs a 'name'"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    shown = "" if problem["type"] == "value_error" and isinstance(given, list | dict) else value
    return f"{message[:1].lower()}{message[1:]}{shown}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _walk(model: type[BaseModel], location: tuple[Any, ...]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of a location as a YAML file has them, and the sections that its last key may stand in.

    Pydantic also names the branches of unions there, which a reader of the YAML does not know.
    """
    keys: list[str] = []
    sections = [model]
    for part in location:
        field = next((one.model_fields[part] for one in sections if part in one.model_fields), None)
        if field is not None:
            sections = _sections(field.annotation)
        elif tagged := [one for one in sections if _tag(one) == part]:
            sections = tagged
            continue
        elif _is_branch(part):
            continue
        keys.append(str(part))
    return keys, sections


def _tag(section: type[BaseModel]) -> Any:
    field = section.model_fields.get("name")
    return None if field is None else field.default


def _is_branch(part: Any) -> bool:
    return isinstance(part, str) and (
        part.startswith(("literal[", "constrained-", "dict[", "[")) or part in {"int", "float"}
    )


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a value of this type can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = get_origin(annotation)
    if origin in {list, tuple, dict, Union, Annotated} or str(origin) == "<class 'types.UnionType'>":
        return [one for argument in get_args(annotation) for one in _sections(argument)]
    return []
