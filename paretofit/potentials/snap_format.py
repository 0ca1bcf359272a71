"""A fitted linear model as LAMMPS's SNAP files: ``.snapcoeff``, ``.snapparam`` and the lines that use them.

LAMMPS keeps the components of an element in its own order and the products row by row behind them; our columns are in
nested order (see `paretofit.linear.reduction`). This module is where one becomes the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from paretofit.core import InputError, write_text
from paretofit.descriptors import ReferencePotential, SnapBasis

if TYPE_CHECKING:
    from pathlib import Path

    from paretofit.core import Array


# Of a .snapparam, as LAMMPS has them.
DEFAULTS = {
    "rfac0": 0.99363,
    "rmin0": 0.0,
    "bzeroflag": 1.0,
    "switchflag": 1.0,
    "quadraticflag": 0.0,
    "chemflag": 0.0,
    "bnormflag": 0.0,
    "wselfallflag": 0.0,
}


@dataclass(frozen=True)
class SnapFiles:
    """Where a potential's files are.

    Attributes
    ----------
    coefficients, parameters, include : Path
        ``NAME.snapcoeff``, ``NAME.snapparam``, and ``NAME.mod`` with the lines for a LAMMPS script.
    elements : list of str
        In the order of LAMMPS's atom types.
    reference : ReferencePotential or None
        What the model was fitted on top of, overlaid.
    """

    coefficients: Path
    parameters: Path
    include: Path
    elements: list[str]
    reference: ReferencePotential | None = None

    @property
    def commands(self) -> list[str]:
        """``pair_style`` and ``pair_coeff``, with absolute paths."""
        return self.format_commands(f'"{self.coefficients.resolve()}"', f'"{self.parameters.resolve()}"')

    def format_commands(self, coefficients: str, parameters: str) -> list[str]:
        """The lines of a script that use the two files under these names."""
        used = f"{coefficients} {parameters} {' '.join(self.elements)}"
        if self.reference is None:
            return ["pair_style snap", f"pair_coeff * * {used}"]
        style, coeffs = overlay(self.reference)
        return [f"pair_style {style} snap", *(f"pair_coeff {one}" for one in coeffs), f"pair_coeff * * snap {used}"]


def overlay(reference: ReferencePotential) -> tuple[str, list[str]]:
    """A reference potential as sub-styles of ``hybrid/overlay``: the style, and the coefficients of each sub-style."""
    style, *_ = reference.pair_style.split()
    if style == "hybrid/overlay":
        return reference.pair_style, list(reference.pair_coeffs)
    if style.startswith("hybrid"):
        raise InputError(f"a reference potential of style {style} cannot be overlaid; write it as hybrid/overlay")
    split = [one.split() for one in reference.pair_coeffs]
    return f"hybrid/overlay {reference.pair_style}", [" ".join([*one[:2], style, *one[2:]]) for one in split]


def write_snap(
    folder: Path, name: str, basis: SnapBasis, coefficients: Array, *, reference: ReferencePotential | None = None
) -> SnapFiles:
    """Write a fitted model as a LAMMPS potential.

    Parameters
    ----------
    folder : Path
        Made if need be.
    name : str
        Of the files.
    basis : SnapBasis
        Of the largest 2Jmax; the model may be one of a smaller 2Jmax.
    coefficients : (p,) float64
        In nested order, p being the number of columns up to some 2Jmax; eV and, for products, eV.
    reference : ReferencePotential, optional
        Overlaid in the include file.

    Returns
    -------
    SnapFiles

    Raises
    ------
    InputError
        If there is no 2Jmax with so many columns, or a coefficient is not finite.
    """
    model = _model_basis(basis, len(coefficients))
    if not np.isfinite(coefficients).all():
        raise InputError(f"the potential '{name}' has coefficients that are not finite; fit it again with a ridge")
    files = SnapFiles(
        folder / f"{name}.snapcoeff",
        folder / f"{name}.snapparam",
        folder / f"{name}.mod",
        list(model.elements),
        reference,
    )
    write_text(files.coefficients, _coefficient_text(model, coefficients))
    write_text(files.parameters, _parameter_text(model))
    write_text(files.include, _include_text(files))
    return files


def to_lammps_coefficients(basis: SnapBasis, coefficients: Array) -> Array:
    """Coefficients in LAMMPS's order, ``(n_elements, 1 + K [+ K(K+1)/2])``: constant, components, products.

    With chemflag several components are equal, and a fit may share a coefficient among them in any way. LAMMPS's energy
    does not depend on how, but its forces are the energy's gradient only if equal components have equal coefficients
    (``SNA::compute_yi`` takes one for another), so they are shared out evenly.
    """
    n_elements, K = len(basis.elements), basis.n_components
    local = np.empty(basis.n_features - n_elements)
    local[basis.column_order] = coefficients[n_elements:]  # element by element: linear, then upper triangle
    order, share = basis.component_order, _shared(basis)
    table = np.empty((n_elements, 1 + len(local) // n_elements))
    for element, values in enumerate(local.reshape(n_elements, -1)):
        linear = np.empty(K)
        linear[order] = values[:K]
        linear = share @ linear
        table[element, 0] = coefficients[element]
        table[element, 1 : K + 1] = linear
        if basis.quadratic:
            products = np.zeros((K, K))
            rows, columns = np.triu_indices(K)
            products[order[rows], order[columns]] = values[K:]
            products = share @ (products + products.T - np.diag(np.diag(products))) @ share
            table[element, K + 1 :] = products[rows, columns]
    return table


def _shared(basis: SnapBasis) -> Array:
    """``(K, K)``: the mean over equal components, in LAMMPS's order; the identity without chemflag."""
    K = basis.n_components
    if not basis.chemflag:
        return np.eye(K)
    equal: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for k, (e1, e2, e3, j1, j2, j) in enumerate(basis.lammps_components):
        equal.setdefault(tuple(sorted([(j1, e1), (j2, e2), (j, e3)])), []).append(k)
    mean = np.zeros((K, K))
    for members in equal.values():
        mean[np.ix_(members, members)] = 1 / len(members)
    return mean


def _model_basis(basis: SnapBasis, columns: int) -> SnapBasis:
    """The basis of the 2Jmax that has so many columns."""
    sizes = {basis.columns_up_to(twojmax): twojmax for twojmax in range(basis.twojmax, -1, -1)}
    if columns not in sizes:
        raise InputError(f"{columns} coefficients belong to no 2Jmax of the basis; there are {sorted(sizes)}")
    return SnapBasis(**{**basis.model_dump(), "twojmax": sizes[columns]})  # a copy would keep what is cached


def _coefficient_text(basis: SnapBasis, coefficients: Array) -> str:
    table = to_lammps_coefficients(basis, coefficients)
    lines = ["# SNAP coefficients written by paretofit", f"{len(basis.elements)} {table.shape[1]}"]
    for symbol, radius, weight, values in zip(basis.elements, basis.radelem, basis.wj, table, strict=True):
        lines.append(f"{symbol} {radius!r} {weight!r}")
        lines += [f"{value:.17g}" for value in values.tolist()]
    return "\n".join(lines) + "\n"


def _parameter_text(basis: SnapBasis) -> str:
    settings = {
        "rcutfac": repr(basis.rcutfac),
        "twojmax": basis.twojmax,
        "rfac0": repr(basis.rfac0),
        "rmin0": repr(basis.rmin0),
        "bzeroflag": int(basis.bzeroflag),
        "switchflag": int(basis.switchflag),
        "quadraticflag": int(basis.quadratic),
        "chemflag": int(basis.chemflag),
        "bnormflag": int(basis.bnormflag),
        "wselfallflag": int(basis.wselfallflag),
    }
    lines = [f"{key} {value}" for key, value in settings.items()]
    return "\n".join(["# SNAP parameters written by paretofit", *lines]) + "\n"


def _include_text(files: SnapFiles) -> str:
    masses = [float(atomic_masses[atomic_numbers[symbol]]) for symbol in files.elements]
    lines = [f"# include this where the two files are; atom types are {', '.join(files.elements)}, units metal"]
    lines += [f"mass {k} {mass:.6g}" for k, mass in enumerate(masses, start=1)]
    lines += files.format_commands(files.coefficients.name, files.parameters.name)
    return "\n".join(lines) + "\n"


def read_snap(path: Path) -> tuple[SnapBasis, Array, ReferencePotential | None]:
    """Read the LAMMPS files of a SNAP potential.

    Parameters
    ----------
    path : Path
        ``.mod``, ``.snapcoeff`` or ``.snapparam``, or a folder that holds one potential. The reference potential is
        that of the ``.mod`` beside them, where there is one.

    Returns
    -------
    basis : SnapBasis
    coefficients : (n_features,) float64
        In nested order.
    reference : ReferencePotential or None

    Raises
    ------
    InputError
        If a file is missing, or is not of a SNAP potential.
    """
    coefficients, parameters, include = resolve_snap_paths(path)
    settings = _read_parameters(parameters)
    elements, table = _read_coefficients(coefficients)
    known = {"rcutfac", "twojmax", *DEFAULTS}
    for key in set(settings) - known:
        if float(settings[key]) != 0:
            raise InputError(f"{parameters}: '{key} {settings[key]}' is not supported; it must be 0")
    values = {**DEFAULTS, **{key: float(value) for key, value in settings.items()}}
    basis = SnapBasis(
        elements=[symbol for symbol, _, _ in elements],
        radelem=[radius for _, radius, _ in elements],
        wj=[weight for _, _, weight in elements],
        twojmax=int(values["twojmax"]),
        quadratic=bool(values["quadraticflag"]),
        **{key: values[key] for key in ("rcutfac", "rfac0", "rmin0")},
        **{key: bool(values[key]) for key in ("bzeroflag", "switchflag", "chemflag", "bnormflag", "wselfallflag")},
    )
    width = 1 + (basis.n_features - len(elements)) // len(elements)
    if table.shape[1] != width:
        raise InputError(
            f"{coefficients} has {table.shape[1]} coefficients for each element, {parameters} asks {width}"
        )
    return basis, nested_coefficients(basis, table), _read_reference(include)


def read_snap_files(path: Path) -> SnapFiles:
    """The files of a potential that is there already, as `read_snap` finds them."""
    basis, _, reference = read_snap(path)
    return SnapFiles(*resolve_snap_paths(path), list(basis.elements), reference)


def nested_coefficients(basis: SnapBasis, table: Array) -> Array:
    """The inverse of `to_lammps_coefficients`: ``(n_elements, 1 + K [+ K(K+1)/2])`` to ``(n_features,)``."""
    n_elements, K, order = len(basis.elements), basis.n_components, basis.component_order
    local = []
    for values in table:
        parts = [values[1 : K + 1][order]]
        if basis.quadratic:
            products = np.zeros((K, K))
            rows, columns = np.triu_indices(K)
            products[rows, columns] = values[K + 1 :]
            products = products + products.T - np.diag(np.diag(products))
            parts.append(products[order[rows], order[columns]])
        local.append(np.concatenate(parts))
    nested = np.empty(basis.n_features)
    nested[:n_elements] = table[:, 0]
    nested[n_elements:] = np.concatenate(local)[basis.column_order]
    return nested


def resolve_snap_paths(path: Path) -> tuple[Path, Path, Path]:
    """The ``.snapcoeff``, ``.snapparam`` and ``.mod`` of a potential that one of them, or their folder, stands for."""
    if path.is_dir():
        found = sorted(path.glob("*.snapcoeff"))
        if len(found) != 1:
            names = ", ".join(one.name for one in found) or "none"
            raise InputError(f"{path} must hold one potential, a file .snapcoeff; it has {names}: name the file itself")
        path = found[0]
    if path.suffix not in {".snapcoeff", ".snapparam", ".mod"}:
        raise InputError(f"{path} is no SNAP potential; name its .snapcoeff, .snapparam or .mod, or their folder")
    files = path.with_suffix(".snapcoeff"), path.with_suffix(".snapparam"), path.with_suffix(".mod")
    for file in files[:2]:
        if not file.is_file():
            raise InputError(f"there is no file {file}; a SNAP potential has a .snapcoeff and a .snapparam of one name")
    return files


def _words(path: Path) -> list[list[str]]:
    """Lines without comments, as words."""
    lines = (line.partition("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [words for words in lines if words]


def _read_parameters(path: Path) -> dict[str, str]:
    settings = {words[0]: words[1] for words in _words(path) if len(words) == 2}
    for key in ("rcutfac", "twojmax"):
        if key not in settings:
            raise InputError(f"{path} has no '{key}'; it is no .snapparam")
    for key, value in settings.items():
        try:
            float(value)
        except ValueError as error:
            raise InputError(f"{path}: '{key}' must be a number; got '{value}'") from error
    return settings


def _read_coefficients(path: Path) -> tuple[list[tuple[str, float, float]], Array]:
    words = _words(path)
    try:
        n_elements, width = (int(one) for one in words[0])
        elements, rows = [], []
        for k in range(n_elements):
            head, *block = words[1 + k * (width + 1) : 1 + (k + 1) * (width + 1)]
            elements.append((head[0], float(head[1]), float(head[2])))
            rows.append([float(one[0]) for one in block])
        table = np.array(rows).reshape(n_elements, width)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is no complete .snapcoeff: {error}; restore it from a copy") from error
    return elements, table


def _read_reference(include: Path) -> ReferencePotential | None:
    if not include.is_file():
        return None
    words = _words(include)
    style = next((one[1:] for one in words if one[0] == "pair_style"), [])
    if len(style) < 2 or style[0] != "hybrid/overlay":
        return None
    kept = [one[1:] for one in words if one[0] == "pair_coeff" and "snap" not in one[3:4]]
    return ReferencePotential(" ".join(one for one in style if one != "snap"), tuple(" ".join(one) for one in kept))
