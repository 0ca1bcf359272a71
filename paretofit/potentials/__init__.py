"""Potentials as LAMMPS files and ASE calculators.

.. include:: potentials.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
