"""YAML of a study for a single setting: the keys of the setting, and what else differs from the defaults."""

import io
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

SETTING_KEYS = ("levels", "twojmax", "weights", "sizes", "sampling_methods", "mixtures")  # set by every setting
OMITTED_KEYS = frozenset({*SETTING_KEYS, "bases", "labelling", "augmentation"})
UNSAMPLED = "all"  # sampling method of the whole training set; any method selects it


def format_setting_keys(row: pd.Series, reference: str) -> str:
    """Format the keys of a study for exactly one setting.

    Parameters
    ----------
    row : Series
        ``level``, ``n_train``, ``twojmax``, ``w_energy``, ``w_force`` and ``sampling``. Optional: ``ridge``; the
        columns of a mixture; ``beyond`` (whether ``n_train`` exceeds the size of the training set).
    reference : str
        Name of the reference level.
    """
    names = list_label_levels(row)
    levels = ", ".join(_quote_name(level) for level in dict.fromkeys([*names, reference]))
    lines = [
        f"levels: [{levels}]" + ("    # the last is the reference" if names != [reference] else ""),
        f"twojmax: [{int(row['twojmax'])}]",
        f"weights: [[{row['w_energy']:g}, {row['w_force']:g}]]",
    ]
    if len(names) > 1:
        lines += ["sizes: [all]", _format_mixture(row)]
    else:
        sampling = "random" if row["sampling"] == UNSAMPLED else row["sampling"]
        lines += [_format_size(row), f"sampling_methods: [{sampling}]"]
    return "\n".join(lines + ([f"ridge: [{row['ridge']}]"] if "ridge" in row.index else []))


def list_label_levels(row: pd.Series) -> list[str]:
    """List the levels of a setting's labels in order of cost: several for a mixture."""
    if pd.isna(row.get("n_base", np.nan)):
        return [str(row["level"])]
    return [str(row[name]) for name in ("base_level", "middle_level", "top_level") if pd.notna(row[name])]


def _format_mixture(row: pd.Series) -> str:
    """Format the mixture of a setting as an entry of a study."""
    base, *middle, top = [_quote_name(name) for name in list_label_levels(row)]
    parts = [f"base: {base}", f"base_sizes: [{int(row['n_base'])}]"]
    parts += [f"middle: {middle[0]}", f"middle_sizes: [{int(row['n_middle'])}]"] if middle else []
    parts += [f"top: {top}", f"top_sizes: [{int(row['n_train'])}]", f"top_sampling: {row['sampling']}"]
    return f"mixtures: [{{{', '.join(parts)}, base_energy_weight: [{row['base_energy_weight']:g}]}}]"


def _format_size(row: pd.Series) -> str:
    """Format the subset size; the whole training set where the errors of a larger one are extrapolated."""
    if not row.get("beyond", False):
        return f"sizes: [{int(row['n_train'])}]"
    return f"sizes: [all]    # recommended: {int(row['n_train'])}, more than were fitted; label further configurations"


def format_study(row: pd.Series, reference: str, study: Mapping[str, Any] | None) -> str:
    """Format the YAML of a study of one setting, with all keys of `study` that differ from the defaults."""
    base = "" if study is None else format_base_study(study, {*list_label_levels(row), reference})
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
    return dump_yaml(content)


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Write a mapping as YAML, with lists of numbers on one line."""
    stream, yaml = io.StringIO(), YAML()
    yaml.default_flow_style = None
    yaml.dump(content, stream)
    return stream.getvalue()


def _quote_name(name: str) -> str:
    """Quote a name that YAML could read as something else than text or a number."""
    return name if name.replace("_", "").isalnum() else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
