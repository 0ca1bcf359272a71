"""Public dataset class: the stored dataset with an HTML summary for notebooks."""

from paretofit.dataset.dataset_html import render_dataset
from paretofit.dataset.stored_dataset import StoredDataset


class Dataset(StoredDataset):
    """A dataset file, opened read-only, or a selection of its configurations.

    ``dataset[k]`` is the configuration at position k, not the one with id k, as ase.Atoms; a slice is a selection.

    Parameters
    ----------
    path : path-like
        An HDF5 file written by `write_dataset`.

    Raises
    ------
    InputError
        If the file is missing, not HDF5, corrupt, or not a paretofit dataset.

    Examples
    --------
    >>> from paretofit import Dataset
    >>> with Dataset("data/beryllium.h5") as data:  # doctest: +SKIP
    ...     print(len(data), data.levels)
    ...     atoms = data[0]
    """

    def _repr_html_(self) -> str:
        """Return the summary that Jupyter shows; see `render_dataset`."""
        return render_dataset(self)
