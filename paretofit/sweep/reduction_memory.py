"""Memory of a reduction, which is estimated and checked before rows are read."""

from __future__ import annotations

from paretofit.core import require_memory
from paretofit.execution import get_active_client
from paretofit.linear.reduction import CPU, Device
from paretofit.sweep.row_stream import BLOCK_BYTES

# Memory while the rows are reduced (upper bounds, measured with 1, 2 and 4 threads at P = 1500):
REDUCTION_COPIES, REDUCTION_COPIES_PER_THREAD = 8, 5  # number of copies of a (P, P) matrix
ROW_BLOCKS_PER_THREAD = 8  # number of copies of a block of `BLOCK_BYTES`
# number of copies on a GPU, where more rows are buffered before an update of the factors (counted, not measured)
GPU_COPIES = 30


def check_reduction_memory(n_columns: int, threads: int, device: Device) -> None:
    """Check that a reduction of this number of columns fits into the memory of this machine and of the device.

    Raises
    ------
    InputError
        If the memory is too small; the message says how to reduce the need.
    """
    description = f"the factors of {n_columns} columns"
    remedy = "lower 'twojmax' and 'leverage.twojmax', or leave out 'quadratic'"
    threads = threads if device == CPU and get_active_client() is None else 1
    require_memory(estimate_reduction_bytes(n_columns, threads), description, remedy)
    if (free_bytes := device.get_available_memory()) is not None:
        require_memory(8 * GPU_COPIES * n_columns**2, description, remedy, available_bytes=free_bytes)


def estimate_reduction_bytes(n_columns: int, threads: int) -> float:
    """Estimate the memory of a reduction on the processor in bytes, an upper bound."""
    copies = REDUCTION_COPIES + threads * REDUCTION_COPIES_PER_THREAD
    return 8.0 * copies * n_columns**2 + threads * ROW_BLOCKS_PER_THREAD * BLOCK_BYTES
