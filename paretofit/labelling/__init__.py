"""Computation of labels at several convergence levels: engines, ladder, cost, and runs that resume.

.. include:: labelling.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
