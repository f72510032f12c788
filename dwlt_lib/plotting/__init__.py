"""A table in, a figure and its caption out.

Here stand figures, their style and their sentences; nothing here reads a file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
