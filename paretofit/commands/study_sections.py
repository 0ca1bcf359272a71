"""Sections of a study that `paretofit label` and `paretofit augment` read."""

from pathlib import Path

from pydantic import Field

from paretofit.core import FileName, StrictSettings, StudyPath
from paretofit.execution import ClusterSettings
from paretofit.labelling import LabelSettings
from paretofit.structures import AugmentSettings
from paretofit.study import read_sections


class LabelStudy(StrictSettings):
    """Sections of a study that `paretofit label` reads."""

    name: FileName = "study"
    dataset: StudyPath = Field(
        description="Dataset (HDF5) to create or complete; the path is relative to the study file."
    )
    labelling: LabelSettings = Field(description="Configurations to label, the engine, and the convergence levels.")
    cluster: ClusterSettings | None = Field(None, description="Cluster that computes the labels.")


class AugmentStudy(StrictSettings):
    """Sections of a study that `paretofit augment` reads."""

    name: str = "study"
    augmentation: AugmentSettings = Field(description="Start structures, and the candidates to generate.")


def load_label_study(path: Path | str) -> LabelStudy:
    """Read the sections that `paretofit label` uses from a study (YAML); see `paretofit.study.read_sections`.

    Raises
    ------
    InputError
        If the file cannot be read, or a section is missing or not valid.
    """
    return read_sections(LabelStudy, path)


def load_augment_study(path: Path | str) -> AugmentStudy:
    """Read the sections that `paretofit augment` uses from a study (YAML); see `paretofit.study.read_sections`.

    Raises
    ------
    InputError
        If the file cannot be read, or a section is missing or not valid.
    """
    return read_sections(AugmentStudy, path)
