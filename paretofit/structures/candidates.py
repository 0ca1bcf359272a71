"""Generated candidates and how they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

Draw = tuple[Atoms, str, str | int | None]  # a structure, how it was made, and its parent, if it has one


Make = Callable[[np.random.Generator], Draw]


@dataclass
class Candidates:
    """What an augmentation made.

    Attributes
    ----------
    structures : list of ase.Atoms
        With ``config_id``, ``config_type``, ``parent`` (the name of the input, or the id of the candidate that it
        was made from), ``made_by`` (how) and ``family`` (shared by those that were made of each other, whatever
        their input: the key by which to keep relatives together in a split) in their info.
    rejected : Counter
        Attempts that the filters refused, by kind and reason.
    given_up : Counter
        Candidates for which no attempt passed, by kind and the most frequent reason.
    skipped : dict
        Kinds that are asked for but impossible with these structures, and why; others take their place.
    """

    structures: list[Atoms] = field(default_factory=list)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    given_up: Counter[tuple[str, str]] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
