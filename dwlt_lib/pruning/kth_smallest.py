"""The k-th smallest of many numbers: the threshold of global magnitude pruning."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**16  # numbers that fit a processor's cache


def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of numbers, exactly, in linear time.

    On a processor a sorted sample gives an interval in which it very likely lies, and only the
    numbers inside are ranked; if it lies outside, all are.

    Args:
        values: finite numbers (N,).
        k: from 1 to N.

    Returns:
        A scalar tensor.
    """
    n = len(values)
    has_fast_path = values.dtype in (torch.float32, torch.float64) and values.device.type == "cpu"
    if n < CHUNK or not has_fast_path:
        return torch.kthvalue(values, k).values
    import numpy as np  # here, so that a ticket can be loaded without numpy

    numbers = values.numpy()
    sample = np.sort(numbers[:: n // CHUNK])
    center, margin = k / n * len(sample), 3 * len(sample) ** 0.5
    low = sample[max(0, int(center - margin))]
    high = sample[min(len(sample) - 1, int(center + margin))]
    below, chunks_within = 0, []
    for chunk in np.split(numbers, range(CHUNK, n, CHUNK)):
        below += np.count_nonzero(chunk < low)
        chunks_within.append(chunk[(chunk >= low) & (chunk <= high)])
    within = np.concatenate(chunks_within)
    if not below < k <= below + len(within):
        within, below = numbers, 0
    rank = k - below - 1
    return torch.from_numpy(np.partition(within, rank)[rank : rank + 1])[0]
