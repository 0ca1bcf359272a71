"""Measurement of the frames of a running trajectory: temperature, pressure, extrapolation grade and predicted errors.

A committee's disagreement is converted to an expected error with the calibration of the committee, so that a trajectory
can be stopped at a frame whose expected error is too large. The extrapolation grade is also checked between frames, see
`paretofit.learning.explore.run_md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import units

from paretofit.core import InputError, hash_json
from paretofit.learning.md_run import MdSnapshot
from paretofit.potentials import DISPLAY_UNITS, KINDS, LinearPotential, MacePotential
from paretofit.uncertainty import Assessment

KBAR = 0.1 * units.GPa  # 1 kbar in eV/Å³
# beginnings of the names of an assessment's attributes, by quantity
ATTRIBUTES = {"energy": "energy", "force": "forces", "stress": "stress"}


@dataclass(frozen=True)
class FrameMonitor:
    """Measurement of frames, and limits of the expected errors above which a trajectory is stopped.

    Attributes
    ----------
    potential : LinearPotential or MacePotential
        Potential whose trajectories are measured; only a committee has grades and error bars.
    calibrations : mapping of str to SlopeCalibration
        Calibrations by quantity (energy, force, stress); a quantity without a calibration has no expected error.
    stop_errors : mapping of str to float
        Expected errors by quantity above which a trajectory is stopped: energy (meV/atom), force (meV/Å), stress (GPa).
        Each of these quantities must have a calibration.
    inputs_digest : str
        Digest of all other inputs of the trajectories, such as the start structures.
    """

    potential: LinearPotential | MacePotential
    calibrations: Mapping[str, Any]
    stop_errors: Mapping[str, float] = field(default_factory=dict)
    inputs_digest: str = ""

    @classmethod
    def for_potential(
        cls, potential: LinearPotential | MacePotential, stop_errors: Mapping[str, float], inputs_digest: str
    ) -> FrameMonitor:
        """Create a monitor; if the potential is a committee, fit its calibrations.

        Quantities with too few held-out configurations are left without a calibration. The parameters are the
        attributes of the same names.
        """
        calibrations, uncertainty = {}, potential.uncertainty
        for quantity, kind in KINDS.items() if uncertainty is not None else ():
            try:
                calibrations[quantity] = uncertainty.fit_calibration(kind)  # type: ignore[union-attr]
            except InputError:
                continue
        return cls(potential, calibrations, stop_errors, inputs_digest)

    @property
    def digest(self) -> str:
        """Digest of the limits and the other inputs; if it changes, finished trajectories are repeated."""
        return hash_json([dict(self.stop_errors), self.inputs_digest])

    def record(self, rows: list[dict[str, float]], snapshot: MdSnapshot, time_ps: float) -> str:
        """Measure a frame, append its row to `rows`, and return the reason to stop, or an empty string.

        For a committee, the array ``extrapolation_grade`` is added to the atoms of the snapshot.

        Parameters
        ----------
        rows : list of dict
            Rows of the trajectory, extended in place. Columns ``time_ps``, ``temperature_k``, ``pressure_kbar`` (NaN
            unless periodic in three directions), ``energy`` (eV/atom), ``volume`` (Å³, or NaN) and, for a committee,
            ``extrapolation_grade`` and for each quantity ``*_std``, ``*_interval`` (root mean squares) and, if
            calibrated, ``*_expected``: meV/atom, meV/Å, GPa.
        snapshot : MdSnapshot
        time_ps : float
            Time of the frame; not positive in the equilibration, in which a trajectory is not stopped.
        """
        atoms, is_bulk = snapshot.atoms, bool(snapshot.atoms.pbc.all())
        row = {
            "time_ps": round(time_ps, 6),
            "temperature_k": snapshot.temperature,
            "pressure_kbar": float("nan"),
            "energy": snapshot.energy / len(atoms),
            "volume": float(atoms.get_volume()) if is_bulk else float("nan"),
        }
        rows.append(row)
        if self.potential.uncertainty is not None:
            assessment = self.potential.assess(atoms)
            atoms.arrays["extrapolation_grade"] = assessment.grades
            row |= self.summarise(assessment)
            stress = assessment.stress
        elif is_bulk:
            # (6,) of a single potential, or (m, 6) of a committee without calibration
            stress = np.reshape(self.potential.predict(atoms).stress, (-1, 6)).mean(axis=0)
        if is_bulk:
            row["pressure_kbar"] = compute_pressure(stress, len(atoms), snapshot.temperature, row["volume"]) / KBAR
        return self._find_problem(row) if time_ps > 0 else ""

    def summarise(self, assessment: Assessment) -> dict[str, float]:
        """Summarise the extrapolation grade and the error bars of a structure in the columns of `record`."""
        row = {"extrapolation_grade": assessment.grade}
        for quantity, kind in KINDS.items():
            factor, _ = DISPLAY_UNITS[kind]
            for suffix in ("std", "interval"):
                components = getattr(assessment, f"{ATTRIBUTES[quantity]}_{suffix}")
                row[f"{quantity}_{suffix}"] = factor * float(np.sqrt(np.mean(np.square(components))))
            if (calibration := self.calibrations.get(quantity)) is not None:
                std = row[f"{quantity}_std"] / factor
                row[f"{quantity}_expected"] = factor * float(calibration.predict_error(std))
        return row

    def _find_problem(self, row: Mapping[str, float]) -> str:
        """Describe the expected error that is above its limit; return an empty string if there is none."""
        for quantity, limit in self.stop_errors.items():
            if (error := row[f"{quantity}_expected"]) > limit:
                return f"the expected {quantity} error reached {error:.3g} {DISPLAY_UNITS[KINDS[quantity]][1]}"
        return ""


def compute_pressure(stress: Any, n_atoms: int, temperature: float, volume: float) -> float:
    """Compute the pressure P = (N - 1) kT / V - tr(σ) / 3 in eV/Å³.

    Parameters
    ----------
    stress : (6,) float64
        Stress σ of the potential in ASE's order, eV/Å³, positive under tension.
    n_atoms : int
        Number of atoms N.
    temperature : float
        Temperature T of the 3N - 3 degrees of freedom, K.
    volume : float
        Volume V, Å³.
    """
    return float((n_atoms - 1) * units.kB * temperature / volume - np.mean(np.asarray(stress)[:3]))
