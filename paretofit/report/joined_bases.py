"""Results of all bases of a study, of which there is one answer, one front and one explorer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from paretofit.report.paired_errors import PairedErrors


class JoinedBases(NamedTuple):
    """Results of all bases of a study; without further bases, they lack the column ``basis``.

    Attributes
    ----------
    results : DataFrame
        A row for each fit.
    front : DataFrame
        Points that no other setting of the same basis and 2Jmax dominates; ``overall``: nor one of another.
    split_errors : PairedErrors, optional
        Errors in further train/test splits.
    studies : mapping of str to mapping
        Settings of the study of each further basis, as in its YAML file.
    objectives : sequence of str
        What the front minimises besides the cost: ``ref_energy``, ``ref_force``, and names of properties.
    """

    results: pd.DataFrame
    front: pd.DataFrame
    split_errors: PairedErrors | None = None
    studies: Mapping[str, Mapping[str, Any]] = {}
    objectives: Sequence[str] = ("ref_energy", "ref_force")
