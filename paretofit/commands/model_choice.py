"""Choice of 2Jmax, weights and ridge penalty of a single fit by leave-one-out errors on its training set."""

from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pandas as pd

from paretofit.descriptors import DesignMatrix
from paretofit.study import PreparedStudy, build_sweep_input
from paretofit.sweep import FastEngine, PlainEngine, SweepGrid, SweepInput, make_engine, run_sweep

# A larger 2Jmax must lower the geometric mean of the energy and force errors to at most this fraction. Each increase
# of 2Jmax by two multiplies the number of coefficients and the MD cost by about three, and small improvements do not
# carry over to other configurations.
MAX_ERROR_RATIO = 0.8
WEIGHT_REFINEMENT = 3**0.5  # factor by which the chosen ratio w_E/w_F is varied in the second step
# Penalties of scaled coefficients. Below this range, rounding errors dominate; above it, the errors of quadratic models
# only increase.
RIDGE_CANDIDATES = (0.0, 1e-8, 1e-7, 1e-6, 1e-5)


@dataclass(frozen=True)
class ModelChoice:
    """Settings of a fit, with their leave-one-out errors.

    Attributes
    ----------
    twojmax : int
    weights : (float, float)
        w_E and w_F.
    ridge : float
        Penalty of scaled coefficients.
    energy_error, force_error : float
        Leave-one-out errors on the training set, meV/atom and meV/Å, for which whole groups are excluded at once; NaN
        if they are not determined.
    table : DataFrame
        A row for each compared setting: ``twojmax, w_energy, w_force, ridge``, and the errors ``loo_energy`` (meV/atom)
        and ``loo_force`` (meV/Å).
    """

    twojmax: int
    weights: tuple[float, float]
    ridge: float = 0.0
    energy_error: float = float("nan")
    force_error: float = float("nan")
    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def has_errors(self) -> bool:
        """Whether the leave-one-out errors were determined."""
        return bool(np.isfinite(self.energy_error) and np.isfinite(self.force_error))


def choose_model(prepared: PreparedStudy, design: DesignMatrix, *, with_ridge: bool, jobs: int = 1) -> ModelChoice:
    """Choose 2Jmax, weights and, if required, a ridge penalty by the smallest product of the leave-one-out errors.

    In a product, equal relative improvements of the energy error and of the force error count equally. A larger 2Jmax
    must lower the product sufficiently (`MAX_ERROR_RATIO`). If the study has several weights, ratios w_E/w_F near the
    best one are compared, too (`WEIGHT_REFINEMENT`). If no errors are determined, the choice is the setting in the
    middle of those with the smallest 2Jmax. The test set is not used.

    Parameters
    ----------
    prepared : PreparedStudy
        Study with one level and the candidates for 2Jmax and weights.
    design : DesignMatrix
        Design matrix with labels.
    with_ridge : bool
        Whether to choose a ridge penalty among `RIDGE_CANDIDATES`; otherwise it is zero.
    jobs : int
        Number of threads.
    """
    # The weights and 2Jmax are chosen first; then the weights are refined together with the choice of the penalty.
    sweep_input = build_sweep_input(prepared, design)
    grid = replace(prepared.grid, leave_one_out=True, ridge=[0.0], sampling_methods=["random"], repetitions=1)
    engine = make_engine(sweep_input, grid, "fast", jobs=jobs)
    table = _compute_errors(sweep_input, grid, engine)
    best_setting = _select_best(table)
    ratio, force_weight = float(best_setting["w_energy"] / best_setting["w_force"]), float(best_setting["w_force"])
    factors = [1 / WEIGHT_REFINEMENT, 1.0, WEIGHT_REFINEMENT] if len(grid.weights) > 1 else [1.0]
    energy_weights = [float(f"{force_weight * ratio * factor:.4g}") for factor in factors]  # rounded to four digits
    weights = [(energy_weight, force_weight) for energy_weight in energy_weights]
    ridge = RIDGE_CANDIDATES if with_ridge else [0.0]
    refined_grid = replace(grid, twojmax=[int(best_setting["twojmax"])], weights=weights, ridge=ridge)
    is_determined = np.isfinite(best_setting[["loo_energy", "loo_force"]].to_numpy(dtype=float)).all()
    if is_determined and refined_grid.count_fits() > 1:
        refined_table = _compute_errors(sweep_input, refined_grid, engine)
        table, best_setting = pd.concat([table, refined_table], ignore_index=True), _select_best(refined_table)
    chosen_weights = float(best_setting["w_energy"]), float(best_setting["w_force"])
    errors = float(best_setting["loo_energy"]), float(best_setting["loo_force"])
    return ModelChoice(int(best_setting["twojmax"]), chosen_weights, float(best_setting["ridge"]), *errors, table)


def _compute_errors(sweep_input: SweepInput, grid: SweepGrid, engine: FastEngine | PlainEngine) -> pd.DataFrame:
    """Compute the leave-one-out errors of all settings of a grid; see `ModelChoice.table`."""
    columns = ["twojmax", "w_energy", "w_force", "ridge", "loo_energy", "loo_force"]
    table = run_sweep(sweep_input, grid, engine=engine)
    table = table.assign(ridge=table["ridge"].astype(float) if "ridge" in table else 0.0)
    return table[columns].astype(float)


def _select_best(table: pd.DataFrame) -> pd.Series:
    """Select the setting with the smallest product of errors; a larger 2Jmax requires a sufficiently smaller product.

    If no errors were determined, select the setting in the middle of those with the smallest 2Jmax.
    """
    error_products = (table["loo_energy"] * table["loo_force"]).where(np.isfinite)
    if not error_products.notna().any():
        smallest_models = table[table["twojmax"] == table["twojmax"].min()]
        return cast("pd.Series", smallest_models.iloc[len(smallest_models) // 2])
    best_position, lowest_product = -1, np.inf
    for _, products in sorted(error_products.dropna().groupby(table["twojmax"])):
        position = products.index.tolist()[int(products.argmin())]
        # squared, because the product of two errors is the square of their geometric mean
        if best_position < 0 or products.min() <= MAX_ERROR_RATIO**2 * lowest_product:
            best_position, lowest_product = position, float(products.min())
    return cast("pd.Series", table.loc[best_position])
