"""The convergence ladder: named DFT settings in order of cost, ending with the reference.

A level sets the accuracy of a calculation and does not depend on the engine; each engine translates it to its input.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Literal, Self

import numpy as np
from ase import Atoms
from pydantic import AfterValidator, Field, ValidationError, model_validator

from paretofit.core import Array, Name, PositiveInt, StrictPositiveFloat, StrictSettings, format_validation_error
from paretofit.dataset import check_level_name

CEIL_TOLERANCE = 1e-9  # subtracted before rounding up, so that rounding errors do not add a k-point


def _check_name(name: str) -> str:
    """Check the name of a level now, because the dataset checks names only after the calculations."""
    check_level_name(name)
    return name


LevelName = Annotated[Name, AfterValidator(_check_name)]


class SmearingSettings(StrictSettings):
    """Occupation of the states near the Fermi level."""

    method: Literal["methfessel-paxton", "fermi-dirac", "gaussian", "fixed"] = Field(
        "methfessel-paxton", description="Smearing method; 'fixed': integer occupations, for insulators."
    )
    order: Annotated[int, Field(ge=1, le=4, strict=True)] = Field(1, description="Order of Methfessel-Paxton smearing.")
    width_ev: StrictPositiveFloat = Field(0.2, description="Smearing width, eV.")


class ScfSettings(StrictSettings):
    """Tolerances of the self-consistent field, whose error must be small compared with the error of the level."""

    energy_ev_per_electron: StrictPositiveFloat = Field(
        1e-5, description="Maximum change of the energy, eV per electron."
    )
    density_electrons: StrictPositiveFloat = Field(
        1e-5, description="Maximum change of the density per valence electron."
    )
    max_iterations: PositiveInt = Field(200, description="Maximum number of iterations; each retry has twice as many.")


class Level(StrictSettings):
    """Convergence level of the ladder."""

    name: LevelName = Field(description="Name of the level in the dataset.")
    cutoff_ev: StrictPositiveFloat | None = Field(None, description="Plane-wave cutoff, eV.")
    kspacing_per_angstrom: StrictPositiveFloat | None = Field(
        None, description="k-point spacing, 1/Å, including the 2π (KSPACING of VASP); null: Gamma only."
    )
    functional: str = Field("PBE", description="Exchange-correlation functional.")
    smearing: SmearingSettings = Field(SmearingSettings(), description="Smearing of the occupations.")
    scf: ScfSettings = Field(ScfSettings(), description="Convergence of the self-consistent field.")
    options: dict[str, Any] = Field({}, description="Further keywords of the engine's calculator at this level.")

    def get_kpoint_mesh(self, atoms: Atoms) -> tuple[int, int, int]:
        """Return the numbers of k-points along the reciprocal vectors of a configuration."""
        return compute_kpoint_mesh(atoms.cell[:], atoms.pbc, self.kspacing_per_angstrom)

    def to_metadata(self) -> dict[str, Any]:
        """Return the settings to store with the labels: all except the name, `max_iterations` and empty options."""
        metadata = self.model_dump(exclude={"name", "options", "scf"})
        tolerances = self.scf.model_dump(exclude={"max_iterations"})
        return {**metadata, "scf": tolerances, **({"options": self.options} if self.options else {})}

    def get_resolution(self) -> tuple[float, float]:
        """Return the cutoff (eV; 0 if none) and minus the k-point spacing (1/Å; -inf for Gamma only).

        Both are larger at finer levels.
        """
        return self.cutoff_ev or 0.0, -(self.kspacing_per_angstrom or np.inf)


PAPER_LADDER = tuple(
    Level(name=str(number), cutoff_ev=float(cutoff), kspacing_per_angstrom=spacing)
    for number, (spacing, cutoff) in enumerate(
        [(None, 300), (1.0, 300), (0.75, 400), (0.5, 500), (0.25, 700), (0.1, 900)], start=1
    )
)
"""The six levels of Table 1 in Baghishov et al., doi 10.1039/d5dd00294j."""


class LevelGrid(StrictSettings):
    """Grid of levels: each cutoff at each k-point spacing."""

    cutoff_ev: list[StrictPositiveFloat] = Field(min_length=1, description="Plane-wave cutoffs, eV.")
    kspacing_per_angstrom: list[StrictPositiveFloat] = Field(
        min_length=1, description="k-point spacings, 1/Å, including the 2π."
    )

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        """Raise ValueError if a cutoff or a spacing is listed twice."""
        for name in ("cutoff_ev", "kspacing_per_angstrom"):
            values = getattr(self, name)
            if repeated_values := [value for k, value in enumerate(values) if value in values[:k]]:
                raise ValueError(f"'{name}' has {repeated_values[0]:g} twice")
        return self

    def expand(self) -> list[dict[str, Any]]:
        """Return the settings of all levels in order of their approximate cost.

        The names contain the cutoff and the spacing, such as ``300-0.5``. The last level has the highest cutoff and the
        smallest spacing.
        """
        points = product(self.cutoff_ev, self.kspacing_per_angstrom)
        # numbers of plane waves and of k-points, up to constant factors
        sorted_points = sorted(points, key=lambda point: point[0] ** 1.5 / point[1] ** 3)
        return [
            {"name": f"{cutoff:g}-{spacing:g}", "cutoff_ev": cutoff, "kspacing_per_angstrom": spacing}
            for cutoff, spacing in sorted_points
        ]


def expand_ladder(ladder: Any) -> Any:
    """Expand the mapping ``{grid: {...}}`` to a list of levels; return other ladders unchanged.

    Raises
    ------
    ValueError
        If the mapping has other keys, or the grid is not valid.
    """
    if not isinstance(ladder, Mapping):
        return ladder
    if set(ladder) != {"grid"}:
        raise ValueError("'ladder' must be 'paper', a list of levels, or {grid: {cutoff_ev: [...], ...}}")
    try:
        return LevelGrid.model_validate(ladder["grid"]).expand()
    except ValidationError as error:
        raise ValueError(f"'ladder.grid': {format_validation_error(error, LevelGrid)}") from error


def check_ladder(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Check the levels of a ladder, and return them.

    Raises
    ------
    ValueError
        If two levels have the same name or the same settings, or a level is coarser than an earlier one (has a lower
        cutoff or a larger k-point spacing, and is finer in neither).
    """
    names = [level.name for level in levels]
    if duplicate_names := [name for k, name in enumerate(names) if name in names[:k]]:
        raise ValueError(f"the ladder has two levels with the name '{duplicate_names[0]}'; rename one of them")
    for upper_level in levels:
        for lower_level in levels[: levels.index(upper_level)]:
            _check_order(lower_level, upper_level)
    return levels


def _check_order(lower_level: Level, upper_level: Level) -> None:
    """Raise ValueError if two levels have the same settings, or the upper one is coarser in one and finer in neither.

    The cutoff and the k-point spacing are compared. On a grid, one level may have the higher cutoff and the other one
    the denser k-points, in either order.
    """
    if lower_level.model_dump(exclude={"name"}) == upper_level.model_dump(exclude={"name"}):
        raise ValueError(
            f"levels '{lower_level.name}' and '{upper_level.name}' have identical settings; remove one of them, or "
            "set what differs (of an ASE calculator: 'options')"
        )
    pairs = list(zip(lower_level.get_resolution(), upper_level.get_resolution(), strict=True))
    if any(upper < lower for lower, upper in pairs) and not any(upper > lower for lower, upper in pairs):
        raise ValueError(
            f"the ladder is not in order: level '{upper_level.name}' ({_describe(upper_level)}) is coarser than the "
            f"preceding level '{lower_level.name}' ({_describe(lower_level)}); order the levels by cost, the reference "
            "last"
        )


def _describe(level: Level) -> str:
    """Describe the cutoff and the k-point spacing of a level."""
    spacing = level.kspacing_per_angstrom
    return f"{level.cutoff_ev or 0:g} eV, {'Gamma only' if spacing is None else f'{spacing:g} 1/Å'}"


def compute_kpoint_mesh(cell: Array, pbc: Sequence[bool] | Array, spacing: float | None) -> tuple[int, int, int]:
    """Compute the Gamma-centred k-point mesh ``N_i = max(1, ceil(|b_i| / spacing))``.

    The reciprocal vectors b_i include the 2π.

    Parameters
    ----------
    cell : (3, 3) float
        Cell vectors as rows, Å; zero vectors are replaced by unit vectors that complete the cell.
    pbc : (3,) bool
        Periodic directions; the mesh has one point along each of the other directions.
    spacing : float or None
        Spacing in 1/Å, like VASP's KSPACING; None for Gamma only.

    Returns
    -------
    (int, int, int)
        Numbers of k-points along the three reciprocal vectors.

    Raises
    ------
    ValueError
        If the spacing is not above 0.

    Examples
    --------
    >>> compute_kpoint_mesh(np.diag([3.0, 6.0, 30.0]), [True, True, True], 0.5)
    (5, 3, 1)
    """
    if spacing is None:
        return (1, 1, 1)
    if not spacing > 0:
        raise ValueError(f"the k-point spacing must be above 0; got {spacing}")
    complete_cell = Atoms(cell=cell).cell.complete()
    lengths = 2 * np.pi * np.linalg.norm(complete_cell.reciprocal()[:], axis=1)
    counts = np.maximum(1, np.ceil(lengths / spacing - CEIL_TOLERANCE)).astype(int)
    x, y, z = (int(count) if is_periodic else 1 for count, is_periodic in zip(counts, pbc, strict=True))
    return (x, y, z)
