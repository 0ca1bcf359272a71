"""Settings of the weights of groups of configurations."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from paretofit.core import Name, StrictSettings

Weight = Annotated[float, Field(ge=1e-6, le=1e6, strict=True)]


class GroupWeightSettings(StrictSettings):
    """Weights of groups of configurations, applied in training on top of w_E and w_F."""

    group_key: str = Field("config_type", description="Info key with the name of a configuration's group.")
    energy: dict[Name, Weight] = Field({}, description="Factor of the energy weight by group; 1 for other groups.")
    force: dict[Name, Weight] = Field({}, description="Factor of the force weight by group; 1 for other groups.")
    objectives: list[str] = Field(
        [],
        description="Held-out errors for which the factors are optimised, at the reference level and starting from the "
        "factors in 'energy' and 'force': energy, force, the error of a group (Liquid:force), or a linear property.",
    )
    twojmax: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        None, description="2Jmax of the optimisation; by default the smallest of the study."
    )
    regulariser: Annotated[float, Field(ge=0, strict=True)] = Field(
        0.01, description="Strength of the regularisation towards the initial factors."
    )

    @field_validator("energy", "force", mode="before")
    @classmethod
    def _check_zeros(cls, factors: Any) -> Any:
        """Raise ValueError for a factor of zero, and explain how to leave configurations out."""
        for group in [key for key, factor in factors.items() if factor == 0] if isinstance(factors, dict) else []:
            raise ValueError(f"group '{group}' has the factor 0; use at least 1e-6, or remove it from the dataset")
        return factors
