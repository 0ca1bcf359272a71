"""The parts of a study that the active-learning loop needs."""

from pydantic import Field

from paretofit.core import StrictSettings, StudyPath
from paretofit.execution import ClusterSettings
from paretofit.labelling import LabelSettings
from paretofit.learning.learn_settings import LearnSettings
from paretofit.structures import AugmentSettings


class LearnStudy(StrictSettings):
    """The part of a study that `paretofit learn` needs."""

    name: str = "study"
    dataset: StudyPath | None = Field(None, description="labelled configurations to begin with (HDF5), if there are any")
    labelling: LabelSettings = Field(description="what computes the labels")
    augmentation: AugmentSettings | None = Field(None, description="how the first candidates are made")
    learning: LearnSettings = Field(LearnSettings(), description="the active-learning loop")
    cluster: ClusterSettings | None = Field(None, description="where tasks run")
