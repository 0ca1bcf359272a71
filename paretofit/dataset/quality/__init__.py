"""Checks of structures and labels, summaries of datasets, and comparisons of convergence levels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
