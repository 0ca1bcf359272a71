"""The sections of a study that `paretofit label` and `paretofit augment` read."""

from pathlib import Path

from pydantic import Field

from paretofit.core import FileName, StrictSettings, StudyPath
from paretofit.execution import ClusterSettings
from paretofit.labelling import LabelSettings
from paretofit.structures import AugmentSettings
from paretofit.study import read_sections


class LabelStudy(StrictSettings):
    """The sections of a study that `paretofit label` reads."""

    name: FileName = "study"
    dataset: StudyPath = Field(
        description="dataset (HDF5) to create or complete; the path is relative to the study file"
    )
    labelling: LabelSettings = Field(description="configurations to label, the engine, and the convergence levels")
    cluster: ClusterSettings | None = Field(None, description="cluster that computes the labels")


class AugmentStudy(StrictSettings):
    """The sections of a study that `paretofit augment` reads."""

    name: str = "study"
    augmentation: AugmentSettings = Field(description="structures to start from, and the candidates to generate")


def load_label_study(path: Path | str) -> LabelStudy:
    """Read what `paretofit label` needs from a study (YAML), see `paretofit.study.read_sections`."""
    return read_sections(LabelStudy, path)


def load_augment_study(path: Path | str) -> AugmentStudy:
    """Read what `paretofit augment` needs from a study (YAML), see `paretofit.study.read_sections`."""
    return read_sections(AugmentStudy, path)
