"""Settings of a sweep study, each declared once with its type, default, unit and meaning.

The table of settings, the JSON Schema, the error messages and the checks are derived from these classes.
"""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from paretofit.core import (
    FOLDER_KEY,
    AbsoluteStudyPath,
    FileName,
    InputError,
    Name,
    StrictInt,
    StrictPositiveFloat,
    StrictSettings,
    StudyPath,
    check_choice,
    format_validation_error,
    list_settings,
    read_yaml,
    suggest_match,
)
from paretofit.descriptors import ReferenceEnergySetting, StudyBasis
from paretofit.execution import ClusterSettings
from paretofit.labelling import LabelSettings
from paretofit.learning import LearnSettings
from paretofit.properties import PropertySettings, get_error_column
from paretofit.structures import AugmentSettings
from paretofit.study.basis_settings import FIRST_BASIS, FurtherBasis, check_sizes
from paretofit.study.group_weight_settings import GroupWeightSettings, Weight
from paretofit.study.mixture_settings import MixtureSettings
from paretofit.study.network_settings import NetworkSettings
from paretofit.sweep import SAMPLING_METHODS

S = TypeVar("S", bound=StrictSettings)
INDEPENDENT_KEYS = {"dataset", "labelling", "augmentation", "learning", "cluster"}  # valid in a file without a sweep
SAMPLING_TEXT = ", ".join(SAMPLING_METHODS)
MAX_TWOJMAX = 20
ERROR_OBJECTIVES = ("ref_energy", "ref_force")


class SplitSettings(StrictSettings):
    """Train/test split."""

    train_fraction: float = Field(
        0.7,
        gt=0,
        le=1,
        description="Fraction of the configurations in the training set; 1 (no test set) requires leave_one_out.",
    )
    seed: StrictInt = Field(1, ge=0, description="Random seed of the split.")
    group_by: list[str] = Field(
        ["parent", "trajectory"],
        description="Info keys; configurations with equal values form a group, which is never split.",
    )


class LeverageSettings(StrictSettings):
    """Computation of leverage scores."""

    energy_weight: Weight | None = Field(
        None,
        description="Energy weight w_E of the leverage scores; by default the number of force components per energy, "
        "times force_weight: 150 in the paper, whose cells have 50 atoms.",
    )
    force_weight: Weight = Field(1.0, description="Force weight w_F of the leverage scores.")
    twojmax: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        None, description="2Jmax at which the scores are computed; by default the largest of the study."
    )


class CostSettings(StrictSettings):
    """Cost of labels and of MD steps."""

    label_seconds: Literal["recorded"] | dict[Name, StrictPositiveFloat] = Field(
        "recorded",
        description="Computing time of labels: 'recorded' for the seconds stored with each label, or seconds per "
        "configuration by level.",
    )
    assumed_levels: list[Name] = Field(
        [],
        description="Levels whose 'label_seconds' are assumptions, not measurements; results, report and plan say so.",
    )
    md_us_per_atom_step: dict[int, StrictPositiveFloat] = Field(
        {}, description="Known MD cost of 'basis' by 2Jmax (µs per atom and step)."
    )
    measure_md: bool = Field(True, description="Measure the MD cost of all other 2Jmax with LAMMPS on one core.")

    @field_validator("label_seconds", mode="before")
    @classmethod
    def _check_seconds(cls, label_seconds: Any) -> Any:
        """Check for 'recorded' or seconds by level, because pydantic's message would list the errors of both forms."""
        if label_seconds == "recorded":
            return label_seconds
        if not isinstance(label_seconds, dict):
            message = "must be 'recorded', or seconds per configuration by level, such as {1: 10, 2: 300}"
            raise ValueError(message)  # noqa: TRY004  (pydantic reports a ValueError, not a TypeError)
        for level, seconds in label_seconds.items():
            if seconds == "recorded":
                raise ValueError("'recorded' is for all levels: write 'label_seconds: recorded', or seconds by level")
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
                raise ValueError(f"the seconds of level '{level}' must be a positive number; got {seconds}")
        return label_seconds


class ConfidenceSettings(StrictSettings):
    """Intervals of errors, from further train/test splits of the same configurations."""

    splits: Annotated[int, Field(ge=0, le=100, strict=True)] = Field(
        5,
        description="Further train/test splits in which each setting is fitted once, for 90 % intervals of all errors; "
        "0 for none. Fewer than 5 cost less, but give wider intervals, and settings are then compared only by the "
        "repetitions.",
    )
    bootstrap: Annotated[int, Field(ge=1, le=100_000, strict=True)] = Field(
        500, description="Bootstrap samples of the test sets' groups, in all further splits together."
    )


class Study(StrictSettings):
    """Settings of a full-factorial study.

    `load_study` reads the settings from a YAML file; in Python, they are keyword arguments.
    """

    name: FileName = Field("study", description="Name of the study and its run folder: letters, digits, '.', '_', '-'.")
    dataset: StudyPath = Field(description="Dataset (HDF5); the path is relative to the study file.")
    basis: StudyBasis = Field(description="Basis of descriptors; its 2Jmax is by default the largest of 'twojmax'.")
    bases: list[FurtherBasis] = Field(
        [], description="Further bases to compare, with the keys that differ from 'basis': [{name: short, rcutfac: 4}]."
    )
    reference_energies: ReferenceEnergySetting = Field(
        "auto",
        description="Energies of free atoms, which the models reproduce exactly: those of labelled 'isolated' atoms, "
        "eV by element ({C: -1.25}, of other levels {cheap: {C: -1.2}}), or 'fitted'. 'auto': isolated where labelled.",
    )
    split: SplitSettings = Field(SplitSettings(), description="Train/test split.")
    levels: list[Name] = Field(
        [], description="Convergence levels in order of cost, the reference last; by default all of the dataset."
    )
    twojmax: list[Annotated[StrictInt, Field(ge=0, le=MAX_TWOJMAX)]] = Field(
        [4, 6, 8], min_length=1, description="Values of 2Jmax."
    )
    weights: list[tuple[Weight, Weight]] = Field(
        [(12.25, 1.0)], min_length=1, description="Pairs [w_E, w_F] or ratios w_E/w_F, from 1e-6 to 1e6."
    )
    sizes: list[Annotated[StrictInt, Field(ge=1)] | Literal["all"]] = Field(
        ["all"], min_length=1, description="Numbers of configurations in the training subset; 'all': the training set."
    )
    sampling_methods: list[str] = Field(
        ["random"], min_length=1, description=f"Sampling methods of the subsets: {SAMPLING_TEXT}."
    )
    repetitions: StrictInt = Field(10, ge=1, le=100_000, description="Number of draws of each random sampling method.")
    seed: StrictInt = Field(1, ge=0, description="Random seed of the draws.")
    ridge: list[Annotated[float, Field(ge=0, lt=1e6, strict=True)] | Literal["auto"]] = Field(
        [0.0],
        min_length=1,
        description="Ridge penalties λ in scaled columns: 0 for none, 'auto' to minimise the leave-one-out error.",
    )
    mixtures: list[MixtureSettings] = Field(
        [],
        description="Training sets with many labels of a cheap level and a few of an accurate one: "
        "[{base: 4, top: 5, top_sizes: [25, 50]}].",
    )
    properties: list[PropertySettings] = Field(
        [],
        description="Properties that are evaluated for every fit: [{name: C44, kind: elastic, structure: hcp.cif}].",
    )
    property_labels: AbsoluteStudyPath | None = Field(
        None, description="Dataset with labels of the structures of properties at the reference level."
    )
    grid_labels: AbsoluteStudyPath | None = Field(
        None, description="Dataset with labels on a grid of cutoffs and k-points, to compare the errors of both."
    )
    objectives: list[str] = Field(
        list(ERROR_OBJECTIVES),
        min_length=1,
        description="What the front minimises besides the cost: ref_energy, ref_force, and names of properties.",
    )
    leave_one_out: bool = Field(False, description="Also compute leave-one-out errors, for whole groups.")
    leverage: LeverageSettings = Field(LeverageSettings(), description="Settings of the leverage scores.")
    cost: CostSettings = Field(CostSettings(), description="Cost of labels and of MD.")
    confidence: ConfidenceSettings = Field(ConfidenceSettings(), description="Intervals of the errors.")
    group_weights: GroupWeightSettings = Field(GroupWeightSettings(), description="Weights of configuration groups.")
    engine: Literal["fast", "plain"] = Field(
        "fast",
        description="'fast' fits from factors; 'plain', much slower, fits each setting from its rows as a reference.",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Device that reduces the rows and fits; 'cuda' is a GPU, in float64 (extra: gpu)."
    )
    labelling: LabelSettings | None = Field(None, description="Computation of labels, for 'paretofit label'.")
    augmentation: AugmentSettings | None = Field(
        None, description="Generation of new structures, for 'paretofit augment'."
    )
    learning: LearnSettings | None = Field(None, description="Active-learning loop, for 'paretofit learn'.")
    mace: NetworkSettings | None = Field(None, description="MACE networks to compare on the same front (extra: mace).")
    cluster: ClusterSettings | None = Field(
        None,
        description="Cluster that runs the tasks: local (dask), address, slurm, or executorlib; by default none.",
    )
    reference_configuration: int | None = Field(
        None,
        description="Id of the configuration that is the zero of energy; by default the one with the lowest energy.",
    )
    missing_labels: Literal["error", "drop"] = Field(
        "error", description="'drop' excludes and counts configurations that lack a label at one or more levels."
    )
    unconverged_labels: Literal["drop", "keep"] = Field(
        "drop", description="'drop' excludes and counts configurations with unconverged DFT at one or more levels."
    )

    @model_validator(mode="before")
    @classmethod
    def _set_basis_twojmax(cls, values: Any) -> Any:
        """Set the default 2Jmax of the basis to the largest of the study, so that descriptors are computed once."""
        if isinstance(values, dict) and isinstance(values.get("basis"), dict):
            twojmax = values.get("twojmax", cls.model_fields["twojmax"].default)
            if isinstance(twojmax, list) and twojmax and all(value in range(MAX_TWOJMAX + 1) for value in twojmax):
                values = {**values, "basis": {"twojmax": max(twojmax), **values["basis"]}}
        return values

    @field_validator("weights", mode="before")
    @classmethod
    def _expand_ratios(cls, values: Any) -> Any:
        """Expand each ratio w_E/w_F to the pair (w_E/w_F, 1); raise ValueError for anything but numbers and pairs."""
        if not isinstance(values, list):
            return values
        for value in values:
            pair = value if isinstance(value, list | tuple) else (value, 1.0)
            are_numbers = [isinstance(number, int | float) and not isinstance(number, bool) for number in pair]
            if are_numbers != [True, True]:
                raise ValueError(f"each weight must be a ratio w_E/w_F or a pair [w_E, w_F] of numbers; got {value}")
            if not all(map(math.isfinite, pair)):
                raise ValueError(f"each weight must be a positive finite number; got {value}")
        return [value if isinstance(value, list | tuple) else (value, 1.0) for value in values]

    @field_validator("ridge", mode="before")
    @classmethod
    def _check_penalties(cls, penalties: Any) -> Any:
        """Check penalties here, because pydantic's message would list the errors of both forms, number and 'auto'."""
        if not isinstance(penalties, list) or not penalties:
            raise ValueError("must be a list of penalties, such as [0, auto]")
        for penalty in penalties:
            is_number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
            if penalty != "auto" and not (is_number and 0 <= penalty < 1e6):
                raise ValueError(f"each penalty must be 'auto' or a number from 0 up to 1e6; got {penalty}")
        return penalties

    @field_validator("sampling_methods")
    @classmethod
    def _check_methods(cls, names: list[str]) -> list[str]:
        """Raise ValueError for an unknown sampling method."""
        for name in names:
            if name not in SAMPLING_METHODS:
                raise ValueError(f"'{name}' is not one of {SAMPLING_TEXT}{suggest_match(name, SAMPLING_METHODS)}")
        return names

    @field_validator("levels", "twojmax", "weights", "sizes", "sampling_methods", "ridge", "objectives")
    @classmethod
    def _check_unique(cls, values: list[Any]) -> list[Any]:
        """Raise ValueError if a list contains a value twice."""
        if repeated_values := [value for k, value in enumerate(values) if value in values[:k]]:
            raise ValueError(f"{repeated_values[0]} is listed twice")
        return values

    @model_validator(mode="after")
    def _check_bases(self) -> Self:
        """Raise ValueError if two bases have the same name, or a further basis does not fit the first one."""
        names = [FIRST_BASIS]
        for entry in self.bases:
            if entry.name in names:
                raise ValueError(f"'bases' contains '{entry.name}' twice, or the name of the first basis; rename it")
            names.append(entry.name)
            entry.check(self.basis, self.twojmax)
        return self

    @property
    def property_names(self) -> list[str]:
        """Names of all properties; a setting for several elastic constants has a name for each of them."""
        return [entry.name_part(part) for entry in self.properties for part in entry.list_parts()]

    @property
    def objective_columns(self) -> list[str]:
        """Columns of the results table that the front minimises, except the cost."""
        return [name if name in ERROR_OBJECTIVES else get_error_column(name) for name in self.objectives]

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Raise ValueError if an objective is unknown, or settings exclude each other."""
        for objective in self.objectives:
            check_choice("an entry of 'objectives'", objective, [*ERROR_OBJECTIVES, *self.property_names])
        check_sizes(self.basis, self.twojmax)
        if self.device == "cuda" and self.cluster is not None:
            raise ValueError("'device: cuda' uses the GPU of this machine; remove 'cluster'")
        if self.device == "cuda" and self.engine == "plain":
            raise ValueError("'device: cuda' requires 'engine: fast', because 'plain' fits on the CPU")
        if self.mixtures and (self.engine == "plain" or self.leave_one_out or self.ridge != [0.0]):
            raise ValueError("'mixtures' require 'engine: fast', and neither 'ridge' nor 'leave_one_out'")
        if self.split.train_fraction == 1 and not self.leave_one_out:
            raise ValueError(
                "a train_fraction of 1 leaves no test set; set 'leave_one_out: true' for errors without a test set"
            )
        if self.leverage.twojmax is not None and self.leverage.twojmax > self.basis.twojmax:
            raise ValueError(
                f"leverage.twojmax is {self.leverage.twojmax}, larger than basis.twojmax, {self.basis.twojmax}; "
                "reduce it"
            )
        return self


class _StudyName(StrictSettings):  # checks a name without the other required keys of a study
    name: FileName


def load_study(path: Path | str) -> Study:
    """Read a study from its YAML file; paths in it are relative to the file.

    Raises
    ------
    InputError
        If the file is not valid; the message contains the file and the key.
    """
    path = Path(path)
    return _validate(Study, path, _read_content(path))


def read_sections(model: type[S], path: Path | str) -> S:
    """Read the sections of a study that a verb uses; the file may also contain the sections of other verbs.

    Parameters
    ----------
    model : type
        Settings class with the sections of the verb as fields.
    path : path-like
        YAML file; paths in it are relative to the file.

    Raises
    ------
    InputError
        If the file is not valid; the message contains the file and the key.
    """
    path = Path(path)
    content = _read_content(path)
    other_keys = set(Study.model_fields) - set(model.model_fields)
    if set(content) & other_keys - INDEPENDENT_KEYS:  # a sweep study: all of it is checked
        _validate(Study, path, content)
    _validate(_StudyName, path, {"name": content["name"]})
    return _validate(model, path, {key: value for key, value in content.items() if key not in other_keys})


def _read_content(path: Path) -> dict[str, Any]:
    """Read the content of a study file; the default name of the study is that of the file, with "-" for symbols."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain keys and values, such as 'dataset: data.h5'")
    return {"name": re.sub(r"[^A-Za-z0-9._-]+|^[._-]+", "-", path.stem).lstrip("-._") or "study", **content}


def _validate(model: type[S], path: Path, content: dict[str, Any]) -> S:
    """Validate the content of a study file; raise InputError with its path."""
    try:
        return model.model_validate(content, context={FOLDER_KEY: path.parent})
    except ValidationError as error:
        text = format_validation_error(error, model)
        basis = content.get("basis")
        if not isinstance(basis, dict) or "twojmax" not in basis:  # the 2Jmax of the basis is that of the study
            text = text.replace("'basis.twojmax'", "'twojmax'")
        raise InputError(f"{path}: {text}") from error


def tabulate_settings() -> list[tuple[str, str, str]]:
    """Return the key, the default (as YAML) and the meaning of every setting of a study."""
    return list(list_settings(Study))
