"""Settings of further bases of a study: the keys in which they differ from `basis`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, ValidationError

from paretofit.core import FileName, PositiveInt, StrictPositiveFloat, StrictSettings, format_validation_error
from paretofit.descriptors import AnyBasis, PodBasis, SnapBasis, build_basis

FAMILIES: dict[str, type[SnapBasis | PodBasis]] = {"snap": SnapBasis, "pod": PodBasis}
FIRST_BASIS = "basis"  # name of the basis that the key 'basis' describes


class FurtherBasis(StrictSettings):
    """A basis that is compared with `basis`, from which it takes the keys that it does not set.

    A basis of another family takes the elements and the cutoff.
    """

    name: FileName = Field(description="Name of the basis, and of its folder.")
    family: Literal["snap", "pod"] | None = Field(
        None, description="Family of descriptors: snap, or pod (proper orthogonal descriptors)."
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

    def check(self, basis: AnyBasis, twojmax: Sequence[int]) -> None:
        """Raise ValueError if the keys form no basis, or do not differ from another basis and its 2Jmax."""
        sizes = self.twojmax or list(twojmax)
        try:
            smallest_basis, _ = self.apply(basis, min(sizes)), self.apply(basis, max(sizes))
        except ValidationError as error:
            section = FAMILIES[self.family or basis.family]
            raise ValueError(f"'bases', {self.name}: {format_validation_error(error, section)}") from error
        if smallest_basis == basis.resize(min(sizes)) and set(sizes) <= set(twojmax):
            raise ValueError(f"'bases', {self.name}: no key differs from 'basis'; change one, or remove it")

    def apply(self, basis: AnyBasis, twojmax: int) -> AnyBasis:
        """Return this basis, with the keys of another one where it sets none, at a 2Jmax.

        Raises
        ------
        pydantic.ValidationError
            If the keys do not form a basis.
        """
        settings = self.model_dump(exclude={"name", "twojmax"})
        defaults: dict[str, Any] = basis.model_dump()
        if self.family not in {None, basis.family}:
            key, diameter = ("rcut", 1.0) if self.family == "pod" else ("rcutfac", 2 * max(self.radelem or [0.5]))
            defaults = {"elements": basis.elements, key: basis.cutoff / diameter}
        changes = {key: value for key, value in settings.items() if value not in (None, [])}
        return build_basis({**defaults, "twojmax": twojmax, **changes})


def check_sizes(basis: AnyBasis, twojmax: Sequence[int]) -> None:
    """Raise ValueError if a 2Jmax of a study is below the smallest of the family or above that of the basis."""
    if basis.twojmax < max(twojmax):
        raise ValueError(f"basis.twojmax is {basis.twojmax}, smaller than the largest 'twojmax', {max(twojmax)}")
    if min(twojmax) < basis.min_size:
        raise ValueError(f"'twojmax' must be at least {basis.min_size} for {basis.title}; got {min(twojmax)}")
