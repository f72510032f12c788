"""The one-page report of a study.

Here stands the page; every number and figure on it comes from records and notebooks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
