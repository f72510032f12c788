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
    """sha256 over names, shapes, types and bytes, in sorted order: which theta_p is this?"""
    check_tensors("theta", theta)
    digest = hashlib.sha256()
    for name in sorted(theta):
        weight = theta[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype};".encode())
        digest.update(ctypes.string_at(weight.data_ptr(), weight.nbytes))
    return digest.hexdigest()


def check_tensors(what: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuses what is not a dictionary of tensors by name.

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
    for name, part in tensors.items():
        if not isinstance(part, Tensor):
            raise ValueError(f"{what}[{name!r}] is a {type(part).__name__}: want a torch.Tensor")
