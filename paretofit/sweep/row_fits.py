"""Fits of single cells from their rows, and what a fit leaves in the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import FIT_COPIES, RowKind
from paretofit.linear import WideFactor, choose_ridge, compress_rows, fit_wls, leave_one_out, rms_by_kind, row_weights
from paretofit.sweep.results import SWEEP_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from paretofit.core import Array
    from paretofit.descriptors import DesignMatrix
    from paretofit.sweep.grid import Ridge, SweepGrid
    from paretofit.sweep.results import Row
    from paretofit.sweep.sweep_input import SweepInput

EV_TO_MEV = 1000.0  # errors are reported in meV/atom and meV/Å


@dataclass(frozen=True)
class RowSource:
    """Rows and labels, where fits are made from rows.

    With `compress`, weights share a triangular factor of many rows; the plain engine, an oracle, does without.
    """

    design: DesignMatrix
    Y: Array
    test_rows: Array
    levels: list[str]
    group: Array
    leave_one_out: bool
    compress: bool = False

    @classmethod
    def from_sweep(cls, data: SweepInput, grid: SweepGrid) -> RowSource:
        """Gather them; a design of moderate size is read into memory once."""
        levels = list(grid.levels)
        test = data.select_rows(data.test)
        return cls(
            data.design.load_into_memory(), data.targets(levels), test, levels, data.loo_groups(), grid.leave_one_out
        )

    def select_rows(self, configurations: Array) -> Array:
        """Row numbers of some configurations."""
        wanted = np.zeros(self.design.n_configurations, dtype=bool)
        wanted[configurations] = True
        return np.flatnonzero(wanted[self.design.configuration])

    def estimate_fit_bytes(
        self, configurations: Array, models_by_weights: Mapping[tuple[float, float], list[tuple[int, Ridge]]]
    ) -> float:
        """Memory that fits of models to one subset take."""
        largest = max(self.design.columns_up_to(twojmax) for own in models_by_weights.values() for twojmax, _ in own)
        return 8 * FIT_COPIES * len(self.select_rows(configurations)) * largest

    def fit(
        self, configurations: Array, models_by_weights: Mapping[tuple[float, float], list[tuple[int, Ridge]]]
    ) -> Iterator[Row]:
        """Fit several models to one subset and measure their errors in meV/atom and meV/Å.

        Where rows are fewer than columns, all weights share a factorisation.
        """
        train = self.select_rows(configurations)
        for twojmax in dict.fromkeys(twojmax for own in models_by_weights.values() for twojmax, _ in own):
            p = self.design.columns_up_to(twojmax)
            X = self.design.take(train, p, copies=FIT_COPIES)
            plain = any((twojmax, 0.0) in own for own in models_by_weights.values())
            wide = WideFactor.from_rows(X) if plain and len(X) < p else None
            several = sum((twojmax, 0.0) in own for own in models_by_weights.values()) > 1
            short = None
            if self.compress and several and len(X) > 2 * p:
                short = compress_rows(X, self.Y[train], self.design.kind[train])
            for weights, own in models_by_weights.items():
                for ridge in [ridge for size, ridge in own if size == twojmax]:
                    cell = {"twojmax": twojmax, "w_energy": weights[0], "w_force": weights[1], "n_features": p}
                    shared = (wide, short) if ridge == 0 else (None, None)
                    yield from self._cell(train, X, {**cell, "ridge": ridge}, *shared)

    def _cell(
        self, train: Array, X: Array, cell: Row, wide: WideFactor | None, short: tuple[Array, Array, Array] | None
    ) -> Iterator[Row]:
        """Fit one cell, all levels at once; `wide` or `short` is what cells of other weights have in common."""
        Y, kind, ridge = self.Y[train], self.design.kind[train], cell["ridge"]
        group = self.group[self.design.configuration[train]]
        w: dict[str, Any] = dict.fromkeys(("force_weight", "stress_weight"), cell["w_force"])
        w |= {"energy_weight": cell["w_energy"]}
        free, left_out = self.design.n_constant, None
        if ridge == "auto":
            choice = choose_ridge(X, Y, kind, group, **w, unpenalised=free)
            beta, penalty, left_out = choice.coefficients, choice.penalty, choice.loo_residuals
            how: dict[str, Any] = {"rank": choice.rank, "condition": choice.condition, "solver": "svd"}
        else:
            penalty = np.full(len(self.levels), ridge)
            if wide is not None:
                beta = wide.solve(Y, row_weights(kind, cell["w_energy"], cell["w_force"], cell["w_force"])[:, None])
                how = {"rank": wide.rank, "condition": wide.condition, "solver": wide.solver}
            else:
                fit = fit_wls(*(short or (X, Y, kind)), **w, ridge=ridge, unpenalised=free)
                if short and fit.solver != "qr":  # where the rank is in doubt, the rows themselves decide
                    fit = fit_wls(X, Y, kind, **w)
                beta, how = fit.coefficients, {"rank": fit.rank, "condition": fit.condition, "solver": fit.solver}
            if self.leave_one_out:
                left_out = leave_one_out(X, Y, kind, group, **w, ridge=ridge, unpenalised=free)
        errors = {**_prefixed("train", rms_by_kind(X @ beta - Y, kind)), **self._test_errors(beta, X.shape[1])}
        if self.leave_one_out and left_out is not None:
            errors |= compute_loo_errors(left_out, Y, kind)
        yield from build_level_rows(self.levels, {**cell, **how}, errors, penalty)

    def _test_errors(self, beta: Array, p: int) -> dict[str, Array]:
        test = self.test_rows
        prediction = self.design.take(test, p) @ beta
        kind, truth = self.design.kind[test], self.Y[test]
        reference = prediction - truth[:, -1:]
        errors = _prefixed("test", rms_by_kind(prediction - truth, kind)) | _prefixed(
            "ref", rms_by_kind(reference, kind)
        )
        energy = reference[kind == RowKind.ENERGY]
        return errors | ({"ref_energy_shifted": np.std(energy, axis=0)} if len(energy) else {})


def compute_loo_errors(loo_residuals: Array, Y: Array, kind: Array) -> dict[str, Array]:
    """Leave-one-out errors at the own level and against the last one, from residuals and labels ``(n, n_levels)``."""
    reference = loo_residuals + Y[:, -1:] - Y
    return _prefixed("loo", rms_by_kind(loo_residuals, kind)) | _prefixed("loo_ref", rms_by_kind(reference, kind))


def _prefixed(prefix: str, errors: Mapping[RowKind, Array]) -> dict[str, Array]:
    return {f"{prefix}_{kind.name.lower()}": value for kind, value in errors.items()}


def build_level_rows(levels: list[str], cell: Row, errors: Mapping[str, Array], penalty: Array) -> Iterator[Row]:
    """One row for each level; errors are ``(n_levels,)`` in eV/atom and eV/Å."""
    names = [name for name in SWEEP_COLUMNS if name.startswith(("train_", "test_", "ref_"))]
    for k, level in enumerate(levels):
        values = dict.fromkeys(names, float("nan"))
        values |= {name: float(value[k]) * EV_TO_MEV for name, value in errors.items()}
        yield {**cell, "level": level, "ridge_lambda": float(penalty[k]), **values}
