"""YAML of a study for a single setting: the keys of the setting, and what else differs from the defaults."""

import io
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

SETTING_KEYS = ("levels", "twojmax", "weights", "sizes", "sampling_methods")  # set by every setting
OMITTED_KEYS = frozenset({*SETTING_KEYS, "labelling", "augmentation"})
UNSAMPLED = "all"  # sampling method of the whole training set; any method selects it


def format_setting_keys(row: pd.Series, reference: str) -> str:
    """Format the keys of a study for exactly one setting.

    Parameters
    ----------
    row : Series
        ``level``, ``n_train``, ``twojmax``, ``w_energy``, ``w_force``, ``sampling`` and, optionally, ``ridge`` and
        ``beyond``, whether ``n_train`` is more than the training set.
    reference : str
        Name of the reference level.
    """
    levels = ", ".join(_quote_name(level) for level in dict.fromkeys([str(row["level"]), reference]))
    sampling = "random" if row["sampling"] == UNSAMPLED else row["sampling"]
    lines = [
        f"levels: [{levels}]" + ("    # the last is the reference" if str(row["level"]) != reference else ""),
        f"twojmax: [{int(row['twojmax'])}]",
        f"weights: [[{row['w_energy']:g}, {row['w_force']:g}]]",
        _format_size(row),
        f"sampling_methods: [{sampling}]",
    ]
    return "\n".join(lines + ([f"ridge: [{row['ridge']}]"] if "ridge" in row.index else []))


def _format_size(row: pd.Series) -> str:
    """Format the subset size; the whole training set where the errors of a larger one are extrapolated."""
    if not row.get("beyond", False):
        return f"sizes: [{int(row['n_train'])}]"
    return f"sizes: [all]    # recommended: {int(row['n_train'])}, more than were fitted; label further configurations"


def format_study(row: pd.Series, reference: str, study: Mapping[str, Any] | None) -> str:
    """Format the YAML of a study of one setting, with all keys of `study` that differ from the defaults."""
    base = "" if study is None else format_base_study(study, {str(row["level"]), reference})
    if "ridge" in row.index and base:
        base = "".join(line for line in base.splitlines(keepends=True) if not line.startswith("ridge:"))
    return f"{base}{format_setting_keys(row, reference)}\n"


def format_base_study(study: Mapping[str, Any], levels: Collection[str]) -> str:
    """Format the YAML of a study of some levels, without the keys that a setting replaces.

    Parameters
    ----------
    study : mapping
        Settings as in a YAML file; those that are equal to the defaults should be missing.
    levels : collection of str
        Names of the level of the setting and of the reference.
    """
    content = {key: value for key, value in study.items() if key not in OMITTED_KEYS and value is not None}
    if study.get("twojmax"):  # leverage scores and descriptors must be the same as in the complete study
        max_twojmax = max(study["twojmax"])
        content["basis"] = {"twojmax": max_twojmax, **(study.get("basis") or {})}
        leverage = {key: value for key, value in (study.get("leverage") or {}).items() if value is not None}
        content["leverage"] = {"twojmax": max_twojmax, **leverage}
    if study.get("ridge"):  # the results of the page are those of the first penalty
        content["ridge"] = list(study["ridge"])[:1]
    cost = dict(study.get("cost") or {})
    if isinstance(seconds := cost.get("label_seconds"), Mapping):
        content["cost"] = cost | {"label_seconds": {key: seconds[key] for key in seconds if str(key) in levels}}
    stream, yaml = io.StringIO(), YAML()
    yaml.default_flow_style = None  # lists of numbers on one line
    yaml.dump(content, stream)
    return stream.getvalue()


def _quote_name(name: str) -> str:
    """Quote a name that YAML could read as something else than text or a number."""
    return name if name.replace("_", "").isalnum() else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
