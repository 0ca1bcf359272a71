"""What the loop does: the section 'learning' of a study."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from paretofit.core import Name, StrictInt, StrictPositiveFloat, StrictSettings, StudyPaths
from paretofit.potentials.mace import MaceSettings

Count = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]


class RangeOrGridSettings(StrictSettings):
    """Values of a condition of the dynamics: a range to draw from, or a grid to go through."""

    low: Number | None = Field(None, description="the lowest of a range")
    high: Number | None = Field(None, description="the highest of a range")
    grid: list[Number] = Field([], description="values that are taken in turn, instead of a range")

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        """Two numbers are a range, one number is itself."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"grid": [value]}
        if isinstance(value, list | tuple):
            if len(value) != 2:
                raise ValueError(f"a range has two ends; write {{grid: {list(value)}}} for values")
            return {"low": value[0], "high": value[1]}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.grid:
            if self.low is not None or self.high is not None:
                raise ValueError("give a range or a grid, not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give a range, [lowest, highest], or values, {grid: [...]}")
        if self.low > self.high:
            raise ValueError(f"the range goes from {self.low:g} to {self.high:g}; write the lower end first")
        return self


class ToleranceSettings(StrictSettings):
    """Errors of a configuration by property."""

    energy: StrictPositiveFloat = Field(1.0, description="meV/atom")
    forces: StrictPositiveFloat = Field(100.0, description="meV/Å")
    stress: StrictPositiveFloat = Field(1.0, description="meV/Å³")


class DiscardSettings(ToleranceSettings):
    """Errors, as the committee foretells them, above which a configuration is taken for broken and left out."""

    energy: StrictPositiveFloat = Field(5000.0, description="meV/atom")
    forces: StrictPositiveFloat = Field(50_000.0, description="meV/Å")
    stress: StrictPositiveFloat = Field(5000.0, description="meV/Å³")


class SetShareSettings(StrictSettings):
    """Shares of the sets; each configuration keeps its set for ever, with its relatives."""

    train: Share = Field(0.8, description="share that trains")
    validation: Share = Field(0.1, description="share that calibrates")
    test: Share = Field(0.1, description="share that judges, and nothing else")
    group_by: list[str] = Field(
        ["parent", "trajectory"], description="keys of a configuration's info whose equal values mean relatives"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares must add up to 1; they add up to {total:g}")
        return self


class SnapModelSettings(StrictSettings):
    """A committee of quadratic or linear SNAP models."""

    name: Literal["snap"] = Field("snap", description="says that it is SNAP")
    twojmax: Annotated[int, Field(ge=0, le=20, strict=True)] = Field(
        6, description="the largest of quadratic or linear SNAP; smaller while there are fewer than 8 rows for a column"
    )
    quadratic: bool = Field(True, description="false: linear SNAP")
    rcutfac: StrictPositiveFloat = Field(
        4.812302818, description="Å; a pair of elements is seen up to rcutfac * (R_i + R_j)"
    )
    radelem: dict[str, StrictPositiveFloat] = Field({}, description="R by element, 0.5 where not named")
    wj: dict[str, Number] = Field({}, description="weight by element, 1 where not named")
    weight_ratio: StrictPositiveFloat = Field(12.25, description="w_E/w_F")
    members: Annotated[int, Field(ge=2, strict=True)] = Field(8, description="of the committee")
    committee_method: Literal["bootstrap", "subset", "posterior", "pops"] = Field(
        "bootstrap", description="how members are made"
    )


class ExploreSettings(StrictSettings):
    """Molecular dynamics with a member of the committee."""

    trajectories: Count = Field(20, description="in each iteration")
    driver: Literal["member", "mean"] = Field(
        "member", description="what moves the atoms: a random member of the committee, or their mean, which is steadier"
    )
    integrator: Literal["ase", "lammps"] | None = Field(
        None, description="what integrates; by default lammps for SNAP and ase for neural networks"
    )
    start_structures: StudyPaths = Field(
        [], description="files of structures to start from; by default initial candidates"
    )
    temperature_k: RangeOrGridSettings = Field(
        RangeOrGridSettings(low=0.0, high=1000.0), description="K: [lowest, highest] or {grid: [...]}"
    )
    pressure_kbar: RangeOrGridSettings = Field(
        RangeOrGridSettings(low=-5.0, high=5.0),
        description="kbar, along periodic directions: [lowest, highest] or {grid: [...]}",
    )
    time_ps: StrictPositiveFloat = Field(10.0, description="length of a trajectory")
    interval_ps: StrictPositiveFloat = Field(1.0, description="between frames: long enough that they are not alike")
    timestep_fs: Annotated[float, Field(gt=0, le=10, strict=True)] = Field(1.0, description="of the integrator")
    max_atoms: Count = Field(300, description="larger structures are not started from")
    dispersion: Literal["none", "d2", "d3"] = Field("none", description="added during the dynamics (Grimme)")
    time_limit_s: StrictPositiveFloat = Field(3600.0, description="wall seconds after which a trajectory is given up")
    stop_grade: StrictPositiveFloat = Field(50.0, description="extrapolation grade at which a trajectory is stopped")
    stop_temperature_ratio: StrictPositiveFloat = Field(
        5.0, description="times the one asked for, at which it is stopped"
    )

    @model_validator(mode="after")
    def _physical(self) -> Self:
        coldest = min(self.temperature_k.grid) if self.temperature_k.grid else self.temperature_k.low or 0.0
        if coldest < 0:
            raise ValueError(f"'temperature_k' is in K and cannot be below zero; got {coldest:g}")
        if self.interval_ps > self.time_ps:
            raise ValueError(f"'interval_ps', {self.interval_ps:g}, is longer than 'time_ps', {self.time_ps:g}")
        return self


class SelectSettings(StrictSettings):
    """Which frames are labelled."""

    tolerance: ToleranceSettings = Field(ToleranceSettings(), description="errors that are good enough")
    discard_above: DiscardSettings = Field(
        DiscardSettings(), description="errors above which a frame is taken for broken"
    )
    strategy: Literal["random", "diverse"] = Field(
        "random", description="among those above tolerance: at random, as in the paper, or as diverse as can be"
    )
    max_selected: Count = Field(1000, description="in one iteration")
    calibration: Literal["slope", "isotonic", "quantile"] = Field(
        "slope", description="from the disagreement to the error: tau = a * epsilon, or see 'paretofit evaluate'"
    )
    min_distance_ratio: Annotated[float, Field(ge=0, lt=2, strict=True)] = Field(
        0.6, description="frames with atoms closer than this share of the sum of their covalent radii are broken"
    )
    duplicate_tolerance: Annotated[float, Field(ge=0, strict=True)] = Field(
        0.001, description="relative distance of mean descriptors below which two structures are the same"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for name in ToleranceSettings.model_fields:
            good, worst = getattr(self.tolerance, name), getattr(self.discard_above, name)
            if worst <= good:
                raise ValueError(f"'discard_above.{name}', {worst:g}, must be above 'tolerance.{name}', {good:g}")
        return self


AnyModel = Annotated[SnapModelSettings | MaceSettings, Field(discriminator="name")]


class LevelSettings(StrictSettings):
    """At which convergence level new labels are computed."""

    fixed: Name | None = Field(None, description="a level of 'labelling'; by default its only one, or chosen")
    pilot_size: Annotated[int, Field(ge=3, strict=True)] = Field(
        12, description="structures that are labelled at every level first, where it is chosen"
    )


class LearnSettings(StrictSettings):
    """The active-learning loop."""

    structures: StudyPaths = Field(
        [], description="files of candidates to label first, besides those of 'augmentation' and labelled ones"
    )
    n_initial: Count | None = Field(None, description="of those, how many at random; by default all")
    max_iterations: Count = Field(10, description="at most")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(1, description="of everything random")
    sets: SetShareSettings = Field(SetShareSettings(), description="training, validation and test set")
    model: AnyModel = Field(SnapModelSettings(), description="the committee that is trained: name: snap, or name: mace")
    explore: ExploreSettings = Field(ExploreSettings(), description="molecular dynamics")
    select: SelectSettings = Field(SelectSettings(), description="which frames are labelled")
    level: LevelSettings = Field(LevelSettings(), description="the convergence level of new labels")

    @field_validator("model", mode="before")
    @classmethod
    def _snap_by_default(cls, value: Any) -> Any:
        """A name alone is a model with its defaults; keys without a name are of SNAP."""
        if isinstance(value, str):
            return {"name": value}
        return {"name": "snap", **value} if isinstance(value, dict) else value
