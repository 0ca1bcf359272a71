"""The SNAP basis and the order of its columns.

A bispectrum component (j1, j2, j) does not depend on 2Jmax, so the features of a small 2Jmax are a subset of
those of a larger one. Columns are ordered by the smallest 2Jmax at which they appear, constants first:
every smaller model is a leading block of columns, see `paretofit.linear.reduction`.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Self

import numpy as np
from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from paretofit.core import Array

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Below the minimum no atoms are neighbours and LAMMPS's cell lists grow without bound; above the maximum an atom has
# tens of thousands of neighbours and LAMMPS fails.
MIN_CUTOFF_A, MAX_CUTOFF_A = 0.5, 25.0
LIST_DEFAULTS = {"radelem": 0.5, "wj": 1.0}  # default of each element


class SnapBasis(BaseModel):
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

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    elements: list[str] = Field(min_length=1, description="Chemical symbols, in the order of LAMMPS's atom types.")
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

    @model_validator(mode="before")
    @classmethod
    def _fill_lists(cls, values: Any) -> Any:
        """Convert tuples and arrays to lists; repeat a single number, or the default, for every element."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for key in ("elements", "radelem", "wj"):
            value = values.get(key)
            if isinstance(value, tuple | np.ndarray):
                values[key] = list(value)
            elif isinstance(value, Mapping):
                raise ValueError(  # noqa: TRY004  (pydantic turns no other exception into a validation error)
                    f"{key} must be a list with one entry for each element, in the same order, not a mapping"
                )
        if isinstance(values.get("elements"), list):
            for key, default in LIST_DEFAULTS.items():
                value = default if values.get(key) in (None, []) else values[key]
                values[key] = value if isinstance(value, list) else [value] * len(values["elements"])
        return values

    @model_validator(mode="after")
    def _validate_settings(self) -> Self:
        for symbol in self.elements:
            if not atomic_numbers.get(symbol):  # ASE's "X" has number 0 and is not an element
                raise ValueError(f"'{symbol}' is not a chemical symbol")
        if len(set(self.elements)) != len(self.elements):
            raise ValueError(f"an element appears twice in {self.elements}")
        for key in LIST_DEFAULTS:
            if (length := len(getattr(self, key))) != len(self.elements):
                raise ValueError(
                    f"{key} must have one value for each of the {len(self.elements)} elements; got {length}"
                )
        if not MIN_CUTOFF_A <= self.cutoff <= MAX_CUTOFF_A:
            raise ValueError(
                f"the cutoff, rcutfac * 2 * max(radelem), must lie between {MIN_CUTOFF_A:g} and {MAX_CUTOFF_A:g} Å; "
                f"got {self.cutoff:g}"
            )
        min_cutoff = self.rcutfac * 2 * min(self.radelem)
        if self.rmin0 >= min_cutoff:
            raise ValueError(
                f"rmin0 must be smaller than the shortest cutoff, rcutfac * 2 * min(radelem) = {min_cutoff:g} Å; "
                f"got {self.rmin0:g}"
            )
        return self

    def __eq__(self, other: object) -> bool:
        """Compare the settings only: pydantic would compare cached properties too."""
        return isinstance(other, SnapBasis) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        """Hash the settings."""
        return hash(self.model_dump_json())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings only: the cached properties of a large basis take megabytes in every task."""
        return type(self).model_validate_json, (self.model_dump_json(),)

    @property
    def cutoff(self) -> float:
        """Largest cutoff of a pair of elements, Å."""
        return self.rcutfac * 2 * max(self.radelem)

    @cached_property
    def lammps_components(self) -> list[tuple[int, ...]]:
        """Components in LAMMPS's order: (j1, j2, j), with chemflag (e1, e2, e3, j1, j2, j); 2j as integers."""
        triples = [
            (j1, j2, j)
            for j1 in range(self.twojmax + 1)
            for j2 in range(j1 + 1)
            for j in range(j1 - j2, min(self.twojmax, j1 + j2) + 1, 2)
            if j >= j1
        ]
        if not self.chemflag:
            return [*triples]
        species = range(len(self.elements))
        return [(*chemistry, *triple) for chemistry in product(species, repeat=3) for triple in triples]

    @cached_property
    def component_order(self) -> Array:
        """Indices of LAMMPS's components in nested order, ``(K,) int``.

        The order is by the smallest 2Jmax that has a component: its j, the last and largest of its indices.
        """
        return np.argsort([component[-1] for component in self.lammps_components], kind="stable")

    @cached_property
    def components(self) -> list[tuple[int, ...]]:
        """Components in nested order."""
        return [self.lammps_components[k] for k in self.component_order]

    @property
    def n_components(self) -> int:
        """Number K of bispectrum components of an atom."""
        return len(self.lammps_components)

    @cached_property
    def _unsorted_levels(self) -> Array:
        """Smallest 2Jmax at which each column of one element appears: linear columns, then the upper triangle."""
        linear = np.array([component[-1] for component in self.components])
        if not self.quadratic:
            return linear
        rows, columns = np.triu_indices(len(linear))
        return np.concatenate([linear, np.maximum(linear[rows], linear[columns])])

    @cached_property
    def column_order(self) -> Array:
        """Nested order of the columns [linear, upper triangle] of all elements, ``(n_features - n_elements,) int``."""
        return np.argsort(np.tile(self._unsorted_levels, len(self.elements)), kind="stable")

    @cached_property
    def lammps_columns(self) -> Array:
        """Indices of LAMMPS's columns in nested order, without constants, ``(n_features - n_elements,) int``.

        LAMMPS's columns of an element are [linear, upper triangle], too, but its components are in another order.
        """
        K, order = self.n_components, self.component_order
        columns = order
        if self.quadratic:
            triangle = np.triu_indices(K)
            products = np.zeros((K, K), dtype=int)
            products[triangle] = K + np.arange(len(triangle[0]))
            products = np.maximum(products, products.T)  # B_k B_l and B_l B_k are the same column
            columns = np.concatenate([order, products[order[triangle[0]], order[triangle[1]]]])
        offsets = len(columns) * np.arange(len(self.elements))[:, None]
        return np.asarray((offsets + columns).ravel()[self.column_order])

    @cached_property
    def column_levels(self) -> Array:
        """Smallest 2Jmax at which each column appears, ``(n_features,) int``; 0 for the constants."""
        levels = np.sort(np.tile(self._unsorted_levels, len(self.elements)))
        return np.concatenate([np.zeros(len(self.elements), dtype=int), levels])

    @property
    def n_features(self) -> int:
        """Number of columns at the largest 2Jmax, including the constants."""
        return len(self.column_levels)

    def count_columns_up_to(self, twojmax: int) -> int:
        """Count the leading columns that form the model of a smaller 2Jmax."""
        return int(np.searchsorted(self.column_levels, twojmax, side="right"))

    @cached_property
    def column_names(self) -> list[str]:
        """Names such as ``1[Be]``, ``B(2,1,1)[Be]`` and ``B(2,1,1)*B(2,2,2)[Be]``, in nested order."""
        names = [self._format_component(component) for component in self.components]
        features = list(names)
        if self.quadratic:
            features += [f"{names[k]}*{names[m]}" for k, m in zip(*np.triu_indices(len(names)), strict=True)]
        columns = [f"{feature}[{symbol}]" for symbol in self.elements for feature in features]
        return [f"1[{symbol}]" for symbol in self.elements] + [columns[k] for k in self.column_order]

    def _format_component(self, component: tuple[int, ...]) -> str:
        chemistry = "".join(self.elements[e] for e in component[:-3])
        return f"B{chemistry}({','.join(str(j) for j in component[-3:])})"
