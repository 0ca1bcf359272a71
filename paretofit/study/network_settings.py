"""Neural networks next to the linear models of a study: its section 'mace'."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (pydantic)
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from paretofit.core import FileName, Name, StrictInt, StrictSettings
from paretofit.potentials.mace import MaceSettings


class NetworkSettings(StrictSettings):
    """MACE networks on the same data as the linear models (extra ``mace``): every model × level × size is a point."""

    models: dict[FileName, MaceSettings] = Field(
        {"small": MaceSettings(preset="small", members=2)},
        description="presets, [tiny, small], or keys and values by a name of your own, {wide: {preset: small, ...}}",
    )
    levels: list[Name] = Field([], description="whose labels train; by default the reference")
    sizes: list[Annotated[StrictInt, Field(ge=1)] | Literal["all"]] = Field(
        ["all"], min_length=1, description="configurations in the training subset, those of the first draw"
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = Field(
        0.1, description="share of the subset on which training is watched, and which does not train"
    )
    seed: Annotated[StrictInt, Field(ge=0)] = Field(1, description="of the members' seeds, and of that share")

    @field_validator("models", mode="before")
    @classmethod
    def _presets(cls, value: Any) -> Any:
        """Names alone are presets, as committees of two."""
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            if not all(isinstance(one, str) for one in value):
                raise ValueError("a list holds names of presets; give keys and values by name, {wide: {preset: small}}")
            value = {one: {"preset": one, "members": 2} for one in value}
        if value == {}:
            raise ValueError("name at least one model, or leave 'mace' out")
        return value

    @property
    def foundation_files(self) -> dict[str, Path]:
        """Files of foundation models by key."""
        return {
            f"mace.models.{name}.foundation.{key}": path
            for name, model in self.models.items()
            for key, path in model.foundation_files.items()
        }

    def resolve_paths(self, folder: Path) -> NetworkSettings:
        """The same with paths relative to a folder, as this process sees them."""
        return self.model_copy(
            update={"models": {name: one.resolve_paths(folder) for name, one in self.models.items()}}
        )
