"""A table in, a figure out; verdicts in words, too.

Here stand figures and their style; nothing here reads a file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
