from . import adversaries, apgd, auto, pgd, square
from .adversaries import perturb
from .pgd import PGD

__all__ = ["PGD", "adversaries", "apgd", "auto", "perturb", "pgd", "square"]
