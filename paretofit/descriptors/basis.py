"""The SNAP basis and the order of its columns.

A bispectrum component (j1, j2, j) does not depend on 2Jmax, so the features of a small 2Jmax are a subset of
those of a larger one. Columns are ordered by the smallest 2Jmax at which they appear, constants first:
every smaller model is a leading block of columns, see `paretofit.linear.reduction`.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from paretofit.core import Array
from paretofit.descriptors.linear_basis import LinearBasis, PositiveFloat


class SnapBasis(LinearBasis):
    """A SNAP or quadratic SNAP basis; the settings are those of LAMMPS's ``compute snap``.

    Features of each element are its K bispectrum components and, if `quadratic`, their K(K+1)/2
    products B_k B_l (k < l) and B_k²/2 (Wood and Thompson, J. Chem. Phys. 148, 241721 (2018), eq. 12),
    plus one constant column for each element.

    Raises
    ------
    pydantic.ValidationError
        If a setting is unknown or out of range, or a list does not have one entry for each element.

    Examples
    --------
    >>> basis = SnapBasis(elements=["Be"], twojmax=8)
    >>> basis.n_components, basis.n_features, basis.count_columns_up_to(4)
    (55, 1596, 120)
    """

    list_defaults: ClassVar[Mapping[str, float]] = {"radelem": 0.5, "wj": 1.0}

    family: Literal["snap"] = Field("snap", description="Family of descriptors.")
    twojmax: int = Field(8, ge=0, le=20, description="Angular order 2Jmax of the largest model.")
    rcutfac: PositiveFloat = Field(4.812302818, description="Cutoff factor, Å; cutoffs are rcutfac * (R_i + R_j).")
    rfac0: float = Field(0.99363, gt=0, le=1, description="Fraction of π to which the cutoff distance is mapped.")
    rmin0: float = Field(0.0, ge=0, allow_inf_nan=False, description="Distance that is mapped to zero, Å.")
    radelem: list[PositiveFloat] = Field(
        [], description="Radius R of each element in units of rcutfac; 0.5 for each by default."
    )
    wj: list[FiniteFloat] = Field([], description="Weight of each element as a neighbour; 1 for each by default.")
    quadratic: bool = Field(True, description="Whether products of components are features too (qSNAP).")
    bzeroflag: bool = Field(True, description="Whether the bispectrum of an isolated atom is subtracted.")
    chemflag: bool = Field(False, description="Whether the bispectrum is resolved by element (EME-SNAP).")
    switchflag: bool = Field(True, description="Whether contributions are switched smoothly to zero at the cutoff.")
    bnormflag: bool = Field(False, description="Whether components are divided by 2j + 1.")
    wselfallflag: bool = Field(
        False, description="With chemflag, whether an atom contributes to the density of all elements."
    )

    @model_validator(mode="after")
    def _check_min_distance(self) -> Self:
        """Raise ValueError if the distance that is mapped to zero is not below all cutoffs."""
        min_cutoff = self.rcutfac * 2 * min(self.radelem)
        if self.rmin0 >= min_cutoff:
            raise ValueError(
                f"rmin0 must be smaller than the shortest cutoff, rcutfac * 2 * min(radelem) = {min_cutoff:g} Å; "
                f"got {self.rmin0:g}"
            )
        return self

    @property
    def has_products(self) -> bool:
        """Whether products of components are features too."""
        return self.quadratic

    @property
    def cutoff_setting(self) -> str:
        """Formula of the largest cutoff, for messages."""
        return "rcutfac * 2 * max(radelem)"

    @property
    def title(self) -> str:
        """Name of the family of models: ``quadratic SNAP`` or ``SNAP``."""
        return "quadratic SNAP" if self.quadratic else "SNAP"

    @property
    def cutoff(self) -> float:
        """Largest cutoff of a pair of elements, Å."""
        return self.rcutfac * 2 * max(self.radelem)

    @cached_property
    def lammps_components(self) -> list[tuple[int, ...]]:
        """Components in LAMMPS's order, as the integers (2j1, 2j2, 2j).

        With `chemflag`, the positions of three elements in `elements` come first: (e1, e2, e3, 2j1, 2j2, 2j).
        """
        triples = [
            (j1, j2, j)
            for j1 in range(self.twojmax + 1)
            for j2 in range(j1 + 1)
            for j in range(j1 - j2, min(self.twojmax, j1 + j2) + 1, 2)
            if j >= j1  # the other components are multiples of these
        ]
        if not self.chemflag:
            return [*triples]
        species = range(len(self.elements))
        return [(*chemistry, *triple) for chemistry in product(species, repeat=3) for triple in triples]

    @cached_property
    def component_order(self) -> Array:
        """Indices of LAMMPS's components in nested order, ``(K,) int``.

        A component appears first at the 2Jmax that equals its last and largest index, 2j.
        """
        return np.argsort([component[-1] for component in self.lammps_components], kind="stable")

    @cached_property
    def components(self) -> list[tuple[int, ...]]:
        """Components in nested order, with the indices of `lammps_components`."""
        return [self.lammps_components[k] for k in self.component_order]

    @property
    def n_components(self) -> int:
        """Number K of bispectrum components of an atom."""
        return len(self.lammps_components)

    @cached_property
    def unsorted_levels(self) -> Array:
        """Smallest 2Jmax at which each feature of one element appears, ``(n_features_per_element,) int``.

        The features are the components in nested order, then the upper triangle of their products, row by row.
        """
        linear = np.array([component[-1] for component in self.components])
        if not self.quadratic:
            return linear
        rows, columns = np.triu_indices(len(linear))
        return np.concatenate([linear, np.maximum(linear[rows], linear[columns])])

    @cached_property
    def lammps_columns(self) -> Array:
        """Indices of LAMMPS's columns in nested order, without constants, ``(n_features - n_elements,) int``.

        For each element, LAMMPS also has the components first, then the upper triangle of their products, but the
        order of its components is not the nested one.
        """
        K, order = self.n_components, self.component_order
        columns = order
        if self.quadratic:
            rows_of_triangle, columns_of_triangle = np.triu_indices(K)
            product_columns = np.zeros((K, K), dtype=int)  # LAMMPS's column of each product B_k B_l
            product_columns[rows_of_triangle, columns_of_triangle] = K + np.arange(len(rows_of_triangle))
            product_columns = np.maximum(product_columns, product_columns.T)  # B_k B_l and B_l B_k are the same column
            columns = np.concatenate([order, product_columns[order[rows_of_triangle], order[columns_of_triangle]]])
        offsets = len(columns) * np.arange(len(self.elements))[:, None]
        return np.asarray((offsets + columns).ravel()[self.column_order])

    @cached_property
    def component_names(self) -> list[str]:
        """Names such as ``B(2,1,1)``, in nested order."""
        return [self._format_component(component) for component in self.components]

    def _format_component(self, component: tuple[int, ...]) -> str:
        """Format the name of a component of `lammps_components`, such as ``B(2,1,1)`` or ``BBeBeW(2,1,1)``."""
        chemistry = "".join(self.elements[position] for position in component[:-3])
        return f"B{chemistry}({','.join(str(index) for index in component[-3:])})"
