"""A mask on the disk: a safetensors file with one bit per weight."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dwlt_lib.models.tensors import Mask
from dwlt_lib.pruning.masks import check_mask

FORMAT = "dwlt-mask-1"
"""Rises when the layout of the file changes."""

_BIT_POSITIONS = torch.arange(7, -1, -1, dtype=torch.uint8)  # the first entry in the highest bit


def pack(m: Mask, theta: str = "") -> bytes:
    """A mask as a safetensors file of bits (2.9 MB for a ResNet-50).

    Args:
        m: the mask.
        theta: the fingerprint of the theta_p that it was found from, if that is known.

    Returns:
        The file's content, the same bytes for the same mask; `unpack` reads it.

    Raises:
        ValueError: m is no mask.
    """
    check_mask(m)
    bits = {name: to_bits(layer) for name, layer in m.items()}
    shapes = {name: list(layer.shape) for name, layer in m.items()}
    data = save(bits, {"format": FORMAT, "shapes": json.dumps(shapes), "theta": theta})
    # safetensors leaves the order of the header's entries to chance: sort them
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def unpack(data: bytes) -> Mask:
    """The mask that `pack` wrote.

    Args:
        data: the file's content.

    Returns:
        bool tensors on the CPU, in the order in which `pack` was given them.

    Raises:
        ValueError: one line: `pack` did not write this, or it was damaged since.
    """
    header = packed_header(data)
    try:
        shapes, bits = json.loads(header["shapes"]), load(data)
        m = {name: from_bits(bits[name], shape) for name, shape in shapes.items()}
    except (
        SafetensorError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        ValueError,
    ) as error:
        line = " ".join(str(error).split())
        raise ValueError(f"mask: the file is damaged ({line}); make its record again") from error
    if bits.keys() != m.keys():
        raise ValueError(
            f"mask: the file holds {len(bits)} tensors of {len(m)} names; make its record again"
        )
    return m


def packed_header(data: bytes) -> dict[str, str]:
    """What `pack` wrote beside the bits.

    Args:
        data: the file's content.

    Returns:
        format, shapes (JSON) and theta (the fingerprint of theta_p, or empty).

    Raises:
        ValueError: one line: `pack` did not write this.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(f"mask: a {type(data).__name__}; want bytes, what pruning.pack wrote")
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8 : 8 + size])).get("__metadata__")
        format = header.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError("mask: not a packed mask (want what pruning.pack wrote)") from error
    if format != FORMAT:
        raise ValueError(f"mask: format {format!r}; want {FORMAT!r}, what pruning.pack wrote")
    return header


def to_bits(layer: Tensor) -> Tensor:
    """Pack bool entries, eight to a byte, the first in the highest bit.

    Args:
        layer: bool, of any shape with n entries.

    Returns:
        (ceil(n / 8),) uint8 on the CPU; the last byte is filled up with 0.
    """
    flat = layer.detach().cpu().reshape(-1).to(torch.uint8)
    flat = torch.cat([flat, flat.new_zeros(-len(flat) % 8)])
    return (flat.view(-1, 8) << _BIT_POSITIONS).sum(1, dtype=torch.uint8)


def from_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo `to_bits`; no memory is taken that the bits do not fill.

    Args:
        bits: (ceil(n / 8),) uint8.
        shape: with n entries.

    Returns:
        A bool tensor of that shape.

    Raises:
        ValueError: the bits are of another type or number.
    """
    count = prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),) or any(n < 0 for n in shape):
        raise ValueError(
            f"{tuple(bits.shape)} {bits.dtype}: want the {count} bits of {tuple(shape)} in uint8"
        )
    return ((bits[:, None] >> _BIT_POSITIONS) & 1).reshape(-1)[:count].bool().reshape(tuple(shape))
