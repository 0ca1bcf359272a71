"""The sweep study: its settings, preparation, pipeline, result and report.

.. include:: yaml.md
.. include:: run-folder.md
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
