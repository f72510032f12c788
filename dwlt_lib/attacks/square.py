"""Square attack: random search over squares of pixels (Andriushchenko et al., ECCV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dwlt_lib.attacks.pgd import ball, network_under_attack
from dwlt_lib.config.recipes import Square

P_INIT = 0.8
"""Share of the image that the first squares cover, as in AutoAttack."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which the share is halved (section 3.1); scaled to those there are."""


def perturb(model: nn.Module, x: Tensor, y: Tensor, attack: Square, rng: torch.Generator) -> Tensor:
    """The images of the smallest margin, logit of the class less the largest other, that are found.

    Each query moves one square of each image to x + eps or x - eps, a sign for each channel, and
    keeps it if the margin falls (algorithms 1 and 2). An image that is misclassified once is done.

    Args:
        model: a network in eval mode; its gradient is never asked for.
        x: images (B,C,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: the adversary.
        rng: where squares and signs are drawn from.

    Returns:
        (B,C,H,W), within eps of x and within [0,1].
    """
    adversarial = x.clone()
    with network_under_attack(model) as network, torch.no_grad():
        remaining = (_margin(network, x, y) >= 0).nonzero().squeeze(1)
        images, labels = x[remaining], y[remaining]
        low, high = ball(images, attack.eps)
        channels, height, width = x.shape[1:]
        # vertical stripes
        best = torch.where(_signs((len(images), channels, 1, width), x, rng), high, low)
        margin = _margin(network, best, labels)
        adversarial[remaining] = best
        for query in range(1, attack.queries):
            standing = margin >= 0
            if not bool(standing.all()):
                remaining, images, labels = remaining[standing], images[standing], labels[standing]
                low, high, best = low[standing], high[standing], best[standing]
                margin = margin[standing]
            if len(remaining) == 0:
                break
            side = round((share(query, attack.queries) * height * width) ** 0.5)
            side = min(max(side, 1), height, width)
            rows = _window(len(images), height, side, x, rng)
            columns = _window(len(images), width, side, x, rng)
            square = rows[:, None, :, None] & columns[:, None, None, :]
            value = torch.where(_signs((len(images), channels, 1, 1), x, rng), high, low)
            proposed = torch.where(square, value, best)
            found = _margin(network, proposed, labels)
            better = found < margin
            best = torch.where(better[:, None, None, None], proposed, best)
            margin = torch.where(better, found, margin)
            adversarial[remaining] = best
    return adversarial


def share(query: int, queries: int) -> float:
    """The share of the image that a square covers.

    Args:
        query: how many queries were made before.
        queries: how many there are in all.

    Returns:
        0.8 at the start, halved up to nine times.
    """
    return P_INIT / 2 ** sum(10_000 * query > after * queries for after in HALVINGS)


def _margin(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The logit of the class less the largest other, (B,); not negative where it is predicted."""
    if len(x) == 0:
        return x.new_zeros(0)
    logits = network(x)
    own = logits.gather(1, y[:, None]).squeeze(1)
    return own - logits.scatter(1, y[:, None], -torch.inf).amax(1)


def _uniform(shape: tuple[int, ...], like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng, device=rng.device).to(like.device)


def _signs(shape: tuple[int, ...], like: Tensor, rng: torch.Generator) -> Tensor:
    return _uniform(shape, like, rng) < 0.5


def _window(count: int, length: int, side: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """For each image `side` neighbouring positions of `length`, at random: (count, length) bool."""
    first = (_uniform((count, 1), like, rng) * (length - side + 1)).long()
    places = torch.arange(length, device=like.device)
    return (places >= first) & (places < first + side)
