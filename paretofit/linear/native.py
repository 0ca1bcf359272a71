"""BLAS calls that let other Python threads run.

SciPy's own wrappers (`scipy.linalg.blas.dsyrk`, `dtrsm`) hold Python's global lock, so that threads which call
them run one after the other. SciPy exports the same routines as C pointers (`scipy.linalg.cython_blas`); called
through ctypes they release the lock. Same library, same bits.
"""

import ctypes
from typing import Any

from scipy.linalg import cython_blas

from paretofit.linear.factor import Array


def _routine(name: str, n_arguments: int) -> Any:
    """A Fortran routine, all of whose arguments are pointers."""
    capsule = cython_blas.__pyx_capi__[name]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)
    return signature(get_pointer(capsule, get_name(capsule)))


_DSYRK, _DTRSM = _routine("dsyrk", 10), _routine("dtrsm", 11)


def _integer(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


def _real(value: float) -> Any:
    return ctypes.byref(ctypes.c_double(value))


def add_gram(G: Array, A: Array) -> None:
    """Add AᵀA to the upper triangle of G ``(p, p)``, Fortran order, for A ``(n, p)`` in C order; in place."""
    n, p = A.shape
    if not (A.flags.c_contiguous and G.flags.f_contiguous and G.shape == (p, p)):
        raise ValueError("add_gram needs rows in C order and a square of their width in Fortran order")
    size = _integer(p)
    _DSYRK(b"U", b"N", size, _integer(n), _real(1.0), A.ctypes.data, size, _real(1.0), G.ctypes.data, size)


def divide_rows(R: Array, X: Array) -> None:
    """Replace X ``(n, p)``, C order, by X R⁻¹ for an upper triangular R in Fortran order."""
    n, p = X.shape
    if not (X.flags.c_contiguous and R.flags.f_contiguous and R.shape == (p, p)):
        raise ValueError("divide_rows needs rows in C order and a square of their width in Fortran order")
    size = _integer(p)
    _DTRSM(b"L", b"U", b"T", b"N", size, _integer(n), _real(1.0), R.ctypes.data, size, X.ctypes.data, size)
