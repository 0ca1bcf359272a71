"""Execution of tasks on local processes, dask workers or SLURM jobs.

.. include:: clusters.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
