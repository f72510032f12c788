from . import pgd
from .pgd import PGD, perturb

__all__ = ["PGD", "perturb", "pgd"]
