"""Committees of MACE networks as potentials: predictions, error bars, extrapolation grades and an ASE calculator.

The directory of a potential contains ``mace.json`` (names and signed digests of the networks, elements and a record of
the training), ``member_K.model`` (MACE's files) and ``mace.committee.h5`` (calibration and grades, in the format of
linear potentials). Networks are loaded when they are first used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress

from paretofit.core import Array, InputError, hash_file, raise_if_system_error, write_text
from paretofit.potentials.calculator import CommitteeCalculator
from paretofit.potentials.committee_potential import CommitteePotential
from paretofit.potentials.mace.loading import compute_results, limit_torch_threads, load_calculator
from paretofit.potentials.mace.model_trust import check_trust, permit_unpickling, sign_digests
from paretofit.potentials.prediction import Prediction, check_elements
from paretofit.uncertainty import COMMITTEE_SUFFIX, Uncertainty, read_uncertainty, write_committee

MACE_FILE, FILE_VERSION = "mace.json", 1
COMMITTEE_FILE = f"mace{COMMITTEE_SUFFIX}"


@dataclass(frozen=True)
class MacePotential(CommitteePotential):
    """A committee of MACE networks; the mean of their predictions is the potential.

    Attributes
    ----------
    models : tuple of Path
        File of each member.
    elements : tuple of str
        Chemical symbols of the elements.
    device : {"cpu", "cuda"}
    dtype : {"float32", "float64"}
        Floating-point type in which the networks are evaluated.
    uncertainty : Uncertainty or None
        Calibration and training set; None if they are unknown.
    record : dict or None
        Record of the training, as in ``mace.json``; None if it is unknown.
    """

    models: tuple[Path, ...]
    elements: tuple[str, ...]
    device: str = "cpu"
    dtype: str = "float64"
    uncertainty: Uncertainty | None = None
    record: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: Path | str, *, allow_pickle: bool = False) -> MacePotential:
        """Read a committee from its directory, or from the ``mace.json`` in it.

        Parameters
        ----------
        path : path-like
        allow_pickle : bool
            Accept networks that were not trained by this user on this computer. Loading them can run any code.

        Raises
        ------
        InputError
            If a file is missing or corrupt, or networks are not trusted (see `allow_pickle`).
        """
        folder = Path(path).parent if Path(path).name == MACE_FILE else Path(path)
        record_file = folder / MACE_FILE
        try:
            record = json.loads(record_file.read_text(encoding="utf-8"))
            _check_record(record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise_if_system_error(error, record_file)
            raise InputError(f"{record_file} is not a complete MACE committee ({error}); train it again") from error
        models = tuple(folder / Path(name).name for name in record["models"])
        elements, device, dtype = tuple(record["elements"]), record["device"], record["dtype"]
        if missing_files := [str(model) for model in models if not model.is_file()]:
            raise InputError(
                f"{missing_files[0]}, which is listed in {record_file}, does not exist; restore it from a copy"
            )
        with permit_unpickling(allow_pickle):
            check_trust(record_file, list(map(hash_file, models)), record.get("sha256"), record.get("signature"))
        committee_file = folder / COMMITTEE_FILE
        uncertainty = read_uncertainty(committee_file) if committee_file.is_file() else None
        return cls(models, elements, device, dtype, uncertainty, record)

    def write(self, folder: Path) -> None:
        """Write the uncertainty and ``mace.json`` with signed digests of the networks, which must already exist."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.uncertainty is not None:
            write_committee(folder / COMMITTEE_FILE, None, self.uncertainty)
        digests = list(map(hash_file, self.models))
        content = {"version": FILE_VERSION, "models": [model.name for model in self.models],
                   "elements": list(self.elements), "device": self.device, "dtype": self.dtype,
                   **(self.record or {}), "sha256": digests, "signature": sign_digests(digests)}  # fmt: skip
        write_text(folder / MACE_FILE, json.dumps(content, indent=1) + "\n")

    @property
    def n_members(self) -> int:
        """Number of networks."""
        return len(self.models)

    @property
    def n_parameters(self) -> int:
        """Number of parameters of one network."""
        network = self.get_member(0)._load_calculator().models[0]  # noqa: SLF001  (the same class)
        return sum(int(parameter.numel()) for parameter in network.parameters())

    @property
    def _member_records(self) -> list[dict[str, Any]]:
        """Record of the training of each member; an empty list if the records are unknown."""
        return list((self.record or {}).get("members", []))

    @property
    def epochs_text(self) -> str:
        """Number of training epochs of the members, as text."""
        epochs = sorted(int(record["epochs"]) for record in self._member_records)
        if not epochs:
            return "unknown epochs"
        return f"{epochs[0]} epochs" if epochs[0] == epochs[-1] else f"{epochs[0]} to {epochs[-1]} epochs"

    def build_training_table(self) -> tuple[dict[str, Any], ...]:
        """Build a table with a row for the training of each member; empty if the records are unknown.

        The columns are ``member``, entries of `TrainedMember.record`, and the validation errors ``energy`` (meV/atom)
        and ``forces`` (meV/Å).
        """
        names = ("seed", "epochs", "best_epoch", "stage_two", "stopped_early", "warm_start", "seconds")
        return tuple(
            {
                "member": k,
                **{name: record[name] for name in names},
                "energy": 1000 * record["validation"].get("rmse_e_per_atom", float("nan")),
                "forces": 1000 * record["validation"].get("rmse_f", float("nan")),
            }
            for k, record in enumerate(self._member_records)
        )

    @property
    def events(self) -> tuple[str, ...]:
        """Messages about members that were replaced, and about the number of missing members."""
        events = [
            f"member {k} was replaced once ({record['replaced']})"
            for k, record in enumerate(self._member_records)
            if record["replaced"]
        ]
        n_failed = (self.record or {}).get("failed", 0)
        return (*events, *([f"members that failed twice and are missing: {n_failed}"] if n_failed else []))

    @property
    def digest(self) -> str:
        """Digests of the files of the networks as one string, independent of the location of the files."""
        return ",".join(hash_file(model) for model in self.models)

    def without_uncertainty(self) -> MacePotential:
        """Return the committee without its uncertainty."""
        return replace(self, uncertainty=None)

    def get_member(self, k: int) -> MacePotential:
        """Return member `k` (from 0) as a single potential; raise `InputError` if there is none."""
        if not 0 <= k < len(self.models):
            raise InputError(f"unknown member {k}; the committee has members 0 to {len(self.models) - 1}")
        return replace(self, models=(self.models[k],), uncertainty=None)

    def predict(self, atoms: Atoms) -> Prediction:
        """Predict energy ``(m,)``, forces ``(m, N, 3)`` and stress ``(m, 6)`` with every member, in eV, eV/Å and eV/Å³.

        A single network also has the axis of members, with m = 1.

        Raises
        ------
        InputError
            If the networks lack an element, or MACE is not installed.
        """
        check_elements(atoms, self.elements)
        # The calculator is loaded first, because without torch, this raises an error that says what to install.
        calculator = self._load_calculator()
        with limit_torch_threads():
            results = compute_results(calculator, atoms)
        if len(self.models) > 1:
            energy, forces = results["energy_comm"], results["forces_comm"]
            stress = [*map(full_3x3_to_voigt_6_stress, results["stress_comm"])] if atoms.pbc.all() else None
        else:
            energy, forces = [results["energy"]], results["forces"][None]
            stress = results["stress"][None] if atoms.pbc.all() else None
        shape = (len(self.models), 6)
        return Prediction(
            np.asarray(energy, dtype=float),
            np.asarray(forces, dtype=float),
            np.full(shape, np.nan) if stress is None else np.asarray(stress, dtype=float),
        )

    def compute_descriptors(self, atoms: Atoms) -> Array:
        """Compute the invariant features of each atom in the first member, ``(N, K) float64``.

        They are computed in double precision, because the features of different atoms are so similar that rounding
        errors of float32 would dominate the grades.
        """
        calculator = replace(self.get_member(0), dtype="float64")._load_calculator()  # noqa: SLF001  (the same class)
        with limit_torch_threads():
            # MACE would use entries of `atoms.info`, such as a charge.
            structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            features = calculator.get_descriptors(structure, invariants_only=True)
        return np.asarray(features, dtype=float).reshape(len(atoms), -1)

    def _load_calculator(self) -> Any:
        """Return MACE's calculator for the networks, which is loaded at the first call in each process."""
        return _load_cached(tuple(map(str, self.models)), self.device, self.dtype)

    def create_calculator(self, *, include_members: bool = False) -> MaceCalculator:
        """Create an ASE calculator of the mean, with error bars and grades; see `CommitteeCalculator`."""
        return MaceCalculator(self, include_members=include_members)

    def get_calculator_factory(self) -> partial[Any]:
        """Return a picklable function without arguments that loads a new calculator of MACE for the networks."""
        return partial(load_calculator, tuple(map(str, self.models)), self.device, self.dtype)


def is_mace(path: Path) -> bool:
    """Return whether a path is the directory of a MACE committee or the ``mace.json`` in it."""
    return (path / MACE_FILE).is_file() or (path.name == MACE_FILE and path.is_file())


def _check_record(record: dict[str, Any]) -> None:
    """Raise `ValueError`, `KeyError` or `TypeError` if a record does not describe a committee."""
    if record["version"] != FILE_VERSION:
        raise ValueError(f"its version is {record['version']}, and this version of paretofit reads {FILE_VERSION}")
    for key in ("models", "elements"):
        values = record[key]
        if not (isinstance(values, list) and values and all(isinstance(value, str) and value for value in values)):
            raise ValueError(f"'{key}' must be a non-empty list of names; got {values!r}")
        if len(set(values)) != len(values):
            raise ValueError(f"'{key}' has an entry twice")
    if unknown_elements := [symbol for symbol in record["elements"] if not atomic_numbers.get(symbol)]:
        raise ValueError(f"'{unknown_elements[0]}' is not a chemical symbol")
    for key, choices in {"device": ("cpu", "cuda"), "dtype": ("float32", "float64")}.items():
        if record[key] not in choices:
            raise ValueError(f"'{key}' must be one of {', '.join(choices)}, not {record[key]!r}")


@cache
def _load_cached(models: tuple[str, ...], device: str, dtype: str) -> Any:
    """Load networks; repeated calls in a process return the same calculator."""
    return load_calculator(models, device, dtype)


class MaceCalculator(CommitteeCalculator):
    """ASE calculator of a `MacePotential` that computes the mean with MACE; see `CommitteeCalculator`."""

    def __init__(self, potential: MacePotential, *, include_members: bool = False) -> None:
        super().__init__(potential, include_members=include_members)
        self._mace = potential.get_calculator_factory()()

    def _compute_mean(self, atoms: Atoms) -> dict[str, object]:
        """Compute energy, forces and, if the structure is periodic in three directions, stress with MACE."""
        results = compute_results(self._mace, atoms)
        names = ("energy", "forces", "stress") if atoms.pbc.all() else ("energy", "forces")
        return {name: results[name] for name in names} | {"free_energy": results["energy"]}
