"""How a mask m is found from theta_p: IMP, OMP or RP (paper, sections 3 and 4), and a control.

One round prunes the same share (20 % in the paper) of the weights that are left, whatever the
method, so that masks after as many rounds are equally sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dwlt_lib.models.architectures import prunable
from dwlt_lib.models.tensors import Mask, Weights
from dwlt_lib.pruning.masks import dense_mask, magnitude_prune, random_prune, sparsity
from dwlt_lib.training.trainer import generator

Prune = Callable[[Weights, Mask, float], Mask]
"""One round of pruning: `magnitude_prune`, `two_of_four_prune` or `channel_prune`."""


def iterative_magnitude_pruning(  # noqa: PLR0913 (the method's own terms)
    model: nn.Module,
    theta: Mapping[str, Tensor],
    m: Mask,
    retrain: Callable[[nn.Module, Mask], object],
    *,
    rounds: int,
    fraction: float,
    prune: Prune = magnitude_prune,
) -> Mask:
    """IMP: in each round rewind to theta_p, retrain under m, prune by magnitude (section 3).

    A dense m is not retrained: the first round prunes theta_p itself.

    Args:
        model: a network of theta_p's architecture; it is left as its last retraining left it.
        theta: the whole state dictionary of theta_p, to which each round rewinds: convolutions,
            BatchNorm with its statistics, head.
        m: the mask so far, `dense_mask` at the start.
        retrain: trains the network in place under the mask, with a new optimiser (standard training
            for IMP-ST, adversarial for IMP-AT).
        rounds: how many more rounds to prune.
        fraction: the share of the kept weights that a round prunes, in [0, 1).
        prune: how a round prunes: single weights, 2:4 or channels.

    Returns:
        m' <= m after these rounds.
    """
    for _ in range(rounds):
        model.load_state_dict(theta)
        if sparsity(m) > 0:
            retrain(model, m)
        m = prune(dict(prunable(model)), m, fraction)
    return m


def one_shot_magnitude_pruning(
    theta: Weights, rounds: int, fraction: float, prune: Prune = magnitude_prune
) -> Mask:
    """OMP: drop the smallest |theta_p| at once, as many as `rounds` rounds of IMP, untrained.

    Args:
        theta: theta_p's prunable weights (`prunable_weights`).
        rounds: of which the mask has the sparsity.
        fraction: the share of the kept weights that a round prunes, in [0, 1).
        prune: what goes: single weights, all but two of four, or channels.

    Returns:
        The mask.
    """
    m = dense_mask(theta)
    for _ in range(rounds):
        m = prune(theta, m, fraction)
    return m


def random_pruning(theta: Weights, rounds: int, fraction: float, seed: int) -> Mask:
    """RP: drop weights at random, as many as `rounds` rounds of IMP.

    Args:
        theta: theta_p's prunable weights (`prunable_weights`); only their shapes matter.
        rounds: of which the mask has the sparsity; the masks of one seed nest.
        fraction: the share of the kept weights that a round prunes, in [0, 1).
        seed: of the random choice; 0 is a seed like any other.

    Returns:
        The mask.
    """
    m = dense_mask(theta)
    for round in range(rounds):
        m = random_prune(m, fraction, generator(seed, "mask", round))
    return m


def shuffled(m: Mask, seed: int) -> Mask:
    """A control: m with the weights that it keeps moved to random places of their own layer.

    The result is a random mask, uniform among those with m's density in each layer: random pruning
    with the layer densities of m's method. What it keeps of m's accuracy is owed to the densities,
    not to the choice of weights (Frankle et al. 2021, "Pruning neural networks at initialization",
    section 5; Su et al. 2020, "Sanity-checking pruning methods").

    Args:
        m: the mask.
        seed: of the shuffling; the shuffled masks of one seed nest as the masks do.

    Returns:
        A mask with as many ones in each layer.
    """
    rng = generator(seed, "shuffle")
    places = {name: torch.randperm(layer.numel(), generator=rng) for name, layer in m.items()}
    return {name: layer.flatten()[places[name]].reshape(layer.shape) for name, layer in m.items()}


def prunable_weights(model: nn.Module, theta: Mapping[str, Tensor]) -> Weights:
    """The prunable weights of a state dictionary, in the network's order.

    Args:
        model: a network of that architecture, whatever its weights.
        theta: its whole state dictionary.

    Returns:
        A part of the state dictionary; no tensor is copied.
    """
    return {name: theta[name] for name in prunable(model)}
