from . import (
    architectures,
    checkpoints,
    compaction,
    exporting,
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
from .compaction import compact
from .exporting import export
from .tensors import Mask, Weights

__all__ = [
    "ARCHITECTURES",
    "Mask",
    "Weights",
    "architectures",
    "build",
    "checkpoints",
    "compact",
    "compaction",
    "export",
    "exporting",
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
