"""The SNAP basis and the order of its columns.

A bispectrum component (j1, j2, j) does not depend on 2Jmax, so the features of a small 2Jmax are some of
those of a larger one. Columns are ordered by the smallest 2Jmax at which they appear, constants first:
every smaller model is a leading block of columns (see `paretofit.linear.reduction`).
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Self

import numpy as np
from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, model_validator

from paretofit.core import Array

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# Å. Below, no two atoms see each other and LAMMPS's cell lists have no end; above, an atom has tens of
# thousands of neighbours and LAMMPS gives up.
SHORTEST_CUTOFF, LONGEST_CUTOFF = 0.5, 25.0


class SnapBasis(BaseModel):
    """A SNAP or quadratic SNAP basis; the settings are those of LAMMPS's ``compute snap``.

    Features of each element are its K bispectrum components and, if `quadratic`, their K(K+1)/2
    products B_k B_l (k < l) and B_k²/2 (Wood and Thompson, J. Chem. Phys. 148, 241721 (2018), eq. 12),
    plus one constant column for each element.

    Raises
    ------
    pydantic.ValidationError
        If a setting is unknown, out of range, or the lists do not have one entry for each element.

    Examples
    --------
    >>> basis = SnapBasis(elements=["Be"], twojmax=8)
    >>> basis.n_components, basis.n_features, basis.columns_up_to(4)
    (55, 1596, 120)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    elements: list[str] = Field(min_length=1, description="chemical symbols, in the order of LAMMPS's types")
    twojmax: int = Field(8, ge=0, le=20, description="angular order 2Jmax of the largest model")
    rcutfac: Positive = Field(4.812302818, description="cutoff factor, Å: pairs reach rcutfac * (R_i + R_j)")
    rfac0: float = Field(0.99363, gt=0, le=1, description="fraction of π that the distance maps to")
    rmin0: float = Field(0.0, ge=0, allow_inf_nan=False, description="distance that maps to zero, Å")
    radelem: list[Positive] = Field([], description="radius R of each element in units of rcutfac; 0.5 each")
    wj: list[Finite] = Field([], description="weight of each element as a neighbour; 1 each")
    quadratic: bool = Field(True, description="products of components (qSNAP)")
    bzeroflag: bool = Field(True, description="subtract the bispectrum of an isolated atom")
    chemflag: bool = Field(False, description="explicit multi-element bispectrum (EME-SNAP)")
    switchflag: bool = Field(True, description="smooth switching to zero at the cutoff")
    bnormflag: bool = Field(False, description="components divided by 2j + 1")
    wselfallflag: bool = Field(
        False, description="with chemflag: self-contributions of all elements, not of the own one"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_lists(cls, values: Any) -> Any:
        """One number serves all elements; none means the default; tuples and arrays are lists."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for key in ("elements", "radelem", "wj"):
            given = values.get(key)
            if isinstance(given, tuple | np.ndarray):
                values[key] = list(given)
            elif isinstance(given, Mapping):
                raise ValueError(  # noqa: TRY004  (pydantic makes a validation error of no other)
                    f"{key} must be a list with one entry for each element, in the same order, not a mapping"
                )
        if isinstance(values.get("elements"), list):
            for key, default in (("radelem", 0.5), ("wj", 1.0)):
                given = default if values.get(key) in (None, []) else values[key]
                values[key] = given if isinstance(given, list) else [given] * len(values["elements"])
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        for symbol in self.elements:
            if not atomic_numbers.get(symbol):  # ASE's "X", number 0, stands for no element
                raise ValueError(f"'{symbol}' is not a chemical symbol")
        if len(set(self.elements)) != len(self.elements):
            raise ValueError(f"an element appears twice in {self.elements}")
        for key in ("radelem", "wj"):
            if len(getattr(self, key)) != len(self.elements):
                raise ValueError(
                    f"{key} must have one value for each of the {len(self.elements)} elements; "
                    f"got {len(getattr(self, key))}"
                )
        self._check_lengths()
        return self

    def _check_lengths(self) -> None:
        if not SHORTEST_CUTOFF <= self.cutoff <= LONGEST_CUTOFF:
            raise ValueError(
                f"the cutoff, rcutfac * 2 * max(radelem), must lie between {SHORTEST_CUTOFF:g} and "
                f"{LONGEST_CUTOFF:g} Å; got {self.cutoff:g}"
            )
        shortest = self.rcutfac * 2 * min(self.radelem)
        if self.rmin0 >= shortest:
            raise ValueError(
                f"rmin0 must be smaller than the shortest cutoff, rcutfac * 2 * min(radelem) = {shortest:g} Å; "
                f"got {self.rmin0:g}"
            )

    def __eq__(self, other: object) -> bool:
        """Whether the settings are the same; what is cached does not count."""
        return isinstance(other, SnapBasis) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        """Of the settings."""
        return hash(self.model_dump_json())

    @property
    def cutoff(self) -> float:
        """The largest distance, in Å, at which two atoms see each other."""
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
            return list(triples)
        species = range(len(self.elements))
        return [(*chemistry, *triple) for chemistry in product(species, repeat=3) for triple in triples]

    @cached_property
    def component_order(self) -> Array:
        """``(K,) int``: LAMMPS's components in nested order, by the smallest 2Jmax that has them."""
        return np.argsort([component[-1] for component in self.lammps_components], kind="stable")

    @cached_property
    def components(self) -> list[tuple[int, ...]]:
        """Components in nested order."""
        return [self.lammps_components[k] for k in self.component_order]

    @property
    def n_components(self) -> int:
        """K, the number of bispectrum components of an atom."""
        return len(self.lammps_components)

    @cached_property
    def _local_levels(self) -> Array:
        """2Jmax of the columns of one element before they are sorted: linear, then upper triangle."""
        linear = np.array([component[-1] for component in self.components])
        if not self.quadratic:
            return linear
        rows, columns = np.triu_indices(len(linear))
        return np.concatenate([linear, np.maximum(linear[rows], linear[columns])])

    @cached_property
    def column_order(self) -> Array:
        """``(n_features - n_elements,) int``: from element-wise [linear, triangle] columns to nested order."""
        return np.argsort(np.tile(self._local_levels, len(self.elements)), kind="stable")

    @cached_property
    def column_levels(self) -> Array:
        """``(n_features,) int``: the smallest 2Jmax at which a column appears; 0 for the constants."""
        levels = np.tile(self._local_levels, len(self.elements))[self.column_order]
        return np.concatenate([np.zeros(len(self.elements), dtype=int), levels])

    @property
    def n_features(self) -> int:
        """Columns at the largest 2Jmax, the constants included."""
        return len(self.column_levels)

    def columns_up_to(self, twojmax: int) -> int:
        """Leading columns that make up the model of a smaller 2Jmax."""
        return int(np.searchsorted(self.column_levels, twojmax, side="right"))

    @cached_property
    def column_names(self) -> list[str]:
        """Names such as ``1[Be]``, ``B(2,1,1)[Be]`` and ``B(2,1,1)*B(2,2,2)[Be]``, in nested order."""
        names = [self._component_name(component) for component in self.components]
        local = list(names)
        if self.quadratic:
            local += [f"{names[k]}*{names[m]}" for k, m in zip(*np.triu_indices(len(names)), strict=True)]
        flat = [f"{name}[{symbol}]" for symbol in self.elements for name in local]
        return [f"1[{symbol}]" for symbol in self.elements] + [flat[k] for k in self.column_order]

    def _component_name(self, component: tuple[int, ...]) -> str:
        chemistry = "".join(self.elements[e] for e in component[:-3])
        return f"B{chemistry}({','.join(str(j) for j in component[-3:])})"
