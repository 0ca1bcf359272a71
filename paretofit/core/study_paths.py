"""Types of paths in a study file.

The paths are relative to the folder of the file, which the caller passes in pydantic's validation context.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

FOLDER_KEY = "folder"  # key of the study file's folder in the validation context


def _join_folder(path: Path, info: ValidationInfo) -> Path:
    """Return a path with the folder of the study file before it; without a context, return it unchanged."""
    return info.context[FOLDER_KEY] / path if info.context else path


def _join_absolute_folder(path: Path, info: ValidationInfo) -> Path:
    """Return an absolute path, joined like those of `_join_folder`; without a context, return it unchanged."""
    return _join_folder(path, info).absolute() if info.context else path


def _wrap_single_path(value: Any) -> Any:
    """Return a list of one path for a single path; pydantic checks any other value."""
    return [value] if isinstance(value, str | Path) else value


StudyPath = Annotated[Path, AfterValidator(_join_folder)]
# Path for programs that run in other folders.
AbsoluteStudyPath = Annotated[Path, AfterValidator(_join_absolute_folder)]
StudyPaths = Annotated[list[StudyPath], BeforeValidator(_wrap_single_path)]  # a single path becomes a list
