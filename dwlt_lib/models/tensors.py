"""Tensors by name: a network's weights, a mask of them, and what identifies them."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping

from torch import Tensor

Weights = dict[str, Tensor]
"""Weights by torchvision's parameter name, each of any shape."""

Mask = dict[str, Tensor]
"""bool tensors by parameter name; True keeps the weight."""


def fingerprint(theta: Mapping[str, Tensor]) -> str:
    """The identity of weights: sha256 over names, shapes, types and bytes, in sorted order.

    Args:
        theta: tensors by name, of any shape.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: theta is no mapping of names to tensors.
    """
    check_tensors("theta", theta)
    digest = hashlib.sha256()
    for name in sorted(theta):
        weight = theta[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype};".encode())
        digest.update(ctypes.string_at(weight.data_ptr(), weight.nbytes))
    return digest.hexdigest()


def check_tensors(what: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse what is not a mapping of names to tensors.

    Args:
        what: its name in the error, for example "theta".
        tensors: what was given.

    Raises:
        ValueError: one line, with what was given and what was expected.
    """
    if not isinstance(tensors, Mapping):
        raise ValueError(
            f"{what} is a {type(tensors).__name__}: want tensors by name, as models.prunable gives"
            " them"
        )
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{what}[{name!r}] is a {type(tensor).__name__}: want a torch.Tensor")
