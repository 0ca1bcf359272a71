"""Settings of further bases of a study: the keys in which they differ from `basis`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from paretofit.core import (
    AbsoluteStudyPath,
    FileName,
    PositiveInt,
    StrictPositiveFloat,
    StrictSettings,
    format_validation_error,
)
from paretofit.descriptors import PodBasis, RowsBasis, SnapBasis, StudyBasis, build_basis

FAMILIES: dict[str, type[SnapBasis | PodBasis | RowsBasis]] = {"snap": SnapBasis, "pod": PodBasis, "rows": RowsBasis}
FIRST_BASIS = "basis"  # name of the basis that the key 'basis' describes


class FurtherBasis(StrictSettings):
    """Basis that a study compares with its first basis, `basis`; keys that are not set are those of `basis`.

    A basis of another family than `basis` shares only its elements and its cutoff. With `rows`, the basis is a linear
    model of the user's own.
    """

    name: FileName = Field(description="Name of the basis, and of its folder.")
    family: Literal["snap", "pod", "rows"] | None = Field(
        None, description="Family of descriptors: snap, or pod (proper orthogonal descriptors); with 'rows': rows."
    )
    twojmax: list[Annotated[int, Field(ge=0, le=20, strict=True)]] = Field(
        [], description="Values of 2Jmax, for POD its sizes; by default those of the study."
    )
    quadratic: bool | None = Field(None, description="Whether products of components are features, too (qSNAP).")
    rcutfac: StrictPositiveFloat | None = Field(None, description="Cutoff factor, Å.")
    rfac0: StrictPositiveFloat | None = Field(None, description="Fraction of π to which the cutoff distance is mapped.")
    rmin0: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="Distance that is mapped to zero, Å."
    )
    radelem: list[StrictPositiveFloat] = Field([], description="Radius of each element in units of rcutfac.")
    wj: list[FiniteFloat] = Field([], description="Weight of each element as a neighbour.")
    chemflag: bool | None = Field(None, description="Whether the bispectrum is resolved by element.")
    switchflag: bool | None = Field(None, description="Whether contributions are switched smoothly to zero.")

    rcut: StrictPositiveFloat | None = Field(None, description="POD: cutoff, Å; by default that of 'basis'.")
    rin: StrictPositiveFloat | None = Field(None, description="POD: inner cutoff, Å.")
    bessel_polynomial_degree: PositiveInt | None = Field(None, description="POD: degree of the Bessel functions.")
    inverse_polynomial_degree: PositiveInt | None = Field(None, description="POD: degree of the inverse powers.")

    rows: AbsoluteStudyPath | None = Field(
        None, description="Design file with the rows of another linear model, see DesignMatrix.from_blocks."
    )
    md_us_per_atom_step: dict[int, StrictPositiveFloat] = Field(
        {}, description="With 'rows': MD cost of each size (µs per atom and step)."
    )

    @model_validator(mode="before")
    @classmethod
    def _set_family_of_rows(cls, values: Any) -> Any:
        """Set the family of a basis with 'rows'; reject 'fitsnap' with a message that says what to do instead."""
        if isinstance(values, dict) and "fitsnap" in values:
            raise ValueError(
                f"'fitsnap' is not a key of 'bases': compute the rows with paretofit.fitsnap.compute_fitsnap_design("
                f"dataset, '{values['fitsnap']}', 'rows.h5'), and write 'rows: rows.h5'"
            )
        return {"family": "rows", **values} if isinstance(values, dict) and values.get("rows") else values

    def list_sizes(self, twojmax: Sequence[int]) -> list[int]:
        """Return the values of 2Jmax of this basis: its own, those whose MD cost it states, or those of the study."""
        return self.twojmax or sorted(self.md_us_per_atom_step) or list(twojmax)

    def check(self, basis: StudyBasis, twojmax: Sequence[int]) -> None:
        """Check this basis against the first basis of the study and its values of 2Jmax.

        Raises
        ------
        ValueError
            If the keys do not form a basis, or form one that the study already has; with 'rows', if the file or the MD
            cost is missing; without 'rows', if the MD cost is set.
        """
        sizes = self.list_sizes(twojmax)
        if self.family == "rows" and self.rows is None:
            raise ValueError(f"'bases', {self.name}: the design file is missing; add 'rows: design.h5'")
        missing_sizes = [size for size in sizes if size not in self.md_us_per_atom_step]
        if self.family == "rows" and missing_sizes:
            raise ValueError(
                f"'bases', {self.name}: rows need the MD cost of their models, in µs per atom and step; add "
                f"'md_us_per_atom_step' with a number for each size, such as {{{missing_sizes[0]}: 20.0}}"
            )
        if self.family != "rows" and self.md_us_per_atom_step:
            raise ValueError(
                f"'bases', {self.name}: 'md_us_per_atom_step' is for 'rows'; the MD cost of other bases is measured"
            )
        try:
            smallest_basis, _ = self.apply(basis, min(sizes)), self.apply(basis, max(sizes))
        except ValidationError as error:
            section = FAMILIES[self.family or basis.family]
            raise ValueError(f"'bases', {self.name}: {format_validation_error(error, section)}") from error
        if smallest_basis == basis.resize(min(sizes)) and set(sizes) <= set(twojmax):
            raise ValueError(f"'bases', {self.name}: no key differs from 'basis'; change a key, or remove this basis")

    def apply(self, basis: StudyBasis, twojmax: int) -> StudyBasis:
        """Build this basis at a 2Jmax; keys that are not set are taken from the first basis of the study, `basis`.

        Raises
        ------
        pydantic.ValidationError
            If the keys do not form a basis.
        """
        settings = self.model_dump(exclude={"name", "twojmax", "md_us_per_atom_step"})
        defaults: dict[str, Any] = basis.model_dump()
        if self.family not in {None, basis.family}:
            is_snap = self.family == "snap"
            # SNAP: cutoff of a pair of the largest element = 2 · radelem · rcutfac; the default of radelem is 0.5
            key, diameter = ("rcutfac", 2 * max(self.radelem or [0.5])) if is_snap else ("rcut", 1.0)
            defaults = {"elements": basis.elements, key: basis.cutoff / diameter}
        changes = {key: value for key, value in settings.items() if value not in (None, [])}
        return build_basis({**defaults, "twojmax": twojmax, **changes})


def check_sizes(basis: StudyBasis, twojmax: Sequence[int]) -> None:
    """Raise ValueError if a 2Jmax of a study is smaller than its basis allows or larger than that of the basis."""
    if basis.twojmax < max(twojmax):
        raise ValueError(
            f"basis.twojmax is {basis.twojmax}, smaller than the largest 'twojmax', {max(twojmax)}; increase or remove "
            "basis.twojmax"
        )
    if min(twojmax) < basis.min_size:
        raise ValueError(f"'twojmax' must be at least {basis.min_size} for {basis.title}; got {min(twojmax)}")
