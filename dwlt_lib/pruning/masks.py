"""m, the binary mask of a ticket f(x; m * theta): magnitude and random pruning, its bits on disk
(paper, section 3).

Masks and weights are dictionaries by torchvision's parameter names; only the prunable weights
(every convolution, never the head or BatchNorm) take part, and magnitude is compared over all of
them at once, never layer by layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from numbers import Real

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from dwlt_lib.models.architectures import prunable
from dwlt_lib.models.tensors import Mask, Weights, check_tensors

CHUNK = 2**16  # numbers that a processor's cache holds
_EIGHT = torch.arange(7, -1, -1, dtype=torch.uint8)


def dense_mask(theta: Mapping[str, Tensor] | nn.Module) -> Mask:
    """m = 1 everywhere: {name: (*shape,) bool}, each on its weight's device.

    theta: {name: (*shape,)}, or a network, whose prunable weights are taken (`models.prunable`).
    Raises ValueError, one line, for anything else and for a network without a convolution.

        m = dense_mask(model)                            # any network, torchvision's for one
        m = magnitude_prune(dict(model.named_parameters()), m, 0.2)
        apply_(model, m)
        sparsity(m)                                      # 0.2
    """
    if isinstance(theta, nn.Module):
        network, theta = type(theta).__name__, prunable(theta)
        if not theta:
            raise ValueError(f"{network} has no convolution to prune: want a convolutional network")
    elif not isinstance(theta, Mapping):
        raise ValueError(
            f"theta is a {type(theta).__name__}: want a network (a torch.nn.Module), "
            "or tensors by name, as models.prunable gives them"
        )
    check_tensors("theta", theta)
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in theta.items()}


def kept(m: Mask) -> int:
    """|m|, the number of weights kept."""
    _check_mask(m)
    return sum(int(part.sum()) for part in m.values())


def sparsity(m: Mask) -> float:
    """1 - |m| / d, the fraction of prunable weights that m removes.

    ValueError for a mask of no weight.
    """
    _check_mask(m, of_something=True)
    return 1 - kept(m) / sum(part.numel() for part in m.values())


def magnitude_prune(theta: Weights, m: Mask, fraction: float) -> Mask:
    """Drop the globally smallest |theta| among the weights that m still keeps (paper, section 3).

    theta: {name: (*shape,) float};  m: {name: (*shape,) bool} Returns m' <= m with exactly
    round(fraction * |m|) fewer ones; ties break by position in m's order.
    """
    _check_fraction(fraction)
    _check_mask(m, of_something=True)
    check_tensors("theta", theta)
    _check_shapes(theta, m)
    flat = _flatten(m)
    magnitude = torch.cat([theta[name].detach().reshape(-1) for name in m]).abs_()
    if not bool(flat.all()):
        magnitude = magnitude[flat]
    if not bool(torch.isfinite(magnitude).all()):
        raise ValueError(
            "theta holds a NaN or an infinity among the kept weights: want finite weights; its"
            " training diverged, lower the learning rate"
        )
    drop = round(fraction * len(magnitude))
    if drop == 0:
        return {name: part.clone() for name, part in m.items()}
    limit = threshold(magnitude, drop)
    dropped = magnitude < limit
    ties = (magnitude == limit).nonzero().squeeze(1)
    dropped[ties[: drop - int(dropped.count_nonzero())]] = True
    return _unflatten(flat.masked_scatter(flat, ~dropped), m)


def threshold(magnitude: Tensor, k: int) -> Tensor:
    """The k-th smallest (from 1) of finite numbers (N,), in linear time: a scalar tensor.

    A sorted sample brackets it, and only what lies in the bracket is ranked; the result is exact
    whatever the sample.
    """
    n = len(magnitude)
    if (
        n < 2**16
        or magnitude.device.type != "cpu"
        or magnitude.dtype not in (torch.float32, torch.float64)
    ):
        return torch.kthvalue(magnitude, k).values
    import numpy as np  # here, so that a ticket can be loaded where only torch is

    values = magnitude.numpy()
    sample = np.sort(values[:: n // 2**16])
    at, spread = k / n * len(sample), 3 * len(sample) ** 0.5
    low, high = sample[max(0, int(at - spread))], sample[min(len(sample) - 1, int(at + spread))]
    below, bracketed = 0, []
    for part in np.split(values, range(CHUNK, n, CHUNK)):
        below += np.count_nonzero(part < low)
        bracketed.append(part[(part >= low) & (part <= high)])
    within = np.concatenate(bracketed)
    if not below < k <= below + len(within):  # the sample misled
        within, below = values, 0
    return torch.from_numpy(np.partition(within, k - below - 1)[k - below - 1 : k - below])[0]


def random_prune(m: Mask, fraction: float, rng: torch.Generator) -> Mask:
    """Drop exactly round(fraction * |m|) of the weights that m keeps, each equally likely (RP;
    section 4).

    rng: a generator on the CPU, so that a mask does not depend on the device.
    """
    _check_fraction(fraction)
    _check_mask(m, of_something=True)
    if not isinstance(rng, torch.Generator) or rng.device.type != "cpu":
        raise ValueError(f"rng={rng!r}: want a torch.Generator on the CPU, with a seed of your own")
    flat = _flatten(m)
    positions = flat.nonzero().squeeze(1)
    drop = torch.randperm(len(positions), generator=rng)[: round(fraction * len(positions))]
    flat[positions[drop.to(positions.device)]] = False
    return _unflatten(flat, m)


@torch.no_grad()
def apply_(model: nn.Module, m: Mask) -> None:
    """theta <- m * theta, in place, for the parameters m names.

    The rest of the model is left alone.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {type(model).__name__}: want the network, a torch.nn.Module")
    _check_mask(m)
    parameters = dict(model.named_parameters())
    _check_shapes(parameters, m)
    for name, part in m.items():
        parameters[name].masked_fill_(~part.to(parameters[name].device), 0)


def pack(m: Mask, theta: str = "") -> bytes:
    """m as a safetensors file of bits (2.9 MB for ResNet-50).

    `theta` names the theta_p it was drawn from.
    """
    _check_mask(m)
    bits = {name: to_bits(part) for name, part in m.items()}
    shapes = {name: list(part.shape) for name, part in m.items()}
    data = save(bits, {"format": "dwlt-mask-1", "shapes": json.dumps(shapes), "theta": theta})
    size = int.from_bytes(
        data[:8], "little"
    )  # of the header, whose order safetensors leaves to chance
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def unpack(data: bytes) -> Mask:
    """The mask that `pack` wrote, in the order of its names there.

    Refuses anything else with a ValueError.
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


def to_bits(part: Tensor) -> Tensor:
    """(*shape,) bool -> (ceil(n / 8),) uint8 on the CPU, the first entry in the highest bit, 0
    where there is none.
    """
    flat = part.detach().cpu().reshape(-1).to(torch.uint8)
    flat = torch.cat([flat, flat.new_zeros(-len(flat) % 8)])
    return (flat.view(-1, 8) << _EIGHT).sum(1, dtype=torch.uint8)


def from_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """What `to_bits` was given: (*shape,) bool. Nothing is allocated that `bits` do not fill."""
    count = prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),) or any(n < 0 for n in shape):
        raise ValueError(
            f"{tuple(bits.shape)} {bits.dtype}: want the {count} bits of {tuple(shape)} in uint8"
        )
    return ((bits[:, None] >> _EIGHT) & 1).reshape(-1)[:count].bool().reshape(tuple(shape))


def packed_header(data: bytes) -> dict[str, str]:
    """What `pack` wrote beside the bits.

    Format, shapes (JSON) and theta (the hash of theta_p, or empty).
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ValueError(f"mask: a {type(data).__name__}; want bytes, what masks.pack wrote")
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8 : 8 + size])).get("__metadata__")
        found = header.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError("mask: not a packed mask (want what masks.pack wrote)") from error
    if found != "dwlt-mask-1":
        raise ValueError(f"mask: format {found!r}; want 'dwlt-mask-1', what masks.pack wrote")
    return header


def _check_mask(m: Mask, of_something: bool = False) -> None:
    check_tensors("m", m)
    for name, part in m.items():
        if part.dtype != torch.bool:
            raise ValueError(
                f"m[{name!r}] is {part.dtype}: want torch.bool (masks.dense_mask(theta) starts one)"
            )
    if of_something and not any(part.numel() for part in m.values()):
        raise ValueError(
            "m names no weight: want a mask of a network's convolutions (masks.dense_mask)"
        )


def _check_fraction(fraction: float) -> None:
    if not isinstance(fraction, Real):
        raise ValueError(
            f"fraction={fraction!r}: want a number, 0 <= fraction < 1 (the paper prunes 0.2 a"
            " round)"
        )
    if not 0 <= fraction < 1:
        raise ValueError(
            f"fraction={fraction}: want 0 <= fraction < 1 (the paper prunes 0.2 a round)"
        )


def _check_shapes(theta: Mapping[str, Tensor], m: Mask) -> None:
    for name, part in m.items():
        if name not in theta or theta[name].shape != part.shape:
            found = tuple(theta[name].shape) if name in theta else "nothing of that name"
            raise ValueError(
                f"mask {name} {tuple(part.shape)}: the weights have {found}; want a mask of this"
                " network"
            )


def _flatten(m: Mask) -> Tensor:
    return torch.cat([part.reshape(-1) for part in m.values()])


def _unflatten(flat: Tensor, like: Mask) -> Mask:
    parts = flat.split([part.numel() for part in like.values()])
    return {
        name: part.reshape(like[name].shape).clone() for part, name in zip(parts, like, strict=True)
    }
