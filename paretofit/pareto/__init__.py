"""Pure tables: dominance and hypervolume for any CSV, whatever its rows stand for."""

from paretofit.pareto.front import AGGREGATES, REPEATS, front_of_file, pareto_front
from paretofit.pareto.hypervolume import dominated_hypervolume
from paretofit.pareto.table import read_table

__all__ = [
    "AGGREGATES",
    "REPEATS",
    "dominated_hypervolume",
    "front_of_file",
    "pareto_front",
    "read_table",
]
