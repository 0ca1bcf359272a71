"""Checks of labels against the structures that they belong to: units, signs, orders of atoms and axes, and outliers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
