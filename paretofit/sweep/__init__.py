"""The full factorial of fits, the engine that walks it, and the table that comes out."""

from paretofit.sweep.data import SweepInput
from paretofit.sweep.engine import make_engine, run_sweep
from paretofit.sweep.grid import SweepGrid
from paretofit.sweep.results import COLUMNS, read_results, write_results

__all__ = ["COLUMNS", "SweepGrid", "SweepInput", "make_engine", "read_results", "run_sweep", "write_results"]
