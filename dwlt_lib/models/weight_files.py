"""theta_p as a safetensors file, with its provenance: what `dwlt weights import` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dwlt_lib.models import tensor_files
from dwlt_lib.models.architectures import ARCHITECTURES, MAX_CLASSES, state_layout
from dwlt_lib.models.checkpoints import Checkpoint
from dwlt_lib.models.imported import FORMAT, WRITER, is_sha256
from dwlt_lib.models.messages import describe_differences
from dwlt_lib.models.tensor_files import Header
from dwlt_lib.models.tensors import Weights

FILE_TYPES = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}
"""Names of types in the header of a safetensors file."""

NETWORK_CHECKS = {
    "arch": lambda value: value in ARCHITECTURES,
    "classes": lambda value: type(value) is int and 0 < value <= MAX_CLASSES,
    "theta": is_sha256,
}
"""Which values a description of a network may have (`tensor_files.check_values`)."""


def write_checkpoint(checkpoint: Checkpoint, path: str | Path) -> Path:
    """Write theta_p with its provenance; the same checkpoint gives the same bytes.

    Args:
        checkpoint: of `checkpoints.read_checkpoint`.
        path: the safetensors file, in a folder that exists.

    Returns:
        The path.
    """
    return tensor_files.write(path, checkpoint.weights, {"format": FORMAT, **checkpoint.about})


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Args:
        path: the file.

    Returns:
        theta_p and its provenance, equal to what was written.

    Raises:
        ValueError: one line: it is another file, or was damaged since it was written.
    """
    return Checkpoint(*tensor_files.read(path, FORMAT, WRITER, _expected_header))


def read_weights(path: str | Path, arch: str) -> Weights:
    """A network's state dictionary out of a safetensors file, whoever wrote it.

    Args:
        path: the file.
        arch: the network, of any number of classes.

    Returns:
        The tensors by torchvision's names.

    Raises:
        ValueError: one line: the file holds other tensors than that network's. None of its numbers
            were read then.
    """
    with tensor_files.open_file(path) as file:
        header = tensor_files.read_header(file)
        shape, _ = header.get("fc.bias", ((), ""))
        classes = shape[0] if len(shape) == 1 and 0 < shape[0] <= MAX_CLASSES else 1000
        if differences := describe_differences(header, network_header(arch, classes)):
            raise ValueError(
                f"{path}: not the weights of a {arch} ({differences}); want theta_p as a"
                " safetensors file"
            )
        return {name: file.get_tensor(name) for name in header}


def network_header(arch: str, num_classes: int) -> Header:
    """The header of a safetensors file that holds a network's state dictionary.

    Args:
        arch: one of `models.ARCHITECTURES`.
        num_classes: outputs of its head.

    Returns:
        (shape, type) by the tensor's name.
    """
    return {
        name: (shape, FILE_TYPES[dtype])
        for name, (shape, dtype) in state_layout(arch, num_classes).items()
    }


def describe(checkpoint: Checkpoint) -> str:
    """What was imported, in a few lines for a terminal.

    Args:
        checkpoint: of `checkpoints.read_checkpoint`.

    Returns:
        Three lines.
    """
    about = checkpoint.about
    return (
        f"theta_{about['pretraining']}, a {about['arch']} with {about['classes']} classes;"
        f" BatchNorm's counters {about['counters']}\nsha256 of {about['file']}: {about['sha256']}"
        f"\nsha256 of theta_p: {about['theta']}"
    )


def _expected_header(about: Mapping[str, Any], header: Header) -> Header:
    tensor_files.check_values(about, NETWORK_CHECKS)
    return network_header(about["arch"], about["classes"])
