"""Generated candidates and how they were made."""

from collections import Counter
from dataclasses import dataclass, field

from ase import Atoms

Draw = tuple[Atoms, str, str | int | None]  # a structure, how it was made, and its parent, if it has one


@dataclass
class Candidates:
    """Result of an augmentation.

    Attributes
    ----------
    structures : list of ase.Atoms
        Their info has ``config_id``, ``config_type``, ``parent`` (the name of the input, or the id of the candidate
        that it was made from), ``made_by`` (how) and ``family`` (shared by those that were made from each other,
        whatever their input: the group that a train/test split must not divide).
    rejected : Counter
        Attempts that the filters rejected, by kind and reason.
    given_up : Counter
        Candidates for which no attempt passed, by kind and the most frequent reason.
    skipped : dict
        Kinds that are requested but impossible with these structures, and why; others take their place.
    """

    structures: list[Atoms] = field(default_factory=list)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    given_up: Counter[tuple[str, str]] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, atoms: Atoms, kind: str, parent: str | int | None, how: str) -> Atoms:
        """Add a candidate of a kind without its other info; return it."""
        config_id = len(self.structures)
        info = {"config_id": config_id, "config_type": kind, "made_by": how}
        info |= {} if parent is None else {"parent": parent}
        info["family"] = self.structures[parent].info["family"] if isinstance(parent, int) else config_id
        candidate = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
        self.structures.append(candidate)
        return candidate
