"""The basis of proper orthogonal descriptors (POD) and the order of its columns.

N.-C. Nguyen and A. Rohskopf, J. Comput. Phys. 480, 112030 (2023); LAMMPS's ``pair_style pod`` and ``compute pod``. The
radial functions are the leading eigenvectors of the same snapshots at every size, and the angular functions of a degree
include those of lower degrees, so that the descriptors of a small size are a subset of those of a larger one.
"""

from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from paretofit.core import Array
from paretofit.descriptors.linear_basis import CommonCutoffBasis, PositiveFloat

MIN_POD_SIZE, MAX_POD_SIZE = 2, 12
FOUR_BODY_FUNCTIONS = (1, 2, 4, 7, 11, 16, 23)  # number of angular functions up to each degree, in LAMMPS
N_BESSEL_PARAMETERS = 3  # LAMMPS forms this number of snapshots for each Bessel degree


class PodShape(NamedTuple):
    """Number of radial functions and angular degree of the two-, three- and four-body descriptors of a size."""

    two_body: int
    three_body: int
    three_body_degree: int
    four_body: int
    four_body_degree: int

    @classmethod
    def from_size(cls, size: int) -> "PodShape":
        """Return the shape of a size, from 2 to 12; each number grows with the size."""
        return cls(size, size - 1, size // 2 + 1, size // 2, size // 2 - 1)


class PodBasis(CommonCutoffBasis):
    """A linear basis of proper orthogonal descriptors of two, three and four bodies, without environment clusters.

    A size k, which is called 2Jmax as for SNAP, has k radial functions of two bodies, k - 1 of three bodies up to the
    angular degree k/2 + 1, and k/2 of four bodies up to the degree k/2 - 1 (halves rounded down).

    Raises
    ------
    pydantic.ValidationError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> basis = PodBasis(elements=["Be"], twojmax=8)
    >>> basis.n_components, basis.n_features, basis.count_columns_up_to(4)
    (78, 79, 21)
    """

    min_size: ClassVar[int] = MIN_POD_SIZE

    family: Literal["pod"] = Field("pod", description="Family of descriptors.")
    twojmax: int = Field(
        8, ge=MIN_POD_SIZE, le=MAX_POD_SIZE, description="Size of the largest model: its radial functions."
    )
    rcut: PositiveFloat = Field(4.812302818, description="Cutoff, Å.")
    rin: PositiveFloat = Field(0.5, description="Inner cutoff, Å, below the shortest distance of any two atoms.")
    bessel_polynomial_degree: int = Field(4, ge=1, le=12, description="Degree of the Bessel functions of snapshots.")
    inverse_polynomial_degree: int = Field(8, ge=1, le=24, description="Degree of the inverse powers of snapshots.")

    @model_validator(mode="after")
    def _check_radial_functions(self) -> Self:
        if self.rin >= self.rcut:
            raise ValueError(f"rin must be smaller than rcut, {self.rcut:g} Å; got {self.rin:g}")
        n_snapshots = N_BESSEL_PARAMETERS * self.bessel_polynomial_degree + self.inverse_polynomial_degree
        if self.twojmax > n_snapshots:
            raise ValueError(
                f"a size of {self.twojmax} requires as many radial functions, but {n_snapshots} snapshots have at most "
                f"{n_snapshots}; increase bessel_polynomial_degree"
            )
        return self

    @property
    def title(self) -> str:
        """Name of the family of models."""
        return "POD"

    @property
    def n_components(self) -> int:
        """Number K of descriptors of an atom."""
        return len(self._components)

    @property
    def shape(self) -> PodShape:
        """Radial functions and angular degrees of the size."""
        return PodShape.from_size(self.twojmax)

    @cached_property
    def _components(self) -> list[tuple[str, int]]:
        """Name and smallest size of each descriptor of an atom, in LAMMPS's order: radial before angular functions."""
        shape, symbols = self.shape, self.elements
        pairs = [f"{a}{b}" for k, a in enumerate(symbols) for b in symbols[k:]]
        triples = [
            f"{a}{b}{c}" for k, a in enumerate(symbols) for m, b in enumerate(symbols[k:], k) for c in symbols[m:]
        ]
        sizes = [(size, PodShape.from_size(size)) for size in range(MIN_POD_SIZE, self.twojmax + 1)]
        components = [
            (f"D2({n + 1}){symbol}", next(size for size, s in sizes if s.two_body > n))
            for symbol in symbols
            for n in range(shape.two_body)
        ]
        components += [
            (f"D3({n + 1},{p}){pair}", next(size for size, s in sizes if s.three_body > n and s.three_body_degree >= p))
            for pair in pairs
            for n in range(shape.three_body)
            for p in range(shape.three_body_degree + 1)
        ]
        components += [
            (
                f"D4({n + 1},{k}){triple}",
                next(size for size, s in sizes if s.four_body > n and FOUR_BODY_FUNCTIONS[s.four_body_degree] > k),
            )
            for triple in triples
            for n in range(shape.four_body)
            for k in range(FOUR_BODY_FUNCTIONS[shape.four_body_degree])
        ]
        return components

    @property
    def component_names(self) -> list[str]:
        """Names such as ``D2(1)Be``, ``D3(1,0)BeBe`` and ``D4(1,0)BeBeBe``, in LAMMPS's order."""
        return [name for name, _ in self._components]

    @property
    def unsorted_levels(self) -> Array:
        """Smallest size of each descriptor, in LAMMPS's order."""
        return np.array([size for _, size in self._components])

    def format_parameters(self) -> str:
        """Format the parameter file of ``pair_style pod`` and ``compute pod``."""
        shape = self.shape
        values = {
            "species": " ".join(self.elements), "pbc": "1 1 1", "rin": repr(self.rin), "rcut": repr(self.rcut),
            "bessel_polynomial_degree": self.bessel_polynomial_degree,
            "inverse_polynomial_degree": self.inverse_polynomial_degree, "onebody": 1,
            "twobody_number_radial_basis_functions": shape.two_body,
            "threebody_number_radial_basis_functions": shape.three_body,
            "threebody_angular_degree": shape.three_body_degree,
            "fourbody_number_radial_basis_functions": shape.four_body,
            "fourbody_angular_degree": shape.four_body_degree,
        }  # fmt: skip
        for body in ("fivebody", "sixbody", "sevenbody"):
            values |= {f"{body}_number_radial_basis_functions": 0, f"{body}_angular_degree": 0}
        return "# POD parameters written by paretofit\n" + "".join(f"{key} {value}\n" for key, value in values.items())
