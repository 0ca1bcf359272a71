"""Files of a linear potential of any family: their names, and the LAMMPS commands that use them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from paretofit.core import Array, InputError, list_first, read_text
from paretofit.descriptors import LinearBasis, ReferencePotential
from paretofit.potentials.dispersion import overlay_commands
from paretofit.potentials.lammps_words import check_potential_name, quote_path, split_words
from paretofit.potentials.training_record import RECORD_SUFFIX
from paretofit.uncertainty import COMMITTEE_SUFFIX

Basis = TypeVar("Basis", bound=LinearBasis)
STYLES = ("snap", "pod")  # pair styles of linear potentials, with the suffixes .STYLEcoeff and .STYLEparam
INCLUDE_SUFFIX = ".mod"
LINEAR_SUFFIXES = (INCLUDE_SUFFIX, *(f".{style}{part}" for style in STYLES for part in ("coeff", "param")))


@dataclass(frozen=True)
class PotentialFiles:
    """Paths of the files of a potential.

    Attributes
    ----------
    coefficients, parameters, include : Path
        ``NAME.snapcoeff``, ``NAME.snapparam`` (``.podcoeff`` and ``.podparam`` for POD), and ``NAME.mod`` with the
        lines for a LAMMPS script.
    elements : list of str
        Element of each LAMMPS atom type, in order.
    reference : ReferencePotential or None
        Reference potential of the fit, which the commands add as an overlay.
    style : {"snap", "pod"}
        LAMMPS's pair style of the linear model.
    """

    coefficients: Path
    parameters: Path
    include: Path
    elements: list[str]
    reference: ReferencePotential | None = None
    style: str = "snap"

    @property
    def commands(self) -> list[str]:
        """Lines of a LAMMPS script (``pair_style``, ``pair_coeff``), with absolute paths."""
        return self.format_commands(self.coefficients.resolve(), self.parameters.resolve())

    def format_commands(self, coefficients: Path | str, parameters: Path | str) -> list[str]:
        """Format the lines of a LAMMPS script with these paths, quoted by `quote_path`, whose errors are raised."""
        paths = [quote_path(coefficients), quote_path(parameters)]
        if self.style == "pod":  # pair style pod reads the parameters first
            paths.reverse()
        lines = [f"pair_style {self.style}", f"pair_coeff * * {' '.join(paths)} {' '.join(self.elements)}"]
        return lines if self.reference is None else overlay_commands(self.reference.commands, lines)

    def format_include(self) -> str:
        """Format the text of the ``.mod`` file, which names the other files without a path."""
        masses = [float(atomic_masses[atomic_numbers[symbol]]) for symbol in self.elements]
        lines = [f"# include this file in its directory; atom types are {', '.join(self.elements)}, units metal"]
        lines += [f"mass {k} {mass:.6g}" for k, mass in enumerate(masses, start=1)]
        lines += self.format_commands(self.coefficients.name, self.parameters.name)
        return "\n".join(lines) + "\n"


def name_files(
    folder: Path, name: str, coefficients: Array, style: str, elements: list[str], reference: ReferencePotential | None
) -> PotentialFiles:
    """Return the paths of the files that a potential will have, after a check of its name and coefficients.

    Raises
    ------
    InputError
        If a potential cannot have the name, or a coefficient is not finite.
    """
    check_potential_name(name)
    if not np.isfinite(coefficients).all():
        raise InputError(f"the potential '{name}' has coefficients that are not finite; fit it again with a ridge")
    coefficient_file, parameter_file = (folder / f"{name}.{style}{part}" for part in ("coeff", "param"))
    return PotentialFiles(
        coefficient_file, parameter_file, folder / f"{name}{INCLUDE_SUFFIX}", elements, reference, style
    )


def reduce_basis(basis: Basis, n_columns: int) -> Basis:
    """Return the basis with a 2Jmax that is reduced such that the basis has `n_columns` columns.

    Raises
    ------
    InputError
        If the basis has this number of columns at no 2Jmax.
    """
    twojmax_by_size = {
        basis.count_columns_up_to(twojmax): twojmax for twojmax in range(basis.twojmax, basis.min_size - 1, -1)
    }
    if n_columns not in twojmax_by_size:
        raise InputError(
            f"no 2Jmax of the basis has {n_columns} coefficients; available numbers: {sorted(twojmax_by_size)}"
        )
    return basis.resize(twojmax_by_size[n_columns])


def list_potential_files(folder: Path | str, name: str) -> list[Path]:
    """List the paths of all files that a potential may have, with or without a committee; they need not exist."""
    return [Path(folder) / f"{name}{suffix}" for suffix in (*LINEAR_SUFFIXES, COMMITTEE_SUFFIX, RECORD_SUFFIX)]


def resolve_potential_paths(path: Path) -> tuple[Path, Path, Path]:
    """Return the paths of the coefficients, the parameters and the ``.mod`` file of a potential.

    Parameters
    ----------
    path : Path
        One of these files, or a directory with a single potential.

    Raises
    ------
    InputError
        If `path` does not belong to a potential, a directory has no or several potentials, or the file of coefficients
        or parameters is missing. The ``.mod`` file may be missing.
    """
    if path.is_dir():
        candidates = sorted(file for style in STYLES for file in path.glob(f"*.{style}coeff"))
        if len(candidates) != 1:
            names = list_first([file.name for file in candidates], 5) or "none"
            raise InputError(
                f"{path} must contain exactly one .snapcoeff or .podcoeff file; found: {names}; specify the file"
            )
        path = candidates[0]
    if path.suffix not in LINEAR_SUFFIXES:
        raise InputError(
            f"{path} is not a SNAP or POD potential; specify a .snapcoeff, .podcoeff or .mod, or a directory"
        )
    is_pod = path.suffix.startswith(".pod") or (
        path.suffix == INCLUDE_SUFFIX and path.with_suffix(".podcoeff").is_file()
    )
    style = "pod" if is_pod else "snap"
    files = tuple(path.with_suffix(suffix) for suffix in (f".{style}coeff", f".{style}param", INCLUDE_SUFFIX))
    for file in files[:2]:
        if not file.is_file():
            raise InputError(
                f"no file at {file}; a {style.upper()} potential requires a .{style}coeff and a .{style}param of the "
                "same name"
            )
    return files[0], files[1], files[2]


def read_words(path: Path) -> list[list[str]]:
    """Read a file, and split its lines into words; comments and empty lines are omitted.

    If the file cannot be read, an `InputError` is raised.
    """
    split_lines = map(split_words, read_text(path, "file of a potential").splitlines())
    return [words for words in split_lines if words]


def read_reference(include: Path) -> ReferencePotential | None:
    """Read the reference potential from a ``.mod`` file.

    The reference potential has all styles of the overlay except those of linear potentials. Return None if the file
    does not exist, or its pair style is not ``hybrid/overlay``.
    """
    if not include.is_file():
        return None
    lines = read_words(include)
    style_words = next((words[1:] for words in lines if words[0] == "pair_style"), [])
    if len(style_words) < 2 or style_words[0] != "hybrid/overlay":
        return None
    pair_style = " ".join(word for word in style_words if word not in STYLES)
    # In a hybrid style, the name of the style follows the two types.
    pair_coeffs = [words[1:] for words in lines if words[0] == "pair_coeff" and not {*STYLES} & {*words[3:4]}]
    return ReferencePotential(pair_style, tuple(" ".join(words) for words in pair_coeffs))
