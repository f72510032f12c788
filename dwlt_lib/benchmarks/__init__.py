"""This code's steps beside faithful re-creations of its peers', timed in one process.

Here stand measurements of speed; no result of a study depends on them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
