"""The convergence ladder: named DFT settings in order of cost, the reference last.

A level says how finely the calculation is done, not by which code: every engine turns the same level
into its own input.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from ase import Atoms
from pydantic import Field, field_validator

from paretofit.core import Array, Name, StrictPositiveFloat, StrictSettings
from paretofit.dataset import check_level_name

EXACT = 1e-9  # a quotient this close above a whole number is that number: 2.0000000001 points are 2


class SmearingSettings(StrictSettings):
    """Occupation of the states near the Fermi level."""

    method: Literal["methfessel-paxton", "fermi-dirac", "gaussian", "fixed"] = Field(
        "methfessel-paxton", description="'fixed': whole occupations, for insulators"
    )
    order: Annotated[int, Field(ge=1, le=4, strict=True)] = Field(1, description="of Methfessel-Paxton")
    width_ev: StrictPositiveFloat = Field(0.2, description="width, eV")


class ScfSettings(StrictSettings):
    """When a self-consistent calculation is done; tight, or it masks what the level itself does."""

    energy_ev_per_electron: StrictPositiveFloat = Field(
        1e-5, description="change of the energy, eV per valence electron"
    )
    density_electrons: StrictPositiveFloat = Field(
        1e-5, description="change of the density, electrons per valence electron"
    )
    max_iterations: Annotated[int, Field(ge=1, strict=True)] = Field(
        200, description="iterations of the first attempt; each retry has twice as many"
    )


class Level(StrictSettings):
    """One rung of the ladder."""

    name: Name = Field(description="the level's name in the dataset")
    cutoff_ev: StrictPositiveFloat | None = Field(None, description="plane-wave cutoff, eV")
    kspacing_per_angstrom: StrictPositiveFloat | None = Field(
        None, description="k-point spacing, 1/Å, with the 2π (VASP's KSPACING); null: Gamma only"
    )
    functional: str = Field("PBE", description="exchange-correlation functional")
    smearing: SmearingSettings = Field(SmearingSettings(), description="smearing")
    scf: ScfSettings = Field(ScfSettings(), description="self-consistency")
    options: dict[str, Any] = Field({}, description="further keywords for the engine's calculator at this level")

    @field_validator("name")
    @classmethod
    def _usable(cls, value: str) -> str:
        check_level_name(value)  # the dataset's rule, before anything is computed
        return value

    def kpoints(self, atoms: Atoms) -> tuple[int, int, int]:
        """The k-point mesh of this level for a configuration."""
        return kpoint_mesh(atoms.cell[:], atoms.pbc, self.kspacing_per_angstrom)

    def to_metadata(self) -> dict[str, Any]:
        """What is stored with the level's labels."""
        kept = self.model_dump(exclude={"name", "options", "scf"})
        tolerances = self.scf.model_dump(exclude={"max_iterations"})
        return {**kept, "scf": tolerances, **({"options": self.options} if self.options else {})}

    def resolution(self) -> tuple[float, float]:
        """Cutoff, and minus the k-point spacing: both grow from level to level."""
        return self.cutoff_ev or 0.0, -(self.kspacing_per_angstrom or np.inf)


PAPER_LADDER = tuple(
    Level(name=str(number), cutoff_ev=float(cutoff), kspacing_per_angstrom=spacing)
    for number, (spacing, cutoff) in enumerate(
        [(None, 300), (1.0, 300), (0.75, 400), (0.5, 500), (0.25, 700), (0.1, 900)], start=1
    )
)
"""The six levels of Table 1 in Baghishov et al., doi 10.1039/d5dd00294j."""


def check_ladder(levels: Sequence[Level]) -> None:
    """Refuse a ladder whose names repeat, or that is not ordered by cost.

    Raises
    ------
    ValueError
        If a level is coarser than the one before it in cutoff or k-point spacing.
    """
    names = [level.name for level in levels]
    if repeated := [name for k, name in enumerate(names) if name in names[:k]]:
        raise ValueError(f"the level '{repeated[0]}' is there twice")
    for lower, upper in pairwise(levels):
        if lower.model_dump(exclude={"name"}) == upper.model_dump(exclude={"name"}):
            raise ValueError(f"the levels '{lower.name}' and '{upper.name}' say the same; leave one of them out")
        if any(above < below for below, above in zip(lower.resolution(), upper.resolution(), strict=True)):
            raise ValueError(
                f"the ladder is out of order: level '{upper.name}' ({_described(upper)}) is coarser than "
                f"'{lower.name}' ({_described(lower)}) before it; order levels by cost, the reference last"
            )


def _described(level: Level) -> str:
    spacing = level.kspacing_per_angstrom
    return f"{level.cutoff_ev or 0:g} eV, {'Gamma only' if spacing is None else f'{spacing:g} 1/Å'}"


def kpoint_mesh(cell: Array, pbc: Sequence[bool] | Array, spacing: float | None) -> tuple[int, int, int]:
    """Gamma-centred mesh ``N_i = max(1, ceil(|b_i| / spacing))``, reciprocal vectors with the 2π.

    Parameters
    ----------
    cell : (3, 3) float
        Cell vectors as rows, Å.
    pbc : (3,) bool
        One point along directions that are not periodic.
    spacing : float or None
        1/Å, as VASP's KSPACING; None: Gamma only.

    Returns
    -------
    tuple of three int

    Raises
    ------
    ValueError
        If the spacing is not above 0.

    Examples
    --------
    >>> kpoint_mesh(np.diag([3.0, 6.0, 30.0]), [True, True, True], 0.5)
    (5, 3, 1)
    """
    if spacing is None:
        return (1, 1, 1)
    if not spacing > 0:
        raise ValueError(f"the k-point spacing must be above 0; got {spacing}")
    complete = Atoms(cell=cell).cell.complete()
    lengths = 2 * np.pi * np.linalg.norm(complete.reciprocal()[:], axis=1)
    counts = np.maximum(1, np.ceil(lengths / spacing - EXACT)).astype(int)
    x, y, z = (int(count) if periodic else 1 for count, periodic in zip(counts, pbc, strict=True))
    return (x, y, z)
