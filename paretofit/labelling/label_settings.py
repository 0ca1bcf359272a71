"""Section 'labelling' of a study: the configurations to label, the engine and the levels."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from paretofit.core import Name, PositiveInt, StrictSettings, StudyPaths, suggest_match
from paretofit.labelling.engines.any_engine import AnyEngine
from paretofit.labelling.engines.gpaw import Gpaw
from paretofit.labelling.ladder import PAPER_LADDER, Level, ScfSettings, SmearingSettings, check_ladder, expand_ladder

Retries = Annotated[int, Field(ge=0, le=5, strict=True)]
DistanceRatio = Annotated[float, Field(ge=0, lt=2, strict=True)]
LabelOrder = Literal["configurations", "levels"]
# in YAML, an engine with default settings may be written as its name
NamedEngine = Annotated[
    AnyEngine, BeforeValidator(lambda engine: {"name": engine} if isinstance(engine, str) else engine)
]
COMMON_KEYS = ("functional", "smearing", "scf")  # keys that apply to all levels by default
PRESETS = {"paper": PAPER_LADDER}
CALCULATOR_LEVEL = "calculator"  # name of the only level of an ASE calculator without a ladder


def _get_single_width(grid: Mapping[str, Any]) -> Any:
    """Return the smearing width of a grid, which is set as a number or as a list of one number.

    Raise ValueError if the list has another length.
    """
    widths = grid["smearing_ev"] if isinstance(grid["smearing_ev"], list) else [grid["smearing_ev"]]
    if len(widths) != 1:
        raise ValueError(
            "'ladder.grid.smearing_ev' must be one width, such as [0.2], because the levels of a grid differ in the "
            "cutoff and the k-point spacing only"
        )
    return widths[0]


class LevelSubsetSettings(StrictSettings):
    """Configurations that are labelled at a level."""

    ids: list[int] | None = Field(None, description="Ids of the configurations; by default all.")
    max_atoms: PositiveInt | None = Field(None, description="Maximum number of atoms of a configuration.")
    max_configurations: PositiveInt | None = Field(
        None, description="Maximum number of configurations: labelled ones first, and then the cheapest ones."
    )


class LabelSettings(StrictSettings):
    """Configurations to label, the engine, and the levels of the ladder."""

    structures: StudyPaths = Field([], description="Files of further configurations: datasets, or any format of ASE.")
    engine: NamedEngine = Field(Gpaw(), description="Engine that computes the labels: its name, or its settings.")
    ladder: Annotated[tuple[Level, ...], AfterValidator(check_ladder)] = Field(
        PAPER_LADDER,
        min_length=1,
        description="'paper' (the six levels of Table 1 of the paper), a list of levels, or a grid, {grid: {cutoff_ev: "
        "[300, 500], kspacing_per_angstrom: [1.0, 0.5]}}; default with an ASE calculator: one level, 'calculator'.",
    )
    levels: list[Name] = Field([], description="Levels of the ladder to label; all by default.")
    subsets: dict[Name, LevelSubsetSettings] = Field({}, description="Restriction of the configurations by level.")
    functional: str = Field("PBE", description="Functional of every level that does not set it.")
    smearing: SmearingSettings = Field(SmearingSettings(), description="Smearing of every level that does not set it.")
    scf: ScfSettings = Field(
        ScfSettings(), description="Convergence of the self-consistent field at every level that does not set it."
    )
    order: LabelOrder = Field(
        "configurations",
        description="Which labels are computed one after another: those of a configuration, or those of a level.",
    )
    retries: Retries = Field(2, description="Further attempts with gentler mixing if self-consistency is not reached.")
    min_distance_ratio: DistanceRatio = Field(
        0.5, description="Minimum distance of two atoms relative to the sum of their covalent radii."
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_ladder(cls, values: Any) -> Any:
        """Expand a preset or a grid to its levels, and add the common settings to levels that do not set them.

        The smearing width of a grid becomes a common setting.
        """
        if not isinstance(values, dict):
            return values
        engine = values.get("engine")
        # the default ladder of an ASE calculator has one level, because a calculator has no plane waves
        is_calculator = isinstance(engine, dict) and engine.get("name") == "ase"
        ladder = values.get("ladder", [{"name": CALCULATOR_LEVEL}] if is_calculator else "paper")
        if isinstance(ladder, str):
            if ladder not in PRESETS:
                raise ValueError(
                    f"the ladder '{ladder}' is not one of {', '.join(PRESETS)}{suggest_match(ladder, PRESETS)}"
                )
            ladder = [level.model_dump(exclude=set(COMMON_KEYS)) for level in PRESETS[ladder]]
        if isinstance(ladder, Mapping) and isinstance(grid := ladder.get("grid"), Mapping) and "smearing_ev" in grid:
            values = {**values, "smearing": {**values.get("smearing", {}), "width_ev": _get_single_width(grid)}}
            ladder = {**ladder, "grid": {key: value for key, value in grid.items() if key != "smearing_ev"}}
        ladder = expand_ladder(ladder)
        if isinstance(ladder, list):
            common_settings = {key: values[key] for key in COMMON_KEYS if key in values}
            ladder = [{**common_settings, **level} if isinstance(level, dict) else level for level in ladder]
        return {**values, "ladder": ladder}

    @model_validator(mode="after")
    def _check_level_names(self) -> Self:
        """Check the names of levels, unless the ladder is the default one and has none of these names.

        A study that labels nothing may list subsets of levels without a ladder, because 'fit' reads their ids. 'label'
        refuses such a study.
        """
        names = {*self.levels, *self.subsets}
        if self.ladder != PAPER_LADDER or not names.isdisjoint(level.name for level in self.ladder):
            self.check_levels()
        return self

    def check_levels(self) -> None:
        """Raise ValueError if 'levels' or 'subsets' has a level that the ladder lacks."""
        ladder_names = [level.name for level in self.ladder]
        for key, names in (("levels", self.levels), ("subsets", self.subsets)):
            for name in names:
                if name not in ladder_names:
                    raise ValueError(f"unknown level '{name}' in '{key}'; available: {', '.join(ladder_names)}")

    @property
    def selected_levels(self) -> list[Level]:
        """Levels to label, in the order of the ladder."""
        return [level for level in self.ladder if not self.levels or level.name in self.levels]
