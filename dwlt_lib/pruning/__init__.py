"""Masks and tickets: magnitude and random pruning, IMP with rewinding, files of tickets.

Here stands how a mask is found from theta_p on the source task (paper, section 3). Transferring it
downstream does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
