"""Columns of results tables that describe mixtures of levels, and texts about their training sets."""

import numpy as np
import pandas as pd

# Types (dtype of pandas.read_csv) of the columns of results tables that are read as text, because they hold names.
TEXT_COLUMNS = dict.fromkeys(("level", "ridge", "base_level", "middle_level", "top_level", "basis"), str)
# Columns that describe a mixture, in addition to its name in ``level`` and the number of configurations at its top
# level in ``n_train``. Their fields are empty for fits of a single level.
MIXTURE_COLUMNS = ("base_level", "n_base", "middle_level", "n_middle", "top_level", "base_energy_weight")


def find_mixtures(table: pd.DataFrame) -> pd.Series:
    """Return a mask of the rows that are mixtures of levels; all false if the table has no columns of mixtures."""
    return table["n_base"].notna() if "n_base" in table else pd.Series(data=False, index=table.index)


def describe_size(row: pd.Series) -> str:
    """Describe the size of a setting's training set.

    Parameters
    ----------
    row : Series
        ``n_train``, and the columns `MIXTURE_COLUMNS` if the setting is a mixture.

    Returns
    -------
    str
        Such as ``"96 configurations"``, or for a mixture ``"298 configurations at level 4 and 40 at level 5"``.
    """
    if pd.isna(row.get("n_base", np.nan)):
        return f"{int(row['n_train'])} configurations"
    columns = (("n_base", "base_level"), ("n_middle", "middle_level"), ("n_train", "top_level"))
    base, *further = [(int(row[size]), f"at level {row[level]}") for size, level in columns if pd.notna(row[size])]
    texts = [f"{base[0]} configurations {base[1]}", *(f"{size} {place}" for size, place in further)]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def format_size(row: pd.Series) -> str:
    """Format the number of configurations of a setting: ``"96"``, or for the levels of a mixture ``"298 + 40"``."""
    sizes = [row[name] for name in ("n_base", "n_middle", "n_train") if pd.notna(row.get(name))]
    return " + ".join(f"{int(size):,}" for size in sizes)
