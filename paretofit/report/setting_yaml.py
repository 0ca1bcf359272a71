"""YAML of a study for a single setting: the keys of the setting, and the other keys that differ from the defaults."""

import io
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

SETTING_KEYS = ("levels", "twojmax", "weights", "sizes", "sampling_methods", "mixtures")  # determined by the setting
OMITTED_KEYS = frozenset({*SETTING_KEYS, "bases", "labelling", "augmentation"})  # not copied from the original study
UNSAMPLED = "all"  # sampling method of the whole training set in a table; a study may name any method for it

PLAIN_NAME = re.compile(r"[A-Za-z_]\w*|0|[1-9][0-9]*")
YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})  # not text without quotes


def format_setting_keys(row: pd.Series, reference: str) -> str:
    """Format the keys of a study that are determined by its only setting.

    Parameters
    ----------
    row : Series
        ``level``, ``n_train``, ``twojmax``, ``w_energy``, ``w_force`` and ``sampling``. Optional: ``ridge``; the
        columns of a mixture; ``beyond`` (whether ``n_train`` exceeds the size of the training set).
    reference : str
        Name of the reference level.

    Returns
    -------
    str
        Lines of YAML, without a line break at the end.
    """
    label_levels = list_label_levels(row)
    level_names = ", ".join(_quote_name(level) for level in dict.fromkeys([*label_levels, reference]))
    lines = [
        f"levels: [{level_names}]" + ("    # the last is the reference" if label_levels != [reference] else ""),
        f"twojmax: [{int(row['twojmax'])}]",
        f"weights: [[{row['w_energy']:g}, {row['w_force']:g}]]",
    ]
    if len(label_levels) > 1:
        lines += ["sizes: [all]", _format_mixture(row)]
    else:
        sampling = "random" if row["sampling"] == UNSAMPLED else row["sampling"]
        lines += [_format_size(row), f"sampling_methods: [{sampling}]"]
    if "ridge" in row.index:
        lines.append(f"ridge: [{row['ridge']}]")
    return "\n".join(lines)


def list_label_levels(row: pd.Series) -> list[str]:
    """List the levels of the labels that a setting needs, in order of cost: one, or several for a mixture."""
    if pd.isna(row.get("n_base", np.nan)):
        return [str(row["level"])]
    return [str(row[name]) for name in ("base_level", "middle_level", "top_level") if pd.notna(row[name])]


def _format_mixture(row: pd.Series) -> str:
    """Format the mixture of a setting as the key ``mixtures`` of a study."""
    base, *middle, top = [_quote_name(name) for name in list_label_levels(row)]  # `middle` has at most one name
    keys = [f"base: {base}", f"base_sizes: [{int(row['n_base'])}]"]
    if middle:
        keys += [f"middle: {middle[0]}", f"middle_sizes: [{int(row['n_middle'])}]"]
    keys += [f"top: {top}", f"top_sizes: [{int(row['n_train'])}]", f"top_sampling: {row['sampling']}"]
    return f"mixtures: [{{{', '.join(keys)}, base_energy_weight: [{row['base_energy_weight']:g}]}}]"


def _format_size(row: pd.Series) -> str:
    """Format the key ``sizes``; if the size exceeds the training set, this is the whole set, with a comment."""
    if not row.get("beyond", False):
        return f"sizes: [{int(row['n_train'])}]"
    return f"sizes: [all]    # recommended: {int(row['n_train'])}, more than were fitted; label further configurations"


def format_study(row: pd.Series, reference: str, study: Mapping[str, Any] | None) -> str:
    """Format the YAML of a study of one setting.

    Parameters
    ----------
    row, reference
        As in `format_setting_keys`.
    study : mapping or None
        Settings of the original study, as in `format_base_study`; None gives only the keys of the setting.
    """
    base = "" if study is None else format_base_study(study, {*list_label_levels(row), reference})
    if "ridge" in row.index and base:
        # The penalty of the setting replaces that of the study, which `dump_yaml` writes on one line.
        base = "".join(line for line in base.splitlines(keepends=True) if not line.startswith("ridge:"))
    return f"{base}{format_setting_keys(row, reference)}\n"


def format_base_study(study: Mapping[str, Any], levels: Collection[str]) -> str:
    """Format the YAML of a study without the keys that `format_setting_keys` adds.

    The largest 2Jmax of the study is the default of ``basis.twojmax`` and ``leverage.twojmax``, and only the first
    ``ridge`` penalty remains.

    Parameters
    ----------
    study : mapping
        Settings of the original study, as in its YAML file; those that are equal to the defaults should be missing.
    levels : collection of str
        Names of the levels of the setting and of the reference; the costs of other levels are omitted.
    """
    content = {key: value for key, value in study.items() if key not in OMITTED_KEYS and value is not None}
    if study.get("twojmax"):  # leverage scores and descriptors must be the same as in the original study
        max_twojmax = max(study["twojmax"])
        content["basis"] = {"twojmax": max_twojmax, **(study.get("basis") or {})}
        leverage = {key: value for key, value in (study.get("leverage") or {}).items() if value is not None}
        content["leverage"] = {"twojmax": max_twojmax, **leverage}
    if study.get("ridge"):  # the results that the page shows are those of the first penalty
        content["ridge"] = list(study["ridge"])[:1]
    cost = dict(study.get("cost") or {})
    if isinstance(seconds := cost.get("label_seconds"), Mapping):
        content["cost"] = cost | {"label_seconds": {level: seconds[level] for level in seconds if str(level) in levels}}
    return dump_yaml(content)


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Return a mapping as YAML text, with lists of numbers on one line."""
    stream, yaml = io.StringIO(), YAML()
    yaml.default_flow_style = None  # only collections without nested collections are written on one line
    yaml.dump(content, stream)
    return stream.getvalue()


def _quote_name(name: str) -> str:
    """Quote the name of a level, unless YAML reads it as the same text, or as an integer of the same digits."""
    is_plain = PLAIN_NAME.fullmatch(name) is not None and name.lower() not in YAML_WORDS
    return name if is_plain else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
