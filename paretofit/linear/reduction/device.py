"""Where arrays are worked on: NumPy and BLAS on the processor, or PyTorch in double precision on a GPU.

What the two have in common (operators, slices, sums) is written once, with whichever arrays come in. Here is the rest:
making arrays, and the few operations that the two call differently. On the processor they are the BLAS and LAPACK calls
that leave other threads alone (see `paretofit.linear.reduction.native`).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.linalg import blas, lapack

from paretofit.core import InputError
from paretofit.linear.reduction import native

if TYPE_CHECKING:
    from paretofit.core import Array


class Device(Protocol):
    """A place for arrays."""

    def put(self, array: Array) -> Any:
        """The array there, in double precision if it holds real numbers; not copied where it is there already."""

    def zeros(self, *shape: int) -> Any:
        """Zeros of double precision."""

    def available_memory(self) -> int | None:
        """Bytes of memory of its own that are free; None if it has none of its own."""


@dataclass(frozen=True)
class CpuDevice:
    """NumPy arrays."""

    def put(self, array: Array) -> Any:
        """The array itself."""
        return array

    def zeros(self, *shape: int) -> Any:
        """``shape`` zeros, a matrix in Fortran order, for BLAS to work in."""
        return np.zeros(shape, order="F")

    def available_memory(self) -> int | None:
        """Its memory is that of the machine."""
        return None


@dataclass(frozen=True)
class TorchDevice:
    """PyTorch tensors.

    Attributes
    ----------
    name : str
        As PyTorch calls it: "cuda", "cuda:1", or "cpu", which is there for tests.
    """

    name: str

    def put(self, array: Array) -> Any:
        """A tensor with the same values."""
        import torch  # noqa: PLC0415  (an extra)

        own = np.asarray(array)
        # PyTorch knows no read-only arrays, no big-endian and no backward ones.
        return torch.from_numpy(np.require(own, requirements=["W", "A"])).to(self.name)

    def zeros(self, *shape: int) -> Any:
        """``shape`` zeros."""
        import torch  # noqa: PLC0415  (an extra)

        return torch.zeros(shape, dtype=torch.float64, device=self.name)

    def available_memory(self) -> int | None:
        """Of the GPU."""
        import torch  # noqa: PLC0415  (an extra)

        return int(torch.cuda.mem_get_info(self.name)[0]) if self.name.startswith("cuda") else None


CPU = CpuDevice()


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
    import torch  # noqa: PLC0415  (an extra)

    if not torch.cuda.is_available():
        built = "PyTorch sees none" if torch.version.cuda else "this PyTorch is built without CUDA"
        raise InputError(f"'device: {name}' needs a GPU, and {built}; set 'device: cpu'")
    return TorchDevice(name)


def get_array_device(array: Any) -> Device:
    """Where an array is."""
    return CPU if isinstance(array, np.ndarray) else TorchDevice(str(array.device))


def to_numpy(array: Any) -> Array:
    """The array in NumPy."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.cpu().numpy())


def column_squares(A: Any) -> Any:
    """``(p,)``: sums of the squares of columns."""
    return np.einsum("ij,ij->j", A, A) if isinstance(A, np.ndarray) else (A * A).sum(0)


def column_products(A: Any, B: Any) -> Any:
    """``(p,)``: sums of the products of columns."""
    return np.einsum("ij,ij->j", A, B) if isinstance(A, np.ndarray) else (A * B).sum(0)


def add_gram(G: Any, A: Any) -> None:
    """Add AᵀA to G in place; of an array of NumPy to its upper triangle only."""
    if isinstance(A, np.ndarray):
        native.add_gram(G, np.ascontiguousarray(A))
    else:
        G.addmm_(A.T, A)


def symmetric_product(G: Any, B: Any) -> Any:
    """G B for a symmetric G ``(p, p)``, of which NumPy's may be an upper triangle."""
    return blas.dsymm(1.0, G, B, lower=0) if isinstance(G, np.ndarray) else G @ B


def solve_rows(R: Any, X: Any) -> Any:
    """``(n, P)``: X R⁻¹ for an upper triangular R."""
    if isinstance(R, np.ndarray):
        U = np.array(X, dtype=np.float64, order="C", copy=True)
        native.solve_rows_in_place(np.asfortranarray(R), U)
        return U
    import torch  # noqa: PLC0415  (an extra)

    return torch.linalg.solve_triangular(R, X, upper=True, left=False)


def concatenate(arrays: list[Any], axis: int) -> Any:
    """Arrays one below the other (0) or side by side (1)."""
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays, axis)
    import torch  # noqa: PLC0415  (an extra)

    return torch.cat(arrays, axis)


def update_qr(R: Any, A: Any) -> Any:
    """R of [R; A] = Q R for an upper triangular R ``(p, p)``, which NumPy overwrites, and more rows A ``(n, p)``."""
    if isinstance(A, np.ndarray):
        native.update_qr(R, A)
        return R
    import torch  # noqa: PLC0415  (an extra)

    return torch.linalg.qr(torch.cat([R, A]), mode="r").R


def qr_update_batch_size(A: Any) -> int:
    """Rows that are worth folding at once, for rows like A: fewer would read R more often than they are worth."""
    return int(A.shape[1]) // 8 if isinstance(A, np.ndarray) else 3 * int(A.shape[1])


def cholesky(M: Any) -> tuple[Any, int]:
    """R of M = RᵀR, and the size of the largest leading block that is positive definite; M is overwritten.

    NumPy's M may be an upper triangle. What lies beyond that block is not defined.
    """
    if isinstance(M, np.ndarray):
        R, info = lapack.dpotrf(M, lower=0, clean=1, overwrite_a=1)
    else:
        import torch  # noqa: PLC0415  (an extra)

        R, found = torch.linalg.cholesky_ex(M, upper=True)
        info = int(found)
    return R, info - 1 if info > 0 else len(R)


def solve_factored(R: Any, c: Any) -> Any:
    """M⁻¹ c for M = RᵀR and ``(p, n)`` right-hand sides."""
    if isinstance(R, np.ndarray):
        return np.asarray(lapack.dpotrs(np.asfortranarray(R), np.asfortranarray(c), lower=0)[0])
    import torch  # noqa: PLC0415  (an extra)

    return torch.cholesky_solve(c, R, upper=True)
