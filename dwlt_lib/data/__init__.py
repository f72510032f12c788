"""Images: loading, splits, 100/10/1 % subsets, augmentation, streaming, downloads.

Here stands whatever touches image files. A data set is a row of `config.datasets`; nothing here
asks which study it serves.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
