"""Weighted least squares, leverage and sampling, for plain arrays.

.. include:: maths.md
.. include:: gpu.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
