"""Settings of the active-learning loop: the section 'learning' of a study, and other sections that the loop uses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from paretofit.core import Name, StrictInt, StrictPositiveFloat, StrictSettings, StudyPath, StudyPaths
from paretofit.descriptors import MAX_POD_SIZE, AnyBasis, PodBasis, ReferenceEnergySetting, SnapBasis
from paretofit.execution import ClusterSettings
from paretofit.labelling import LabelSettings
from paretofit.potentials.mace import MaceSettings
from paretofit.structures import AugmentSettings

Count = Annotated[int, Field(ge=1, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]

MIN_ATOM_DENSITY = 0.008  # 1/Å³; this is the density of caesium, the solid with the fewest atoms per volume


class RangeOrGridSettings(StrictSettings):
    """Temperatures or pressures of the dynamics: a range to draw from, or a grid of values to use in turn."""

    low: Number | None = Field(None, description="Lowest value of the range.")
    high: Number | None = Field(None, description="Highest value of the range.")
    grid: list[Number] = Field([], description="Values that are used in turn, instead of a range.")

    @model_validator(mode="before")
    @classmethod
    def _expand_short_form(cls, setting: Any) -> Any:
        """Accept two numbers as a range, and one number as a grid of one value."""
        if isinstance(setting, int | float) and not isinstance(setting, bool):
            return {"grid": [setting]}
        if isinstance(setting, list | tuple):
            if len(setting) != 2:
                raise ValueError(f"a range must have two ends; write {{grid: {list(setting)}}} for a list of values")
            return {"low": setting[0], "high": setting[1]}
        return setting

    @model_validator(mode="after")
    def _check_range_or_grid(self) -> Self:
        """Check that there is either a grid or a range with its lower end first."""
        if self.grid:
            if self.low is not None or self.high is not None:
                raise ValueError("specify either a range or a grid, not both")
        elif self.low is None or self.high is None:
            raise ValueError("specify a range, [lowest, highest], or values, {grid: [...]}")
        elif self.low > self.high:
            raise ValueError(f"the range goes from {self.low:g} to {self.high:g}; write the lower end first")
        return self


class ToleranceSettings(StrictSettings):
    """Largest acceptable errors of a configuration by property."""

    energy: StrictPositiveFloat = Field(1.0, description="Error of the energy (meV/atom).")
    forces: StrictPositiveFloat = Field(100.0, description="Error of the forces (meV/Å).")
    stress: StrictPositiveFloat = Field(
        0.16, description="Error of the stress (GPa), where labels have stresses; 0.16 GPa are 1 meV/Å³."
    )


class DiscardSettings(ToleranceSettings):
    """Predicted errors above which a frame is discarded as unphysical."""

    energy: StrictPositiveFloat = Field(1000.0, description="Predicted error of the energy (meV/atom).")
    forces: StrictPositiveFloat = Field(10_000.0, description="Predicted error of the forces (meV/Å).")
    stress: StrictPositiveFloat = Field(100.0, description="Predicted error of the stress (GPa).")


class SetShareSettings(StrictSettings):
    """Shares of the sets, within each kind of structure and input; a group of configurations is never divided."""

    train: Share = Field(0.8, description="Share of the training set.")
    validation: Share = Field(0.1, description="Share of the validation set, which calibrates the committee.")
    test: Share = Field(0.1, description="Share of the test set, which is only used to measure errors.")
    group_by: list[str] = Field(["family", "trajectory"], description="Info keys whose equal values form a group.")

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        """Check that the shares of the sets add up to 1."""
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares must add up to 1; they add up to {total:g}")
        return self


class DownweightSettings(StrictSettings):
    """Scales above which labels get lower weights; structures far above them are irrelevant for most dynamics."""

    energy: StrictPositiveFloat | None = Field(
        0.5, description="Energy above the lowest of the same composition (eV/atom); null for equal weights."
    )
    forces: StrictPositiveFloat | None = Field(
        1.0, description="Root mean square force of a configuration (eV/Å); null for equal weights."
    )


class LinearModelSettings(StrictSettings, ABC):
    """Committee of linear models in any basis."""

    name: str
    twojmax: int
    reference_energies: ReferenceEnergySetting = Field(
        "auto",
        description="Energies of free atoms at the best level, which the models reproduce exactly: those of labelled "
        "'isolated' atoms, eV by element ({C: -1.25}), or 'fitted'. 'auto': isolated where labelled.",
    )
    weight_ratio: StrictPositiveFloat = Field(12.25, description="Ratio of energy to force weight, w_E/w_F.")
    core_repulsion: bool = Field(
        True, description="Add the ZBL potential at distances below those of bonds, so that structures cannot collapse."
    )
    downweight: DownweightSettings = Field(
        DownweightSettings(), description="Lower weights for structures with high energies or large forces."
    )
    members: Annotated[int, Field(ge=2, strict=True)] = Field(8, description="Number of members of the committee.")
    committee_method: Literal["bootstrap", "subset", "posterior", "pops"] = Field(
        "bootstrap",
        description="Method that generates the members: 'bootstrap' gives groups random positive weights, 'subset' "
        "drops groups, 'posterior' draws from the noise of the fit, 'pops' reproduces single labels exactly.",
    )

    @field_validator("reference_energies")
    @classmethod
    def _check_reference_energies(cls, setting: Any) -> Any:
        """Check that energies are given by element, not by level and element."""
        if isinstance(setting, dict) and any(isinstance(energies, dict) for energies in setting.values()):
            raise ValueError("must be energies of the best level by element; the loop fits the offsets of other levels")
        return setting

    @abstractmethod
    def build_basis(self, elements: Sequence[str], twojmax: int) -> AnyBasis:
        """Build the basis of these elements for a 2Jmax."""


class SnapModelSettings(LinearModelSettings):
    """Committee of quadratic or linear SNAP models."""

    name: Literal["snap"] = Field("snap", description="Kind of model: SNAP.")
    twojmax: Annotated[int, Field(ge=0, le=20, strict=True)] = Field(
        6, description="Largest 2Jmax; it is reduced while there are fewer than 8 rows per column."
    )
    quadratic: bool = Field(True, description="Quadratic SNAP; false for linear SNAP.")
    rcutfac: StrictPositiveFloat = Field(4.812302818, description="Cutoff of a pair of elements in Å / (R_i + R_j).")
    radelem: dict[str, StrictPositiveFloat] = Field({}, description="Cutoff radius R by element; 0.5 by default.")
    wj: dict[str, Number] = Field({}, description="Weight by element; 1 by default.")

    def build_basis(self, elements: Sequence[str], twojmax: int) -> SnapBasis:
        """Build the basis of these elements for a 2Jmax."""
        return SnapBasis(
            elements=list(elements), twojmax=twojmax, quadratic=self.quadratic, rcutfac=self.rcutfac,
            radelem=[self.radelem.get(symbol, 0.5) for symbol in elements],
            wj=[self.wj.get(symbol, 1.0) for symbol in elements],
        )  # fmt: skip


class PodModelSettings(LinearModelSettings):
    """Committee of linear models of proper orthogonal descriptors."""

    name: Literal["pod"] = Field("pod", description="Kind of model: POD.")
    twojmax: Annotated[int, Field(ge=PodBasis.min_size, le=MAX_POD_SIZE, strict=True)] = Field(
        8, description="Largest size of POD; it is reduced while there are fewer than 8 rows per column."
    )
    rcut: StrictPositiveFloat = Field(4.812302818, description="Cutoff of all pairs of elements, Å.")
    rin: StrictPositiveFloat = Field(0.5, description="Inner cutoff, Å, below all distances of atoms.")

    def build_basis(self, elements: Sequence[str], twojmax: int) -> PodBasis:
        """Build the basis of these elements for a size of POD, which takes the place of 2Jmax."""
        return PodBasis(elements=list(elements), twojmax=twojmax, rcut=self.rcut, rin=self.rin)


class ExploreSettings(StrictSettings):
    """Molecular dynamics with the committee."""

    trajectories: Count = Field(20, description="Number of trajectories in each iteration.")
    driver: Literal["member", "mean"] = Field(
        "mean", description="Potential: the mean of the members, or a random member with a typical training error."
    )
    integrator: Literal["ase", "lammps"] | None = Field(
        None, description="Program that integrates; by default lammps for SNAP and ase for neural networks."
    )
    start_structures: StudyPaths = Field([], description="Files of start structures; by default all candidates.")
    temperature_k: RangeOrGridSettings = Field(
        RangeOrGridSettings(low=0.0, high=1000.0), description="Temperatures in K: [lowest, highest] or {grid: [...]}."
    )
    pressure_kbar: RangeOrGridSettings = Field(
        RangeOrGridSettings(low=-5.0, high=5.0),
        description="Pressures in kbar on the material along periodic directions: [lowest, highest] or {grid: [...]}.",
    )
    time_ps: StrictPositiveFloat = Field(10.0, description="Length of a trajectory in ps.")
    interval_ps: StrictPositiveFloat = Field(
        1.0, description="Time between frames in ps, long enough for consecutive frames to differ."
    )
    timestep_fs: Annotated[float, Field(gt=0, le=10, strict=True)] = Field(1.0, description="Time step in fs.")
    equilibration_ps: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = Field(
        0.3, description="Time in ps at constant volume before a trajectory, with velocities that are rescaled."
    )
    max_atoms: Count | None = Field(
        None, description="Largest number of atoms of a start structure; by default that of the candidates."
    )
    dispersion: Literal["none", "d2", "d3"] = Field("none", description="Grimme's dispersion added to the dynamics.")
    time_limit_s: StrictPositiveFloat = Field(3600.0, description="Wall time in s after which a trajectory is killed.")
    stop_grade: StrictPositiveFloat = Field(50.0, description="Extrapolation grade at which a trajectory is stopped.")
    stop_temperature_ratio: StrictPositiveFloat = Field(
        5.0,
        description="A trajectory is stopped if the running mean of its temperature exceeds this multiple of the "
        "requested temperature and 3000 K.",
    )

    @model_validator(mode="after")
    def _check_conditions(self) -> Self:
        """Check that no temperature is negative, and that a trajectory is not shorter than the time between frames."""
        # `or 0.0` is for the type checker: without a grid, the lower end of the range is not None
        lowest_temperature = min(self.temperature_k.grid or [self.temperature_k.low or 0.0])
        if lowest_temperature < 0:
            raise ValueError(f"'temperature_k' is in K and cannot be below zero; got {lowest_temperature:g}")
        if self.interval_ps > self.time_ps:
            raise ValueError(f"'interval_ps', {self.interval_ps:g}, is longer than 'time_ps', {self.time_ps:g}")
        return self


class CutOutSettings(StrictSettings):
    """Small cells that are cut out of large frames around the atom with the highest grade, and labelled instead."""

    max_atoms: Count = Field(200, description="Number of atoms above which a frame is too large to label.")
    radius: StrictPositiveFloat = Field(
        6.0, description="Radius in Å of the environment that the cell holds; at least the cutoff of the potential."
    )

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        """Check that a sphere of this radius has at most `max_atoms` atoms in the material with the lowest density."""
        min_atoms = int(MIN_ATOM_DENSITY * 4 / 3 * np.pi * self.radius**3)
        if min_atoms > self.max_atoms:
            raise ValueError(
                f"an environment with the 'radius' {self.radius:g} Å has at least {min_atoms} atoms, more than "
                f"'max_atoms', {self.max_atoms}; decrease 'radius', or increase 'max_atoms'"
            )
        return self


class SelectSettings(StrictSettings):
    """Selection of the frames to label."""

    tolerance: ToleranceSettings = Field(ToleranceSettings(), description="Largest acceptable errors.")
    discard_above: DiscardSettings = Field(DiscardSettings(), description="Predicted errors of unphysical frames.")
    strategy: Literal["random", "diverse"] = Field(
        "random",
        description="Choice among frames above tolerance: at random, as in Bidoggia et al. (2025), or for diversity.",
    )
    max_selected: Count = Field(1000, description="Largest number of frames selected in an iteration.")
    calibration: Literal["slope", "isotonic", "quantile"] = Field(
        "slope", description="Calibration from disagreement to error, as in 'paretofit evaluate'."
    )
    min_distance_ratio: Annotated[float, Field(ge=0, lt=2, strict=True)] = Field(
        0.6, description="Smallest distance of two atoms, relative to the sum of their covalent radii."
    )
    duplicate_tolerance: Annotated[float, Field(ge=0, strict=True)] = Field(
        0.001, description="Relative distance of mean descriptors below which two structures are duplicates."
    )
    cut_out: CutOutSettings | None = Field(
        None, description="Periodic cells that are cut out of large frames; by default whole frames are labelled."
    )

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        """Check that the limits above which frames are discarded are above the tolerances."""
        for name in ToleranceSettings.model_fields:
            tolerance, limit = getattr(self.tolerance, name), getattr(self.discard_above, name)
            if limit <= tolerance:
                raise ValueError(f"'discard_above.{name}', {limit:g}, must be above 'tolerance.{name}', {tolerance:g}")
        return self


AnyModel = Annotated[SnapModelSettings | PodModelSettings | MaceSettings, Field(discriminator="name")]


class LevelSettings(StrictSettings):
    """Convergence level of new labels."""

    fixed: Name | None = Field(None, description="Level of all new labels; by default chosen by benefit and cost.")
    pilot_size: Annotated[int, Field(ge=3, strict=True)] = Field(
        12, description="Number of structures that are first labelled at every level, if the level is not fixed."
    )


class LearnSettings(StrictSettings):
    """Active-learning loop."""

    structures: StudyPaths = Field([], description="Files of candidates, in addition to those of 'augmentation'.")
    n_initial: Count | None = Field(None, description="Number of candidates to label first; by default all.")
    initial_potential: StudyPath | None = Field(
        None,
        description="Folder or files of a potential or committee (SNAP, MACE) whose dynamics add candidates before the "
        "first label; with a calibrated committee and a 'dataset', only candidates above tolerance are labelled.",
    )
    max_iterations: Count = Field(10, description="Largest number of iterations.")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(1, description="Random seed of the loop.")
    sets: SetShareSettings = Field(SetShareSettings(), description="Training, validation and test sets.")
    model: AnyModel = Field(SnapModelSettings(), description="Model of the committee: 'name: snap', 'pod' or 'mace'.")
    explore: ExploreSettings = Field(ExploreSettings(), description="Molecular dynamics.")
    select: SelectSettings = Field(SelectSettings(), description="Selection of the frames to label.")
    level: LevelSettings = Field(LevelSettings(), description="Convergence level of new labels.")

    @field_validator("model", mode="before")
    @classmethod
    def _expand_model(cls, setting: Any) -> Any:
        """Accept a name as a model with default settings, and settings without a name as those of SNAP."""
        if isinstance(setting, str):
            return {"name": setting}
        return {"name": "snap", **setting} if isinstance(setting, dict) else setting


class LearnStudy(StrictSettings):
    """Sections of a study that `paretofit learn` uses."""

    name: str = "study"
    dataset: StudyPath | None = Field(
        None, description="Dataset (HDF5) of labelled configurations to start from; by default none."
    )
    labelling: LabelSettings = Field(description="Engine and levels of the labels.")
    augmentation: AugmentSettings | None = Field(None, description="Generation of the first candidates.")
    learning: LearnSettings = Field(LearnSettings(), description="Active-learning loop.")
    cluster: ClusterSettings | None = Field(None, description="Cluster that runs the tasks.")
