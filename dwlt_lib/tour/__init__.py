"""What the notebook `00_tour` plays with: a small study, its networks and live experiments.

Here stand interactive examples; their numbers are kept nowhere.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
