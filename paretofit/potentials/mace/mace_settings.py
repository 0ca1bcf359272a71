"""What a MACE network is to be and how it is trained: keys of a study's YAML file, with presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from paretofit.core import StrictPositiveFloat, StrictSettings, StudyPath

if TYPE_CHECKING:
    from pathlib import Path

Count = Annotated[int, Field(ge=1, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]

# The sizes of paper 1 are MACE's own defaults, with its cutoff of 4.5 Å; the others train on a CPU, see
# tests/benchmarks/RESULTS.md for what each reaches and costs.
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "medium": {"channels": 32, "max_l": 1, "correlation": 2, "batch_size": 4, "epochs": 100, "patience": 25,
               "dtype": "float32"},
    "small": {"channels": 16, "max_l": 0, "correlation": 2, "batch_size": 4, "epochs": 100, "patience": 20,
              "dtype": "float32"},
    "tiny": {"channels": 8, "max_l": 0, "max_ell": 2, "correlation": 2, "batch_size": 4, "epochs": 50, "patience": 15,
             "dtype": "float32"},
}  # fmt: skip


class LossWeightSettings(StrictSettings):
    """Weights of the squared errors of each property in the loss (eV, eV/Å, eV/Å³)."""

    energy: Weight = Field(100.0, description="of energies per atom")
    forces: Weight = Field(100.0, description="of force components")
    stress: Weight = Field(10_000.0, description="of stress components, where there are any")


class StageTwoSettings(StrictSettings):
    """A second stage with more weight on energies, whose model is used then (MACE's ``--swa``)."""

    start: Count | None = Field(None, description="epoch at which it starts, at the latest; by default at 3/4")
    weights: LossWeightSettings = Field(LossWeightSettings(energy=1000.0), description="of its loss")
    learning_rate: StrictPositiveFloat = Field(0.001, description="of its optimiser")


class FoundationSettings(StrictSettings):
    """A trained model to start from, such as one of the MACE foundation models, given as a file."""

    file: StudyPath = Field(description="the model; it is unpickled, so that it must come from somebody you trust")
    mode: Literal["naive", "multihead"] = Field(
        "naive", description="'multihead' also learns 'replay', so that what the model knows is not forgotten"
    )
    replay: StudyPath | None = Field(None, description="labelled structures (extended XYZ) of the model's own training")
    head: str | None = Field(None, description="head of the model to start from, where it has several")

    @model_validator(mode="after")
    def _replayed(self) -> Self:
        if self.mode == "multihead" and self.replay is None:
            raise ValueError("mode 'multihead' needs 'replay', structures that the model was trained on")
        if self.mode == "naive" and self.replay is not None:
            raise ValueError("'replay' has a meaning only with 'mode: multihead'")
        return self


class MaceSettings(StrictSettings):
    """A committee of MACE networks (extra ``mace``)."""

    name: Literal["mace"] = Field("mace", description="says that it is MACE")
    preset: Literal["published", "medium", "small", "tiny"] = Field(
        "published", description="where the keys below are not given: as published, or smaller ones for a CPU"
    )
    members: Annotated[int, Field(ge=2, strict=True)] = Field(4, description="of the committee; they differ in seed")
    r_max: StrictPositiveFloat = Field(4.5, description="Å; cutoff of a layer")
    layers: Count = Field(2, description="of message passing")
    channels: Count = Field(128, description="of each layer")
    max_l: Annotated[int, Field(ge=0, le=4, strict=True)] = Field(1, description="L of the messages; 0: invariant")
    max_ell: Annotated[int, Field(ge=1, le=6, strict=True)] = Field(3, description="l of the spherical harmonics")
    correlation: Annotated[int, Field(ge=1, le=4, strict=True)] = Field(3, description="body order less one, by layer")
    epochs: Count = Field(500, description="at most")
    patience: Count = Field(50, description="epochs without a smaller error on the validation set, to stop after")
    batch_size: Count = Field(1, description="configurations in a gradient step")
    learning_rate: StrictPositiveFloat = Field(0.01, description="of the optimiser")
    dtype: Literal["float32", "float64"] = Field("float64", description="of the network; float32 is faster")
    weights: LossWeightSettings = Field(LossWeightSettings(), description="of the loss")
    stage_two: StageTwoSettings | None = Field(None, description="a second stage of training; by default there is none")
    ema_decay: Annotated[float, Field(gt=0, lt=1, strict=True)] = Field(
        0.99, description="of the moving average of parameters that is validated and kept"
    )
    isolated_atoms: dict[str, float] = Field(
        {}, description="energy by element, eV; by default of labelled isolated atoms, else by regression"
    )
    warm_start: bool = Field(True, description="in a loop: start from the members of the iteration before")
    foundation: FoundationSettings | None = Field(None, description="a trained model to start from")
    device: Literal["cpu", "cuda"] = Field("cpu", description="what trains and evaluates")
    options: dict[str, str | float | bool] = Field(
        {}, description="any further options of mace_run_train, without the dashes, such as num_radial_basis: 10"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        """Keys that are not given are those of the preset."""
        if isinstance(values, dict) and isinstance(values.get("preset"), str):
            return {**PRESETS.get(values["preset"], {}), **values}
        return values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.stage_two is not None and not self.stage_two_start < self.epochs:
            raise ValueError(f"'stage_two.start', {self.stage_two_start}, must be smaller than 'epochs', {self.epochs}")
        if taken := sorted(set(self.options) & set(OWN)):
            raise ValueError(f"'options.{taken[0]}' is set by paretofit; {OWN[taken[0]]}")
        return self

    @property
    def stage_two_start(self) -> int:
        """The epoch at which stage two starts, at the latest."""
        start = None if self.stage_two is None else self.stage_two.start
        return max(1, self.epochs * 3 // 4) if start is None else start

    @property
    def foundation_files(self) -> dict[str, Path]:
        """Files of the foundation model by key, if there are any."""
        own = self.foundation
        files = {} if own is None else {"file": own.file, "replay": own.replay}
        return {key: path for key, path in files.items() if path is not None}

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        size = f"MACE {self.preset}" if self == type(self)(**self._given()) else f"MACE like '{self.preset}'"
        return f"{size}: {self.channels} channels, L={self.max_l}, {self.layers} layers, {self.r_max:g} Å"

    def _given(self) -> dict[str, Any]:
        """What the preset alone would be, with what is no part of the network's size."""
        apart = {"members", "warm_start", "device", "isolated_atoms"}
        return {"preset": self.preset, **{name: getattr(self, name) for name in apart}}


_USE = "use the key '{}'"
OWN = {
    **{name: _USE.format(key) for name, key in {
        "r_max": "r_max", "num_interactions": "layers", "num_channels": "channels", "max_L": "max_l",
        "max_ell": "max_ell", "correlation": "correlation", "max_num_epochs": "epochs", "patience": "patience",
        "batch_size": "batch_size", "lr": "learning_rate", "default_dtype": "dtype", "energy_weight": "weights.energy",
        "forces_weight": "weights.forces", "stress_weight": "weights.stress", "swa": "stage_two",
        "start_swa": "stage_two.start", "swa_lr": "stage_two.learning_rate", "ema_decay": "ema_decay",
        "swa_energy_weight": "stage_two.weights.energy", "swa_forces_weight": "stage_two.weights.forces",
        "swa_stress_weight": "stage_two.weights.stress", "E0s": "isolated_atoms", "device": "device",
        "foundation_model": "foundation.file", "foundation_head": "foundation.head",
        "multiheads_finetuning": "foundation.mode", "pt_train_file": "foundation.replay",
    }.items()},
    **dict.fromkeys(
        ["name", "seed", "work_dir", "log_dir", "model_dir", "checkpoints_dir", "results_dir", "train_file",
         "valid_file", "test_file", "restart_latest", "plot", "ema", "loss", "dry_run"], "leave it out"),
}  # fmt: skip
