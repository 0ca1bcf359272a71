"""Columns of results tables that describe mixtures of levels, and texts about their training sets."""

import numpy as np
import pandas as pd

# Columns of results tables that are read as text, because levels and penalties are names.
TEXT_COLUMNS = dict.fromkeys(("level", "ridge", "base_level", "middle_level", "top_level", "basis"), str)
# What identifies a mixture besides its name in ``level`` and its size; missing for fits of a single level.
MIXTURE_COLUMNS = ("base_level", "n_base", "middle_level", "n_middle", "top_level", "base_energy_weight")


def find_mixtures(table: pd.DataFrame) -> pd.Series:
    """Return a mask of the rows that are mixtures of levels."""
    return table["n_base"].notna() if "n_base" in table else pd.Series(data=False, index=table.index)


def describe_size(row: pd.Series) -> str:
    """Describe the training set of a setting: ``"96 configurations"``, of a mixture for each of its levels."""
    if pd.isna(row.get("n_base", np.nan)):
        return f"{int(row['n_train'])} configurations"
    columns = (("n_base", "base_level"), ("n_middle", "middle_level"), ("n_train", "top_level"))
    parts = [f"{int(row[size])} at level {row[level]}" for size, level in columns if pd.notna(row[size])]
    first, _, remainder = parts[0].partition(" ")
    return f"{', '.join([f'{first} configurations {remainder}', *parts[1:-1]])} and {parts[-1]}"


def format_size(row: pd.Series) -> str:
    """Format the number of configurations of a setting; of a mixture, those of each level, such as ``"298 + 40"``."""
    sizes = [row[name] for name in ("n_base", "n_middle", "n_train") if pd.notna(row.get(name))]
    return " + ".join(f"{int(size):,}" for size in sizes)
