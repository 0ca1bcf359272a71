"""`paretofit properties`: write the structures whose labels are the references of a study's properties."""

from dataclasses import dataclass
from pathlib import Path

from paretofit import study
from paretofit.core import InputError, check_new_paths
from paretofit.dataset import Dataset
from paretofit.dataset.io import write_structures
from paretofit.properties import build_properties, list_property_structures


@dataclass(frozen=True)
class PropertyStructures:
    """Written structures of the properties of a study.

    Attributes
    ----------
    path : Path
        Extended XYZ file.
    n_structures, n_atoms : int
        Numbers of structures and of atoms in all structures.
    level : str
        Reference level, at which the structures have to be labelled.
    """

    path: Path
    n_structures: int
    n_atoms: int
    level: str


def write_property_structures(
    source: study.Study | Path | str, *, out: Path | str = "properties.extxyz", overwrite: bool = False
) -> PropertyStructures:
    """Write the structures of a study's properties that lack labels, so that `paretofit label` can label them.

    Parameters
    ----------
    source : Study or path-like
        Study, or its YAML file.
    out : path-like
        Extended XYZ file to write.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    InputError
        If the study cannot be read, no structure has to be labelled, a structure cannot be used, or the file exists.
    """
    settings = source if isinstance(source, study.Study) else study.load_study(source)
    if not settings.properties:
        name = "the study" if isinstance(source, study.Study) else source
        raise InputError(
            f"{name} has no section 'properties', so that no structure has to be labelled; add 'properties'"
        )
    if settings.property_labels is not None and not settings.property_labels.exists():
        settings = settings.model_copy(update={"property_labels": None})  # will be created from these structures
    path = Path(out)
    check_new_paths([path], overwrite=overwrite)
    dataset = Dataset(settings.dataset)
    level = (settings.levels or dataset.levels)[-1]
    entries = [entry for entry in settings.properties if entry.reference is None]
    properties = build_properties(entries, dataset, settings.basis.elements)
    structures = list_property_structures(properties, study.open_reference_datasets(settings, dataset), level)
    if not structures:
        raise InputError(
            "no structure has to be labelled: every property of the study has a 'reference', or labels of all of its "
            "structures"
        )
    write_structures(path, structures)
    return PropertyStructures(path, len(structures), sum(map(len, structures)), level)


def format_property_structures(result: PropertyStructures) -> str:
    """Format the number of structures and the next steps, with a study for `paretofit label`, as plain text."""
    text = (
        f"{result.path}: {result.n_structures} structures, {result.n_atoms} atoms. Label them at level {result.level}, "
        "with a stress, by 'paretofit label' and a study such as the following; then name its dataset in "
        "'property_labels'."
    )
    stem = result.path.with_suffix("")
    return f"{text}\n\ndataset: {stem}.h5\nlabelling:\n  structures: [{result.path}]\n  levels: [{result.level}]"
