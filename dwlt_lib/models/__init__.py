"""Networks: architectures with normalisation inside, and official checkpoints in.

Here stands which weights can be pruned, but no mask. Nothing in a checkpoint is ever run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
