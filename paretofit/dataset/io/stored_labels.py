"""Adding to a dataset: its levels and labels beside new ones, where nothing that is there may change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paretofit.core import InputError
from paretofit.dataset.dataset import Dataset
from paretofit.dataset.io.structure_files import Frames
from paretofit.dataset.labelled import STATUS_CODES
from paretofit.dataset.writer import Label

SAME = 1e-6  # eV, eV/Å, eV/Å³: files are often written with eight digits
STATES = {number: name for name, number in STATUS_CODES.items()}

LabelColumns = dict[str, list[Label | None]]


def read_existing_dataset(path: Path) -> tuple[Frames, LabelColumns, dict[str, dict[str, Any]]]:
    """A dataset's configurations, all of its labels and the settings of its levels.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    with Dataset(path) as data:
        atoms = list(data)
        for one in atoms:
            del one.info["config_id"]
        frames = Frames(path, atoms, data.ids.tolist())
        labels = {level: read_labels(data, level) for level in data.levels}
        return frames, labels, {level: data.settings(level) for level in data.levels}


def read_labels(data: Dataset, level: str) -> list[Label | None]:
    """Labels of a level as `paretofit.dataset.write_dataset` takes them, also incomplete and failed ones.

    Returns
    -------
    list of mapping or None
        ``energy`` (eV), ``forces`` ((N, 3), eV/Å), ``stress`` ((6,), eV/Å³), ``seconds``, ``status`` and ``info``;
        NaN where a number is missing, None where there is nothing at all.
    """
    labels, records = data.labels(level), data.label_records(level)
    column: list[Label | None] = []
    for k, record in enumerate(records):
        label = {
            "energy": labels.energy[k],
            "forces": labels.forces[labels.offsets[k] : labels.offsets[k + 1]],
            "stress": labels.stress[k],
            "seconds": labels.seconds[k],
        }
        empty = labels.status[k] == STATUS_CODES["missing"] and not record and not _any_finite(label)
        column.append(None if empty else {**label, "status": STATES[int(labels.status[k])], "info": record})
    return column


def _any_finite(label: Mapping[str, Any]) -> bool:
    return any(bool(np.isfinite(value).any()) for value in label.values())


def merge_labels(old: Label | None, new: Label | None, context: str, level: str) -> Label | None:
    """The label to keep: what is there, filled up with what is new.

    Parameters
    ----------
    old, new : mapping or None
    context : str
        File and structure of the new label, for the message.
    level : str

    Raises
    ------
    InputError
        If both say something else of the energy, forces or stress.
    """
    if old is None or new is None:
        return old or new
    if "failed" in {old.get("status"), new.get("status")}:
        return new if old.get("status") == "failed" else old
    merged = dict(old)
    for quantity in ("energy", "forces", "stress"):
        have, given = _numbers(old.get(quantity)), _numbers(new.get(quantity))
        both = np.isfinite(have) & np.isfinite(given)
        difference = np.abs(have - given)[both].max(initial=0.0)
        if difference > SAME:
            raise InputError(
                f"{context}: its {quantity} differs by {difference:.3g} from the one that the dataset has at level "
                f"'{level}'; give the new labels a level of their own, or remove them"
            )
        merged[quantity] = np.where(np.isfinite(have), have, given)
    if not np.isfinite(_numbers(old.get("seconds"))):
        merged["seconds"] = new.get("seconds")
    return {**merged, "status": "done", "info": {**new.get("info", {}), **old.get("info", {})}}


def _numbers(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(np.nan if value is None else value, dtype=np.float64)
