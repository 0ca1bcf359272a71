"""The study file: every setting once, with its type, default, unit and one sentence.

The table of settings, the error messages and the checks all come from here.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from paretofit.core import (
    FileName,
    InputError,
    Name,
    StrictInt,
    StrictPositiveFloat,
    StrictSettings,
    format_validation_error,
    list_settings,
    read_yaml,
    suggest_match,
)
from paretofit.descriptors import SnapBasis
from paretofit.execution import ClusterSettings, expand_cluster_name
from paretofit.labelling import LabelSettings
from paretofit.learning import LearnSettings
from paretofit.structures import AugmentSettings
from paretofit.study.network_settings import NetworkSettings
from paretofit.sweep import SAMPLING_METHODS

S = TypeVar("S", bound=StrictSettings)
APART = (
    "dataset",
    "labelling",
    "augmentation",
    "learning",
    "cluster",
)  # keys that may stand in a file without the rest of a study

Weight = Annotated[float, Field(ge=1e-6, le=1e6, strict=True)]


class SplitSettings(StrictSettings):
    """Who trains and who tests."""

    train_fraction: float = Field(
        0.7, gt=0, le=1, description="share of the configurations that may train; 1 with leave_one_out: no test set"
    )
    seed: StrictInt = Field(1, ge=0, description="seed of the random split")
    group_by: list[str] = Field(
        ["parent", "trajectory"], description="keys of a configuration's info whose equal values mean relatives"
    )


class LeverageSettings(StrictSettings):
    """How leverage scores are taken."""

    energy_weight: Weight = Field(150.0, description="w_E of the leverage scores; the paper's 150")
    force_weight: Weight = Field(1.0, description="w_F of the leverage scores")
    twojmax: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        None, description="2Jmax of the scores; by default the largest of the study"
    )


class CostSettings(StrictSettings):
    """What labels and MD steps cost."""

    label_seconds: Literal["recorded"] | dict[Name, StrictPositiveFloat] = Field(
        "recorded", description="'recorded': the seconds stored with each label; or seconds per configuration by level"
    )
    md_us_per_atom_step: dict[int, StrictPositiveFloat] = Field(
        {}, description="microseconds of MD for each atom and step, by 2Jmax, where known"
    )
    measure_md: bool = Field(True, description="time LAMMPS for each 2Jmax whose MD cost is not given; on one core")

    @field_validator("label_seconds", mode="before")
    @classmethod
    def _by_level(cls, value: Any) -> Any:
        """Say what is wrong of the two forms that it may take."""
        if value == "recorded":
            return value
        if not isinstance(value, dict):
            message = "must be 'recorded', or seconds per configuration by level, such as {1: 10, 2: 300}"
            raise ValueError(message)  # noqa: TRY004  (pydantic reports a ValueError, not a TypeError)
        for level, seconds in value.items():
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
                raise ValueError(f"the seconds of level '{level}' must be a positive number; got {seconds}")
        return value


class GroupWeightSettings(StrictSettings):
    """Weights of groups of configurations, besides w_E and w_F, in training only."""

    group_key: str = Field("config_type", description="key of a configuration's info that names its group")
    energy: dict[Name, Weight] = Field({}, description="factor of the energy weight by group; 1 where not named")
    force: dict[Name, Weight] = Field({}, description="factor of the force weight by group; 1 where not named")
    objectives: list[str] = Field(
        [],
        description="search for factors that make held-out errors small: energy, force, or of a group, Liquid:force; "
        "at the reference level, from the factors above",
    )
    twojmax: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        None, description="2Jmax at which they are searched for; by default the smallest of the study"
    )
    regulariser: Annotated[float, Field(ge=0, strict=True)] = Field(
        0.01, description="how strongly factors are held where they began"
    )


class Study(StrictSettings):
    """A full-factorial study, as its YAML file says it.

    Use `load_study` to read one from a file, or make one from keyword arguments.
    """

    name: FileName = Field("study", description="names the run folder; letters, digits, . _ -")
    dataset: Path = Field(description="the dataset (HDF5), relative to the study file")
    basis: SnapBasis = Field(description="the SNAP basis; its 2Jmax is the largest of 'twojmax'")
    split: SplitSettings = Field(SplitSettings(), description="training and test set")
    levels: list[Name] = Field([], description="levels in order of cost, the reference last; by default all")
    twojmax: list[Annotated[StrictInt, Field(ge=0, le=20)]] = Field([4, 6, 8], min_length=1, description="model sizes")
    weights: list[tuple[Weight, Weight]] = Field(
        [(12.25, 1.0)], min_length=1, description="pairs [w_E, w_F], or ratios w_E/w_F; from 1e-6 to 1e6"
    )
    sizes: list[Annotated[StrictInt, Field(ge=1)] | Literal["all"]] = Field(
        ["all"], min_length=1, description="configurations in the training subset; 'all' of the training set"
    )
    sampling_methods: list[str] = Field(["random"], min_length=1, description=f"any of {', '.join(SAMPLING_METHODS)}")
    repetitions: StrictInt = Field(10, ge=1, le=100_000, description="draws of each random sampling")
    seed: StrictInt = Field(1, ge=0, description="seed of the draws")
    ridge: list[Annotated[float, Field(ge=0, lt=1e6, strict=True)] | Literal["auto"]] = Field(
        [0.0],
        min_length=1,
        description="penalties λ of coefficients in scaled columns: 0 for none, 'auto' for what leave-one-out prefers",
    )
    leave_one_out: bool = Field(False, description="also leave-one-out errors, families of relatives left out together")
    leverage: LeverageSettings = Field(LeverageSettings(), description="leverage scores")
    cost: CostSettings = Field(CostSettings(), description="cost of labels and of MD")
    group_weights: GroupWeightSettings = Field(GroupWeightSettings(), description="weights of groups of configurations")
    engine: Literal["fast", "plain"] = Field(
        "fast", description="'plain' fits every cell from its rows; much slower, the oracle of 'fast'"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="what reduces the rows and fits from moments; 'cuda': a GPU, in float64 (extra: gpu)"
    )
    labelling: LabelSettings | None = Field(None, description="how the labels are computed, for 'paretofit label'")
    augmentation: AugmentSettings | None = Field(
        None, description="how new structures are made from a few, for 'paretofit augment'"
    )
    learning: LearnSettings | None = Field(None, description="the active-learning loop, for 'paretofit learn'")
    mace: NetworkSettings | None = Field(None, description="MACE networks on the same front (extra: mace)")
    cluster: ClusterSettings | None = Field(
        None,
        description="where tasks run: local (dask), address, slurm, or executorlib (labels); by default processes here",
    )
    reference_configuration: int | None = Field(
        None,
        description="id of the configuration by which energies are shifted; by default the lowest at the reference",
    )
    missing_labels: Literal["error", "drop"] = Field(
        "error", description="'drop' leaves out configurations that lack a label at any level, and counts them"
    )

    @model_validator(mode="before")
    @classmethod
    def _basis_has_largest(cls, values: Any) -> Any:
        """The basis is computed once, at the largest 2Jmax of the study, unless it says larger."""
        if isinstance(values, dict) and isinstance(values.get("basis"), dict):
            sizes = values.get("twojmax", cls.model_fields["twojmax"].default)
            if isinstance(sizes, list) and sizes and all(isinstance(size, int) for size in sizes):
                values = {**values, "basis": {"twojmax": max(sizes), **values["basis"]}}
        return values

    @field_validator("weights", mode="before")
    @classmethod
    def _ratios(cls, values: Any) -> Any:
        """A number is a ratio w_E/w_F."""
        if not isinstance(values, list):
            return values
        for value in values:
            pair = value if isinstance(value, list | tuple) else (value, 1.0)
            if len(pair) != 2 or any(isinstance(one, bool) or not isinstance(one, int | float) for one in pair):
                raise ValueError(f"each must be a ratio w_E/w_F or a pair [w_E, w_F] of numbers; got {value}")
        return [value if isinstance(value, list | tuple) else (value, 1.0) for value in values]

    @field_validator("cluster", mode="before")
    @classmethod
    def _cluster(cls, value: Any) -> Any:
        return expand_cluster_name(value)

    @field_validator("ridge", mode="before")
    @classmethod
    def _penalties(cls, values: Any) -> Any:
        """Say what a penalty may be, whichever of the two forms was meant."""
        if not isinstance(values, list) or not values:
            raise ValueError("must be a list of penalties, such as [0, auto]")
        for value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value != "auto" and not (number and 0 <= value < 1e6):
                raise ValueError(f"each must be 'auto' or a number from 0 up to 1e6; got {value}")
        return values

    @field_validator("sampling_methods")
    @classmethod
    def _known(cls, values: list[str]) -> list[str]:
        for value in values:
            if value not in SAMPLING_METHODS:
                raise ValueError(
                    f"'{value}' is not one of {', '.join(SAMPLING_METHODS)}{suggest_match(value, SAMPLING_METHODS)}"
                )
        return values

    @field_validator("levels", "twojmax", "weights", "sizes", "sampling_methods", "ridge")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        repeated = [value for k, value in enumerate(values) if value in values[:k]]
        if repeated:
            raise ValueError(f"{repeated[0]} is there twice")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        largest = max(self.twojmax)
        if self.basis.twojmax < largest:
            raise ValueError(f"basis.twojmax is {self.basis.twojmax}, smaller than the largest 'twojmax', {largest}")
        if self.device == "cuda" and self.cluster is not None:
            raise ValueError("'device: cuda' works on the GPU of this machine; leave out 'cluster'")
        if self.device == "cuda" and self.engine == "plain":
            raise ValueError("'device: cuda' is for the engine 'fast'; 'plain' fits on the processor")
        if self.split.train_fraction == 1 and not self.leave_one_out:
            raise ValueError(
                "a train_fraction of 1 leaves no test set; set 'leave_one_out: true' to judge fits without"
            )
        if self.leverage.twojmax is not None and self.leverage.twojmax > self.basis.twojmax:
            raise ValueError(
                f"leverage.twojmax is {self.leverage.twojmax}, larger than the basis's {self.basis.twojmax}"
            )
        return self


class _Named(StrictSettings):
    name: FileName


class LabelStudy(StrictSettings):
    """The part of a study that `paretofit label` needs; a study for it alone may leave out the rest."""

    name: FileName = Study.model_fields["name"].default
    dataset: Path = Field(description="the dataset (HDF5) to make or to complete, relative to the study file")
    labelling: LabelSettings = Field(description="what to label, how, and in which order")
    cluster: ClusterSettings | None = Field(None, description="where labels are computed")

    @field_validator("cluster", mode="before")
    @classmethod
    def _cluster(cls, value: Any) -> Any:
        return expand_cluster_name(value)


def load_study(path: Path | str) -> Study:
    """Read a study from its YAML file; paths in it are relative to the file.

    Raises
    ------
    InputError
        With one sentence that names the file and the key.
    """
    study = _validated(Study, Path(path), _content(Path(path)))
    return study.model_copy(update=_located(study, Path(path).parent))


def load_label_study(path: Path | str) -> LabelStudy:
    """Read what `paretofit label` needs from a study's YAML file; the rest is checked where it is there.

    Raises
    ------
    InputError
        With one sentence that names the file and the key.
    """
    study = read_sections(LabelStudy, Path(path))
    return study.model_copy(update=_located(study, Path(path).parent))


def read_sections(model: type[S], path: Path) -> S:
    """Read the sections of a study that one verb needs; the sections of other verbs may stand beside them.

    Raises
    ------
    InputError
        With one sentence that names the file and the key.
    """
    content = _content(path)
    others = set(Study.model_fields) - set(model.model_fields)
    if set(content) & others - set(APART):  # a whole study: all of it is checked
        _validated(Study, path, content)
    _validated(_Named, path, {"name": content["name"]})
    return _validated(model, path, {key: value for key, value in content.items() if key not in others})


def _content(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold keys and values, such as 'dataset: data.h5'")
    return {"name": re.sub(r"[^A-Za-z0-9._-]+|^[._-]+", "-", path.stem).lstrip("-._") or "study", **content}


def _validated(model: type[S], path: Path, content: dict[str, Any]) -> S:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {format_validation_error(error, model)}") from error


def _located(study: Study | LabelStudy, folder: Path) -> dict[str, Any]:
    """Paths relative to the study file, as this process sees them."""
    located: dict[str, Any] = {"dataset": folder / study.dataset}
    if study.labelling is not None:
        structures = [folder / path for path in study.labelling.structures]
        engine = study.labelling.engine
        potentials = getattr(engine, "pseudopotentials", None)
        if potentials is not None:
            engine = engine.model_copy(update={"pseudopotentials": folder.absolute() / potentials})
        located["labelling"] = study.labelling.model_copy(update={"structures": structures, "engine": engine})
    if isinstance(study, Study) and study.mace is not None:
        located["mace"] = study.mace.resolve_paths(folder)
    return located


def tabulate_settings() -> list[tuple[str, str, str]]:
    """Key, default and meaning of every setting, for the documentation."""
    return list(list_settings(Study))
