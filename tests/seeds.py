"""Where every draw of the tests begins.

DWLT_TEST_SEED (default 0) shifts them all, and no test may depend on it.
"""

import os
import random

import numpy as np
import torch

SEED = int(os.environ.get("DWLT_TEST_SEED", "0"))


def of(n: int = 0) -> int:
    """The n-th seed of this run."""
    return n + 1000 * SEED


def torch_rng(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(of(n))


def numpy_rng(n: int = 0) -> np.random.Generator:
    return np.random.default_rng(of(n))


def set_global(n: int = 0) -> None:
    """The generators that torch, numpy and Python share among all."""
    torch.manual_seed(of(n))
    np.random.seed(of(n))
    random.seed(of(n))
