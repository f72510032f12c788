from . import trainer, unfinished
from .trainer import fit

__all__ = ["fit", "trainer", "unfinished"]
