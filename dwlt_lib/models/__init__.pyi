from . import architectures, checkpoints, imported, pretrained, tensors
from .architectures import ARCHITECTURES, build, prunable
from .tensors import Mask, Weights

__all__ = [
    "ARCHITECTURES",
    "Mask",
    "Weights",
    "architectures",
    "build",
    "checkpoints",
    "imported",
    "pretrained",
    "prunable",
    "tensors",
]
