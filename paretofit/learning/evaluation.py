"""How good the committee of an iteration is: errors of every labelled configuration, by set, and of every member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from paretofit.descriptors import map_structures
from paretofit.learning.selection import PROPERTIES
from paretofit.learning.sets import TEST, TRAIN, VALIDATE
from paretofit.potentials import tabulate_components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

    from paretofit.learning.model import Committee
    from paretofit.potentials import StructureLabels

SET_NAMES = (TRAIN, VALIDATE, TEST)
FIRST_TEST = "first_test"  # of the first iteration: the one that does not become harder


@dataclass(frozen=True)
class CommitteeErrors:
    """Errors of a committee on labelled configurations.

    Attributes
    ----------
    table : DataFrame
        A row for each: ``id, set, iteration, n_atoms, extrapolation_grade``, and by property ``*_std`` (disagreement),
        ``*_committee_error`` (equation 2) and ``*_error`` (root mean square of the mean's error); meV/atom, meV/Å,
        meV/Å³; NaN where there is no label.
    components : DataFrame
        Of the validation and test sets: ``configuration`` (row of the table), ``quantity, label, prediction, error``.
    rmse : dict of str to dict
        By set and property: ``value`` of the potential (the members' mean), and ``members`` and ``spread``, mean and
        standard deviation of what the members have by themselves.
    """

    table: pd.DataFrame
    components: pd.DataFrame
    rmse: dict[str, dict[str, dict[str, float]]]


def evaluate_committee(
    committee: Committee,
    structures: Sequence[Atoms],
    labels: Sequence[StructureLabels],
    records: pd.DataFrame,
    *,
    jobs: int = 1,
    progress: bool = False,
) -> CommitteeErrors:
    """Compare a committee with labels on the energy scale of the best level.

    Parameters
    ----------
    committee : Committee
    structures : sequence of ase.Atoms
    labels : sequence of Labels
    records : DataFrame
        ``id, set, iteration`` of each.
    """
    pairs = list(zip(structures, labels, strict=True))
    found = map_structures(_compare, committee, pairs, "errors", jobs, progress)
    squares = np.array([one["squares"] for one in found]).reshape(len(found), -1, len(PROPERTIES))
    counts = np.array([one["counts"] for one in found]).reshape(len(found), len(PROPERTIES))
    table = records.reset_index(drop=True).assign(n_atoms=[len(atoms) for atoms in structures])
    table["extrapolation_grade"] = [one["grade"] for one in found]
    for k, name in enumerate(PROPERTIES):
        table[f"{name}_std"] = [one["spread"][k] for one in found]
        table[f"{name}_committee_error"] = 1000 * np.sqrt(squares[:, :, k].mean(axis=1))
        table[f"{name}_error"] = [one["error"][k] for one in found]
    rmse = {}
    for name in (*SET_NAMES, FIRST_TEST):
        own = (table["set"] == name.removeprefix("first_")).to_numpy()
        if name == FIRST_TEST:
            own = own & (table["iteration"] == 1).to_numpy()
        weighted = np.nansum(squares[own] * counts[own][:, None, :], axis=0) / np.maximum(counts[own].sum(axis=0), 1)
        there = counts[own].sum(axis=0) > 0
        members = np.where(there, 1000 * np.sqrt(weighted), np.nan)
        errors = table.loc[own, [f"{one}_error" for one in PROPERTIES]].to_numpy()
        whole = np.nansum(errors**2 * counts[own], axis=0) / np.maximum(counts[own].sum(axis=0), 1)
        value = np.where(there, np.sqrt(whole), np.nan)
        rmse[name] = {
            one: {
                "value": float(value[k]),
                "members": float(members[:, k].mean()),
                "spread": float(members[:, k].std()),
            }
            for k, one in enumerate(PROPERTIES)
        }
    parts = [one["components"].assign(configuration=k) for k, one in enumerate(found) if table["set"][k] != TRAIN]
    components = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"quantity": []})
    return CommitteeErrors(table, components, rmse)


def _compare(committee: Committee, pair: tuple[Atoms, StructureLabels]) -> dict[str, Any]:
    """One structure; runs in a worker."""
    atoms, label = pair
    assessed, members = committee.assess_members(atoms)
    n = len(atoms)
    values = (members.energy[:, None] / n, members.forces.reshape(len(members.forces), -1), members.stress)
    truth = (np.atleast_1d(label.energy) / n, np.ravel(label.forces), np.ravel(label.stress))
    squares, counts, spread, error = [], [], [], []
    for own, true in zip(values, truth, strict=True):
        here = np.isfinite(true) & np.isfinite(own).all(axis=0)
        counts.append(int(here.sum()))
        squares.append(((own - true) ** 2)[:, here].mean(axis=1) if here.any() else np.full(len(own), np.nan))
        error.append(1000 * float(np.sqrt(np.mean((own.mean(axis=0) - true)[here] ** 2))) if here.any() else np.nan)
        finite = np.isfinite(own).all(axis=0)
        spread.append(1000 * float(np.sqrt(own[:, finite].var(axis=0).mean())) if finite.any() else np.nan)
    return {
        "squares": np.transpose(squares),
        "counts": counts,
        "spread": spread,
        "error": error,
        "grade": assessed.grade,
        "components": tabulate_components(label, assessed, n),
    }
