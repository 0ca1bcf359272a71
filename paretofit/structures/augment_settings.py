"""What to make out of a handful of structures: the section 'augmentation' of a study."""

from pathlib import Path
from typing import Annotated, Any, Self

from ase.data import atomic_numbers
from pydantic import Field, field_validator, model_validator

from paretofit.core import StrictInt, StrictPositiveFloat, StrictSettings, StudyPath, StudyPaths

SHORTEST_CUTOFF, LONGEST_CUTOFF = 0.5, 25.0  # Å, what LAMMPS can do

Count = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
AUTO = "null: a share of 'n_candidates'"


def check_symbols(symbols: list[str]) -> list[str]:
    """Refuse what is no chemical symbol."""
    for symbol in symbols:
        if not atomic_numbers.get(symbol):
            raise ValueError(f"'{symbol}' is not a chemical symbol")
    return symbols


class DistortionSettings(StrictSettings):
    """Random displacements of all atoms."""

    count: Count | None = Field(None, description=AUTO)
    fraction: Share = Field(0.3, description="largest displacement, as a share of the nearest-neighbour distance")


class StrainSettings(StrictSettings):
    """Strain along the periodic directions."""

    count: Count | None = Field(None, description=AUTO)
    compress: Annotated[float, Field(ge=0, lt=1, strict=True)] = Field(0.2, description="largest isotropic compression")
    stretch: Annotated[float, Field(ge=0, strict=True)] = Field(0.6, description="largest isotropic extension")
    anisotropic: Share = Field(0.0, description="largest further strain of each direction")
    shear: Share = Field(0.0, description="largest shear strain")
    fraction: Share = Field(
        0.0, description="displacements besides, at most this share of the nearest-neighbour distance"
    )


class VacancySettings(StrictSettings):
    """Atoms removed from distorted structures."""

    share: Share = Field(0.3, description="vacancy structures for each distorted one, their parents")
    n_vacancies: Annotated[int, Field(ge=1, strict=True)] = Field(2, description="atoms to remove")


class AtomClusterSettings(StrictSettings):
    """Free clusters, assembled atom by atom."""

    count: Count | None = Field(None, description=AUTO)
    distance: StrictPositiveFloat | dict[str, StrictPositiveFloat] = Field(
        1.5, description="Å; neighbours lie between 1 and √3 times this; or by pair, such as {Si-C: 1.9, Si-Si: 2.3}"
    )
    min_atoms: Annotated[int, Field(ge=2, strict=True)] = Field(2, description="smallest cluster")
    max_atoms: Annotated[int, Field(ge=2, strict=True)] = Field(30, description="largest cluster")

    @field_validator("distance")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        for pair in value if isinstance(value, dict) else ():
            if len(pair.split("-")) != 2:
                raise ValueError(f"'{pair}' is not a pair of elements such as Si-C")
            check_symbols(pair.split("-"))
        return value

    def get_pair_distances(self) -> float | dict[tuple[str, str], float]:
        """The distance, or the distance by pair of symbols."""
        if not isinstance(self.distance, dict):
            return self.distance
        pairs = {tuple(pair.split("-")): value for pair, value in self.distance.items()}
        return {(first, second): value for (first, second), value in pairs.items()}


class SlabSettings(StrictSettings):
    """Slabs of every structure that is periodic in three directions."""

    miller_indices: list[tuple[StrictInt, StrictInt, StrictInt]] = Field(
        [(1, 1, 1), (1, 1, 0), (1, 0, 0)], description="Miller indices, of the cell vectors as given; [] for no slabs"
    )
    min_thickness: StrictPositiveFloat = Field(10.0, description="Å, at least")


class SubstitutionSettings(StrictSettings):
    """Atoms of different elements swapped, in structures of several species."""

    share: Share = Field(0.2, description="substituted structures for each that was made before, their parents")
    swapped_fraction: Share = Field(0.2, description="share of the atoms that move")


class AlloySettings(StrictSettings):
    """Sites occupied at random, in structures of several species."""

    count: Count | None = Field(None, description=AUTO)
    elements: list[str] = Field([], description="by default those of the structure")

    @field_validator("elements")
    @classmethod
    def _symbols(cls, values: list[str]) -> list[str]:
        if len(set(values)) == 1:
            raise ValueError(f"an alloy needs two elements or more; got {values[0]} alone")
        return check_symbols(values)


class FilterSettings(StrictSettings):
    """What a candidate must not be."""

    min_distance_ratio: Annotated[float, Field(ge=0, lt=2, strict=True)] = Field(
        0.6, description="atoms closer than this share of the sum of their radii are refused"
    )
    radii: dict[str, StrictPositiveFloat] = Field({}, description="Å by element; by default covalent radii")
    duplicate_tolerance: Annotated[float, Field(ge=0, strict=True)] = Field(
        1e-4, description="structures whose descriptors differ by less than this share are the same"
    )
    max_force: StrictPositiveFloat | None = Field(None, description="eV/Å, under 'force_engine'; null: any")
    force_engine: dict[str, Any] | None = Field(
        None, description="an engine, as under 'labelling', cheap enough to compute the forces of every candidate"
    )

    @field_validator("radii")
    @classmethod
    def _symbols(cls, values: dict[str, float]) -> dict[str, float]:
        check_symbols(list(values))
        return values


class EntropySettings(StrictSettings):
    """Configurations that maximise the entropy of the set, from elements alone."""

    count: Count = Field(0, description="configurations of this kind, besides 'n_candidates'")
    composition: dict[str, StrictPositiveFloat] = Field(
        {}, description="shares by element, such as {Be: 1} or {W: 3, Be: 1}"
    )
    volume_per_atom: tuple[StrictPositiveFloat, StrictPositiveFloat] = Field(
        (6.0, 12.0), description="Å³ for each atom, smallest and largest"
    )
    n_atoms_range: tuple[Annotated[int, Field(ge=1, strict=True)], Annotated[int, Field(ge=1, strict=True)]] = Field(
        (8, 32), description="atoms, fewest and most"
    )
    twojmax: Annotated[int, Field(ge=0, le=8, strict=True)] = Field(6, description="of the descriptors")
    cutoff: Annotated[float, Field(ge=SHORTEST_CUTOFF, le=LONGEST_CUTOFF, strict=True)] = Field(
        4.8, description="Å, of the descriptors"
    )
    max_steps: Count = Field(30, description="gradient steps for each configuration")
    min_distance_ratio: Annotated[float, Field(gt=0, lt=2, strict=True)] = Field(
        0.7, description="no two atoms closer than this share of the sum of their radii"
    )
    max_starts: Annotated[int, Field(ge=1, strict=True)] = Field(
        3, description="beginnings, at most, until the set gains"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        check_symbols(list(self.composition))
        for name in ("volume_per_atom", "n_atoms_range"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"'{name}' goes from {low} to {high}; write the smaller first")
        if self.count and not self.composition:
            raise ValueError("entropy needs 'composition', such as {Be: 1}")
        return self


class AugmentSettings(StrictSettings):
    """What to make out of a handful of structures."""

    structures: StudyPaths = Field([], description="files of structures to begin from, anything ASE reads")
    output: StudyPath = Field(Path("candidates.extxyz"), description="extended XYZ to write")
    n_candidates: Count = Field(1000, description="candidates in all, besides those of 'entropy'")
    seed: Count = Field(1, description="of everything random")
    min_length: Annotated[float, Field(ge=0, strict=True)] = Field(
        18.0, description="Å; structures are repeated until every periodic length is at least this"
    )
    max_atoms: Annotated[int, Field(ge=1, strict=True)] = Field(450, description="atoms in a candidate, at most")
    vacuum: StrictPositiveFloat = Field(15.0, description="Å along directions that are not periodic")
    distorted: DistortionSettings = Field(DistortionSettings(), description="distortions")
    strained: StrainSettings = Field(StrainSettings(), description="strain")
    vacancies: VacancySettings = Field(VacancySettings(), description="vacancies")
    clusters: AtomClusterSettings = Field(AtomClusterSettings(), description="clusters")
    slabs: SlabSettings = Field(SlabSettings(), description="slabs")
    isolated_atoms: bool = Field(True, description="one free atom of each element")
    substitutions: SubstitutionSettings = Field(SubstitutionSettings(), description="substitutions")
    alloys: AlloySettings = Field(AlloySettings(), description="alloys")
    entropy: EntropySettings = Field(EntropySettings(), description="entropy-maximised configurations")
    filters: FilterSettings = Field(FilterSettings(), description="filters")
    max_attempts: Annotated[int, Field(ge=1, strict=True)] = Field(
        50, description="attempts at each candidate before it is given up, and counted"
    )

    @model_validator(mode="after")
    def _writable(self) -> Self:
        if self.output.suffix not in {".extxyz", ".xyz"}:
            raise ValueError(f"'output' is extended XYZ, a name that ends in .extxyz; got {self.output.name}")
        if self.clusters.min_atoms > self.clusters.max_atoms:
            raise ValueError("'clusters.min_atoms' must be at most 'clusters.max_atoms'")
        if self.clusters.count and self.clusters.min_atoms > self.max_atoms:
            raise ValueError(f"'clusters.min_atoms' must be at most 'max_atoms', {self.max_atoms}")
        if self.entropy.count and self.entropy.n_atoms_range[1] > self.max_atoms:
            raise ValueError(
                f"'entropy.n_atoms_range' goes up to {self.entropy.n_atoms_range[1]}, more than 'max_atoms', {self.max_atoms}"
            )
        return self
