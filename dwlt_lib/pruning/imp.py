"""Tickets (theta_p, m).

Prune, rewind, retrain (IMP), prune once (OMP), prune at random (RP) (paper, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.data.batches import Images
from dwlt_lib.models.architectures import prunable
from dwlt_lib.pruning.masks import Mask, Weights, dense_mask, magnitude_prune, random_prune
from dwlt_lib.training.trainer import Fitted, State, fit, generator


def prunable_weights(model: nn.Module, theta: State) -> Weights:
    """The prunable part of a state dictionary of this network, in the network's order."""
    return {name: theta[name] for name in prunable(model)}


def one_shot(theta: Weights, rounds: int, fraction: float) -> Mask:
    """OMP: the smallest |theta_p| go at once, down to the ladder's count after `rounds` rounds.

    No retraining.
    """
    m = dense_mask(theta)
    for _ in range(rounds):
        m = magnitude_prune(theta, m, fraction)
    return m


def at_random(theta: Weights, rounds: int, fraction: float, seed: int) -> Mask:
    """RP: the ladder's counts with weights drawn at random; the masks of one seed nest."""
    m = dense_mask(theta)
    for done in range(rounds):
        m = random_prune(m, fraction, generator(seed, "mask", done))
    return m


def imp_round(
    model: nn.Module,
    theta: State,
    m: Mask | None,
    fraction: float,
    retrain: TrainingConfig,
    train: Images,
    seed: int,
    checkpoint: Path | None = None,
    deadline: float | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> tuple[Mask, Fitted | None]:
    """One round of IMP: rewind everything to theta_p, retrain under m, prune what came of it.

    theta: the whole state of theta_p (convolutions, BatchNorm with its statistics, head); m: the
    mask of the round before, None before the first one, which prunes theta_p before any training.
    The optimiser starts afresh. Returns the next mask and the retraining (None in the first round).
    The model is left retrained.
    """
    weights = prunable_weights(model, theta)
    if m is None:
        return magnitude_prune(weights, dense_mask(weights), fraction), None
    model.load_state_dict(theta)
    found = fit(
        model,
        m,
        train,
        None,
        retrain,
        seed,
        checkpoint=checkpoint,
        deadline=deadline,
        progress=progress,
    )
    m = {name: part.to(weights[name].device) for name, part in m.items()}
    with torch.no_grad():
        return magnitude_prune(prunable_weights(model, found.last), m, fraction), found
