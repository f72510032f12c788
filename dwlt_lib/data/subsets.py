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
    groups: Tensor | np.ndarray | None = None,
) -> Tensor:
    """Indices of int(fraction * N) of N images, nested: a smaller fraction's lie in a larger one's.

    The stratified rule orders the images such that every prefix holds each class in proportion, to
    within about one image, and takes a prefix of that order.

    With groups, the same is done with whole groups in place of images, so that what is in a subset
    and what is not share none: the pictures of one traffic sign, of one patient. A group counts for
    the class of its first image. A fraction with fewer groups than classes leaves classes out.

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
        groups: of each image, (N,) integers; None: every image is a group.

    Returns:
        int64 (max(1, int(fraction * N)),), ascending; with groups, of the fewest groups in that
        order that have so many images.

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
    group, first = _numbered(y, groups)
    order = np.arange(len(first))
    if rule == "stratified":
        order = _stratified_order(y[first], int(seed))
    num_images = np.cumsum(np.bincount(group)[order])
    chosen = np.zeros(len(first), dtype=bool)
    chosen[order[: np.searchsorted(num_images, size) + 1]] = True
    return torch.from_numpy(np.flatnonzero(chosen[group]))


def _numbered(y: np.ndarray, groups: Tensor | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The group of each image, numbered 0, 1, ... as they first appear; the first image of each."""
    if groups is None:
        return np.arange(len(y)), np.arange(len(y))
    values = groups.cpu().numpy() if isinstance(groups, Tensor) else np.asarray(groups)
    if values.shape != y.shape:
        raise ValueError(f"groups {values.shape}: want one group per image, {y.shape}")
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group], np.sort(first)


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
