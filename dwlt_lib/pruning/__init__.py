"""Masks and tickets: magnitude and random pruning, IMP with rewinding, ticket files.

Here stands how a mask is drawn from theta_p on the source task (paper, section 3); transferring it
downstream does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
