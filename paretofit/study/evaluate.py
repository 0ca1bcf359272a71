"""`paretofit evaluate`: the speed of a potential, and its errors on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from ase import units
from ase.build import bulk

from paretofit.dataset import Dataset
from paretofit.dataset.importer import read_frames
from paretofit.errors import InputError
from paretofit.potentials import LinearPotential
from paretofit.potentials.snap_files import snap_files
from paretofit.sweep.rows import MILLI
from paretofit.validation import MdSpeed, md_speed

if TYPE_CHECKING:
    from ase import Atoms


def evaluate_speed(potential: Path | str, cell: Path | str | None = None) -> MdSpeed:
    """Time LAMMPS with a potential, on one core.

    Parameters
    ----------
    potential : path-like
        A SNAP potential's files.
    cell : path-like, optional
        The structure to time it on, repeated to some 250 atoms; by default the first element's crystal.

    Raises
    ------
    InputError
        If a file cannot be used, or the element has no crystal that ASE knows.
    """
    files = snap_files(Path(potential))
    atoms = _crystal(files.elements[0]) if cell is None else read_frames(Path(cell), None).atoms[0]
    return md_speed(files.commands, files.elements, atoms)


def evaluate_errors(potential: Path | str, dataset: Path | str) -> pd.DataFrame:
    """Errors of a potential on a dataset, against the labels of each level.

    Returns
    -------
    DataFrame
        A row for each level: ``level``, ``configurations``, ``energy_rmse``, ``energy_mae`` (meV/atom), ``force_rmse``,
        ``force_mae`` (meV/Å), ``stress_rmse`` (GPa; NaN where there is none).
    """
    own = LinearPotential.read(potential)
    rows = []
    with Dataset(dataset) as data:
        predicted = [own.predict(atoms) for atoms in data]
        for level in data.levels:
            labels = data.labels(level)
            some = np.flatnonzero(labels.complete)
            energy = [MILLI * (predicted[k].energy - labels.energy[k]) / data.n_atoms[k] for k in some]
            forces = [
                MILLI * (predicted[k].forces - labels.forces[labels.offsets[k] : labels.offsets[k + 1]]) for k in some
            ]
            stress = [(predicted[k].stress - labels.stress[k]) / units.GPa for k in some]
            flat = [np.concatenate([np.ravel(one) for one in [*part, []]]) for part in (energy, forces, stress)]
            rows.append([level, len(some), *_errors(flat[0]), *_errors(flat[1]), _errors(flat[2])[0]])
    columns = ["level", "configurations", "energy_rmse", "energy_mae", "force_rmse", "force_mae", "stress_rmse"]
    return pd.DataFrame(rows, columns=columns)


def _errors(values: np.ndarray) -> tuple[float, float]:
    """Root mean square and mean absolute value of what is known."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    return float(np.sqrt(np.mean(known**2))), float(np.mean(np.abs(known)))


def _crystal(symbol: str) -> Atoms:
    try:
        atoms: Atoms = bulk(symbol)
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"ASE knows no crystal of {symbol}; name a structure with --cell") from error
    return atoms
