"""Augmentation and entropy-maximised generation of structures.

.. include:: structures.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
