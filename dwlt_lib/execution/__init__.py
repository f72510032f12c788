"""From a plan to records: the one way to make a record, jobs, workers, the notebook engine.

Here stands the machinery; the science it calls stands in the other folders.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
