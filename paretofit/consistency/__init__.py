"""Checks of labels against the structures they belong to: units, signs, orders and outliers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
