"""The k-th smallest is exact, whatever the numbers."""

import pytest
import torch
from seeds import torch_rng

from dwlt_lib.pruning.kth_smallest import kth_smallest


@pytest.mark.parametrize("n", [1, 100, 2**16, 300_001])
def test_it_is_the_sorted_lists_kth_whatever_the_order_and_the_ties(n):
    g = torch_rng(n)
    normal = torch.randn(n, generator=g).abs()
    few = torch.randint(0, 3, (n,), generator=g).float()
    misleading = torch.arange(n).float().reshape(-1)
    misleading[:: max(1, n // 2**15)] = 1e9  # what a regular sample sees is not what there is
    for values in (
        normal,
        normal.sort().values,
        few,
        torch.zeros(n),
        misleading,
        normal.double(),
        normal.bfloat16(),
    ):
        for k in {1, max(1, n // 5), n}:
            assert kth_smallest(values, k) == values.sort().values[k - 1]
