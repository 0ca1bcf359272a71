"""Types of paths in a study file.

The paths are relative to the folder of the file, which the caller passes in pydantic's validation context.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

FOLDER_KEY = "folder"


def _join_folder(path: Path, info: ValidationInfo) -> Path:
    return info.context[FOLDER_KEY] / path if info.context else path


def _join_absolute_folder(path: Path, info: ValidationInfo) -> Path:
    return _join_folder(path, info).absolute() if info.context else path


def _wrap_single_path(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


StudyPath = Annotated[Path, AfterValidator(_join_folder)]  # path that is unchanged without a context
# path for programs that run in other folders
AbsoluteStudyPath = Annotated[Path, AfterValidator(_join_absolute_folder)]
StudyPaths = Annotated[list[StudyPath], BeforeValidator(_wrap_single_path)]  # a single path becomes a list
