"""Physical properties of a potential: equation of state, elastic constants, phonons, defects, surfaces, layers, MD.

.. include:: validation.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
