"""The type of arrays in signatures; docstrings give shapes, dtypes and units."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
