"""Configurations and their labels at several convergence levels, in one HDF5 file."""

from paretofit.dataset.dataset import Dataset, Labels
from paretofit.dataset.exporter import ExportSummary, export_dataset
from paretofit.dataset.importer import ImportSummary, format_summary, import_dataset, read_settings
from paretofit.dataset.inspect import DatasetInfo, LevelSummary, describe_dataset, format_info
from paretofit.dataset.split import Split, relatives, split_configurations
from paretofit.dataset.writer import LevelData, write_dataset

__all__ = [
    "Dataset",
    "DatasetInfo",
    "ExportSummary",
    "ImportSummary",
    "Labels",
    "LevelData",
    "LevelSummary",
    "Split",
    "describe_dataset",
    "export_dataset",
    "format_info",
    "format_summary",
    "import_dataset",
    "read_settings",
    "relatives",
    "split_configurations",
    "write_dataset",
]
