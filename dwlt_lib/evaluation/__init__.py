"""Standard and robust accuracy (SA and RA) of a network on test images (paper, section 3).

Here stands counting; nothing here prints or keeps a result.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
