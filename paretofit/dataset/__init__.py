"""Configurations and their labels at several convergence levels, in one HDF5 file."""

from paretofit.dataset.dataset import Dataset, Labels
from paretofit.dataset.importer import ImportSummary, import_dataset, read_settings
from paretofit.dataset.inspect import DatasetInfo, LevelSummary, describe_dataset, format_info
from paretofit.dataset.split import Split, relatives, split_configurations
from paretofit.dataset.writer import LevelData, write_dataset

__all__ = [
    "Dataset",
    "DatasetInfo",
    "ImportSummary",
    "Labels",
    "LevelData",
    "LevelSummary",
    "Split",
    "describe_dataset",
    "format_info",
    "import_dataset",
    "read_settings",
    "relatives",
    "split_configurations",
    "write_dataset",
]
