"""Generated candidates, with descriptions of how each was made."""

from collections import Counter
from dataclasses import dataclass, field

from ase import Atoms

Draw = tuple[Atoms, str, str | int | None]  # a structure, how it was made, and its parent as in `Candidates.add`


@dataclass
class Candidates:
    """Result of an augmentation.

    Attributes
    ----------
    structures : list of ase.Atoms
        Candidates. Their ``info`` contains ``config_id``, ``config_type`` (kind), ``input`` (name of the input from
        which the candidate descends), ``parent`` (name of the input, or id of the candidate, from which it was made),
        ``made_by`` (description), and ``family`` (equal for candidates that were made from each other; a split must not
        divide such a group). Clusters and free atoms have no ``input`` and ``parent``.
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
        """Add a copy of a structure as a candidate, and return the copy.

        Parameters
        ----------
        atoms : ase.Atoms
            Structure; its ``info``, and arrays other than numbers and positions, are not copied.
        kind : str
        parent : str, int or None
            Name of the input, or id of the candidate, from which the structure was made; None if it has no parent.
        made_by : str
            Description of how the structure was made.
        """
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
