"""A property as a formula of a few numbers that are linear in the labels of some structures.

With the labels y_s of structure s (energy per atom, forces, stress) and constant weights W_s, these numbers are
v = Σ_s W_s y_s. The same weights turn the descriptor rows X_s into rows of the property, F = Σ_s W_s X_s, so that
v = F β for a linear model with coefficients β. Labels at the reference level give the numbers of the reference value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from ase import Atoms
from scipy.sparse import csr_array

from paretofit.core import Array, RowKind

Formula = Callable[[Array], Array]  # maps the numbers v, (n, n_fits), to components, (m, n_fits)


def return_numbers(numbers: Array) -> Array:
    """Return the numbers, ``(n, n_fits)``, unchanged: the formula of a property that is linear in the labels."""
    return numbers


@dataclass(frozen=True)
class StructureWeights:
    """A structure and the weights of its labels in the numbers v.

    Attributes
    ----------
    atoms : ase.Atoms
    weights : mapping of RowKind to (n, n_rows) sparse array
        Weights W of the energy per atom (eV, 1 row), the forces (eV/Å, 3N rows) and the stress (GPa, 6 rows in Voigt
        order). A kind that is not a key has no weight.
    """

    atoms: Atoms
    weights: Mapping[RowKind, csr_array]

    def apply(self, labels: Mapping[RowKind, Array]) -> Array:
        """Compute W y, ``(n,)``, from labels ``(n_rows,)``, or W X, ``(n, p)``, from descriptor rows ``(n_rows, p)``.

        The products are summed over the kinds of rows.
        """
        return np.asarray(sum(weights @ labels[kind] for kind, weights in self.weights.items()))


@dataclass(frozen=True)
class LinearProperty:
    """A property of a material, as a formula of numbers v that are linear in labels.

    Attributes
    ----------
    name : str
    unit : str
    terms : sequence of StructureWeights
        Terms of v = Σ_s W_s y_s; the same structure may occur in several terms.
    formula : callable
        Function of the numbers v, ``(n, n_fits)``, that returns the components of the property, ``(m, n_fits)``; m is 1
        unless the property is compared by the root mean square of several components. Unless it is `return_numbers`,
        its `repr` must contain its parameters and be the same in every process.
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
        """Length n of the vector of numbers v."""
        return int(next(iter(self.terms[0].weights.values())).shape[0])

    @property
    def is_linear(self) -> bool:
        """Whether the property is linear in the coefficients, unlike an elastic constant with relaxed atoms."""
        return self.formula is return_numbers

    def with_reference(self, value: Array) -> Self:
        """Return a copy of the property with a reference value, a scalar or ``(m,)``."""
        return replace(self, reference=np.atleast_1d(np.asarray(value, dtype=np.float64)))

    def apply(self, labels: Sequence[Mapping[RowKind, Array]]) -> Array:
        """Compute the numbers v, ``(n,)``, from labels, or the rows F, ``(n, p)``, from descriptor rows.

        Parameters
        ----------
        labels : sequence of mapping of RowKind to array
            Labels or descriptor rows by kind, for each of `terms` in order; see `StructureWeights.apply`.
        """
        return np.asarray(sum(term.apply(term_labels) for term, term_labels in zip(self.terms, labels, strict=True)))

    def evaluate(self, numbers: Array) -> tuple[Array, Array]:
        """Evaluate the property, and its error, for each of several fits.

        Parameters
        ----------
        numbers : (n, n_fits) float64
            The numbers v.

        Returns
        -------
        value : (n_fits,) float64
            Value of the property; the root mean square of several components. Not finite where the property is not
            defined.
        error : (n_fits,) float64
            Absolute deviation from the reference; the root mean square of the deviations of several components.
            Infinite where the property is not defined, or without a reference.
        """
        components = self.formula(numbers)
        value = components[0] if len(components) == 1 else np.sqrt((components**2).mean(axis=0))
        reference = np.full(len(components), np.nan) if self.reference is None else self.reference
        error = np.sqrt(((components - reference[:, None]) ** 2).mean(axis=0))
        return value, np.where(np.isfinite(error), error, np.inf)
