"""One trainer for standard, fast adversarial and adversarial training, with exact resume.

Here stands how a network is trained under a mask; what to prune does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
