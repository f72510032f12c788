"""Masks by a score of each weight at theta_p, without training: SNIP, GraSP and SynFlow.

Each was made to prune a network before it is trained; here the network is theta_p, in eval mode, as
the code of Tanaka et al. has it, so that a score does not depend on how images are batched.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dwlt_lib.data.batches import LazyBatches
from dwlt_lib.models.architectures import Normalised, prunable
from dwlt_lib.models.tensors import Mask, Weights
from dwlt_lib.pruning.masks import dense_mask, num_kept, score_prune

MICRO_BATCH = 50
"""Images at once; gradients are summed."""

SYNFLOW_ITERATIONS = 100
"""As Tanaka et al. 2020 take."""

GRASP_TEMPERATURE = 200.0
"""By which logits are divided, as in the code of Wang et al. 2020."""


def one_shot_pruning(scores: Weights, rounds: int, fraction: float) -> Mask:
    """Drop the weights of smallest score at once, as many as `rounds` rounds of IMP.

    Args:
        scores: one for each prunable weight, by name.
        rounds: of which the mask has the sparsity.
        fraction: the share of the kept weights that a round prunes, in [0, 1).

    Returns:
        The mask; those of several rounds nest.
    """
    m = dense_mask(scores)
    for _ in range(rounds):
        m = score_prune(scores, m, fraction)
    return m


def snip(model: nn.Module, x: Tensor | LazyBatches, y: Tensor) -> Weights:
    """|g * theta| with g = dL/dtheta: how much the loss depends on each weight being there.

    Lee, Ajanthan and Torr 2019, "SNIP: single-shot network pruning based on connection
    sensitivity", but for the sum that all scores are divided by there.

    Args:
        model: theta_p in eval mode, with the head of the task of the images.
        x: images (N,C,H,W) in [0,1]; a LazyBatches too.
        y: their labels (N,).

    Returns:
        The score of each prunable weight; the smallest go first.
    """
    weights = prunable(model)
    gradient = [torch.zeros_like(weight) for weight in weights.values()]
    for loss in _losses(model, x, y):
        _add(gradient, torch.autograd.grad(loss, [*weights.values()]))
    return {
        name: (g * weight.detach()).abs()
        for (name, weight), g in zip(weights.items(), gradient, strict=True)
    }


def grasp(model: nn.Module, x: Tensor | LazyBatches, y: Tensor) -> Weights:
    """The score theta * Hg: how much the gradient's norm would fall if a weight were gone.

    Wang, Zhang and Grosse 2020, "Picking winning tickets before training by preserving gradient
    flow": of S = -theta * Hg the largest go first, whose loss raises g'g most.

    Args:
        model: theta_p in eval mode, with the head of the task of the images.
        x: images (N,C,H,W) in [0,1]; a LazyBatches too.
        y: their labels (N,).

    Returns:
        -S of each prunable weight; the smallest go first.
    """
    weights = prunable(model)
    parameters = [*weights.values()]
    gradient = [torch.zeros_like(weight) for weight in parameters]
    product = [torch.zeros_like(weight) for weight in parameters]
    with sdpa_kernel(SDPBackend.MATH):  # the one attention that can be differentiated twice
        for loss in _losses(model, x, y, GRASP_TEMPERATURE):
            _add(gradient, torch.autograd.grad(loss, parameters))
        for loss in _losses(model, x, y, GRASP_TEMPERATURE):
            own = torch.autograd.grad(loss, parameters, create_graph=True)
            products = [(a * b).sum() for a, b in zip(own, gradient, strict=True)]
            _add(product, torch.autograd.grad(products, parameters))
    return {
        name: weight.detach() * h
        for (name, weight), h in zip(weights.items(), product, strict=True)
    }


def synflow(model: Normalised, size: int, rounds: int, fraction: float) -> Mask:
    """SynFlow: in 100 iterations drop the weights on which the network's flow depends least.

    The flow is R = 1' prod_l |theta_l| 1, the sum of the logits for an input of ones, by the
    absolute values of all weights; a weight's score |theta| dR/d|theta|. No image is looked at, and
    no layer is pruned away before others must be. (Tanaka et al. 2020, "Pruning neural networks
    without any data by iteratively conserving synaptic flow", algorithm 1; ReLU networks.)

    BatchNorm multiplies by |gamma| / sigma, and shifts nothing, nor do biases: R is then a product,
    as the definition has it. At a network's initialisation nothing is shifted anyway.

    Args:
        model: theta_p; it is left as it is.
        size: side of the images in pixels.
        rounds: of which the mask has the sparsity.
        fraction: the share of the kept weights that a round prunes, in [0, 1).

    Returns:
        The mask. After iteration i of n, a share (1 - fraction)^(rounds * i / n) is left.
    """
    linear = _linear(model)
    m = dense_mask(prunable(model))
    total = last = num_kept(m)
    for _ in range(rounds):
        last -= round(fraction * last)
    for iteration in range(1, SYNFLOW_ITERATIONS + 1):
        left = round(total * (last / total) ** (iteration / SYNFLOW_ITERATIONS))
        m = score_prune(synaptic_flow(linear, m, size), m, 1 - left / num_kept(m))
    return m


def synaptic_flow(linear: Normalised, m: Mask, size: int) -> Weights:
    """The score |theta| dR/d|theta| of each weight under a mask.

    Args:
        linear: the network of absolute values, in double precision.
        m: the mask.
        size: side of the images in pixels.

    Returns:
        float64, 0 where m prunes.
    """
    weights = prunable(linear)
    masked = {name: weight * m[name] for name, weight in weights.items()}
    ones = (linear.mean + linear.std).expand(1, -1, size, size)  # which it normalises to 1
    logits = torch.func.functional_call(linear, masked, (ones,))
    slopes = torch.autograd.grad(logits.sum(), [*masked.values()])
    return {
        name: (weight * slope).detach()
        for (name, weight), slope in zip(masked.items(), slopes, strict=True)
    }


@torch.no_grad()
def _linear(model: Normalised) -> Normalised:
    """The network of absolute values that shifts nothing, in eval mode and double precision.

    The flow of a deep network leaves the range of floats.
    """
    linear = copy.deepcopy(model).double().eval()
    for name, weight in linear.named_parameters():
        weight.abs_()
        if name.endswith("bias"):
            weight.zero_()
    for name, buffer in linear.named_buffers():
        if name.endswith("running_mean"):
            buffer.zero_()
    return linear


def _losses(
    model: nn.Module, x: Tensor | LazyBatches, y: Tensor, temperature: float = 1.0
) -> Iterator[Tensor]:
    """The mean cross-entropy over all images as terms, one for each micro-batch."""
    for images, labels in zip(x.split(MICRO_BATCH), y.split(MICRO_BATCH), strict=True):
        yield F.cross_entropy(model(images) / temperature, labels, reduction="sum") / len(y)


def _add(total: list[Tensor], more: tuple[Tensor, ...]) -> None:
    for tensor, part in zip(total, more, strict=True):
        tensor += part
