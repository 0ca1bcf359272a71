"""Interactive view of structures: a map of their descriptors, linked with a viewer of structures (chemiscope)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit.core import Array, InputError, remove_file, write_text
from paretofit.dataset import Dataset
from paretofit.report.figures.candidate_maps import embed_by_pca, tabulate_descriptors
from paretofit.report.page.templates import render_template
from paretofit.structures import build_mean_descriptor_function, list_elements

MAX_STRUCTURES = 300  # number of structures on a map
MAX_ATOMS = 30_000  # number of atoms of all structures on a map; the position of each takes about 30 bytes
N_LARGEST = 25  # number of structures with the largest values that are selected for each ranked column
EVENLY_SPACED = "evenly spaced"  # reason for structures that are selected without regard to a column
REASON_COLUMN = "shown for"
VIEWER_REMEDY = "pip install 'paretofit[viewer]'"
SCRIPT = Path("sphinx", "static", "chemiscope.min.js")  # within the package; it needs no other files
POSITION_DIGITS = 4  # digits after the decimal point of positions and cells in Å
MIN_MAPPED_STRUCTURES = 3  # number of structures that two main components require


@dataclass(frozen=True)
class StructureView:
    """Selected structures with their properties, for a page or a notebook.

    Attributes
    ----------
    title : str
    structures : sequence of ase.Atoms
        At least three structures.
    table : DataFrame
        A row for each structure. A column is a property, which consists of numbers (NaN if unknown) or text; its name
        may end with a unit in brackets. The column `REASON_COLUMN` says why the structure was selected.
    colour : str
        Column of `table` that colours the map.
    """

    title: str
    structures: Sequence[Atoms]
    table: pd.DataFrame
    colour: str

    def write(self, path: Path) -> bool:
        """Write a page that works offline, and return true.

        If chemiscope is not installed, an existing page is removed, because it would show other structures, and the
        result is false.
        """
        if not has_viewer():
            remove_file(path)
            return False
        import chemiscope  # noqa: PLC0415  (an extra, slow to import)

        script = (Path(chemiscope.__file__).parent / SCRIPT).read_text(encoding="utf-8")
        content = chemiscope.create_input(**self._collect_arguments())
        # "<" is escaped, so that no text can end the <script> element.
        data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
        reasons = [reason for reason in dict.fromkeys(self.table[REASON_COLUMN]) if reason != EVENLY_SPACED]
        page = render_template("structures.html", view=self, reasons=reasons, script=script, data=data)
        write_text(path, page)
        return True

    def show(self) -> Any:
        """Return the view as a chemiscope widget for notebooks.

        Raises
        ------
        InputError
            If chemiscope is not installed.
        """
        if not has_viewer():
            raise InputError(f"the viewer of structures requires chemiscope: {VIEWER_REMEDY}")
        import chemiscope  # noqa: PLC0415  (an extra, slow to import)

        return chemiscope.show(**self._collect_arguments())

    def _collect_arguments(self) -> dict[str, Any]:
        """Collect the arguments of chemiscope: structures, properties (with the axes of the map), settings and title.

        Columns of numbers that are all NaN are omitted.
        """
        import chemiscope  # noqa: PLC0415  (an extra, slow to import)

        points = _compute_map(self.structures)
        table = self.table.assign(**{"main component 1": points[:, 0], "main component 2": points[:, 1]})
        columns = [name for name in table if not (_is_number(table[name]) and table[name].isna().all())]
        settings = chemiscope.quick_settings(
            x="main component 1", y="main component 2", map_color=_split_unit(self.colour)[0],
            structure_settings={"unitCell": True, "bonds": False},
        )  # fmt: skip
        return {
            "structures": [_simplify_structure(atoms) for atoms in self.structures],
            "properties": dict(_convert_to_property(str(name), table[name]) for name in columns),
            "settings": settings,
            "metadata": {"name": self.title},
        }


def select_view(
    title: str, structures: Sequence[Atoms] | Dataset, table: pd.DataFrame, ranked: Mapping[str, str]
) -> StructureView | None:
    """Select the structures with the largest absolute values of each ranked column, and others evenly spaced.

    At most `MAX_STRUCTURES` structures with at most `MAX_ATOMS` atoms in total are selected.

    Parameters
    ----------
    title : str
    structures : sequence of ase.Atoms or Dataset
        All structures; only the candidates for the selection are read from a dataset.
    table : DataFrame
        A row for each structure, as in `StructureView`, without `REASON_COLUMN`.
    ranked : mapping of str to str
        Columns of `table`, most important first, with the reason why the structures with their largest absolute values
        are shown. Columns that are missing or have no values are ignored; the first of the others colours the map.

    Returns
    -------
    StructureView or None
        None if there are fewer than three structures, or if no ranked column has a value.
    """
    ranked = {name: reason for name, reason in ranked.items() if name in table and table[name].notna().any()}
    if len(table) < MIN_MAPPED_STRUCTURES or not ranked:
        return None
    reasons: dict[int, str] = {}
    for name, reason in ranked.items():
        # -1 places unknown values after all absolute values.
        largest = np.argsort(-table[name].abs().fillna(-1).to_numpy(), kind="stable")[:N_LARGEST]
        for position in largest.tolist():
            reasons.setdefault(position, reason)
    for position in np.unique(np.linspace(0, len(table) - 1, MAX_STRUCTURES).astype(int)).tolist():
        reasons.setdefault(position, EVENLY_SPACED)
    candidates = list(reasons)[:MAX_STRUCTURES]  # most important first
    sorted_candidates = sorted(candidates)  # adjacent structures of a file are read at once
    candidate_atoms: Iterable[Atoms]
    if isinstance(structures, Dataset):
        candidate_atoms = structures.select(sorted_candidates)
    else:
        candidate_atoms = [structures[position] for position in sorted_candidates]
    atoms_by_position = dict(zip(sorted_candidates, candidate_atoms, strict=True))
    selected: list[Atoms] = []
    positions: list[int] = []
    for position in candidates:
        atoms = atoms_by_position[position]
        if sum(map(len, selected)) + len(atoms) > MAX_ATOMS:
            break
        selected.append(atoms)
        positions.append(position)
    shown = table.iloc[positions].assign(**{REASON_COLUMN: [reasons[position] for position in positions]})
    return StructureView(title, selected, shown.reset_index(drop=True), next(iter(ranked)))


def has_viewer() -> bool:
    """Return whether chemiscope, which draws the map and the structures, is installed."""
    return find_spec("chemiscope") is not None


def _compute_map(structures: Sequence[Atoms]) -> Array:
    """Compute the two main components of the mean descriptors of the structures, ``(n_structures, 2)``."""
    return embed_by_pca(tabulate_descriptors(structures, build_mean_descriptor_function(list_elements(structures))))


def _simplify_structure(atoms: Atoms) -> Atoms:
    """Copy the elements, positions and cell of a structure, with rounded numbers, which halve the size of the page."""
    positions, cell = (np.round(lengths, POSITION_DIGITS) for lengths in (atoms.positions, atoms.cell[:]))
    return Atoms(atoms.numbers, positions, cell=cell, pbc=atoms.pbc)


def _is_number(column: "pd.Series[Any]") -> bool:
    """Return whether a column contains numbers instead of text."""
    return bool(pd.api.types.is_numeric_dtype(column.dtype))


def _convert_to_property(name: str, column: "pd.Series[Any]") -> tuple[str, dict[str, Any]]:
    """Convert a column to a property of chemiscope: its name, and a mapping with its values and unit."""
    label, unit = _split_unit(name)
    values: Any = column.to_numpy(dtype=float) if _is_number(column) else column.astype(str).tolist()
    return label, {"target": "structure", "values": values, **({"units": unit} if unit else {})}


def _split_unit(name: str) -> tuple[str, str]:
    """Split ``"volume (Å³)"`` into name and unit; the unit is empty if the name has none."""
    label, bracket, unit = name.rpartition(" (")
    return (label, unit.removesuffix(")")) if bracket else (name, "")
