"""The file ``NAME.training.json`` of a single potential: digests of its training and held-out configurations.

A committee stores these digests in the file of `paretofit.uncertainty.write_committee`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ase import Atoms

from paretofit.core import Array, InputError, hash_array, join_lines, write_text
from paretofit.uncertainty import HELD_OUT, TRAIN, hash_structure

RECORD_SUFFIX = ".training.json"
FILE_VERSION = 1


@dataclass(frozen=True)
class TrainingRecord:
    """Configurations that a potential was fitted to, and those that were held out.

    Attributes
    ----------
    structure_roles : mapping of str to str
        "train" or "held out" for each configuration; the keys are its digests from `hash_structure`.
    level : str
        Convergence level of the labels; may be empty.
    """

    structure_roles: Mapping[str, str]
    level: str = ""

    @classmethod
    def from_structures(cls, training: Iterable[Atoms], held_out: Iterable[Atoms], level: str = "") -> Self:
        """Create a record from the structures; a structure in both sets counts as a training structure."""
        roles = {hash_structure(atoms): HELD_OUT for atoms in held_out}
        return cls(roles | {hash_structure(atoms): TRAIN for atoms in training}, level)

    def write(self, path: Path, coefficients: Array) -> None:
        """Write the record as JSON, with a digest of the coefficients of the potential to which it belongs."""
        digests_by_role = {
            role: sorted(digest for digest, structure_role in self.structure_roles.items() if structure_role == role)
            for role in (TRAIN, HELD_OUT)
        }
        content = {
            "version": FILE_VERSION,
            "level": self.level,
            "coefficients": hash_array(coefficients),
            **digests_by_role,
        }
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path, coefficients: Array) -> Self:
        """Read a record, and check that it belongs to the potential with these coefficients.

        Raises
        ------
        InputError
            If the file is corrupt or of another version, or belongs to a potential with other coefficients.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            roles = {str(digest): role for role in (HELD_OUT, TRAIN) for digest in content[role]}
            version, coefficient_digest, level = content["version"], content["coefficients"], str(content["level"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not a complete training record ({join_lines(error)}); remove it, or fit again"
            ) from error
        if version != FILE_VERSION:
            raise InputError(f"{path} is a training record of version {version}, but this paretofit reads version "
                             f"{FILE_VERSION}; remove it, or fit again")  # fmt: skip
        if coefficient_digest != hash_array(coefficients):
            raise InputError(f"{path} belongs to another potential of the same name; remove it, or fit again")
        return cls(roles, level)
