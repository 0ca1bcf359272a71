"""Sections of a study that the active-learning loop needs."""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from paretofit.core import StrictSettings
from paretofit.execution import ClusterSettings, expand_cluster_name
from paretofit.labelling import LabelSettings
from paretofit.learning.learn_settings import LearnSettings
from paretofit.structures import AugmentSettings


class LearnStudy(StrictSettings):
    """Sections of a study that `paretofit learn` needs."""

    name: str = "study"
    dataset: Path | None = Field(None, description="labelled configurations (HDF5) to start from, if there are any")
    labelling: LabelSettings = Field(description="the engine and the levels that compute the labels")
    augmentation: AugmentSettings | None = Field(None, description="generation of the first candidates")
    learning: LearnSettings = Field(LearnSettings(), description="the active-learning loop")
    cluster: ClusterSettings | None = Field(None, description="where tasks run")

    @field_validator("cluster", mode="before")
    @classmethod
    def _expand_cluster(cls, value: Any) -> Any:
        return expand_cluster_name(value)
