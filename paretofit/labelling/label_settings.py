"""What to label, how, and in which order: the section 'labelling' of a study."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from paretofit.core import Name, StrictSettings, StudyPaths, suggest_match
from paretofit.labelling.engines.any_engine import AnyEngine
from paretofit.labelling.engines.gpaw import Gpaw
from paretofit.labelling.ladder import PAPER_LADDER, Level, ScfSettings, SmearingSettings, check_ladder

Count = Annotated[int, Field(ge=1, strict=True)]
COMMON = ("functional", "smearing", "scf")
PRESETS = {"paper": PAPER_LADDER}


class LevelSubsetSettings(StrictSettings):
    """Which configurations get a label at a level."""

    max_atoms: Count | None = Field(None, description="only configurations with at most this many atoms")
    max_configurations: Count | None = Field(None, description="only this many of those, the cheapest")


class LabelSettings(StrictSettings):
    """What to label, how, and in which order."""

    structures: StudyPaths = Field(
        [],
        description="files to take configurations from, besides the dataset itself: datasets, or anything ASE reads",
    )
    engine: AnyEngine = Field(Gpaw(), description="what computes the labels: a name, or keys and values")
    ladder: tuple[Level, ...] = Field(
        PAPER_LADDER, min_length=1, description="'paper' (the six levels of Table 1) or a list of levels"
    )
    levels: list[Name] = Field([], description="which levels of the ladder; by default all")
    subsets: dict[Name, LevelSubsetSettings] = Field({}, description="which configurations, by level, where not all")
    functional: str = Field("PBE", description="of every level that does not say otherwise")
    smearing: SmearingSettings = Field(SmearingSettings(), description="of every level that does not say otherwise")
    scf: ScfSettings = Field(ScfSettings(), description="of every level that does not say otherwise")
    order: Literal["configurations", "levels"] = Field(
        "configurations", description="finish all levels of a configuration first, or a level of all configurations"
    )
    retries: Annotated[int, Field(ge=0, le=5, strict=True)] = Field(
        2, description="further attempts, with gentler mixing, where self-consistency is not reached"
    )
    min_distance_ratio: Annotated[float, Field(ge=0, lt=2, strict=True)] = Field(
        0.5, description="atoms closer than this share of the sum of their covalent radii are refused"
    )

    @model_validator(mode="before")
    @classmethod
    def _common_to_levels(cls, values: Any) -> Any:
        """Expand a preset's name and hand common settings down to the levels."""
        if not isinstance(values, dict):
            return values
        given = values.get("ladder", "paper")
        if isinstance(given, str):
            if given not in PRESETS:
                raise ValueError(
                    f"the ladder '{given}' is not one of {', '.join(PRESETS)}{suggest_match(given, PRESETS)}"
                )
            given = [level.model_dump(exclude=set(COMMON)) for level in PRESETS[given]]
        if isinstance(given, list):
            common = {key: values[key] for key in COMMON if key in values}
            given = [{**common, **one} if isinstance(one, dict) else one for one in given]
        return {**values, "ladder": given}

    @field_validator("engine", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("ladder")
    @classmethod
    def _in_order(cls, value: tuple[Level, ...]) -> tuple[Level, ...]:
        check_ladder(value)
        return value

    @model_validator(mode="after")
    def _known_levels(self) -> Self:
        names = [level.name for level in self.ladder]
        for key, chosen in (("levels", self.levels), ("only", self.subsets)):
            for name in chosen:
                if name not in names:
                    raise ValueError(f"'{key}' names the level '{name}'; the ladder has {', '.join(names)}")
        return self

    @property
    def selected_levels(self) -> list[Level]:
        """The levels to label, in the ladder's order."""
        return [level for level in self.ladder if not self.levels or level.name in self.levels]
