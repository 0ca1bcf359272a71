"""Reading of the labels of an existing dataset, and merging with new labels, which never change existing values."""

from pathlib import Path
from typing import Any

import numpy as np

from paretofit.core import Array, InputError
from paretofit.dataset.dataset import Dataset
from paretofit.dataset.io.structure_files import Frames
from paretofit.dataset.labelled import STATUS_CODES
from paretofit.dataset.writer import Label

LABEL_TOLERANCE = 1e-6  # eV, eV/Å, eV/Å³: files are often written with eight digits
STATUS_NAMES = {number: name for name, number in STATUS_CODES.items()}

LabelColumns = dict[str, list[Label | None]]
"""Labels by level, with an entry for each configuration."""


def read_existing_dataset(path: Path) -> tuple[Frames, LabelColumns, dict[str, dict[str, Any]]]:
    """Read the configurations of a dataset, with their ids, all their labels, and the settings of the levels.

    Raises
    ------
    InputError
        If the dataset cannot be read.
    """
    with Dataset(path) as data:
        structures = list(data)
        for atoms in structures:
            del atoms.info["config_id"]
        frames = Frames(path, structures, data.ids.tolist())
        labels = {level: read_labels(data, level) for level in data.levels}
        return frames, labels, {level: data.settings(level) for level in data.levels}


def read_labels(data: Dataset, level: str) -> list[Label | None]:
    """Read all labels of a level, including incomplete and failed ones, in the form that `write_dataset` expects.

    Returns
    -------
    list of mapping or None
        ``energy`` (eV), ``forces`` ((N, 3), eV/Å), ``stress`` ((6,), eV/Å³), ``seconds``, ``status`` and ``info``;
        missing numbers are NaN. None for a configuration without numbers, status and info.

    Raises
    ------
    InputError
        If the dataset lacks the level, or cannot be read.
    """
    labels = data.labels(level)
    column: list[Label | None] = []
    for k, record in enumerate(data.label_records(level)):
        label = {
            "energy": labels.energy[k],
            "forces": labels.forces[labels.offsets[k] : labels.offsets[k + 1]],
            "stress": labels.stress[k],
            "seconds": labels.seconds[k],
        }
        has_numbers = any(np.isfinite(array).any() for array in label.values())
        is_missing = labels.status[k] == STATUS_CODES["missing"] and not record and not has_numbers
        column.append(None if is_missing else {**label, "status": STATUS_NAMES[int(labels.status[k])], "info": record})
    return column


def merge_labels(stored_label: Label | None, new_label: Label, context: str, level: str) -> Label:
    """Merge a new label into an existing label; existing values have priority.

    If the existing label failed, the new one is returned; if only the new one failed, the existing one.

    Parameters
    ----------
    stored_label : mapping or None
        Existing label; None if there is none.
    new_label : mapping
        Label of the same configuration at the same level, with the same order of the atoms.
    context : str
        File and structure of the new label, for the error message.
    level : str

    Returns
    -------
    mapping
        A label in the form that `write_dataset` expects; the labels that are merged remain unchanged.

    Raises
    ------
    InputError
        If the energies, forces or stresses of the labels differ by more than `LABEL_TOLERANCE`.
    """
    if stored_label is None:
        return new_label
    if "failed" in {stored_label.get("status"), new_label.get("status")}:
        return new_label if stored_label.get("status") == "failed" else stored_label
    merged_label = dict(stored_label)
    for quantity in ("energy", "forces", "stress"):
        stored_values = _convert_to_array(stored_label.get(quantity))
        new_values = _convert_to_array(new_label.get(quantity))
        is_shared = np.isfinite(stored_values) & np.isfinite(new_values)
        difference = np.abs(stored_values - new_values)[is_shared].max(initial=0.0)
        if difference > LABEL_TOLERANCE:
            raise InputError(
                f"{context}: its {quantity} at level '{level}' differs by {difference:.3g} from the value in the "
                "dataset; import the new labels as another level, or remove them"
            )
        merged_label[quantity] = np.where(np.isfinite(stored_values), stored_values, new_values)
    if not np.isfinite(_convert_to_array(stored_label.get("seconds"))):
        merged_label["seconds"] = new_label.get("seconds")
    return {**merged_label, "status": "done", "info": {**new_label.get("info", {}), **stored_label.get("info", {})}}


def _convert_to_array(value: Any) -> Array:
    """Convert a quantity of a label to float64; None becomes NaN, which can be compared with an array of any shape."""
    return np.asarray(np.nan if value is None else value, dtype=np.float64)
