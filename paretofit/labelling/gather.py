"""Collection of configurations to label and of existing labels, from the dataset and from other files."""

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

MIN_CELL_VOLUME_A3 = 1e-6  # Å³, below which cell vectors are linearly dependent
COMPARED_SETTINGS = ("cutoff_ev", "kspacing_per_angstrom", "functional", "smearing")  # of levels with the same name


@dataclass
class CollectedData:
    """Configurations to label, and the labels that datasets already contain.

    Attributes
    ----------
    configurations : dict of int to ase.Atoms
        Configurations by id, in order of appearance.
    labels : dict of str to dict of int to dict
        Stored labels, failed ones included, by level and id.
    level_settings : dict of str to dict
        Stored settings of each level.
    ids_by_fingerprint : dict of str to list of int
        Ids of the configurations that have the same `fingerprint_geometry`.
    origins : dict of int to str
        File, and for some formats the frame, of each configuration, for error messages.
    """

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
        """Add a copy of a configuration (geometry and info), unless one with its id was added before.

        Parameters
        ----------
        atoms : ase.Atoms
        config_id : int or None
            Id of the configuration; None: that of an earlier configuration with the same geometry, or the next free id.
        origin : str
            File or frame of the configuration, for error messages.

        Raises
        ------
        InputError
            If `atoms` has magnetic moments or charges, or an earlier configuration with this id has another geometry.
        """
        for quantity in ("initial_magmoms", "initial_charges"):
            if atoms.has(quantity) and np.any(atoms.get_array(quantity)):
                raise InputError(
                    f"{origin} has {quantity.replace('_', ' ')}, which labels do not take into account; remove them, "
                    "and set them in the options of the engine"
                )
        ids = self.ids_by_fingerprint.setdefault(fingerprint_geometry(atoms), [])
        if config_id is None:
            # Configurations that differ by a translation have the same fingerprint, but are not the same geometry.
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
    """Collect configurations and labels from the dataset, if it exists, and from the files in 'structures'.

    Configurations keep their id (``config_id``, ``id`` or ``configuration_id``). Without an id, a configuration
    gets that of an earlier configuration with the same geometry, or the next free id. Labels are read from datasets
    only.

    Raises
    ------
    InputError
        If a file cannot be read, two geometries have the same id, a level of a dataset was computed by another program
        or with other settings, a configuration has magnetic moments, charges, an unsuitable cell or atoms that are too
        close, or there are no configurations.
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
    """Add the configurations, level settings and labels of a dataset to `collected_data`; earlier labels are kept."""
    with Dataset(path) as dataset:
        for atoms in dataset:
            collected_data.add(atoms, atoms.info["config_id"], str(path))
        ladder = {level.name: level.to_metadata() for level in settings.ladder}
        for name in dataset.levels:
            stored_settings = dataset.settings(name)
            if name in ladder:
                _check_level(f"{path}: level '{name}'", stored_settings, ladder[name], settings.engine)
            collected_data.level_settings.setdefault(name, stored_settings)
            labels = collected_data.labels.setdefault(name, {})
            is_complete = dataset.labels(name).is_complete
            for k, label in enumerate(read_labels(dataset, name)):
                # Incomplete labels count as missing. Failed labels are kept: they are recomputed only on request.
                if label is not None and (is_complete[k] or label["status"] == "failed"):
                    labels.setdefault(int(dataset.ids[k]), label)


def _check_level(level: str, stored_level: dict[str, Any], ladder_level: dict[str, Any], engine: Engine) -> None:
    """Raise `InputError` if the settings, program or options stored with a level differ from the requested ones.

    `level` is a description of the level for the message, `stored_level` and `ladder_level` are its settings in the
    dataset and in the ladder. What is not stored is not compared.
    """
    for key in COMPARED_SETTINGS:
        if key in stored_level and key in ladder_level and stored_level[key] != ladder_level[key]:
            raise InputError(
                f"{level} was computed with {key} {stored_level[key]}, but the ladder requests "
                f"{ladder_level[key]}; rename the level in the ladder, or use the same settings"
            )
    program, *_ = str(stored_level.get("engine", "")).split() or [""]  # the first word, before the version
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


def _check_structure(atoms: Atoms, description: str, settings: LabelSettings) -> None:
    """Raise `InputError` if the cell does not suit the periodic directions or the engine, or atoms are too close."""
    if atoms.pbc.any() and not atoms.cell[:][atoms.pbc].any(axis=1).all():
        raise InputError(
            f"{description} is periodic along a cell vector of zero length; correct the cell, or the periodic "
            "directions"
        )
    if settings.engine.needs_cell and abs(np.linalg.det(atoms.cell[:])) < MIN_CELL_VOLUME_A3:
        raise InputError(
            f"{description} has a cell without volume, but plane waves require three cell vectors; set a cell with "
            "vacuum along directions that are not periodic"
        )
    ratio = settings.min_distance_ratio
    if ratio and has_close_atoms(atoms, ratio):
        raise InputError(
            f"{description} has atoms closer than {ratio:g} times the sum of their covalent radii; remove the "
            "configuration, or lower 'labelling.min_distance_ratio'"
        )
