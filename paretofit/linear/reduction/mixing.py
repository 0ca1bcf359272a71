"""Factors of training sets with labels of several levels: a few at an accurate level, and many at cheaper ones.

The labels of different levels have different zeros of energy. The rows [U | Y'] of a cheaper level l therefore have
additional columns, a copy C of the constant columns of its energies, for the offsets o_l of its reference energies:

    min_{β, o}  Σ_lk a_lk² w_k² ‖X_lk β + C_lk o_l − y_lk‖²,   C = 0 in the rows of the top level and of forces,

with a factor a of the energy rows of cheaper levels, which is 1 for all other rows. The targets are relative to the top
level's baseline, y_l − U θ_top = Y'_l + U (θ_l − θ_top). All of this is a product of the factors of each level's rows
with small matrices, so the factors of a mixture are `RowFactors` like any other, and need no rows. The offsets are the
leading columns, so that smaller models remain leading blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from paretofit.core import Array, RowKind
from paretofit.linear.reduction.linalg import sum_column_squares, to_numpy
from paretofit.linear.reduction.row_factor import RowFactor
from paretofit.linear.reduction.weighing import ModelFit, RowFactors
from paretofit.linear.reduction.whitening import WhitenedBasis, Whitening


@dataclass(frozen=True)
class LevelRows:
    """The rows of a mixture that have labels of one level.

    Attributes
    ----------
    factors : RowFactors
        Factors of the rows of some configurations.
    level : int
        Position of the level among the targets.
    energy_weight : float
        Factor a of the energy weight; with 0, the level has no energies, and therefore needs no offset.
    """

    factors: RowFactors
    level: int
    energy_weight: float = 1.0


@dataclass(frozen=True)
class MixedFactors:
    """Factors of the rows of several levels.

    Attributes
    ----------
    factors : RowFactors
        Their columns are the offsets of each cheaper level, the whitened columns, and the targets of one level.
    n_offsets : int
        Number of leading columns that are offsets.
    level : int
        Position of the top level, whose labels the fits predict.
    basis : WhitenedBasis
        Basis of the single levels.
    """

    factors: RowFactors
    n_offsets: int
    level: int
    basis: WhitenedBasis

    @classmethod
    def from_levels(cls, levels: Sequence[LevelRows], n_constant: int) -> MixedFactors:
        """Mix the rows of some levels, the top level last.

        Parameters
        ----------
        levels : sequence of LevelRows
        n_constant : int
            Number of leading raw columns that are constant for each composition, such as one for each element; 0 if the
            energies of free atoms are exact at every level, so that no offsets are needed.
        """
        basis, top = levels[-1].factors.whitened_basis, levels[-1].level
        constants = basis.whitening.retained_columns[basis.whitening.retained_columns < n_constant]
        constant_columns = basis.whitening.unwhitening[:, constants]
        offset_counts = [len(constants) if rows.energy_weight > 0 else 0 for rows in levels[:-1]] + [0]
        n_offsets, P = sum(offset_counts), len(basis.baseline)
        by_kind = {}
        for kind in levels[-1].factors.by_kind:
            mixed, is_full = RowFactor(n_offsets + P + 1), False
            for position, rows in enumerate(levels):
                factor = rows.factors.by_kind[kind]
                weight = rows.energy_weight if kind == RowKind.ENERGY else 1.0
                if not factor.n or not weight:
                    continue
                U, Y = np.split(to_numpy(factor.get_equivalent_rows()), [P], axis=1)
                offsets = np.zeros((len(U), n_offsets))
                if kind == RowKind.ENERGY and offset_counts[position]:
                    n_earlier = sum(offset_counts[:position])
                    offsets[:, n_earlier : n_earlier + offset_counts[position]] = U @ constant_columns
                target = Y[:, rows.level] + U @ (basis.baseline[:, rows.level] - basis.baseline[:, top])
                mixed.grow(np.asfortranarray(weight * np.column_stack([offsets, U, target])))
                mixed.n += factor.n - len(U)  # all rows, not only those of the triangle
                is_full |= factor.matrix is not None
            by_kind[kind] = mixed.finish(is_full=is_full)
        extended = _add_offsets(basis, n_offsets, top, by_kind)
        return cls(RowFactors(extended, by_kind), n_offsets, top, basis)

    def fit(self, weights: Array, size_indices: Sequence[int]) -> list[ModelFit]:
        """Fit models of some sizes at weights w_E, w_F, w_S; each `ModelFit.delta` is ``(P, 1)``, of the top level.

        `size_indices` are positions among the basis's sizes. The rank is that of the columns of the design, without the
        offsets; the fits have no triangle.
        """
        weighted, fits = self.factors.apply_weights(weights), []
        for index in size_indices:
            fit = weighted.fit(index)
            delta, rank = fit.delta[self.n_offsets :], fit.rank - self.n_offsets
            fits.append(replace(fit, delta=delta, rank=rank, triangle=None))
        return fits


def _add_offsets(basis: WhitenedBasis, n: int, level: int, by_kind: dict[RowKind, RowFactor]) -> WhitenedBasis:
    """Return a basis of one level with `n` further leading columns, which are not whitened."""
    whitening, P = basis.whitening, len(basis.baseline)
    extended = Whitening(
        np.concatenate([np.arange(n), whitening.retained_columns + n]),
        whitening.dropped_columns + n,
        np.asfortranarray(scipy.linalg.block_diag(np.eye(n), to_numpy(whitening.R))),
        np.vstack([np.zeros((n, len(whitening.dropped_columns))), whitening.dropped_coefficients]),
    )
    norms = {
        kind: np.concatenate([sum_column_squares(to_numpy(by_kind[kind].get_equivalent_rows())[:, :n]), squares])
        for kind, squares in basis.train_squared_norms.items()
    }
    baseline = np.vstack([np.zeros((n, 1)), basis.baseline[:, [level]]]).reshape(n + P, 1)
    return WhitenedBasis(basis.sizes + n, extended, basis.weights, baseline, norms, basis.n_unpenalised + n)
