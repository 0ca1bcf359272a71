"""The type of arrays in signatures; shapes, dtypes and units stand in the docstrings."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
