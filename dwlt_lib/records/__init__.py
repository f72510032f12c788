"""The store of results: written once, checked whenever they are read, and tables of them.

Here stands the only proof that work is done; computing does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
