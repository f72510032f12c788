from . import adversaries, apgd, pgd, square
from .adversaries import perturb
from .pgd import PGD

__all__ = ["PGD", "adversaries", "apgd", "perturb", "pgd", "square"]
