"""What results mean: double-win verdicts, statistics, loss landscapes, patterns of masks.

Here stand computations on tables, networks and masks; no files, no figures.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
