"""A property as a formula of a few numbers that are linear in the labels of some structures.

With the energy per atom, the forces and the stress y_s of structure s, these numbers are v = Σ_s W_s y_s. The same
weights W_s turn the descriptor rows X_s of the structures into rows of the property, F = Σ_s W_s X_s, so that v = F β
for a linear model, and the labels of the reference level into the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from ase import Atoms
from scipy.sparse import csr_array

from paretofit.core import Array, RowKind

Formula = Callable[[Array], Array]  # numbers v, (n, n_fits), to the property, (m, n_fits)


def return_numbers(numbers: Array) -> Array:
    """Return the numbers themselves: the formula of a property that is linear in the labels."""
    return numbers


@dataclass(frozen=True)
class StructureWeights:
    """A structure, and the weights of its labels.

    Attributes
    ----------
    atoms : ase.Atoms
    weights : mapping of RowKind to (n, n_rows) sparse array
        Weights W of the energy per atom (eV), the 3N force components (eV/Å) and the stress (GPa, Voigt).
    """

    atoms: Atoms
    weights: Mapping[RowKind, csr_array]

    def apply(self, labels: Mapping[RowKind, Array]) -> Array:
        """Compute W y, or W X: the sum over the kinds of rows, ``(n, ...)``."""
        return np.asarray(sum(weights @ labels[kind] for kind, weights in self.weights.items()))


@dataclass(frozen=True)
class LinearProperty:
    """A property of a material.

    Attributes
    ----------
    name : str
    unit : str
    terms : sequence of StructureWeights
        Equal structures may occur more than once.
    formula : callable
        The property, ``(m, n_fits)``, from the numbers v, ``(n, n_fits)``; m is 1, except for properties that are
        compared by the root mean square of their components.
    reference : (m,) float64 or None
        Reference value; None until it is known.
    """

    name: str
    unit: str
    terms: Sequence[StructureWeights]
    formula: Formula
    reference: Array | None = None

    @property
    def size(self) -> int:
        """Number of the numbers v."""
        return int(next(iter(self.terms[0].weights.values())).shape[0])

    @property
    def is_linear(self) -> bool:
        """Whether the property is linear in the coefficients: an elastic constant of relaxed atoms is not."""
        return self.formula is return_numbers

    def with_reference(self, value: Array) -> Self:
        """Return this property with a reference value, ``(m,)``."""
        return replace(self, reference=np.atleast_1d(np.asarray(value, dtype=np.float64)))

    def apply(self, labels: Sequence[Mapping[RowKind, Array]]) -> Array:
        """Compute the numbers v from the labels of each term, or rows of the property from descriptor rows."""
        return np.asarray(sum(term.apply(values) for term, values in zip(self.terms, labels, strict=True)))

    def evaluate(self, numbers: Array) -> tuple[Array, Array]:
        """Evaluate the property of some fits.

        Parameters
        ----------
        numbers : (n, n_fits) float64
            The numbers v.

        Returns
        -------
        value, error : (n_fits,) float64
            The value, or the root mean square of the components; and its absolute deviation from the reference, or the
            root mean square of those of the components, infinite where the property is not defined.
        """
        components = self.formula(numbers)
        value = components[0] if len(components) == 1 else np.sqrt((components**2).mean(axis=0))
        reference = np.full(len(components), np.nan) if self.reference is None else self.reference
        error = np.sqrt(((components - reference[:, None]) ** 2).mean(axis=0))
        return value, np.where(np.isfinite(error), error, np.inf)
