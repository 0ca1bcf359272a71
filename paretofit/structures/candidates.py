"""Generated candidates and descriptions of how they were made."""

from collections import Counter
from dataclasses import dataclass, field

from ase import Atoms

Draw = tuple[Atoms, str, str | int | None]  # a structure, how it was made, and its parent, if any


@dataclass
class Candidates:
    """Result of an augmentation.

    Attributes
    ----------
    structures : list of ase.Atoms
        Candidates, with the info ``config_id``, ``config_type``, ``input`` (name of the input that it descends from),
        ``parent`` (name of the input, or id of the candidate from which it was made), ``made_by`` (description) and
        ``family`` (equal for candidates that were made from each other; a split must not divide such a group).
    rejected : Counter
        Attempts that the filters rejected, by kind and reason.
    given_up : Counter
        Candidates for which every attempt failed, by kind and most frequent reason.
    skipped : dict
        Reasons why requested kinds are impossible with these structures; other kinds replace their candidates.
    """

    structures: list[Atoms] = field(default_factory=list)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    given_up: Counter[tuple[str, str]] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, atoms: Atoms, kind: str, parent: str | int | None, made_by: str) -> Atoms:
        """Add a copy of `atoms` as a candidate, and return it; only the info listed above is kept."""
        config_id = len(self.structures)
        info = {"config_id": config_id, "config_type": kind, "made_by": made_by}
        if isinstance(parent, int):
            info |= {key: value for key, value in self.structures[parent].info.items() if key in {"family", "input"}}
        else:
            info |= {"family": config_id} | ({} if parent is None else {"input": parent})
        info |= {} if parent is None else {"parent": parent}
        candidate = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
        self.structures.append(candidate)
        return candidate
