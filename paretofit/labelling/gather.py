"""The configurations to label, from the dataset itself and from other files, and the labels they have."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import InputError
from paretofit.dataset import Dataset, Label
from paretofit.dataset.io import is_same_geometry, read_frames, read_labels
from paretofit.dataset.quality import fingerprint_geometry, has_close_atoms
from paretofit.labelling.engines.base import Engine
from paretofit.labelling.label_settings import LabelSettings

FLAT = 1e-6  # Å³
COMPARED = ("cutoff_ev", "kspacing_per_angstrom", "functional", "smearing")


@dataclass
class CollectedData:
    """Configurations by id, in order, and the labels and settings of each level that came with them."""

    configurations: dict[int, Atoms] = field(default_factory=dict)
    labels: dict[str, dict[int, Label]] = field(default_factory=dict)
    level_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    id_by_fingerprint: dict[str, int] = field(default_factory=dict)
    origins: dict[int, str] = field(default_factory=dict)

    @property
    def elements(self) -> list[str]:
        """Chemical symbols of all configurations, sorted."""
        return sorted({symbol for atoms in self.configurations.values() for symbol in atoms.get_chemical_symbols()})

    def add(self, atoms: Atoms, config_id: int | None, origin: str) -> int:
        """Take a configuration in, or find the one that it is; return its id."""
        for what in ("initial_magmoms", "initial_charges"):
            if atoms.has(what) and np.any(atoms.get_array(what)):
                raise InputError(
                    f"{origin} has {what.replace('_', ' ')}, which labels do not take into account; remove them, and "
                    "set what the calculator is to do under the engine's options"
                )
        fingerprint = fingerprint_geometry(atoms)
        if config_id is None:
            config_id = self.id_by_fingerprint.get(fingerprint, max(self.configurations, default=-1) + 1)
        if config_id not in self.configurations:
            info = {key: value for key, value in atoms.info.items() if key != "config_id"}
            kept = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
            self.configurations[config_id], self.origins[config_id] = kept, origin
            self.id_by_fingerprint.setdefault(fingerprint, config_id)
        elif not is_same_geometry(self.configurations[config_id], atoms):
            raise InputError(
                f"{origin}: configuration {config_id} has another geometry than the configuration of that id in an "
                "earlier file; give it an id of its own"
            )
        return config_id


def collect_configurations(settings: LabelSettings, dataset: Path) -> CollectedData:
    """Read the dataset, where there is one, and the files of structures.

    Configurations that carry an id (``config_id``, ``id``, ``configuration_id``) keep it; others are matched by
    their geometry with what is known, and numbered on where they are new. Labels are taken from datasets only.

    Raises
    ------
    InputError
        If a file cannot be read, an id belongs to two geometries, a level that is in a dataset was computed
        with other settings, atoms overlap, or there is nothing to label.
    """
    found = CollectedData()
    sources = ([dataset] if dataset.exists() else []) + settings.structures
    if not sources:
        raise InputError(f"there is nothing to label: {dataset} does not exist and 'structures' names no file")
    for path in sources:
        if path.suffix in {".h5", ".hdf5"}:
            _add_dataset(found, path, settings)
        else:
            frames = read_frames(path, None)
            unknown: list[int | None] = [None] * len(frames.atoms)
            ids = frames.ids or unknown
            for k, (atoms, identity) in enumerate(zip(frames.atoms, ids, strict=True)):
                found.add(atoms, identity, frames.describe_frame(k))
    _check_structures(found, settings.min_distance_ratio, settings.engine.needs_cell)
    return found


def _add_dataset(found: CollectedData, path: Path, settings: LabelSettings) -> None:
    with Dataset(path) as data:
        for atoms in data:
            found.add(atoms, atoms.info["config_id"], str(path))
        wanted = {level.name: level.to_metadata() for level in settings.ladder}
        for name in data.levels:
            recorded = data.settings(name)
            if name in wanted:
                _check_settings(path, name, recorded, wanted[name])
                _check_engine(path, name, recorded, settings.engine)
            found.level_settings.setdefault(name, recorded)
            kept = found.labels.setdefault(name, {})
            complete = data.labels(name).complete
            for k, label in enumerate(read_labels(data, name)):
                if label is not None and (complete[k] or label["status"] == "failed"):  # what is half there is missing
                    kept.setdefault(int(data.ids[k]), label)


def _check_settings(path: Path, name: str, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Labels of one level must be of one kind; what is not recorded cannot be compared."""
    for key in COMPARED:
        if key in recorded and key in wanted and recorded[key] != wanted[key]:
            raise InputError(
                f"{path}: level '{name}' was computed with {key} {recorded[key]}, the ladder says {wanted[key]}; "
                "give the ladder's level another name, or the same settings"
            )


def _check_engine(path: Path, name: str, recorded: dict[str, Any], engine: Engine) -> None:
    """Energies of two programs, or of one with other options, have nothing to do with each other."""
    there = str(recorded.get("engine", "")).split()[:1]
    own = [engine.program]
    if there and there != own:
        raise InputError(
            f"{path}: level '{name}' was computed by {there[0]}, the study's engine is {own[0]}; their energies cannot "
            "be mixed: give the ladder's level another name"
        )
    options = engine.model_dump(mode="json", exclude={"name", "command"}, exclude_defaults=True)
    if there and recorded.get("engine_settings", options) != options:
        raise InputError(
            f"{path}: level '{name}' was computed with the engine's settings {recorded['engine_settings']}, the study "
            f"says {options}; give the ladder's level another name, or the same settings"
        )


def _check_structures(found: CollectedData, closest: float, needs_cell: bool) -> None:
    if not found.configurations:
        raise InputError("the files of structures hold no configurations")
    for identity, atoms in found.configurations.items():
        which = f"{found.origins[identity]}: configuration {identity}"
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell[:]).all()):
            raise InputError(f"{which} has positions or cell vectors that are not finite")
        if atoms.pbc.any() and not atoms.cell[:][atoms.pbc].any(axis=1).all():
            raise InputError(f"{which} is periodic along a cell vector of zero length")
        if needs_cell and abs(np.linalg.det(atoms.cell[:])) < FLAT:
            raise InputError(
                f"{which} has a cell without volume, and plane waves need three cell vectors; give it "
                "a cell with vacuum along directions that are not periodic"
            )
        if closest and has_close_atoms(atoms, closest):
            raise InputError(
                f"{which} has overlapping atoms, closer than {closest:g} of the sum of their covalent "
                "radii; remove it, or lower 'labelling.min_distance_ratio'"
            )
