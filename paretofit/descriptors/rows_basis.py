"""The basis of a user's own linear model, of which only the rows of a dataset are known."""

from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from paretofit.core import AbsoluteStudyPath, Array
from paretofit.descriptors.design_file import read_design_index
from paretofit.descriptors.linear_basis import CommonCutoffBasis, PositiveFloat


class RowsBasis(CommonCutoffBasis):
    """Basis whose rows are in a design file, such as one that `DesignMatrix.from_blocks` has written.

    Models in this basis are fitted and compared with others, but have no potential, because paretofit cannot compute
    the rows of another structure. The order of the columns and the smallest size of each are those of the file; a file
    whose `column_levels` are all zero has models of a single size only. The properties read the file when they are
    needed, and raise `InputError` if this fails.

    Raises
    ------
    pydantic.ValidationError
        If a setting is unknown or out of range.
    """

    family: Literal["rows"] = Field("rows", description="Family of descriptors.")
    rows: AbsoluteStudyPath = Field(description="Design file with the rows (HDF5); relative to the study file.")
    rcut: PositiveFloat = Field(10.0, description="Cutoff of the model, by which isolated atoms are recognised, Å.")
    twojmax: int = Field(20, ge=0, description="Size of the largest model: the columns of the file up to this level.")

    @property
    def title(self) -> str:
        """Name of the models, with the name of the file."""
        return f"rows of {self.rows.name}"

    @property
    def component_names(self) -> list[str]:
        """Names of the columns of the file."""
        return list(self._index["column_names"])

    @property
    def n_components(self) -> int:
        """Number of columns of the file."""
        return len(self.unsorted_levels)

    @property
    def unsorted_levels(self) -> Array:
        """Smallest size at which each column of the file appears, ascending, ``(n_components,) int``."""
        return np.asarray(self._index["column_levels"])

    @cached_property
    def column_levels(self) -> Array:
        """Smallest size at which each column appears, up to the size `twojmax`, ``(n_features,) int``."""
        return self.unsorted_levels[self.unsorted_levels <= self.twojmax]

    @cached_property
    def column_names(self) -> list[str]:
        """Names of the columns up to the size `twojmax`."""
        return self.component_names[: self.n_features]

    @cached_property
    def _index(self) -> dict[str, Any]:
        """Content of the file but for its rows."""
        return read_design_index(self.rows)
