"""The store of results: written once, checked whenever they are read, and tables of them.

A record in outputs/records is the only proof that work is done; a published study is one file that
is read in place. Nothing is computed here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
