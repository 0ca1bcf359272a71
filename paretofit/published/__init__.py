"""Readers of the dataset and the result tables of the published study.

.. include:: published.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
