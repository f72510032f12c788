"""Adversaries: FGSM and PGD in the l-infinity ball (paper, equations 1 and 2).

Here stands how one batch of images is perturbed; loops over data sets do not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
