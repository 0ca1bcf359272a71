"""Settings of further bases of a study: the keys in which they differ from `basis`."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, ValidationError

from paretofit.core import FileName, StrictPositiveFloat, StrictSettings, format_validation_error
from paretofit.descriptors import SnapBasis

FIRST_BASIS = "basis"  # name of the basis that the key 'basis' describes


class FurtherBasis(StrictSettings):
    """A basis that is compared with `basis`, from which it takes the keys that it does not set."""

    name: FileName = Field(description="Name of the basis, and of its folder.")
    twojmax: list[Annotated[int, Field(ge=0, le=20, strict=True)]] = Field(
        [], description="Values of 2Jmax; by default those of the study."
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

    def check(self, basis: SnapBasis, twojmax: Sequence[int]) -> None:
        """Raise ValueError if the keys form no basis, or do not differ from another basis and its 2Jmax."""
        try:
            is_equal = self.apply(basis, basis.twojmax) == basis
        except ValidationError as error:
            raise ValueError(f"'bases', {self.name}: {format_validation_error(error, SnapBasis)}") from error
        if is_equal and set(self.twojmax or twojmax) <= set(twojmax):
            raise ValueError(f"'bases', {self.name}: no key differs from 'basis'; change one, or remove it")

    def apply(self, basis: SnapBasis, twojmax: int) -> SnapBasis:
        """Return this basis, with the keys of another one where it sets none, at a 2Jmax.

        Raises
        ------
        pydantic.ValidationError
            If the keys do not form a basis.
        """
        keys: dict[str, Any] = basis.model_dump() | {"twojmax": twojmax}
        own_keys = self.model_dump(exclude={"name", "twojmax"})
        return SnapBasis(**keys | {key: value for key, value in own_keys.items() if value not in (None, [])})
