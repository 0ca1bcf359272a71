"""A committee of MACE networks as a potential: predictions, error bars, extrapolation grades, an ASE calculator.

A folder holds ``mace.json`` (which networks, of what, how they were trained), ``member_K.model`` (MACE's own files),
and ``mace.committee.h5`` (calibration and grades, as beside linear potentials). Networks are loaded when they are used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from paretofit.core import InputError, hash_file, write_text
from paretofit.potentials.calculator import CommitteeCalculator
from paretofit.potentials.mace.loading import compute_results, limit_torch_threads, load_calculator
from paretofit.potentials.prediction import Prediction
from paretofit.uncertainty import (
    COMMITTEE_SUFFIX,
    Assessment,
    EnvironmentGrade,
    Uncertainty,
    build_assessment,
    read_uncertainty,
    write_committee,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paretofit.core import Array

MACE_FILE, VERSION = "mace.json", 1
COMMITTEE = f"mace{COMMITTEE_SUFFIX}"


@dataclass(frozen=True)
class MacePotential:
    """MACE networks, whose mean is the potential.

    Attributes
    ----------
    models : tuple of Path
        A file for each member.
    elements : tuple of str
    device : {"cpu", "cuda"}
    dtype : {"float32", "float64"}
    uncertainty : Uncertainty or None
        Its calibration, and what it was trained on.
    record : dict
        How it was trained.
    """

    models: tuple[Path, ...]
    elements: tuple[str, ...]
    device: str = "cpu"
    dtype: str = "float64"
    uncertainty: Uncertainty | None = None
    record: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: Path | str) -> MacePotential:
        """Read a committee from its folder, or the ``mace.json`` in it.

        Raises
        ------
        InputError
            If a file is missing or damaged.
        """
        place = Path(path)
        folder = place.parent if place.name == MACE_FILE else place
        try:
            content = json.loads((folder / MACE_FILE).read_text(encoding="utf-8"))
            version, names = content["version"], [str(one) for one in content["models"]]
            own = tuple(str(one) for one in content["elements"]), str(content["device"]), str(content["dtype"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / MACE_FILE} is no complete MACE committee ({error}); train it again") from error
        if version != VERSION:
            raise InputError(f"{folder / MACE_FILE} is of version {version}, this paretofit reads {VERSION}")
        models = tuple(folder / Path(name).name for name in names)
        if missing := [str(one) for one in models if not one.is_file()]:
            raise InputError(f"{missing[0]}, which {folder / MACE_FILE} names, is missing")
        committee = folder / COMMITTEE
        return cls(models, *own, read_uncertainty(committee) if committee.is_file() else None, content)

    def write(self, folder: Path) -> None:
        """Write ``mace.json`` and what is known of the errors; the networks must be in the folder already."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.uncertainty is not None:
            write_committee(folder / COMMITTEE, None, self.uncertainty)
        content = {"version": VERSION, "models": [one.name for one in self.models], "elements": list(self.elements),
                   "device": self.device, "dtype": self.dtype, **(self.record or {})}  # fmt: skip
        write_text(folder / MACE_FILE, json.dumps(content, indent=1) + "\n")

    @property
    def n_members(self) -> int:
        """How many there are."""
        return len(self.models)

    @property
    def n_parameters(self) -> int:
        """Of one network."""
        return sum(int(one.numel()) for one in self.member(0)._loaded().models[0].parameters())  # noqa: SLF001

    @property
    def epochs_text(self) -> str:
        """For how many epochs the members were trained, in words."""
        counts = sorted(int(one["epochs"]) for one in (self.record or {}).get("members", []))
        if not counts:
            return "unknown epochs"
        return f"{counts[0]} epochs" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]} epochs"

    def training_table(self) -> tuple[dict[str, Any], ...]:
        """How each member was trained, errors on the validation set in meV/atom and meV/Å."""
        return tuple(
            {
                "member": k,
                **{name: one[name] for name in ("seed", "epochs", "best_epoch", "stage_two", "stopped_early")},
                "warm_start": one["warm_start"],
                "seconds": one["seconds"],
                "energy": 1000 * one["validation"].get("rmse_e_per_atom", float("nan")),
                "forces": 1000 * one["validation"].get("rmse_f", float("nan")),
            }
            for k, one in enumerate((self.record or {}).get("members", []))
        )

    @property
    def events(self) -> tuple[str, ...]:
        """Which members were replaced, and why; and how many are missing."""
        own = self.record or {}
        told = [
            f"member {k} was replaced once ({one['replaced']})"
            for k, one in enumerate(own.get("members", []))
            if one["replaced"]
        ]
        failed = own.get("failed", 0)
        return (*told, *([f"{failed} members failed twice and are left out"] if failed else []))

    @property
    def digest(self) -> str:
        """Of the networks, wherever they are."""
        return ",".join(hash_file(one) for one in self.models)

    def without_uncertainty(self) -> MacePotential:
        """The potential without what is known of its errors."""
        return replace(self, uncertainty=None)

    def member(self, k: int) -> MacePotential:
        """One member as a potential of its own."""
        if not 0 <= k < len(self.models):
            raise InputError(f"there is no member {k}; the committee has {len(self.models)}")
        return replace(self, models=(self.models[k],), uncertainty=None)

    def predict(self, atoms: Atoms) -> Prediction:
        """Energy (m,), forces (m, N, 3) and stress (m, 6) of every member; eV, eV/Å, eV/Å³.

        Raises
        ------
        InputError
            If an element is not among those of the networks.
        """
        if foreign := sorted(set(atoms.get_chemical_symbols()) - set(self.elements)):
            raise InputError(f"there is no {foreign[0]} in this potential; it has {', '.join(self.elements)}")
        with limit_torch_threads():
            results = compute_results(self._loaded(), atoms)
        m = len(self.models)
        energy = np.asarray(results["energy_comm"] if m > 1 else [results["energy"]], dtype=float)
        forces = np.asarray(results["forces_comm"] if m > 1 else results["forces"][None], dtype=float)
        stress = np.full((m, 6), np.nan)
        if atoms.pbc.all():
            whole = results["stress_comm"] if m > 1 else None
            stress = results["stress"][None] if whole is None else np.array(
                [full_3x3_to_voigt_6_stress(one) for one in whole])  # fmt: skip
        return Prediction(energy, forces, np.asarray(stress, dtype=float))

    def assess(self, atoms: Atoms, *, coverage: float | None = None) -> Assessment:
        """Energy, forces and stress of the mean, with standard deviations, intervals and grades."""
        return self.assess_and_predict(atoms, coverage)[0]

    def assess_and_predict(self, atoms: Atoms, coverage: float | None = None) -> tuple[Assessment, Prediction]:
        """`assess`, and what each member predicts.

        Raises
        ------
        InputError
            If it knows nothing of its errors, or the coverage cannot be had.
        """
        members = self.predict(atoms)
        return build_assessment(members, self._known(), self.compute_grades(atoms), float("nan"), coverage), members

    def compute_grades(self, atoms: Atoms) -> Array:
        """``(N,)``: how far each atom is outside of the training set (γ > 1), by the first member's own features."""
        return self._known().compute_grades(atoms, self.compute_descriptors(atoms))

    def _known(self) -> Uncertainty:
        if self.uncertainty is None:
            raise InputError("this potential knows nothing of its training set; train it with a committee")
        return self.uncertainty

    def compute_descriptors(self, atoms: Atoms) -> Array:
        """``(N, K)``: what the first member knows of each atom, invariant under rotations.

        In double precision: features are so much alike that grades would otherwise be of rounding errors.
        """
        with limit_torch_threads():
            bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            found = replace(self.member(0), dtype="float64")._loaded().get_descriptors(bare, invariants_only=True)  # noqa: SLF001
        return np.asarray(found, dtype=float).reshape(len(atoms), -1)

    def _loaded(self) -> Any:
        return _networks(tuple(str(one) for one in self.models), self.device, self.dtype)

    def calculator(self, *, include_members: bool = False) -> MaceCalculator:
        """An ASE calculator of the mean, with the committee's error bars and grades; see `CommitteeCalculator`."""
        return MaceCalculator(self, include_members=include_members)

    def calculator_factory(self) -> partial[Any]:
        """What makes MACE's own calculator of these networks, here or in another process."""
        return partial(load_calculator, tuple(str(one) for one in self.models), self.device, self.dtype)


def is_mace(path: Path) -> bool:
    """Whether a path is that of a MACE committee."""
    return (path / MACE_FILE).is_file() or (path.name == MACE_FILE and path.is_file())


def read_mace_calculator(folder: str) -> Any:
    """The ASE calculator of the networks in a folder; what ``paretofit validate`` names them by."""
    return MacePotential.read(folder).calculator()


@cache
def _networks(models: tuple[str, ...], device: str, dtype: str) -> Any:
    """Loaded once in each process."""
    return load_calculator(models, device, dtype)


def fit_feature_grades(
    potential: MacePotential, structures: Sequence[Atoms], features: Sequence[Array]
) -> dict[str, Any]:
    """The grade of each element from the training atoms' features, see `MacePotential.descriptors`."""
    symbols = np.concatenate([atoms.get_chemical_symbols() for atoms in structures])
    values = np.concatenate(list(features))
    return {
        one: EnvironmentGrade.from_descriptors(values[symbols == one])
        for one in potential.elements
        if (symbols == one).any()
    }


class MaceCalculator(CommitteeCalculator):
    """ASE calculator of a `MacePotential`; MACE's own computes its mean. See `CommitteeCalculator`."""

    def __init__(self, potential: MacePotential, *, include_members: bool = False) -> None:
        super().__init__(potential, include_members=include_members)
        self._mace = potential.calculator_factory()()

    def _of_mean(self, given: Atoms) -> dict[str, object]:
        found = compute_results(self._mace, given)
        names = ("energy", "forces", *(("stress",) if given.pbc.all() else ()))
        return {name: found[name] for name in names} | {"free_energy": found["energy"]}
