"""BLAS and LAPACK calls that let other Python threads run.

SciPy's own wrappers (`scipy.linalg.blas.dsyrk`, `dtrsm`) do not release Python's global lock, so threads that call
them run one after the other. SciPy exports the same routines as C pointers (`scipy.linalg.cython_blas` and
`cython_lapack`), and calls through ctypes release the lock. The library is the same, so the results are equal to the
last bit.
"""

import ctypes
from typing import Any

import numpy as np
from scipy.linalg import cython_blas, cython_lapack

from paretofit.core import Array

PANEL_COLUMNS = 64  # columns that a QR update transforms at once; the fastest of the measured numbers


def _load_routine(library: Any, name: str, n_arguments: int) -> Any:
    """Load a Fortran routine, all of whose arguments are pointers."""
    capsule = library.__pyx_capi__[name]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)
    return signature(get_pointer(capsule, get_name(capsule)))


_DSYRK, _DTRSM = _load_routine(cython_blas, "dsyrk", 10), _load_routine(cython_blas, "dtrsm", 11)
_DTRSV, _DTRMV = _load_routine(cython_blas, "dtrsv", 8), _load_routine(cython_blas, "dtrmv", 8)
_DTPQRT, _DTPMQRT = _load_routine(cython_lapack, "dtpqrt", 12), _load_routine(cython_lapack, "dtpmqrt", 17)
_ONE = ctypes.byref(ctypes.c_double(1.0))


def _make_int_pointer(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


def add_gram(G: Array, A: Array) -> None:
    """Add AᵀA to the upper triangle of G ``(p, p)``, Fortran order, for A ``(n, p)`` in C order; in place."""
    n, p = A.shape
    if not (A.flags.c_contiguous and G.flags.f_contiguous and G.shape == (p, p)):
        raise ValueError("add_gram needs rows in C order and a square matrix of their width in Fortran order")
    size = _make_int_pointer(p)  # to Fortran, A in C order is Aᵀ
    _DSYRK(b"U", b"N", size, _make_int_pointer(n), _ONE, A.ctypes.data, size, _ONE, G.ctypes.data, size)


def solve_rows_in_place(R: Array, X: Array) -> None:
    """Replace X ``(n, p)``, C order, by X R⁻¹ for an upper triangular R in Fortran order."""
    n, p = X.shape
    if not (X.flags.c_contiguous and R.flags.f_contiguous and R.shape == (p, p)):
        raise ValueError("solve_rows_in_place needs rows in C order and a square R of their width in Fortran order")
    size = _make_int_pointer(p)  # to Fortran, X in C order is Xᵀ, so that Rᵀ Uᵀ = Xᵀ is solved
    _DTRSM(b"L", b"U", b"T", b"N", size, _make_int_pointer(n), _ONE, R.ctypes.data, size, X.ctypes.data, size)


def apply_triangle(R: Array, x: Array, *, inverse: bool, transposed: bool) -> Array:
    """Compute R x, R⁻¹ x, Rᵀ x or R⁻ᵀ x for a vector x ``(p,)`` and the leading p × p block of R, without a copy of R.

    R is upper triangular in Fortran order; elements below its diagonal are not read.
    """
    if not R.flags.f_contiguous or len(R) < len(x):
        raise ValueError(
            "apply_triangle needs a matrix in Fortran order with at least as many rows as the vector has elements"
        )
    y, stride = np.array(x, dtype=np.float64), _make_int_pointer(1)
    routine = _DTRSV if inverse else _DTRMV
    sizes = _make_int_pointer(len(y)), R.ctypes.data, _make_int_pointer(len(R))
    routine(b"U", b"T" if transposed else b"N", b"N", *sizes, y.ctypes.data, stride)
    return y


Reflectors = tuple[Array, Array]  # reflectors of an orthogonal matrix Q, as LAPACK's dtpqrt returns them


def update_qr(R: Array, A: Array, n_trapezoidal: int = 0) -> Reflectors:
    """Replace R ``(p, p)``, upper triangular in Fortran order, by R' of [R; A] = Q R' for more rows A ``(n, p)``.

    Return the reflectors of Q, for `apply_reflectors`.

    Elements below the diagonal are neither read nor written. The update needs almost no memory besides a copy of A, and
    is 1.2 to 1.8 times as fast as a decomposition of the stacked matrix (measured at p = 500 to 3000). The last
    `n_trapezoidal` rows of A are upper trapezoidal: their elements below the diagonal are not read.
    """
    if not (R.flags.f_contiguous and R.shape == (A.shape[1],) * 2):
        raise ValueError("update_qr needs a square matrix in Fortran order, and rows of its width")
    p, B, panel_width = len(R), np.array(A, order="F"), min(PANEL_COLUMNS, len(R))  # B is overwritten
    T, work, status = np.empty((panel_width, p), order="F"), np.empty(panel_width * p), ctypes.c_int(0)
    # LAPACK requires leading dimensions of at least 1, even without rows.
    size, n, width = _make_int_pointer(p), _make_int_pointer(max(len(B), 1)), _make_int_pointer(panel_width)
    sizes = _make_int_pointer(len(B)), size, _make_int_pointer(n_trapezoidal), width
    arrays = R.ctypes.data, size, B.ctypes.data, n, T.ctypes.data, width, work.ctypes.data
    _DTPQRT(*sizes, *arrays, ctypes.byref(status))
    return B, T


def apply_reflectors(Q: Reflectors, C: Array) -> tuple[Array, Array]:
    """Compute Q [C; 0] for C ``(p, m)``; return its first p rows and the others.

    Q must be from `update_qr` without trapezoidal rows.
    """
    V, T = Q
    (n, p), panel, m = V.shape, len(T), C.shape[1]
    top, bottom = np.array(C, order="F"), np.zeros((n, m), order="F")
    work, status, rows, width = np.empty(panel * m), ctypes.c_int(0), _make_int_pointer(max(n, 1)), _make_int_pointer(p)
    sizes = _make_int_pointer(n), _make_int_pointer(m), width, _make_int_pointer(0), _make_int_pointer(panel)
    reflectors = V.ctypes.data, rows, T.ctypes.data, _make_int_pointer(panel)
    arrays = top.ctypes.data, width, bottom.ctypes.data, rows, work.ctypes.data
    _DTPMQRT(b"L", b"N", *sizes, *reflectors, *arrays, ctypes.byref(status))
    return top, bottom
