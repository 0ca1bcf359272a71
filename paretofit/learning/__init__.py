"""The active-learning loop: explore, evaluate, calibrate, select, label.

.. include:: learning.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
