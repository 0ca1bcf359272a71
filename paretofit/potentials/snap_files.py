"""A fitted linear model as LAMMPS's SNAP files: ``.snapcoeff``, ``.snapparam`` and the lines that use them.

LAMMPS keeps the components of an element in its own order and the products row by row behind them; our columns are in
nested order (DESIGN §4.1). This module is where one becomes the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from paretofit.descriptors import SnapBasis
from paretofit.errors import InputError
from paretofit.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from paretofit.descriptors.basis import Array


@dataclass(frozen=True)
class SnapFiles:
    """Where a potential's files are.

    Attributes
    ----------
    coefficients, parameters, include : Path
        ``NAME.snapcoeff``, ``NAME.snapparam``, and ``NAME.mod`` with the lines for a LAMMPS script.
    elements : list of str
        In the order of LAMMPS's atom types.
    """

    coefficients: Path
    parameters: Path
    include: Path
    elements: list[str]

    @property
    def commands(self) -> list[str]:
        """``pair_style`` and ``pair_coeff``, with absolute paths."""
        return [
            "pair_style snap",
            f'pair_coeff * * "{self.coefficients.resolve()}" "{self.parameters.resolve()}" {" ".join(self.elements)}',
        ]


def write_snap(folder: Path, name: str, basis: SnapBasis, coefficients: Array) -> SnapFiles:
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
        folder / f"{name}.snapcoeff", folder / f"{name}.snapparam", folder / f"{name}.mod", list(model.elements)
    )
    write_text(files.coefficients, _coefficient_text(model, coefficients))
    write_text(files.parameters, _parameter_text(model))
    write_text(files.include, _include_text(files))
    return files


def lammps_coefficients(basis: SnapBasis, coefficients: Array) -> Array:
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
    table = lammps_coefficients(basis, coefficients)
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
    }
    lines = [f"{key} {value}" for key, value in settings.items()]
    return "\n".join(["# SNAP parameters written by paretofit", *lines]) + "\n"


def _include_text(files: SnapFiles) -> str:
    masses = [float(atomic_masses[atomic_numbers[symbol]]) for symbol in files.elements]
    lines = [f"# include this where the two files are; atom types are {', '.join(files.elements)}, units metal"]
    lines += [f"mass {k} {mass:.6g}" for k, mass in enumerate(masses, start=1)]
    lines += ["pair_style snap"]
    lines += [f"pair_coeff * * {files.coefficients.name} {files.parameters.name} {' '.join(files.elements)}"]
    return "\n".join(lines) + "\n"
