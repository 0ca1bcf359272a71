"""Choice of 2Jmax from leave-one-out errors."""

import pandas as pd
import pytest

from paretofit.commands.model_choice import _select_best


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([(4, 10.0, 350.0), (6, 5.2, 208.0), (6, 6.0, 210.0), (8, 4.4, 186.0)], 6),  # 16 % is not worth a larger model
        ([(4, 10.0, 350.0), (6, 5.2, 208.0), (8, 2.0, 100.0)], 8),
        ([(2, 100.0, 100.0), (4, 85.0, 85.0), (6, 70.0, 70.0)], 6),
        ([(2, float("nan"), 1.0), (4, float("nan"), 1.0)], 2),
    ],
)
def test_a_larger_model_must_lower_the_errors(errors, expected):
    assert _select_best(pd.DataFrame(errors, columns=["twojmax", "loo_energy", "loo_force"])).twojmax == expected
