from . import ranks, trainer, unfinished
from .trainer import fit

__all__ = ["fit", "ranks", "trainer", "unfinished"]
