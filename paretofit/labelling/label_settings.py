"""Section 'labelling' of a study: which configurations to label, by which engine, at which levels."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from paretofit.core import Name, StrictSettings, StudyPaths, suggest_match
from paretofit.labelling.engines.any_engine import AnyEngine
from paretofit.labelling.engines.gpaw import Gpaw
from paretofit.labelling.ladder import PAPER_LADDER, Level, ScfSettings, SmearingSettings, check_ladder

PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Retries = Annotated[int, Field(ge=0, le=5, strict=True)]
DistanceRatio = Annotated[float, Field(ge=0, lt=2, strict=True)]
LabelOrder = Literal["configurations", "levels"]
NamedEngine = Annotated[AnyEngine, BeforeValidator(lambda name: {"name": name} if isinstance(name, str) else name)]
COMMON_KEYS = ("functional", "smearing", "scf")  # of all levels that do not set them
PRESETS = {"paper": PAPER_LADDER}


class LevelSubsetSettings(StrictSettings):
    """Configurations that are labelled at a level."""

    max_atoms: PositiveInt | None = Field(None, description="Largest number of atoms of these configurations.")
    max_configurations: PositiveInt | None = Field(None, description="Largest number of these; the cheapest ones.")


class LabelSettings(StrictSettings):
    """Configurations to label, the engine, and the levels of the ladder."""

    structures: StudyPaths = Field([], description="Files of further configurations: datasets, or any format of ASE.")
    engine: NamedEngine = Field(Gpaw(), description="Engine that computes the labels: its name, or keys and values.")
    ladder: Annotated[tuple[Level, ...], AfterValidator(check_ladder)] = Field(
        PAPER_LADDER, min_length=1, description="'paper' (the six levels of Table 1) or a list of levels."
    )
    levels: list[Name] = Field([], description="Levels of the ladder to label; by default all.")
    subsets: dict[Name, LevelSubsetSettings] = Field({}, description="Configurations by level, if not all.")
    functional: str = Field("PBE", description="Functional of every level that does not set it.")
    smearing: SmearingSettings = Field(SmearingSettings(), description="Smearing of every level that does not set it.")
    scf: ScfSettings = Field(ScfSettings(), description="Self-consistency of every level that does not set it.")
    order: LabelOrder = Field("configurations", description="What to finish first: a configuration or a level.")
    retries: Retries = Field(2, description="Further attempts with gentler mixing if self-consistency is not reached.")
    min_distance_ratio: DistanceRatio = Field(0.5, description="Smallest distance over the sum of two covalent radii.")

    @model_validator(mode="before")
    @classmethod
    def _expand_ladder(cls, values: Any) -> Any:
        """Replace the name of a preset by its levels, and add the common settings to levels without them."""
        if not isinstance(values, dict):
            return values
        ladder = values.get("ladder", "paper")
        if isinstance(ladder, str):
            if ladder not in PRESETS:
                raise ValueError(
                    f"the ladder '{ladder}' is not one of {', '.join(PRESETS)}{suggest_match(ladder, PRESETS)}"
                )
            ladder = [level.model_dump(exclude=set(COMMON_KEYS)) for level in PRESETS[ladder]]
        if isinstance(ladder, list):
            common = {key: values[key] for key in COMMON_KEYS if key in values}
            ladder = [{**common, **level} if isinstance(level, dict) else level for level in ladder]
        return {**values, "ladder": ladder}

    @model_validator(mode="after")
    def _check_level_names(self) -> Self:
        known = [level.name for level in self.ladder]
        for key, names in (("levels", self.levels), ("subsets", self.subsets)):
            for name in names:
                if name not in known:
                    raise ValueError(f"'{key}' names the level '{name}'; the ladder has {', '.join(known)}")
        return self

    @property
    def selected_levels(self) -> list[Level]:
        """The levels to label, in the ladder's order."""
        return [level for level in self.ladder if not self.levels or level.name in self.levels]
