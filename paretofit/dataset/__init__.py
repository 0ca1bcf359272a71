"""Configurations and their labels at several convergence levels, in one HDF5 file.

.. include:: data.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
