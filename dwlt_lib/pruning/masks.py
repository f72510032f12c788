"""m, the binary mask of a ticket f(x; m * theta), and how a round prunes it (paper, section 3).

Masks and weights are dictionaries by torchvision's parameter names. Only the prunable weights
(those of convolutions and linear layers but the head) have a mask, and magnitudes are compared over
all of them at once, never layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from dwlt_lib.models.architectures import prunable
from dwlt_lib.models.tensors import Mask, Weights, check_tensors


def dense_mask(theta: Mapping[str, Tensor] | nn.Module) -> Mask:
    """A mask that keeps every prunable weight, m = 1.

    Example:
        m = dense_mask(model)  # any network
        m = magnitude_prune(dict(model.named_parameters()), m, 0.2)
        apply_(model, m)
        sparsity(m)  # 0.2

    Args:
        theta: the weights by name, or a network, whose prunable weights are taken.

    Returns:
        bool tensors of the weights' names and shapes, each on its weight's device.

    Raises:
        ValueError: theta is neither, or a network without a prunable weight.
    """
    if isinstance(theta, nn.Module):
        network, theta = type(theta).__name__, prunable(theta)
        if not theta:
            raise ValueError(
                f"{network} has no convolution to prune, nor a linear layer but its head: want a"
                " network with such a layer"
            )
    elif not isinstance(theta, Mapping):
        raise ValueError(
            f"theta is a {type(theta).__name__}: want a network (a torch.nn.Module), "
            "or tensors by name, as models.prunable gives them"
        )
    check_tensors("theta", theta)
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in theta.items()}


def num_kept(m: Mask) -> int:
    """|m|, the number of weights that the mask keeps.

    Args:
        m: the mask; may be empty.

    Returns:
        A count of weights.

    Raises:
        ValueError: m is no mask.
    """
    check_mask(m)
    return sum(int(layer.sum()) for layer in m.values())


def sparsity(m: Mask) -> float:
    """1 - |m| / d, the share of the d prunable weights that the mask removes.

    Args:
        m: the mask.

    Returns:
        A fraction in [0, 1].

    Raises:
        ValueError: m is no mask, or a mask of no weight.
    """
    _check_not_empty(m)
    return 1 - num_kept(m) / sum(layer.numel() for layer in m.values())


def magnitude_prune(theta: Weights, m: Mask, fraction: float) -> Mask:
    """Drop the globally smallest |theta| among the weights that m still keeps (section 3).

    Args:
        theta: weights by name, each of any shape; names that m lacks are ignored.
        m: the mask so far, bool, of the same shapes.
        fraction: the share of the kept weights to drop, in [0, 1); the paper prunes 0.2 a round.

    Returns:
        m' <= m with exactly round(fraction * |m|) fewer ones; ties break by position.

    Raises:
        ValueError: theta and m do not fit together, a kept weight is not finite, or fraction is out
            of range.
    """
    _check_fraction(fraction)
    order = _kept_values(theta, m).abs().argsort(stable=True)
    return _drop_first(m, _flatten(m), order, fraction)


def score_prune(scores: Weights, m: Mask, fraction: float) -> Mask:
    """Drop the weights of smallest score among those that m still keeps, over all layers at once.

    Args:
        scores: a number for each weight, of either sign, by name; names that m lacks are ignored.
        m: the mask so far, bool, of the same shapes.
        fraction: the share of the kept weights to drop, in [0, 1).

    Returns:
        m' <= m with exactly round(fraction * |m|) fewer ones; ties break by position.

    Raises:
        ValueError: scores and m do not fit together, the score of a kept weight is not finite, or
            fraction is out of range.
    """
    _check_fraction(fraction)
    order = _kept_values(scores, m).argsort(stable=True)
    return _drop_first(m, _flatten(m), order, fraction)


def two_of_four_prune(theta: Weights, m: Mask, fraction: float) -> Mask:
    """Drop the globally smallest |theta|, but for the two largest of every four (2:4 sparsity).

    Four weights are those of four input channels that follow each other, at the same output and
    place of the kernel, as sparse tensor cores want them (Mishra et al. 2021, "Accelerating sparse
    deep neural networks", section 3). A layer whose inputs are no multiple of four, such as the
    first, stays as it is.

    Args:
        theta: weights by name, each (outputs, inputs, ...).
        m: the mask so far, bool, of the same shapes.
        fraction: the share of the kept weights to drop, in [0, 1]; 1 drops all but the two.

    Returns:
        m' <= m with round(fraction * |m|) fewer ones, or as many fewer as there are beside the two
        largest that m keeps of every four; ties break by position.

    Raises:
        ValueError: as `magnitude_prune`.
    """
    _check_fraction(fraction, may_be_one=True)
    _kept_values(theta, m)  # refuses what is not finite
    largest = {name: _two_largest_of_four(theta[name], layer) for name, layer in m.items()}
    rest = {name: layer & ~largest[name] for name, layer in m.items()}
    drop, num = round(fraction * num_kept(m)), num_kept(rest)
    if drop >= num:
        return largest
    rest = magnitude_prune(theta, rest, drop / num)
    return {name: layer | rest[name] for name, layer in largest.items()}


def channel_prune(theta: Weights, m: Mask, fraction: float) -> Mask:
    """Drop the whole output channels of smallest norm ||theta_c||_1, the same share of every layer.

    Li et al. 2017, "Pruning filters for efficient ConvNets", section 3.1. Norms are compared within
    a layer: between layers they tell the scale of initialisation, which BatchNorm takes out again,
    and one of small norms, such as the first, would be the network's bottleneck. The channel of
    largest norm of each layer stays, so that no layer is cut off.

    Args:
        theta: weights by name, each (outputs, ...).
        m: the mask so far, bool, of the same shapes.
        fraction: the share of the kept weights to drop, in [0, 1).

    Returns:
        m' <= m without those channels that hold, as nearly as whole channels can, a share of
        `fraction` of all kept weights; ties break by position.

    Raises:
        ValueError: as `magnitude_prune`.
    """
    _check_fraction(fraction)
    _kept_values(theta, m)  # refuses what is not finite
    shares, sizes = [], []
    for name, layer in m.items():
        size = layer.flatten(1).sum(1)
        norm = (theta[name].detach().double() * layer).flatten(1).norm(p=1, dim=1)
        norm = torch.where(size > 0, norm, -1.0)  # what is pruned already comes first
        rank = norm.argsort(stable=True).argsort() + 1 - (size == 0).sum()
        shares.append(rank / (size > 0).sum())  # of the layer's channels that are no larger
        sizes.append(size)
    share, size = torch.cat(shares), torch.cat(sizes)
    order = share.argsort(stable=True)
    order = order[(share[order] > 0) & (share[order] < 1)]
    dropped = torch.cat([size.new_zeros(1), size[order].cumsum(0)])
    nearest = (dropped - round(fraction * num_kept(m))).abs().argmin()
    kept = torch.ones_like(size, dtype=torch.bool)
    kept[order[:nearest]] = False
    layers = zip(m.items(), kept.split([len(layer) for layer in m.values()]), strict=True)
    return {
        name: layer & channels.view(-1, *[1] * (layer.dim() - 1))
        for (name, layer), channels in layers
    }


def random_prune(m: Mask, fraction: float, rng: torch.Generator) -> Mask:
    """Drop weights that m keeps at random, each equally likely (RP, section 4).

    Args:
        m: the mask so far.
        fraction: the share of the kept weights to drop, in [0, 1).
        rng: a generator on the CPU, so that the mask does not depend on the device.

    Returns:
        m' <= m with exactly round(fraction * |m|) fewer ones.

    Raises:
        ValueError: m is no mask or one of no weight, fraction is out of range, or rng
            is no such generator.
    """
    _check_fraction(fraction)
    _check_not_empty(m)
    if not isinstance(rng, torch.Generator) or rng.device.type != "cpu":
        raise ValueError(f"rng={rng!r}: want a torch.Generator on the CPU, with a seed of your own")
    kept = _flatten(m)
    order = torch.randperm(int(kept.sum()), generator=rng).to(kept.device)
    return _drop_first(m, kept, order, fraction)


@torch.no_grad()
def apply_(model: nn.Module, m: Mask) -> None:
    """Set what m prunes to 0, theta <- m * theta, in place; a pruned NaN becomes 0, too.

    Args:
        model: the network; parameters that m does not name stay as they are.
        m: a mask of its parameters.

    Raises:
        ValueError: model is no network, m no mask, or they do not fit together.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is a {type(model).__name__}: want the network, a torch.nn.Module")
    check_mask(m)
    parameters = dict(model.named_parameters())
    _check_shapes(parameters, m)
    for name, layer in m.items():
        parameters[name].masked_fill_(~layer.to(parameters[name].device), 0)


def check_mask(m: Mask) -> None:
    """Refuse what is no mask.

    Args:
        m: what was given.

    Raises:
        ValueError: one line: m is no mapping of names to bool tensors.
    """
    check_tensors("m", m)
    for name, layer in m.items():
        if layer.dtype != torch.bool:
            raise ValueError(
                f"m[{name!r}] is {layer.dtype}: want torch.bool (masks.dense_mask(theta) starts"
                " one)"
            )


def _check_not_empty(m: Mask) -> None:
    check_mask(m)
    if not any(layer.numel() for layer in m.values()):
        raise ValueError(
            "m names no weight: want a mask of a network's prunable weights (masks.dense_mask)"
        )


def _kept_values(theta: Weights, m: Mask) -> Tensor:
    """Values of theta that m keeps, in order; what does not fit or is not finite raises."""
    _check_not_empty(m)
    check_tensors("theta", theta)
    _check_shapes(theta, m)
    values = torch.cat([theta[name].detach().reshape(-1) for name in m])[_flatten(m)]
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            "theta holds a NaN or an infinity among the kept weights: want finite weights; its"
            " training diverged, lower the learning rate"
        )
    return values


def _two_largest_of_four(weight: Tensor, layer: Tensor) -> Tensor:
    """Of a layer's mask the two largest |weight| of every four inputs that it keeps."""
    if weight.shape[1] % 4:
        return layer
    # what is pruned already comes last
    inputs_last = weight.detach().abs().masked_fill(~layer, -1).transpose(1, -1)
    fours = inputs_last.reshape(-1, 4)
    first_two = fours.argsort(dim=1, descending=True, stable=True)[:, :2]
    largest = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, first_two, True)
    return (largest.view(inputs_last.shape).transpose(1, -1) & layer).contiguous()


def _check_fraction(fraction: float, may_be_one: bool = False) -> None:
    if not isinstance(fraction, Real) or not (0 <= fraction < 1 or (may_be_one and fraction == 1)):
        raise ValueError(
            f"fraction={fraction!r}: want a number, 0 <= fraction < 1 (the paper prunes 0.2 a"
            " round)"
        )


def _check_shapes(theta: Mapping[str, Tensor], m: Mask) -> None:
    for name, layer in m.items():
        if name not in theta or theta[name].shape != layer.shape:
            actual = tuple(theta[name].shape) if name in theta else "nothing of that name"
            raise ValueError(
                f"mask {name} {tuple(layer.shape)}: the weights have {actual}; want a mask of this"
                " network"
            )


def _flatten(m: Mask) -> Tensor:
    return torch.cat([layer.reshape(-1) for layer in m.values()])


def _drop_first(m: Mask, kept: Tensor, order: Tensor, fraction: float) -> Mask:
    """Drop the first share of the kept weights, which are listed in this order."""
    dropped = order[: round(fraction * len(order))]
    kept[kept.nonzero().squeeze(1)[dropped]] = False
    layers = kept.split([layer.numel() for layer in m.values()])
    return {
        name: flat.reshape(layer.shape).clone()
        for (name, layer), flat in zip(m.items(), layers, strict=True)
    }
