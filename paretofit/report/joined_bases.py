"""Results of all bases of a study in one table, for one answer, one front and one explorer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from paretofit.report.paired_errors import PairedErrors


class JoinedBases(NamedTuple):
    """Results of all bases of a study.

    Attributes
    ----------
    results : DataFrame
        A row for each fit. If there are several bases, the column ``basis`` holds the name of the basis.
    front : DataFrame
        Points that no other setting of the same basis and 2Jmax dominates. The optional column ``overall`` is true if
        no setting of another basis or 2Jmax dominates the point either.
    split_errors : PairedErrors, optional
        Errors in further train/test splits; None if there are none.
    studies : mapping of str to mapping
        Settings of the study of each further basis by the name of the basis, as in its YAML file.
    objectives : sequence of str
        Objectives of the front besides the cost: ``ref_energy``, ``ref_force``, and names of properties.
    """

    results: pd.DataFrame
    front: pd.DataFrame
    split_errors: PairedErrors | None = None
    studies: Mapping[str, Mapping[str, Any]] = {}
    objectives: Sequence[str] = ("ref_energy", "ref_force")
