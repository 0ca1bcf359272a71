"""Training data for MACE: extended XYZ files with MACE's keys, and the energies of isolated atoms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from paretofit.core import Array, InputError, atomic_path
from paretofit.dataset import measure_isolation
from paretofit.dataset.io import read_frames
from paretofit.potentials.committee_building import LabelledStructures
from paretofit.potentials.mace.loading import compute_results, load_calculator
from paretofit.potentials.mace.mace_settings import MaceSettings
from paretofit.potentials.prediction import StructureLabels

VOIGT_TO_TENSOR = [0, 5, 4, 5, 1, 3, 4, 3, 2]  # Voigt indices of the components of a 3 × 3 tensor, row by row


@dataclass(frozen=True)
class MaceData:
    """Training and validation set of a network.

    Attributes
    ----------
    training_set, validation_set : LabelledStructures
    sample_weights : (n, 2) float64, optional
        Two factors for each training structure: one multiplies the squared error of the energy in the loss, the other
        those of forces and stress. By default, all factors are 1.
    """

    training_set: LabelledStructures
    validation_set: LabelledStructures
    sample_weights: Array | None = None

    def check(self) -> None:
        """Raise `InputError` unless both sets have a configuration with at least two atoms."""
        for labelled_structures, purpose in ((self.training_set, "train"), (self.validation_set, "validate")):
            if not any(len(atoms) > 1 for atoms in labelled_structures.structures):
                raise InputError(
                    f"no labelled configuration with at least two atoms to {purpose} a network; add labels"
                )

    @property
    def elements(self) -> list[str]:
        """Chemical symbols of the training set in the order of atomic numbers, as in MACE."""
        numbers = {int(z) for atoms in self.training_set.structures for z in atoms.numbers}
        return [chemical_symbols[z] for z in sorted(numbers)]

    @property
    def has_stress(self) -> bool:
        """Whether any training structure that is periodic in three directions has a stress label."""
        pairs = zip(self.training_set.structures, self.training_set.labels, strict=True)
        return any(bool(atoms.pbc.all() and np.isfinite(label.stress).all()) for atoms, label in pairs)

    def write(self, folder: Path, r_max: float) -> tuple[Path, Path]:
        """Write ``train.extxyz`` and ``validate.extxyz`` to `folder`, and return the two paths in this order.

        Isolated atoms are omitted, because their energies are options of MACE. `r_max` is the cutoff of the network, Å.
        """
        paths = folder / "train.extxyz", folder / "validate.extxyz"
        folder.mkdir(parents=True, exist_ok=True)
        sets = (self.training_set, self.sample_weights), (self.validation_set, None)
        for path, (labelled_structures, weights) in zip(paths, sets, strict=True):
            structures, labels = labelled_structures.structures, labelled_structures.labels
            factors = np.ones((len(structures), 2)) if weights is None else weights
            frames = [
                build_mace_frame(atoms, label, pair)
                for atoms, label, pair in zip(structures, labels, factors, strict=True)
                if not measure_isolation(atoms, r_max)
            ]
            _write_frames(path, frames)
        return paths


def build_mace_frame(atoms: Atoms, label: StructureLabels, weights: Sequence[float] | Array = (1.0, 1.0)) -> Atoms:
    """Build a labelled configuration with only the keys that MACE reads.

    `weights` are the two factors in `MaceData.sample_weights`. The stress is omitted if it is unknown or undefined.
    """
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    frame.info = {"REF_energy": float(label.energy), "config_energy_weight": float(weights[0]),
                 "config_forces_weight": float(weights[1]), "config_stress_weight": float(weights[1])}  # fmt: skip
    frame.arrays["REF_forces"] = np.asarray(label.forces, dtype=float)
    if atoms.pbc.all() and np.isfinite(label.stress).all():
        frame.info["REF_stress"] = np.asarray(label.stress, dtype=float)[VOIGT_TO_TENSOR]
    return frame


def write_replay(source: Path, target: Path) -> None:
    """Write the structures of `source` to `target` in the format of MACE; see `read_replay`."""
    _write_frames(target, read_replay(source))


def read_replay(source: Path) -> list[Atoms]:
    """Read structures with energies and forces from a file, as frames with the keys that MACE reads.

    Labels may be the results of a calculator or entries of the file, with or without MACE's prefix ``REF_``. Stresses
    are not read.

    Raises
    ------
    InputError
        If the file cannot be read, or a structure lacks an energy or forces.
    """
    frames = []
    for k, atoms in enumerate(read_frames(source, None).atoms):
        entries = {**atoms.info, **atoms.arrays, **({} if atoms.calc is None else atoms.calc.results)}
        energy, forces = (entries.get(f"REF_{name}", entries.get(name)) for name in ("energy", "forces"))
        if energy is None or forces is None:
            raise InputError(
                f"{source}: structure {k} has no energy or forces, which are required in 'foundation.replay'; "
                "label or remove it"
            )
        frames.append(build_mace_frame(atoms, StructureLabels(float(energy), forces, np.full(6, np.nan))))
    return frames


def _write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write extended XYZ; the file appears only when it is complete."""
    with atomic_path(path) as temporary_path:
        ase.io.write(temporary_path, frames, format="extxyz")


def estimate_atomic_energies(settings: MaceSettings, data: MaceData) -> dict[str, float]:
    """Estimate the energy of an isolated atom of each element, in eV.

    An energy is known if it is in the settings or the label of an isolated atom (see `measure_isolation`). The other
    energies are fitted by least squares: the energies per atom of the training set, minus the contributions of the
    known energies, are fitted to the composition, as with MACE's ``--E0s=average``.

    With a foundation model, known energies are only used if they cover all elements. Otherwise, corrections to the
    isolated-atom energies of the model are fitted to the residuals of its predictions, as with ``--E0s=estimated``.

    Returns
    -------
    dict of str to float
        Energy in eV by element of the training set.

    Raises
    ------
    InputError
        As in `check_foundation`.
    """
    structures, elements = data.training_set.structures, data.elements
    energies = np.array([float(label.energy) for label in data.training_set.labels])
    isolations = [measure_isolation(atoms, settings.r_max) for atoms in structures]  # 0: not an isolated atom
    isolated_rows = sorted((k for k, isolation in enumerate(isolations) if isolation), key=isolations.__getitem__)
    # If an element has several isolated atoms, the label of the last one, in the largest box, remains.
    known_energies = {structures[k].symbols[0]: float(energies[k]) for k in isolated_rows} | settings.isolated_atoms
    known_energies = {symbol: energy for symbol, energy in known_energies.items() if symbol in elements}
    model_energies = dict.fromkeys(elements, 0.0)
    if len(known_energies) < len(elements) and settings.foundation is not None:
        # Known energies are dropped, because the zero of the model's energies may differ from that of the labels.
        model_energies, predictions = _predict_with_foundation(settings, data)
        energies, known_energies = energies - predictions, {}
    unknown_columns = [k for k, symbol in enumerate(elements) if symbol not in known_energies]
    if unknown_columns:
        rows = [k for k, isolation in enumerate(isolations) if not isolation]
        counts = np.array([[structures[k].symbols.count(symbol) for symbol in elements] for k in rows])
        fractions = counts / counts.sum(axis=1, keepdims=True)
        known_contributions = fractions @ [known_energies.get(symbol, 0.0) for symbol in elements]
        residuals = energies[rows] / counts.sum(axis=1) - known_contributions
        solution = np.linalg.lstsq(fractions[:, unknown_columns], residuals, rcond=None)[0]
        known_energies |= {elements[k]: float(energy) for k, energy in zip(unknown_columns, solution, strict=True)}
    return {symbol: model_energies[symbol] + known_energies[symbol] for symbol in elements}


def _predict_with_foundation(settings: MaceSettings, data: MaceData) -> tuple[dict[str, float], Array]:
    """Predict energies with the foundation model.

    Returns
    -------
    isolated_energies : dict of str to float
        Energy of an isolated atom of each element of the model, eV.
    energies : (n,) float64
        Total energy of each training structure, eV.

    Raises
    ------
    InputError
        As in `check_foundation`.
    """
    calculator = check_foundation(settings, data.elements)
    table = np.atleast_2d(calculator.models[0].atomic_energies_fn.atomic_energies.cpu().numpy())
    head_index = list(calculator.available_heads).index(calculator.head) if len(table) > 1 else 0
    isolated_energies = dict(zip(_list_elements(calculator), table[head_index].tolist(), strict=True))
    structures = data.training_set.structures
    return isolated_energies, np.array([float(compute_results(calculator, atoms)["energy"]) for atoms in structures])


def check_foundation(settings: MaceSettings, elements: Sequence[str]) -> Any:
    """Check the foundation model and its replay file; return MACE's calculator of the model, or None if there is none.

    Raises
    ------
    InputError
        If a file is invalid, the model lacks the head or an element, or the mode is "multihead" for a model with a
        single element (MACE fails for such a model).
    """
    foundation = settings.foundation
    if foundation is None:
        return None
    calculator: Any = load_calculator([str(foundation.file)], settings.device, settings.dtype, head=foundation.head)
    symbols, heads = _list_elements(calculator), calculator.available_heads
    if foundation.head is not None and foundation.head not in heads:
        raise InputError(
            f"'foundation.head' is '{foundation.head}', but {foundation.file} has {', '.join(heads)}; "
            "choose one of these"
        )
    if unknown_elements := [symbol for symbol in elements if symbol not in symbols]:
        problem = f"the foundation model {foundation.file} does not contain {unknown_elements[0]}"
        raise InputError(f"{problem}; available elements: {', '.join(symbols)}")
    if foundation.mode == "multihead" and len(symbols) < 2:
        raise InputError(
            f"'mode: multihead' requires a model with at least two elements; {foundation.file} has only {symbols[0]}"
        )
    if foundation.replay is not None:
        read_replay(foundation.replay)
    return calculator


def _list_elements(calculator: Any) -> list[str]:
    """List the chemical symbols of the elements of MACE's calculator, in the order of its arrays."""
    return [chemical_symbols[int(z)] for z in calculator.z_table.zs]
