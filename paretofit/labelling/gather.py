"""Collection of configurations to label from the dataset and from other files, with their existing labels."""

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
from paretofit.structures import list_elements

MIN_CELL_VOLUME_A3 = 1e-6
COMPARED_SETTINGS = ("cutoff_ev", "kspacing_per_angstrom", "functional", "smearing")


@dataclass
class CollectedData:
    """Configurations by id, in order of appearance, and the stored labels and settings of each level."""

    configurations: dict[int, Atoms] = field(default_factory=dict)
    labels: dict[str, dict[int, Label]] = field(default_factory=dict)
    level_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    ids_by_fingerprint: dict[str, list[int]] = field(default_factory=dict)
    origins: dict[int, str] = field(default_factory=dict)

    @property
    def elements(self) -> list[str]:
        """Chemical symbols of all configurations, sorted."""
        return list_elements(self.configurations.values())

    def add(self, atoms: Atoms, config_id: int | None, origin: str) -> None:
        """Add a configuration, unless it was already added; without an id, it is identified by its geometry.

        Raises
        ------
        InputError
            If it has magnetic moments or charges, or an earlier configuration with its id has another geometry.
        """
        for quantity in ("initial_magmoms", "initial_charges"):
            if atoms.has(quantity) and np.any(atoms.get_array(quantity)):
                raise InputError(
                    f"{origin} has {quantity.replace('_', ' ')}, which labels do not take into account; remove them, "
                    "and set them in the options of the engine"
                )
        ids = self.ids_by_fingerprint.setdefault(fingerprint_geometry(atoms), [])
        if config_id is None:
            # Configurations that differ by a translation have the same fingerprint, but other forces.
            equal_ids = [known_id for known_id in ids if is_same_geometry(self.configurations[known_id], atoms)]
            config_id = equal_ids[0] if equal_ids else max(self.configurations, default=-1) + 1
        if config_id not in self.configurations:
            info = {key: value for key, value in atoms.info.items() if key != "config_id"}
            configuration = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
            self.configurations[config_id], self.origins[config_id] = configuration, origin
            ids.append(config_id)
        elif not is_same_geometry(self.configurations[config_id], atoms):
            raise InputError(
                f"{origin}: configuration {config_id} differs in geometry from the configuration with the same id in "
                "an earlier file; assign another id"
            )


def collect_configurations(settings: LabelSettings, dataset: Path) -> CollectedData:
    """Read the dataset, if it exists, and the files of structures.

    Configurations keep their id (``config_id``, ``id`` or ``configuration_id``). Configurations without an id are
    identified by their geometry, and numbered consecutively if they are new. Labels are read from datasets only.

    Raises
    ------
    InputError
        If a file cannot be read, two geometries have the same id, a level of a dataset was computed with other
        settings, a configuration has magnetic moments, charges, an unsuitable cell or atoms that are too close, or
        there are no configurations.
    """
    collected_data = CollectedData()
    sources = ([dataset] if dataset.exists() else []) + settings.structures
    if not sources:
        raise InputError(
            f"no configurations to label: {dataset} does not exist, and 'structures' lists no file; "
            "add files of structures to it"
        )
    for path in sources:
        if path.suffix in {".h5", ".hdf5"}:
            _add_dataset(collected_data, path, settings)
        else:
            frames = read_frames(path, None)
            for k, atoms in enumerate(frames.atoms):
                collected_data.add(atoms, frames.ids[k] if frames.ids else None, frames.describe_frame(k))
    if not collected_data.configurations:
        raise InputError("the files under 'structures' contain no configurations; list files with structures")
    for config_id, atoms in collected_data.configurations.items():
        _check_structure(atoms, f"{collected_data.origins[config_id]}: configuration {config_id}", settings)
    return collected_data


def _add_dataset(collected_data: CollectedData, path: Path, settings: LabelSettings) -> None:
    with Dataset(path) as data:
        for atoms in data:
            collected_data.add(atoms, atoms.info["config_id"], str(path))
        ladder = {level.name: level.to_metadata() for level in settings.ladder}
        for name in data.levels:
            stored_settings = data.settings(name)
            if name in ladder:
                _check_level(f"{path}: level '{name}'", stored_settings, ladder[name], settings.engine)
            collected_data.level_settings.setdefault(name, stored_settings)
            labels = collected_data.labels.setdefault(name, {})
            is_complete = data.labels(name).is_complete
            for k, label in enumerate(read_labels(data, name)):
                # Incomplete labels count as missing; failed labels are computed again only on request.
                if label is not None and (is_complete[k] or label["status"] == "failed"):
                    labels.setdefault(int(data.ids[k]), label)


def _check_level(level: str, stored_level: dict[str, Any], ladder_level: dict[str, Any], engine: Engine) -> None:
    """Raise `InputError` if the settings, program or options stored with a level differ from the requested ones."""
    for key in COMPARED_SETTINGS:
        if key in stored_level and key in ladder_level and stored_level[key] != ladder_level[key]:
            raise InputError(
                f"{level} was computed with {key} {stored_level[key]}, but the ladder requests "
                f"{ladder_level[key]}; rename the level in the ladder, or use the same settings"
            )
    program, *_ = str(stored_level.get("engine", "")).split() or [""]
    if not program:
        return
    if program != engine.program:
        raise InputError(
            f"{level} was computed by {program}, but the study's engine is {engine.program}, and their energies cannot "
            "be mixed; rename the level in the ladder"
        )
    options = engine.model_dump(mode="json", exclude={"name", "command"}, exclude_defaults=True)
    if stored_level.get("engine_settings", options) != options:
        raise InputError(
            f"{level} was computed with the engine settings {stored_level['engine_settings']}, but the study "
            f"requests {options}; rename the level in the ladder, or use the same settings"
        )


def _check_structure(atoms: Atoms, name: str, settings: LabelSettings) -> None:
    if atoms.pbc.any() and not atoms.cell[:][atoms.pbc].any(axis=1).all():
        raise InputError(
            f"{name} is periodic along a cell vector of zero length; correct the cell, or the periodic directions"
        )
    if settings.engine.needs_cell and abs(np.linalg.det(atoms.cell[:])) < MIN_CELL_VOLUME_A3:
        raise InputError(
            f"{name} has a cell without volume, but plane waves require three cell vectors; set a cell with vacuum "
            "along directions that are not periodic"
        )
    ratio = settings.min_distance_ratio
    if ratio and has_close_atoms(atoms, ratio):
        raise InputError(
            f"{name} has atoms closer than {ratio:g} times the sum of their covalent radii; remove the configuration, "
            "or lower 'labelling.min_distance_ratio'"
        )
