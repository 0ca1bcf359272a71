"""The input of a sweep: rows with their labels and the train/test split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from paretofit.core import FIT_COPIES, Array, InputError, RowKind, hash_array, hash_json
from paretofit.descriptors import DesignMatrix
from paretofit.linear import LeverageScores, leverage_scores
from paretofit.properties import PropertyRows
from paretofit.sweep.grid import SweepGrid

VERSION = 2  # version of the columns of a fit; journals of other versions are not read


@dataclass(frozen=True)
class SweepInput:
    """Rows with their labels, the train/test split, and the settings of the leverage scores.

    Attributes
    ----------
    design : DesignMatrix
        Design matrix with targets and seconds for every level of the grid.
    train, test : (n_train,) and (n_test,) int64
        Positions of the configurations in the design, ascending.
    leverage_weights : (float, float)
        w_E and w_F of the leverage scores.
    n_leverage_columns : int, optional
        Number of leading columns from which the scores are computed; by default all.
    group : (n_configurations,) int64, optional
        Leave-one-out group of each configuration; by default every configuration is a separate group.
    properties : PropertyRows, optional
        Properties that are evaluated for every fit.
    """

    design: DesignMatrix
    train: Array
    test: Array
    leverage_weights: tuple[float, float] = (150.0, 1.0)
    n_leverage_columns: int | None = None
    group: Array | None = None
    properties: PropertyRows | None = None

    def find_row_indices(self, configurations: Array) -> Array:
        """Return the positions of the rows of some configurations, ascending."""
        return np.flatnonzero(np.isin(self.design.configuration, configurations))

    def stack_targets(self, levels: list[str]) -> Array:
        """Stack the labels of every row at some levels, ``(n_rows, n_levels)``."""
        return np.column_stack([self.design.targets[level] for level in levels])

    def stack_label_seconds(self, levels: list[str]) -> Array:
        """Stack the costs of the labels in seconds, ``(n_configurations, n_levels)``; NaN where a cost is not known."""
        missing_costs = np.full(self.design.n_configurations, np.nan)
        return np.column_stack([self.design.seconds.get(level, missing_costs) for level in levels])

    def has_leverage_scores(self) -> bool:
        """Return whether every training configuration has an energy row, which a leverage score requires."""
        configurations_with_energy = self.design.configuration[self.design.kind == RowKind.ENERGY]
        return bool(np.isin(self.train, configurations_with_energy).all())

    def compute_leverage_scores(self) -> LeverageScores:
        """Compute the leverage of each training configuration in a fit to all of them, from their rows.

        Every training configuration must have an energy row, see `has_leverage_scores`.
        """
        design, row_indices = self.design, self.find_row_indices(self.train)
        w_energy, w_force = self.leverage_weights
        with threadpool_limits(1):
            return leverage_scores(
                design.read_rows(row_indices, memory_copies=FIT_COPIES),
                design.kind[row_indices],
                np.searchsorted(self.train, design.configuration[row_indices]),
                energy_weight=w_energy,
                force_weight=w_force,
                stress_weight=w_force,
                n_columns=self.n_leverage_columns,
            )

    def check(self, grid: SweepGrid) -> None:
        """Raise InputError if the grid is invalid, or if columns or labels that it needs are missing."""
        design = self.design
        grid.check(len(self.train))
        for twojmax in grid.twojmax:
            if design.count_columns_up_to(twojmax) == 0:
                raise InputError(
                    f"'twojmax' must be at least {design.column_levels[0]}, the lowest order of a column; got {twojmax}"
                )
        if any(sampling.endswith("leverage") for sampling in grid.sampling_methods) and not self.has_leverage_scores():
            raise InputError("leverage sampling requires an energy row for every training configuration; use 'random'")
        configurations = np.concatenate([self.train, self.test])
        for level in grid.levels:
            if level not in design.targets:
                raise InputError(
                    f"there are no labels of level '{level}'; available: {', '.join(design.targets) or 'none'}"
                )
            unlabelled_configurations = configurations[design.find_missing_labels(level)[configurations]]
            if unlabelled_configurations.size:
                raise InputError(
                    f"level '{level}' has {unlabelled_configurations.size} configurations with missing or NaN labels, "
                    f"the first with id {design.ids[unlabelled_configurations[0]]}; label them, or leave them out with "
                    "'missing_labels: drop'"
                )

    def get_loo_groups(self) -> Array:
        """Return the leave-one-out group of each configuration, ``(n_configurations,)``."""
        return np.arange(self.design.n_configurations) if self.group is None else self.group

    def hash_subset(self, configurations: Array) -> str:
        """Return the key of a set of configurations, which does not depend on how the set was drawn."""
        return hash_json(sorted(self.design.ids[configurations].tolist()))[:16]

    def hash_labels(self, levels: list[str]) -> dict[str, str]:
        """Return the hash of each level's labels."""
        return {level: hash_array(self.design.targets[level]) for level in levels}

    def hash_inputs(self, grid: SweepGrid, engine: str) -> str:
        """Return the hash of all inputs of a fit that are contained neither in its key nor in its `FitInputs`."""
        design = self.design
        basis = json.loads(design.attributes.get("basis", "null"))
        if isinstance(basis, dict):  # a larger 2Jmax adds columns, but does not change the earlier ones
            rows: Any = [design.attributes["structures"], {key: basis[key] for key in basis if key != "twojmax"}]
        else:
            rows = [hash_array(block) for _, block in design.iterate_blocks()]
            rows += [hash_array(array) for array in (design.kind, design.configuration, design.column_levels)]
            rows.append(design.n_constant)
        if design.row_weights is not None:
            rows.append(hash_array(design.row_weights))
        groups = hash_array(self.get_loo_groups()) if grid.leave_one_out else None
        if self.properties is not None:
            rows.append(self.properties.compute_digest())
        reference = self.hash_labels([grid.levels[-1]])
        settings = [engine, groups, grid.leave_one_out, VERSION]
        return hash_json([rows, design.ids.tolist(), reference, self.test.tolist(), *settings])
