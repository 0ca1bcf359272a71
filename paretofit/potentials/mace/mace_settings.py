"""Settings of a MACE network and its training, as keys of a study's YAML file, with presets."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from paretofit.core import StrictInt, StrictPositiveFloat, StrictSettings, StudyPath

Count = Annotated[int, Field(ge=1, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]

# "published" has the cutoff, 4.5 Å, and the sizes (MACE's defaults) of Bidoggia et al. (2025). Networks of the other
# presets can be trained on a CPU. Errors and costs are in tests/benchmarks/RESULTS.md.
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
    """Weights of the squared errors of each property in the loss (errors in eV/atom, eV/Å and eV/Å³)."""

    energy: Weight = Field(100.0, description="Weight of energies per atom.")
    forces: Weight = Field(100.0, description="Weight of force components.")
    stress: Weight = Field(10_000.0, description="Weight of stress components, if the labels have stresses.")


class StageTwoSettings(StrictSettings):
    """Second training stage (MACE's ``--swa``) with more weight on energies; the network of this stage is used."""

    start: Count | None = Field(None, description="Epoch at which the stage starts at the latest; default: 3/4 of all.")
    weights: LossWeightSettings = Field(
        LossWeightSettings(energy=1000.0), description="Weights of the loss in this stage."
    )
    learning_rate: StrictPositiveFloat = Field(0.001, description="Learning rate of the optimiser in this stage.")


class FoundationSettings(StrictSettings):
    """Trained model from which training starts, such as a MACE foundation model."""

    file: StudyPath = Field(
        description="File of the model. It must come from a trusted source, because it is unpickled."
    )
    mode: Literal["naive", "multihead"] = Field(
        "naive",
        description="With 'multihead', the network is also trained on 'replay', to preserve what it has learned.",
    )
    replay: StudyPath | None = Field(None, description="Labelled structures (extended XYZ) from the first training.")
    head: str | None = Field(None, description="Head of the model from which training starts, if it has several.")

    @model_validator(mode="after")
    def _check_replay(self) -> Self:
        """Raise `ValueError` unless replay structures are specified exactly if the mode is "multihead"."""
        if self.mode == "multihead" and self.replay is None:
            raise ValueError("'mode: multihead' requires 'replay', a file of structures on which the model was trained")
        if self.mode == "naive" and self.replay is not None:
            raise ValueError("'replay' is only used with 'mode: multihead'; remove it, or change the mode")
        return self


class MaceSettings(StrictSettings):
    """A committee of MACE networks (extra ``mace``)."""

    name: Literal["mace"] = Field("mace", description="Kind of the model.")
    preset: Literal["published", "medium", "small", "tiny"] = Field(
        "published", description="Set of default values for the keys below."
    )
    members: StrictInt = Field(4, ge=2, description="Number of networks, which differ in their seeds.")
    r_max: StrictPositiveFloat = Field(4.5, description="Cutoff of a layer, Å.")
    layers: Count = Field(2, description="Number of message-passing layers.")
    channels: Count = Field(128, description="Number of channels of each layer.")
    max_l: StrictInt = Field(1, ge=0, le=4, description="Maximum order L of messages; 0 for invariant messages.")
    max_ell: StrictInt = Field(3, ge=1, le=6, description="Maximum order l of spherical harmonics.")
    correlation: StrictInt = Field(3, ge=1, le=4, description="Correlation order of a layer: its body order minus one.")
    epochs: Count = Field(500, description="Maximum number of epochs.")
    patience: Count = Field(50, description="Epochs without a lower validation error after which training stops.")
    batch_size: Count = Field(1, description="Number of configurations in a gradient step.")
    learning_rate: StrictPositiveFloat = Field(0.01, description="Learning rate of the optimiser.")
    dtype: Literal["float32", "float64"] = Field("float64", description="Floating-point type; float32 is faster.")
    weights: LossWeightSettings = Field(LossWeightSettings(), description="Weights of the loss.")
    stage_two: StageTwoSettings | None = Field(None, description="Second training stage; none by default.")
    ema_decay: Annotated[float, Field(gt=0, lt=1, strict=True)] = Field(
        0.99, description="Decay rate of the moving average of parameters."
    )
    isolated_atoms: dict[str, float] = Field({}, description="Isolated-atom energies, eV; default: labels or a fit.")
    warm_start: bool = Field(True, description="Whether training starts from the networks of the previous iteration.")
    foundation: FoundationSettings | None = Field(None, description="Trained model from which training starts.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Device for training and evaluation.")
    options: dict[str, str | float | bool] = Field({}, description="Other options of mace_run_train, without dashes.")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        """Use the values of the preset for missing keys; an invalid preset is reported by the later checks."""
        if isinstance(values, dict) and isinstance(values.get("preset"), str):
            return {**PRESETS.get(values["preset"], {}), **values}
        return values

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        """Raise `ValueError` if stage two starts too late, or an option is set that paretofit sets itself."""
        if self.stage_two is not None and not self.stage_two_start < self.epochs:
            raise ValueError(f"'stage_two.start', {self.stage_two_start}, must be smaller than 'epochs', {self.epochs}")
        if reserved_options := sorted(set(self.options) & set(RESERVED_OPTIONS)):
            raise ValueError(
                f"'options.{reserved_options[0]}' is set by paretofit; {RESERVED_OPTIONS[reserved_options[0]]}"
            )
        return self

    @property
    def stage_two_start(self) -> int:
        """Epoch at which stage two starts at the latest; by default after three quarters of the epochs."""
        start_epoch = None if self.stage_two is None else self.stage_two.start
        return max(1, self.epochs * 3 // 4) if start_epoch is None else start_epoch

    @property
    def foundation_files(self) -> dict[str, Path]:
        """Paths of the foundation model (``file``) and its replay structures (``replay``), if they are specified."""
        paths = {key: getattr(self.foundation, key, None) for key in ("file", "replay")}
        return {key: path for key, path in paths.items() if path is not None}

    @property
    def description(self) -> str:
        """Short description of the network: its preset and sizes; "like" a preset if a key of the network differs."""
        # Keys that do not change the network are copied from these settings, so that only the other keys are compared.
        unrelated_settings = {key: getattr(self, key) for key in ("members", "warm_start", "device", "isolated_atoms")}
        is_preset = self == type(self)(preset=self.preset, **unrelated_settings)
        name = f"MACE {self.preset}" if is_preset else f"MACE like '{self.preset}'"
        return f"{name}: {self.channels} channels, L={self.max_l}, {self.layers} layers, {self.r_max:g} Å"


# Options of mace_run_train whose value is that of a key of `MaceSettings`, with this key.
OPTION_KEYS = {
    "r_max": "r_max", "num_interactions": "layers", "num_channels": "channels", "max_L": "max_l", "max_ell": "max_ell",
    "correlation": "correlation", "max_num_epochs": "epochs", "lr": "learning_rate", "default_dtype": "dtype",
    "ema_decay": "ema_decay", "device": "device",
}  # fmt: skip
# Options whose value is derived from a key, with this key.
DERIVED_OPTION_KEYS = {
    "patience": "patience", "batch_size": "batch_size", "energy_weight": "weights.energy",
    "forces_weight": "weights.forces", "stress_weight": "weights.stress", "swa": "stage_two",
    "start_swa": "stage_two.start", "swa_lr": "stage_two.learning_rate",
    "swa_energy_weight": "stage_two.weights.energy", "swa_forces_weight": "stage_two.weights.forces",
    "swa_stress_weight": "stage_two.weights.stress", "E0s": "isolated_atoms", "foundation_model": "foundation.file",
    "foundation_head": "foundation.head", "multiheads_finetuning": "foundation.mode",
    "pt_train_file": "foundation.replay",
}  # fmt: skip
# Options that belong to no key, and that paretofit sets itself.
INTERNAL_OPTIONS = (
    *("name", "seed", "work_dir", "log_dir", "model_dir", "checkpoints_dir", "results_dir", "train_file", "valid_file"),
    *("test_file", "restart_latest", "plot", "ema", "loss", "dry_run"),
)
# Options that must not be in `MaceSettings.options`, with what to do instead.
RESERVED_OPTIONS = {
    **{option: f"use the key '{key}'" for option, key in (OPTION_KEYS | DERIVED_OPTION_KEYS).items()},
    **dict.fromkeys(INTERNAL_OPTIONS, "remove it"),
}
