"""The basis of proper orthogonal descriptors (POD) and the order of its columns.

The descriptors are those of N.-C. Nguyen and A. Rohskopf, J. Comput. Phys. 480, 112030 (2023), and of LAMMPS's
``pair_style pod`` and ``compute pod``. The radial functions are the leading eigenvectors of the same snapshots at every
size, and the angular functions of a degree include those of lower degrees. The descriptors of a small size are
therefore a subset of those of a larger size.
"""

from functools import cached_property
from itertools import combinations_with_replacement, product
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from paretofit.core import Array
from paretofit.descriptors.linear_basis import CommonCutoffBasis, PositiveFloat

MIN_POD_SIZE, MAX_POD_SIZE = 2, 12
FOUR_BODY_FUNCTIONS = (1, 2, 4, 7, 11, 16, 23)  # number of LAMMPS's angular functions up to degree 0, 1, 2, ...
N_BESSEL_PARAMETERS = 3  # number of snapshots that LAMMPS forms for each Bessel degree


class PodShape(NamedTuple):
    """Numbers of radial functions and largest angular degrees of the descriptors of two, three and four bodies."""

    n_two_body: int
    n_three_body: int
    three_body_degree: int
    n_four_body: int
    four_body_degree: int

    @classmethod
    def from_size(cls, size: int) -> "PodShape":
        """Return the shape of a size, from 2 to 12; no number decreases with the size."""
        return cls(size, size - 1, size // 2 + 1, size // 2, size // 2 - 1)

    @property
    def n_four_body_angular(self) -> int:
        """Number of angular functions of the four-body descriptors."""
        return FOUR_BODY_FUNCTIONS[self.four_body_degree]


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
        """Raise ValueError if the inner cutoff is not below the cutoff, or the size exceeds the number of snapshots."""
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
        """Numbers of radial functions and angular degrees of the largest model."""
        return PodShape.from_size(self.twojmax)

    @cached_property
    def _components(self) -> list[tuple[str, int]]:
        """Name and smallest size of each descriptor of an atom, in LAMMPS's order.

        The order is by the number of bodies, then the elements of the neighbours, the radial and the angular function.
        """
        shape = self.shape
        shapes = [(size, PodShape.from_size(size)) for size in range(MIN_POD_SIZE, self.twojmax + 1)]
        components = []
        for symbol, radial in product(self.elements, range(shape.n_two_body)):
            smallest_size = next(size for size, candidate in shapes if candidate.n_two_body > radial)
            components.append((f"D2({radial + 1}){symbol}", smallest_size))
        pairs = ["".join(pair) for pair in combinations_with_replacement(self.elements, 2)]
        for pair, radial, degree in product(pairs, range(shape.n_three_body), range(shape.three_body_degree + 1)):
            smallest_size = next(
                size
                for size, candidate in shapes
                if candidate.n_three_body > radial and candidate.three_body_degree >= degree
            )
            components.append((f"D3({radial + 1},{degree}){pair}", smallest_size))
        triples = ["".join(triple) for triple in combinations_with_replacement(self.elements, 3)]
        for triple, radial, angular in product(triples, range(shape.n_four_body), range(shape.n_four_body_angular)):
            smallest_size = next(
                size
                for size, candidate in shapes
                if candidate.n_four_body > radial and candidate.n_four_body_angular > angular
            )
            components.append((f"D4({radial + 1},{angular}){triple}", smallest_size))
        return components

    @property
    def component_names(self) -> list[str]:
        """Names such as ``D2(1)Be``, ``D3(1,0)BeBe`` and ``D4(1,0)BeBeBe``, in LAMMPS's order."""
        return [name for name, _ in self._components]

    @property
    def unsorted_levels(self) -> Array:
        """Smallest size at which each descriptor appears, ``(K,) int``, in LAMMPS's order."""
        return np.array([size for _, size in self._components])

    def format_parameters(self) -> str:
        """Format the parameter file of ``pair_style pod`` and ``compute pod``."""
        shape = self.shape
        parameters = {
            "species": " ".join(self.elements), "pbc": "1 1 1", "rin": repr(self.rin), "rcut": repr(self.rcut),
            "bessel_polynomial_degree": self.bessel_polynomial_degree,
            "inverse_polynomial_degree": self.inverse_polynomial_degree, "onebody": 1,
            "twobody_number_radial_basis_functions": shape.n_two_body,
            "threebody_number_radial_basis_functions": shape.n_three_body,
            "threebody_angular_degree": shape.three_body_degree,
            "fourbody_number_radial_basis_functions": shape.n_four_body,
            "fourbody_angular_degree": shape.four_body_degree,
        }  # fmt: skip
        for body in ("fivebody", "sixbody", "sevenbody"):
            parameters |= {f"{body}_number_radial_basis_functions": 0, f"{body}_angular_degree": 0}
        lines = [f"{key} {value}\n" for key, value in parameters.items()]
        return "# POD parameters written by paretofit\n" + "".join(lines)
