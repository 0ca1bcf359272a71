"""Material properties, such as elastic constants, that follow from the labels of a few structures.

The energies, forces and stresses of a linear model are linear in its coefficients, and so are the quantities from which
these properties follow. The descriptor rows of these quantities are computed once, so that a study evaluates the
properties of every fit without LAMMPS.

.. include:: properties.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
