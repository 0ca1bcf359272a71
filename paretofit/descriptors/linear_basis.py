"""Base classes of the bases of linear models, with elements, a size, a cutoff, and the order and names of the columns.

Columns are ordered by the smallest size at which they appear, constants first: every smaller model is a leading block
of columns, see `paretofit.linear.reduction`. The size is called 2Jmax in all families, as in results and settings.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from ase.data import atomic_numbers
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from paretofit.core import Array

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Below the minimum, no atoms are neighbours, and LAMMPS's cell lists grow without bound; above the maximum, an atom has
# tens of thousands of neighbours, and LAMMPS fails.
MIN_CUTOFF_A, MAX_CUTOFF_A = 0.5, 25.0


class LinearBasis(BaseModel, ABC):
    """Basis of linear models; each family of descriptors is a subclass.

    A subclass adds the settings of its family and defines the abstract properties. The columns are a constant for each
    element, then the features of all elements in nested order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    list_defaults: ClassVar[Mapping[str, float]] = {}  # defaults of the settings that have a value for each element

    min_size: ClassVar[int] = 0  # smallest size of a model of the family

    family: str
    elements: list[str] = Field(min_length=1, description="Chemical symbols, in the order of LAMMPS's atom types.")
    twojmax: int

    @model_validator(mode="before")
    @classmethod
    def _fill_lists(cls, values: Any) -> Any:
        """Return settings whose `elements`, and values for each element, are lists; raise ValueError for a mapping.

        A single number, or the default of a setting without a value, is repeated for each element.
        """
        if not isinstance(values, dict):
            return values
        settings = dict(values)
        for key in ("elements", *cls.list_defaults):
            value = settings.get(key)
            if isinstance(value, tuple | np.ndarray):
                settings[key] = list(value)
            elif isinstance(value, Mapping):
                raise ValueError(  # noqa: TRY004  (pydantic turns no other exception into a validation error)
                    f"{key} must be a list with one entry for each element, in the same order, not a mapping"
                )
        if isinstance(settings.get("elements"), list):
            for key, default in cls.list_defaults.items():
                value = default if settings.get(key) in (None, []) else settings[key]
                settings[key] = value if isinstance(value, list) else [value] * len(settings["elements"])
        return settings

    @model_validator(mode="after")
    def _check_elements_and_cutoff(self) -> Self:
        """Raise ValueError for invalid elements, a list of another length than `elements`, or an extreme cutoff."""
        for symbol in self.elements:
            if not atomic_numbers.get(symbol):  # ASE's "X" has number 0 and is not an element
                raise ValueError(f"'{symbol}' is not a chemical symbol")
        if len(set(self.elements)) != len(self.elements):
            raise ValueError(f"an element appears twice in {self.elements}")
        for key in self.list_defaults:
            if (length := len(getattr(self, key))) != len(self.elements):
                raise ValueError(
                    f"{key} must have one value for each of the {len(self.elements)} elements; got {length}"
                )
        if not MIN_CUTOFF_A <= self.cutoff <= MAX_CUTOFF_A:
            raise ValueError(
                f"the cutoff, {self.cutoff_setting}, must lie between {MIN_CUTOFF_A:g} and {MAX_CUTOFF_A:g} Å; "
                f"got {self.cutoff:g}"
            )
        return self

    def __eq__(self, other: object) -> bool:
        """Compare the settings only; pydantic would also compare the cached properties."""
        return type(other) is type(self) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        """Hash the settings."""
        return hash(self.model_dump_json())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the settings only, because the cached properties of a large basis take megabytes in every task."""
        return type(self).model_validate_json, (self.model_dump_json(),)

    def resize(self, twojmax: int) -> Self:
        """Return the same basis with the size `twojmax`."""
        return type(self)(**{**self.model_dump(), "twojmax": twojmax})

    @property
    @abstractmethod
    def cutoff(self) -> float:
        """Largest cutoff of a pair of elements, Å."""

    @property
    @abstractmethod
    def cutoff_setting(self) -> str:
        """Setting or formula of the cutoff, for messages."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the family of models, such as ``quadratic SNAP``."""

    @property
    def has_products(self) -> bool:
        """Whether products of components are also features."""
        return False

    @property
    @abstractmethod
    def component_names(self) -> list[str]:
        """Names of the components of an atom, in the order of `unsorted_levels`."""

    @property
    @abstractmethod
    def n_components(self) -> int:
        """Number K of descriptors of an atom."""

    @property
    @abstractmethod
    def unsorted_levels(self) -> Array:
        """Smallest size at which each feature of one element appears, ``(n_features_per_element,) int``.

        The features are the components, then the upper triangle of their products, if they have any, row by row.
        """

    @cached_property
    def column_order(self) -> Array:
        """Positions of the features of all elements in nested order, ``(n_features - n_elements,) int``.

        Before they are ordered, the features of the first element come first, each element's as in `unsorted_levels`.
        """
        return np.argsort(np.tile(self.unsorted_levels, len(self.elements)), kind="stable")

    @cached_property
    def column_levels(self) -> Array:
        """Smallest size at which each column appears, ``(n_features,) int``; 0 for the constants."""
        levels = np.sort(np.tile(self.unsorted_levels, len(self.elements)))
        return np.concatenate([np.zeros(len(self.elements), dtype=int), levels])

    @property
    def n_features(self) -> int:
        """Number of columns at the largest size, including the constants."""
        return len(self.column_levels)

    def count_columns_up_to(self, twojmax: int) -> int:
        """Count the leading columns that form the model of the size `twojmax`."""
        return int(np.searchsorted(self.column_levels, twojmax, side="right"))

    @cached_property
    def column_names(self) -> list[str]:
        """Names such as ``1[Be]``, ``B(2,1,1)[Be]`` and ``B(2,1,1)*B(2,2,2)[Be]``, in nested order."""
        names = self.component_names
        features = list(names)
        if self.has_products:
            features += [f"{names[k]}*{names[m]}" for k, m in zip(*np.triu_indices(len(names)), strict=True)]
        columns = [f"{feature}[{symbol}]" for symbol in self.elements for feature in features]
        return [f"1[{symbol}]" for symbol in self.elements] + [columns[k] for k in self.column_order]


class CommonCutoffBasis(LinearBasis):
    """Basis with a single cutoff `rcut`; its family is not the default family, SNAP."""

    rcut: PositiveFloat

    @model_serializer(mode="wrap")
    def _keep_family(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the family where defaults are omitted, because settings without a family are those of SNAP."""
        return {"family": self.family, **serialize(self)}

    @property
    def cutoff(self) -> float:
        """Cutoff of all pairs of elements, Å."""
        return self.rcut

    @property
    def cutoff_setting(self) -> str:
        """Name of the setting of the cutoff, for messages."""
        return "rcut"
