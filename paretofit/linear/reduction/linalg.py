"""Devices for linear algebra: NumPy and BLAS on the processor, or PyTorch in double precision on a GPU.

Operators, slices and sums are written once for both kinds of array. This module has the rest: the creation of arrays,
and the few operations that the two libraries call differently. On the processor they are the BLAS and LAPACK calls
that leave other threads alone (see `paretofit.linear.reduction.native`).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from paretofit.core import Array, InputError
from paretofit.linear.reduction import native


@dataclass(frozen=True)
class Device:
    """Hardware that holds arrays and computes with them: the processor with NumPy, and base of other devices."""

    def put(self, array: Array) -> Any:
        """The array on the device, real numbers in double precision; not copied if it is there already."""
        return array

    def zeros(self, *shape: int) -> Any:
        """Zeros of double precision; with NumPy a matrix in Fortran order, which BLAS modifies in place."""
        return np.zeros(shape, order="F")

    def get_available_memory(self) -> int | None:
        """Free bytes of the device's memory; None if it uses that of the machine."""
        return None


@dataclass(frozen=True)
class TorchDevice(Device):
    """A device of PyTorch, with tensors.

    Attributes
    ----------
    name : str
        PyTorch's name: "cuda", "cuda:1", or "cpu" (for tests).
    """

    name: str

    def put(self, array: Array) -> Any:
        """A tensor with the same values."""
        # PyTorch supports no read-only arrays, no big-endian ones and no negative strides.
        return _torch().from_numpy(np.require(array, requirements=["W", "A", "E"])).to(self.name)

    def zeros(self, *shape: int) -> Any:
        """``shape`` zeros."""
        return _torch().zeros(shape, dtype=_torch().float64, device=self.name)

    def get_available_memory(self) -> int | None:
        """Free bytes of the GPU's memory."""
        return int(_torch().cuda.mem_get_info(self.name)[0]) if self.name.startswith("cuda") else None


CPU = Device()


def _torch() -> Any:
    import torch  # noqa: PLC0415  (an optional dependency, and slow to import)

    return torch


def get_device(name: str) -> Device:
    """The device "cpu" or "cuda".

    Raises
    ------
    InputError
        If PyTorch is not installed, or there is no such GPU.
    """
    if name == "cpu":
        return CPU
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"'device: {name}' needs PyTorch; install it with: pip install 'paretofit[gpu]'")
    if not _torch().cuda.is_available():
        reason = "PyTorch finds none" if _torch().version.cuda else "this PyTorch is built without CUDA"
        raise InputError(f"'device: {name}' needs a GPU, and {reason}; set 'device: cpu'")
    return TorchDevice(name)


def get_array_device(array: Any) -> Device:
    """The device of an array."""
    return CPU if isinstance(array, np.ndarray) else TorchDevice(str(array.device))


def to_numpy(array: Any) -> Array:
    """The array as a NumPy array."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu().numpy())


def sum_column_squares(A: Any) -> Any:
    """``(p,)``: sums of the squares of columns."""
    return sum_column_products(A, A)


def sum_column_products(A: Any, B: Any) -> Any:
    """``(p,)``: sums of the products of columns."""
    return np.einsum("ij,ij->j", A, B) if isinstance(A, np.ndarray) else (A * B).sum(0)


def add_gram(G: Any, A: Any) -> None:
    """Add AᵀA to G in place; with NumPy arrays to the upper triangle of G only."""
    if isinstance(A, np.ndarray):
        native.add_gram(G, np.ascontiguousarray(A))
    else:
        G.addmm_(A.T, A)


def multiply_symmetric(G: Any, B: Any) -> Any:
    """G B for a symmetric G ``(p, p)``; a NumPy array needs its upper triangle only."""
    return blas.dsymm(1.0, G, B, lower=0) if isinstance(G, np.ndarray) else G @ B


def solve_rows(R: Any, X: Any) -> Any:
    """``(n, P)``: X R⁻¹ for an upper triangular R."""
    if isinstance(R, np.ndarray):
        U = np.array(X, dtype=np.float64, order="C", copy=True)
        native.solve_rows_in_place(np.asfortranarray(R), U)
        return U
    return _torch().linalg.solve_triangular(R, X, upper=True, left=False)


def concatenate(arrays: list[Any], axis: int) -> Any:
    """Stack arrays along the rows (0) or the columns (1)."""
    return np.concatenate(arrays, axis) if isinstance(arrays[0], np.ndarray) else _torch().cat(arrays, axis)


def update_qr(R: Any, A: Any) -> Any:
    """R of [R; A] = Q R for an upper triangular R ``(p, p)``, which NumPy overwrites, and more rows A ``(n, p)``."""
    if isinstance(A, np.ndarray):
        native.update_qr(R, A)
        return R
    return _torch().linalg.qr(concatenate([R, A], 0), mode="r").R


def get_qr_batch_size(A: Any) -> int:
    """Number of rows like A from which an update of R pays for reading R."""
    return int(A.shape[1]) // 8 if isinstance(A, np.ndarray) else 3 * int(A.shape[1])


def factorise_cholesky(M: Any) -> tuple[Any, int]:
    """R of M = RᵀR, and the size of the largest leading block that is positive definite; M is overwritten.

    A NumPy array needs its upper triangle only. R is not defined beyond that block.
    """
    if isinstance(M, np.ndarray):
        R, info = lapack.dpotrf(M, lower=0, clean=1, overwrite_a=1)
    else:
        R, info = _torch().linalg.cholesky_ex(M, upper=True)
    return R, int(info) - 1 if info > 0 else len(R)


def solve_factored(R: Any, c: Any) -> Any:
    """M⁻¹ c for M = RᵀR and ``(p, n)`` right-hand sides."""
    if isinstance(R, np.ndarray):
        return np.asarray(lapack.dpotrs(np.asfortranarray(R), np.asfortranarray(c), lower=0)[0])
    return _torch().cholesky_solve(c, R, upper=True)
