"""Gaps between shells of neighbours, against the shells of crystals."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from paretofit.dataset.quality import find_shell_gaps


@pytest.mark.parametrize(
    ("atoms", "shells"),
    [
        (bulk("Cu"), 3.61 * np.sqrt([0.5, 1.0, 1.5, 2.0])),
        (bulk("Si"), 5.43 * np.sqrt([3 / 16, 1 / 2, 11 / 16, 1.0])),
    ],
)
def test_each_gap_is_between_two_shells_of_the_crystal(atoms, shells):
    gaps = find_shell_gaps([atoms], shells[-1] + 0.1)
    assert len(gaps) == len(shells) - 1
    assert ((gaps > shells[:-1] + 0.1) & (gaps < shells[1:] - 0.1)).all()


def test_an_isolated_atom_and_a_molecule_have_no_gaps_beyond_their_pairs():
    assert not len(find_shell_gaps([molecule("H")], 6.0))
    assert (find_shell_gaps([molecule("H2O")], 6.0) < 2.0).all()
