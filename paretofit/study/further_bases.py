"""Further bases of a study: each has a study of its own, with the same split, draws and labels.

The run folder of the study contains the results of the first basis, and a run folder for each further basis in
`BASES_FOLDER`. `BASES_FILE` contains the results of all bases, with a column ``basis``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from paretofit.core import InputError, read_yaml
from paretofit.descriptors import RowsBasis
from paretofit.pareto import BASIS_COLUMN
from paretofit.study.basis_settings import FIRST_BASIS
from paretofit.study.schema import ERROR_OBJECTIVES, Study, load_study

BASES_FOLDER = "bases"
BASES_FILE = "bases.csv"


def derive_studies(study: Study) -> dict[str, Study]:
    """Derive the study of each further basis; return the studies by the name of the basis.

    The derived studies have the settings of `study`, except that networks, cluster, grid labels, further bases, the
    2Jmax of the leverage scores and the MD cost of the first basis are removed. With given rows, properties are
    removed, too, also from the objectives.
    """
    studies = {}
    for entry in study.bases:
        twojmax = entry.list_sizes(study.twojmax)
        basis = entry.apply(study.basis, max(twojmax))
        leverage = study.leverage.model_copy(update={"twojmax": None})
        cost = study.cost.model_copy(update={"md_us_per_atom_step": entry.md_us_per_atom_step})
        changes: dict[str, Any] = {
            "name": f"{study.name}-{entry.name}", "basis": basis, "twojmax": twojmax, "leverage": leverage,
            "cost": cost, "bases": [], "grid_labels": None, "mace": None, "cluster": None,
        }  # fmt: skip
        if isinstance(basis, RowsBasis):  # the structures of properties have no rows in the file
            changes |= {"properties": [], "objectives": [name for name in study.objectives if name in ERROR_OBJECTIVES]}
        studies[entry.name] = study.model_copy(update=changes)
    return studies


def get_basis_folder(folder: Path, name: str | None) -> Path:
    """Return the run folder of a basis: that of the study, `folder`, for the first basis (or None), else one in it."""
    return folder if name in {None, FIRST_BASIS} else folder / BASES_FOLDER / str(name)


def has_potentials(folder: Path) -> bool:
    """Check whether the models of a run can be written as potentials; models of given rows cannot."""
    return not isinstance(load_study(folder / "study.yaml").basis, RowsBasis)


def check_bases(folder: Path) -> None:
    """Raise InputError if the study in a run folder has further bases, but `BASES_FILE` is missing."""
    path = folder / "study.yaml"
    if path.is_file() and (read_yaml(path) or {}).get("bases") and not (folder / BASES_FILE).exists():
        raise InputError(
            f"{folder} is not finished: the stage 'bases' is missing (no {BASES_FILE}); run the same command again to "
            "resume"
        )


def join_bases(results: pd.DataFrame, further_results: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the results of the first basis and of further bases, by name; the first column is the name of the basis."""
    tables = {FIRST_BASIS: results, **further_results}
    joined = pd.concat([table.assign(**{BASIS_COLUMN: name}) for name, table in tables.items()], ignore_index=True)
    return joined[[BASIS_COLUMN, *(name for name in joined if name != BASIS_COLUMN)]]
