"""Devices for linear algebra: NumPy and BLAS on the processor, or PyTorch in double precision on a GPU.

Operators, slices and sums are the same for both kinds of array. This module contains everything else: the creation of
arrays, and the few operations that have different names in the two libraries. On the processor, they are BLAS and
LAPACK calls that let other threads run (see `paretofit.linear.reduction.native`).
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
    """The processor, which computes with NumPy arrays; base class of other devices."""

    def put(self, array: Array) -> Any:
        """Return an array on the device, without a copy if it is there already."""
        return array

    def zeros(self, *shape: int) -> Any:
        """Create zeros in double precision; a NumPy matrix is in Fortran order, so that BLAS can modify it in place."""
        return np.zeros(shape, order="F")

    def get_available_memory(self) -> int | None:
        """Return the free bytes of the device's own memory; None if it uses the memory of the machine."""
        return None


@dataclass(frozen=True)
class TorchDevice(Device):
    """Device of PyTorch, which computes with tensors.

    Attributes
    ----------
    name : str
        PyTorch's name: "cuda", "cuda:1", or "cpu" (for tests).
    """

    name: str

    def put(self, array: Array) -> Any:
        """Create a tensor with the values of an array."""
        # PyTorch supports no read-only arrays, no big-endian ones and no negative strides.
        return _import_torch().from_numpy(np.require(array, requirements=["W", "A", "E"])).to(self.name)

    def zeros(self, *shape: int) -> Any:
        """Create a tensor of zeros in double precision."""
        return _import_torch().zeros(shape, dtype=_import_torch().float64, device=self.name)

    def get_available_memory(self) -> int | None:
        """Return the free bytes of the GPU's memory; None if PyTorch computes on the processor."""
        return int(_import_torch().cuda.mem_get_info(self.name)[0]) if self.name.startswith("cuda") else None


CPU = Device()


def _import_torch() -> Any:
    import torch  # noqa: PLC0415  (an optional dependency, and slow to import)

    return torch


def get_device(name: str) -> Device:
    """Return the device "cpu" or "cuda".

    Raises
    ------
    InputError
        If PyTorch is not installed, or does not find a GPU.
    """
    if name == "cpu":
        return CPU
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"'device: {name}' requires PyTorch; install it with: pip install 'paretofit[gpu]'")
    if not _import_torch().cuda.is_available():
        reason = "PyTorch finds none" if _import_torch().version.cuda else "this PyTorch is built without CUDA"
        raise InputError(f"'device: {name}' requires a GPU, and {reason}; set 'device: cpu'")
    return TorchDevice(name)


def get_array_device(array: Any) -> Device:
    """Return the device of an array."""
    return CPU if isinstance(array, np.ndarray) else TorchDevice(str(array.device))


def to_numpy(array: Any) -> Array:
    """Convert an array of any device to a NumPy array."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu().numpy())


def sum_column_squares(A: Any) -> Any:
    """Sum the squares of each column, ``(p,)``."""
    return np.einsum("ij,ij->j", A, A) if isinstance(A, np.ndarray) else (A * A).sum(0)


def add_gram(G: Any, A: Any) -> None:
    """Add AᵀA to G in place; on the processor, only to the upper triangle of G."""
    if isinstance(A, np.ndarray):
        native.add_gram(G, np.ascontiguousarray(A))
    else:
        G.addmm_(A.T, A)


def multiply_triangle(R: Any, B: Any) -> Any:
    """Compute R B, ``(p, m)``, for an upper triangular R; B may be overwritten."""
    return blas.dtrmm(1.0, R, B, overwrite_b=1) if isinstance(R, np.ndarray) else R @ B


def solve_rows(R: Any, X: Any) -> Any:
    """Compute X R⁻¹, ``(n, P)``, for an upper triangular R."""
    if isinstance(R, np.ndarray):
        U = np.array(X, dtype=np.float64, order="C", copy=True)
        native.solve_rows_in_place(np.asfortranarray(R), U)
        return U
    return _import_torch().linalg.solve_triangular(R, X, upper=True, left=False)


def concatenate(arrays: list[Any], axis: int) -> Any:
    """Stack arrays along the rows (0) or the columns (1)."""
    return np.concatenate(arrays, axis) if isinstance(arrays[0], np.ndarray) else _import_torch().cat(arrays, axis)


def update_qr(R: Any, A: Any, n_trapezoidal: int = 0) -> Any:
    """Return R' of [R; A] = Q R' for an upper triangular R ``(p, p)`` and more rows A ``(n, p)``; R is overwritten.

    The last `n_trapezoidal` rows of A are upper trapezoidal; the processor does not read elements below their diagonal,
    which are zero on other devices.
    """
    if isinstance(A, np.ndarray):
        native.update_qr(R, A, n_trapezoidal)
        return R
    return _import_torch().linalg.qr(concatenate([R, A], 0), mode="r").R


def get_qr_batch_size(A: Any) -> int:
    """Return the smallest number of rows, of the width of A, for which a QR update is efficient."""
    return int(A.shape[1]) // 2 if isinstance(A, np.ndarray) else 3 * int(A.shape[1])


def factorise_cholesky(M: Any) -> tuple[Any, int]:
    """Return R of M = RᵀR and the size of the largest positive-definite leading block of M; M is overwritten.

    The processor reads only the upper triangle of M. R is not defined outside that block.
    """
    if isinstance(M, np.ndarray):
        R, status = lapack.dpotrf(M, lower=0, clean=1, overwrite_a=1)
    else:
        R, status = _import_torch().linalg.cholesky_ex(M, upper=True)
    return R, int(status) - 1 if status > 0 else len(R)
