from . import (
    architectures,
    checkpoints,
    imported,
    messages,
    pickles,
    pretrained,
    tensor_files,
    tensors,
    torch_files,
)
from .architectures import ARCHITECTURES, build, prunable
from .checkpoints import import_checkpoint
from .tensors import Mask, Weights

__all__ = [
    "ARCHITECTURES",
    "Mask",
    "Weights",
    "architectures",
    "build",
    "checkpoints",
    "import_checkpoint",
    "imported",
    "messages",
    "pickles",
    "pretrained",
    "prunable",
    "tensor_files",
    "tensors",
    "torch_files",
]
