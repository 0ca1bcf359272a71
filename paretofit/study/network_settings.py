"""Settings of the neural networks that a study compares with its linear models (section 'mace')."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from paretofit.core import FileName, Name, StrictInt, StrictSettings
from paretofit.potentials.mace import MaceSettings


class NetworkSettings(StrictSettings):
    """MACE networks to train on the data of the linear models (extra ``mace``): every model × level × size."""

    models: dict[FileName, MaceSettings] = Field(
        {"small": MaceSettings(preset="small", members=2)},
        description="Presets, such as [tiny, small], or settings by model name, {wide: {preset: small, ...}}.",
    )
    levels: list[Name] = Field([], description="Convergence levels of the training labels; by default the reference.")
    sizes: list[Annotated[StrictInt, Field(ge=1)] | Literal["all"]] = Field(
        ["all"],
        min_length=1,
        description="Numbers of configurations in the training subset, which is the first draw of that size.",
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = Field(
        0.1, description="Fraction of the training subset that is used for validation during training."
    )
    seed: Annotated[StrictInt, Field(ge=0)] = Field(
        1, description="Random seed of the members and of the validation set."
    )

    @field_validator("models", mode="before")
    @classmethod
    def _expand_presets(cls, value: Any) -> Any:
        """Expand the name of a preset, or a list of names, to settings by model name, with two members each."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            if not all(isinstance(name, str) for name in value):
                raise ValueError("a list must contain names of presets; set other models as {wide: {preset: small}}")
            value = {name: {"preset": name, "members": 2} for name in value}
        if value == {}:
            raise ValueError("specify at least one model, or remove 'mace'")
        return value

    @property
    def foundation_files(self) -> dict[str, Path]:
        """Files of foundation models, by the full key of the setting that names the file."""
        return {
            f"mace.models.{name}.foundation.{key}": path
            for name, model in self.models.items()
            for key, path in model.foundation_files.items()
        }
