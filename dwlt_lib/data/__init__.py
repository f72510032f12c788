"""Images: loading, splits, 100/10/1 % subsets, augmentation, batches on the device, downloads.

Whatever touches image files is here. A data set is a row of `config.datasets`; no module asks
which study it serves.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
