"""Settings of the section 'augmentation' of a study: the candidates to generate from a few structures."""

from pathlib import Path
from typing import Annotated, Any, Self

from ase.data import atomic_numbers
from pydantic import AfterValidator, Field, model_validator

from paretofit.core import PositiveInt, StrictInt, StrictPositiveFloat, StrictSettings, StudyPath, StudyPaths

DEFAULT_COUNT_HELP = "Number of these candidates; null: a share of 'n_candidates'."


def check_symbol(symbol: str) -> str:
    """Return a chemical symbol, or raise `ValueError` if it is not one."""
    if not atomic_numbers.get(symbol):
        raise ValueError(f"'{symbol}' is not a chemical symbol")
    return symbol


def _check_pairs(distance: Any) -> Any:
    """Return a distance, or distances by pair such as Si-C; raise `ValueError` if a key is not a pair of elements."""
    for pair in distance if isinstance(distance, dict) else ():
        symbols = pair.split("-")
        if len(symbols) != 2:
            raise ValueError(f"'{pair}' is not a pair of elements such as Si-C")
        for symbol in symbols:
            check_symbol(symbol)
    return distance


def _check_indices(miller_indices: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return Miller indices; raise `ValueError` if the three indices of a plane are all zero."""
    if not all(map(any, miller_indices)):
        raise ValueError("Miller indices must be three whole numbers, not all zero")
    return miller_indices


def _check_alloy_elements(symbols: list[str]) -> list[str]:
    """Return the elements of alloys, none by default; raise `ValueError` if there is only one."""
    if len(set(symbols)) == 1:
        raise ValueError(f"an alloy requires at least two elements; got only {symbols[0]}")
    return symbols


Symbol = Annotated[str, AfterValidator(check_symbol)]
AlloyElements = Annotated[list[Symbol], AfterValidator(_check_alloy_elements)]
Count = Annotated[int, Field(ge=0, strict=True)]
ClusterSize = Annotated[int, Field(ge=2, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0, strict=True)]
Compression = Annotated[float, Field(ge=0, lt=1, strict=True)]
DistanceRatio = Annotated[float, Field(ge=0, lt=2, strict=True)]
PositiveRatio = Annotated[float, Field(gt=0, lt=2, strict=True)]
Cutoff = Annotated[float, Field(ge=0.5, le=25.0, strict=True)]  # Å, range that LAMMPS accepts
VolumeRange = tuple[StrictPositiveFloat, StrictPositiveFloat]


class DistortionSettings(StrictSettings):
    """Random displacements of all atoms."""

    count: Count | None = Field(None, description=DEFAULT_COUNT_HELP)
    fraction: Fraction = Field(0.3, description="Maximum displacement relative to the nearest-neighbour distance.")


class StrainSettings(StrictSettings):
    """Strain along the periodic directions."""

    count: Count | None = Field(None, description=DEFAULT_COUNT_HELP)
    compress: Compression = Field(0.2, description="Maximum isotropic compression.")
    stretch: NonNegativeFloat = Field(0.6, description="Maximum isotropic extension.")
    anisotropic: Fraction = Field(0.0, description="Maximum additional strain of each direction.")
    shear: Fraction = Field(0.0, description="Maximum shear strain.")
    fraction: Fraction = Field(0.0, description="Maximum displacement relative to the nearest-neighbour distance.")


class VacancySettings(StrictSettings):
    """Atoms removed from distorted structures."""

    share: Fraction = Field(0.3, description="Number of vacancy structures for each distorted structure.")
    n_vacancies: PositiveInt = Field(2, description="Number of atoms to remove.")


class AtomClusterSettings(StrictSettings):
    """Free clusters, assembled atom by atom."""

    count: Count | None = Field(None, description=DEFAULT_COUNT_HELP)
    distance: Annotated[StrictPositiveFloat | dict[str, StrictPositiveFloat], AfterValidator(_check_pairs)] = Field(
        1.5, description="Minimum distance of neighbours, Å (maximum: √3 times), or {Si-C: 1.9, Si-Si: 2.3}, ..."
    )
    min_atoms: ClusterSize = Field(2, description="Number of atoms of the smallest cluster.")
    max_atoms: ClusterSize = Field(30, description="Number of atoms of the largest cluster.")

    def get_pair_distances(self) -> float | dict[tuple[str, str], float]:
        """Return the distance in Å, or a mapping of pairs of symbols to distances."""
        if not isinstance(self.distance, dict):
            return self.distance
        return {(pair.split("-")[0], pair.split("-")[1]): distance for pair, distance in self.distance.items()}


class SlabSettings(StrictSettings):
    """Slabs of every structure that is periodic in three directions."""

    miller_indices: Annotated[list[tuple[StrictInt, StrictInt, StrictInt]], AfterValidator(_check_indices)] = Field(
        [(1, 1, 1), (1, 1, 0), (1, 0, 0)],
        description="Miller indices that refer to the cell vectors of the structure; [] for no slabs.",
    )
    min_thickness: StrictPositiveFloat = Field(10.0, description="Minimum thickness, Å, within 'max_atoms'.")


class SubstitutionSettings(StrictSettings):
    """Swaps of atoms of different elements, in structures with several species."""

    share: Fraction = Field(0.2, description="Number of substituted structures for each candidate of the other kinds.")
    swapped_fraction: Fraction = Field(0.2, description="Fraction of the atoms that are swapped.")


class AlloySettings(StrictSettings):
    """Random occupation of sites, in structures with several species."""

    count: Count | None = Field(None, description=DEFAULT_COUNT_HELP)
    elements: AlloyElements = Field([], description="Elements of the alloy; by default the elements of the structure.")


class FilterSettings(StrictSettings):
    """Conditions that a candidate must meet."""

    min_distance_ratio: DistanceRatio = Field(0.6, description="Minimum distance relative to the sum of two radii.")
    radii: dict[Symbol, StrictPositiveFloat] = Field({}, description="Radii by element, Å; covalent radii by default.")
    duplicate_tolerance: NonNegativeFloat = Field(1e-4, description="Relative difference of duplicate descriptors.")
    max_force: StrictPositiveFloat | None = Field(None, description="Maximum force, eV/Å; null: no limit.")
    force_engine: dict[str, Any] | None = Field(None, description="Cheap engine for 'max_force', as under 'labelling'.")


class EntropySettings(StrictSettings):
    """Configurations that maximise the entropy of the set, generated from a composition without structures."""

    count: Count = Field(0, description="Number of these configurations, in addition to 'n_candidates'.")
    composition: dict[Symbol, StrictPositiveFloat] = Field({}, description="Element ratios, such as {W: 3, Be: 1}.")
    volume_per_atom: VolumeRange = Field((6.0, 12.0), description="Minimum and maximum volume per atom, Å³.")
    n_atoms_range: tuple[PositiveInt, PositiveInt] = Field((8, 32), description="Minimum and maximum number of atoms.")
    twojmax: Annotated[int, Field(ge=0, le=8, strict=True)] = Field(6, description="2J_max of the descriptors.")
    cutoff: Cutoff = Field(4.8, description="Cutoff of the descriptors, Å.")
    max_steps: Count = Field(30, description="Maximum number of gradient steps for each configuration.")
    min_distance_ratio: PositiveRatio = Field(0.7, description="Minimum distance relative to the sum of two radii.")
    max_starts: PositiveInt = Field(3, description="Maximum number of random starts until the entropy grows.")

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        """Raise `ValueError` if a range is not in ascending order, or a composition is required but missing."""
        for name in ("volume_per_atom", "n_atoms_range"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"the limits of '{name}', {low} and {high}, must be in ascending order")
        if self.count and not self.composition:
            raise ValueError("'entropy' requires a 'composition', such as {Be: 1}")
        return self


class AugmentSettings(StrictSettings):
    """Candidates to generate from a few structures."""

    structures: StudyPaths = Field([], description="Files with the initial structures, in any format that ASE reads.")
    output: StudyPath = Field(Path("candidates.extxyz"), description="Extended XYZ file to write.")
    n_candidates: Count = Field(1000, description="Total number of candidates, excluding those of 'entropy'.")
    seed: Count = Field(1, description="Random seed of all candidates.")
    min_length: NonNegativeFloat = Field(18.0, description="Minimum periodic length of supercells, Å.")
    max_atoms: PositiveInt = Field(450, description="Maximum number of atoms of a candidate.")
    vacuum: StrictPositiveFloat = Field(15.0, description="Vacuum, Å, along directions that are not periodic.")
    distorted: DistortionSettings = Field(DistortionSettings(), description="Random displacements.")
    strained: StrainSettings = Field(StrainSettings(), description="Random strains.")
    vacancies: VacancySettings = Field(VacancySettings(), description="Vacancies in distorted structures.")
    clusters: AtomClusterSettings = Field(AtomClusterSettings(), description="Free clusters.")
    slabs: SlabSettings = Field(SlabSettings(), description="Slabs of bulk structures.")
    isolated_atoms: bool = Field(True, description="Whether to add a free atom of each element.")
    substitutions: SubstitutionSettings = Field(SubstitutionSettings(), description="Swaps of different elements.")
    alloys: AlloySettings = Field(AlloySettings(), description="Sites occupied at random.")
    entropy: EntropySettings = Field(EntropySettings(), description="Entropy-maximised configurations.")
    filters: FilterSettings = Field(FilterSettings(), description="Conditions that a candidate must meet.")
    max_attempts: PositiveInt = Field(50, description="Maximum number of attempts to generate a candidate.")

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        """Raise `ValueError` if the suffix of the output is invalid, or limits of atoms contradict each other."""
        clusters, entropy = self.clusters, self.entropy
        if self.output.suffix not in {".extxyz", ".xyz"}:
            raise ValueError(f"'output' is extended XYZ and must end in .extxyz or .xyz; got {self.output.name}")
        if clusters.min_atoms > clusters.max_atoms:
            raise ValueError("'clusters.min_atoms' must be at most 'clusters.max_atoms'")
        if clusters.count and clusters.min_atoms > self.max_atoms:
            raise ValueError(f"'clusters.min_atoms' must be at most 'max_atoms', {self.max_atoms}")
        max_entropy_atoms = entropy.n_atoms_range[1]
        if entropy.count and max_entropy_atoms > self.max_atoms:
            raise ValueError(
                f"'entropy.n_atoms_range' must end at or below 'max_atoms', {self.max_atoms}; got {max_entropy_atoms}"
            )
        return self
