"""Readers of labelled structures from files of other programs, and writers of such files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
