"""Subsets of a training split: seeded, stratified and nested (paper, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np
import torch
from torch import Tensor

_STREAM = 0x5AB5E7  # keeps the draws of a subset apart from every other use of the same seed


def subset(
    labels: Tensor | Sequence[int] | np.ndarray,
    fraction: float,
    seed: int,
    rule: str = "stratified",
) -> Tensor:
    """Indices of int(fraction * N) of N images, nested: a smaller fraction's lie in a larger one's.

    The stratified rule orders the images such that every prefix holds each class in proportion, to
    within about one image, and takes a prefix of that order.

    Example:
        >>> _, labels = load("digits", "train")  # 1,157 images
        >>> len(subset(labels, 0.1, seed=0))
        115

    Args:
        labels: the class of each image, (N,), whole or floating numbers, N at least 1.
        fraction: the share of the images, in (0, 1]; the paper uses 1, 0.1 and 0.01.
        seed: 0 or more; the subset is a function of it, of the labels and of the fraction alone.
        rule: "stratified", or "first_n": the first images in file order (the authors' code), for
            which the seed does not matter.

    Returns:
        int64 (max(1, int(fraction * N)),), ascending.

    Raises:
        ValueError: one line, for an argument that is none of these.
    """
    if not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise ValueError(
            f"fraction={fraction!r}: want 0 < fraction <= 1 (the paper uses 1.0, 0.1 and 0.01)"
        )
    if rule not in ("stratified", "first_n"):
        raise ValueError(f"rule={rule!r}: want 'stratified' or 'first_n'")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}: want an integer, 0 or more")
    y = _label_array(labels)
    size = max(1, int(round(len(y) * fraction, 6)))  # rounded: 0.29 * 100 is 28.999...
    if rule == "first_n":
        return torch.arange(size)
    return torch.from_numpy(np.sort(_stratified_order(y, int(seed))[:size]))


def _label_array(labels: Tensor | Sequence[int] | np.ndarray) -> np.ndarray:
    try:
        y = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"labels, a {type(labels).__name__}: want one class per image, (N,)"
        ) from error
    if y.ndim != 1 or len(y) == 0 or y.dtype.kind not in "iuf" or not np.isfinite(y).all():
        raise ValueError(f"labels {y.shape} {y.dtype}: want one class per image, (N,), N >= 1")
    return y


def _stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A seeded order in which the n images of each class lie evenly spaced, at (i + 1/2) / n."""
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, _STREAM))))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((rng.random_sample(len(labels)), position))
