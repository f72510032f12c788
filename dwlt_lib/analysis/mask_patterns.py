"""What masks look like: relative similarity and its chance level, zero kernels, kernel maps (paper,
section 6).

A mask is {torchvision parameter name: bool tensor (out, in, kh, kw)}; True keeps the weight. A
kernel is one (kh, kw) slice. Most kernels of a ResNet-50 are 1x1, where "zero kernel" only restates
the sparsity: larger ones are told apart.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
import torch

from dwlt_lib.models.tensors import Mask


def _paired(a: Mask, b: Mask) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The layers of two masks of one architecture, side by side."""
    if a.keys() != b.keys():
        raise ValueError(
            f"layers {sorted(a.keys() ^ b.keys())} are in one mask only: want masks of one"
            " architecture"
        )
    for name in a:
        if a[name].shape != b[name].shape:
            raise ValueError(
                f"{name}: shapes {tuple(a[name].shape)} and {tuple(b[name].shape)}: want masks of"
                " one architecture"
            )
    return [(a[name].bool(), b[name].bool()) for name in a]


def relative_similarity(a: Mask, b: Mask) -> float:
    """|a & b| / |a | b| over all weights (section 6, Figure A8).

    1 for equal masks (empty ones too), 0 for disjoint.
    """
    pairs = _paired(a, b)
    both = sum(int((x & y).sum()) for x, y in pairs)
    either = sum(int((x | y).sum()) for x, y in pairs)
    return both / either if either else 1.0


def chance_similarity(a: Mask, b: Mask) -> float:
    """The similarity to expect of independent random masks with these layer-wise densities.

    sum n pa pb / sum n (pa + pb - pa pb) over layers of n weights with densities pa, pb: what
    relative_similarity must exceed before an overlap says anything. At one common density p it is p
    / (2 - p): 15.1 % at 73.79 % sparsity.
    """
    both = either = 0.0
    for x, y in _paired(a, b):
        pa, pb = x.double().mean().item(), y.double().mean().item()
        both += x.numel() * pa * pb
        either += x.numel() * (pa + pb - pa * pb)
    return both / either if either else 1.0


def _block(name: str) -> str:
    """The residual block of a torchvision name.

    Layer3.0.conv2.weight -> B3, conv1.weight -> stem (Figure 7).
    """
    head = name.removeprefix("module.").split(".")[0]
    return f"B{head.removeprefix('layer')}" if head.startswith("layer") else "stem"


def _convolutions(m: Mask) -> dict[str, torch.Tensor]:
    return {name: keep.bool() for name, keep in m.items() if keep.ndim == 4}


def zero_kernels(m: Mask) -> pd.DataFrame:
    """Completely pruned kernels (section 6), one row a convolution: name, block (stem, B1..B4),
    kernel (its height kh), kernels (out * in), zero (of them without a weight left), density (share
    of weights kept), chance (the zero kernels to expect if as many of the layer's N weights were
    kept at random: kernels * C(N - kh kw, kept) / C(N, kept)).
    """
    rows = []
    for name, keep in _convolutions(m).items():
        out, into, kh, kw = keep.shape
        size, kept = keep.numel(), int(keep.sum())
        steps = np.arange(kh * kw)
        chance = out * into * np.prod(np.clip((size - kept - steps) / (size - steps), 0, 1))
        zero = int((~keep.flatten(2).any(2)).sum())
        rows.append([name, _block(name), kh, out * into, zero, kept / size, float(chance)])
    return pd.DataFrame(
        rows, columns=["name", "block", "kernel", "kernels", "zero", "density", "chance"]
    )


def kernel_map(m: Mask, pointwise: bool = False) -> dict[str, np.ma.MaskedArray]:
    """One dot per (out, in) kernel, by residual block (Figure 7): {block: (rows, columns) bool},
    True a zero kernel.

    The block's layers stand side by side, each an (out, in) image, so that a dead channel is a
    line; what lies between and below them is masked. pointwise: the 1x1 kernels instead of the
    larger ones.
    """
    blocks: dict[str, list[np.ndarray]] = {}
    for name, keep in _convolutions(m).items():
        if (max(keep.shape[2:]) == 1) == pointwise:
            blocks.setdefault(_block(name), []).append((~keep.flatten(2).any(2)).cpu().numpy())
    maps = {}
    for block, layers in blocks.items():
        height, gap = max(len(x) for x in layers), max(1, max(x.shape[1] for x in layers) // 32)
        image, left = (
            np.ma.masked_all((height, sum(x.shape[1] + gap for x in layers) - gap), dtype=bool),
            0,
        )
        for x in layers:
            image[: len(x), left : left + x.shape[1]] = x
            left += x.shape[1] + gap
        maps[block] = image
    return maps


def _with_sparsity(table: pd.DataFrame) -> pd.DataFrame:
    return table if "sparsity" in table.columns else table.assign(sparsity=np.nan)


ORDER = {"pretraining": ("STD", "FAT", "AT"), "method": ("IMP-ST", "IMP-AT", "OMP", "RP")}


def similarity_table(
    table: pd.DataFrame,
    load: Callable[[str], Mask],
    between: Literal["pretraining", "method"] = "pretraining",
) -> pd.DataFrame:
    """Figure A8, top. table: mask records (id, pretraining, method, rounds, seed); load: id -> Mask
    (pruning.mask_of).

    One row for each pair of pre-trainings ("STD and FAT") that a method, rounds and seed share, or,
    between methods, for each pair of these that a pre-training, rounds and seed share: sparsity
    (the records', NaN where they say none), pair, similarity, chance (fractions).
    """
    other = "method" if between == "pretraining" else "pretraining"
    rows, table = [], _with_sparsity(table)
    for key, group in table.groupby([other, "rounds", "seed"]):
        found = {row[between]: load(row["id"]) for row in group.to_dict("records")}
        for p, q in combinations([p for p in ORDER[between] if p in found], 2):
            pair = found[p], found[q]
            rows.append(
                [
                    *key,
                    group["sparsity"].median(),
                    f"{p} and {q}",
                    relative_similarity(*pair),
                    chance_similarity(*pair),
                ]
            )
    return pd.DataFrame(
        rows, columns=[other, "rounds", "seed", "sparsity", "pair", "similarity", "chance"]
    )


def zero_kernel_table(table: pd.DataFrame, load: Callable[[str], Mask]) -> pd.DataFrame:
    """Figure A8, bottom: zero_kernels of every mask record, with its pretraining, method, rounds,
    seed and sparsity in front."""
    keys, table = ["pretraining", "method", "rounds", "seed", "sparsity"], _with_sparsity(table)
    found = [
        zero_kernels(load(row["id"])).assign(**{k: row[k] for k in keys})
        for row in table.to_dict("records")
    ]
    columns = [*keys, *zero_kernels({}).columns]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)
