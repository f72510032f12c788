"""What masks look like (paper, section 6): relative similarity, zero kernels, kernel maps.

A mask is {torchvision parameter name: bool tensor (out, in, kh, kw)}; True keeps the weight. A
kernel is one (kh, kw) slice. Most kernels of a ResNet-50 are 1x1, where "zero kernel" only restates
the sparsity, so that larger ones are counted apart from these.
"""

import re
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch

from dwlt_lib.analysis.tables import base_seeds
from dwlt_lib.config.specs import TRANSPLANTED, Method, Pretraining
from dwlt_lib.models.messages import describe_differences
from dwlt_lib.models.tensors import Mask

ORDER = {"pretraining": get_args(Pretraining), "method": get_args(Method)}


def relative_similarity(a: Mask, b: Mask) -> float:
    """|a and b| / |a or b| over all weights (section 6, Figure A8).

    Args:
        a: a mask.
        b: a mask of the same architecture.

    Returns:
        1 for equal masks (empty ones too), 0 for disjoint ones.

    Raises:
        ValueError: one line, for masks of different architectures.

    Example:
        >>> relative_similarity(read_mask(id_of_STD), read_mask(id_of_AT))
    """
    pairs = _paired_layers(a, b)
    both = sum(int((layer_a & layer_b).sum()) for layer_a, layer_b in pairs)
    either = sum(int((layer_a | layer_b).sum()) for layer_a, layer_b in pairs)
    return both / either if either else 1.0


def chance_similarity(a: Mask, b: Mask) -> float:
    """The similarity to expect of independent random masks with the same layer-wise densities.

    sum n pa pb / sum n (pa + pb - pa pb) over layers of n weights with densities pa and pb: only
    what exceeds it says something about the masks. At one density p for all it is p / (2 - p): 15.1
    % at 73.79 % sparsity.

    Args:
        a: a mask.
        b: a mask of the same architecture.

    Returns:
        The expected similarity, in [0, 1]; 1 for empty masks.

    Raises:
        ValueError: one line, for masks of different architectures.
    """
    both = either = 0.0
    for layer_a, layer_b in _paired_layers(a, b):
        pa, pb = layer_a.double().mean().item(), layer_b.double().mean().item()
        both += layer_a.numel() * pa * pb
        either += layer_a.numel() * (pa + pb - pa * pb)
    return both / either if either else 1.0


def zero_kernels(m: Mask) -> pd.DataFrame:
    """Counts the completely pruned kernels of every convolution (section 6).

    Args:
        m: a mask.

    Returns:
        One row per convolution: name, block (`stages`), kernel (its height kh), kernels (out * in),
        zero (how many of them have no weight left), density (the share of weights kept) and chance
        (the zero kernels to expect if as many of the layer's N weights were kept at random: kernels
        * C(N - kh kw, kept) / C(N, kept)).
    """
    rows, block = [], stages(m)
    for name, layer in _convolutions(m).items():
        out_channels, in_channels, kh, kw = layer.shape
        kernels, size, kept = out_channels * in_channels, layer.numel(), int(layer.sum())
        drawn = np.arange(kh * kw)
        probability = np.prod(np.clip((size - kept - drawn) / (size - drawn), 0, 1))
        zero = int(_is_zero_kernel(layer).sum())
        chance = float(kernels * probability)
        rows.append([name, block[name], kh, kernels, zero, kept / size, chance])
    columns = ["name", "block", "kernel", "kernels", "zero", "density", "chance"]
    return pd.DataFrame(rows, columns=columns)


def stages(names: Iterable[str]) -> dict[str, str]:
    """The stage of a network that each of its parameters belongs to.

    Args:
        names: all names of a mask, in the network's order.

    Returns:
        Of a ResNet its block, "layer3.0.conv2.weight" in "B3", and "stem" before these; of another
        network the outermost module, counted where it is a sequence: "features.1.0.block.0.weight"
        in "features.1", "patch_embed.proj.weight" in "patch_embed".
    """
    parts = {name: [*name.removeprefix("module.").split("."), ""] for name in names}
    residual = {first for first, *_ in parts.values() if re.fullmatch(r"layer\d", first)}
    if residual:
        return {
            name: first.replace("layer", "B") if first in residual else "stem"
            for name, (first, *_) in parts.items()
        }
    return {
        name: f"{first}.{second}" if second.isdigit() and first != "stem" else first
        for name, (first, second, *_) in parts.items()
    }


def kernel_map(m: Mask) -> dict[str, np.ma.MaskedArray]:
    """Images of a mask's zero kernels, one dot per (out, in) kernel, one per block (Figure 7).

    Only kernels larger than 1x1 are shown. The block's layers are side by side, each an (out, in)
    image, so that a dead channel is a line; what lies between and below them is masked out.

    Args:
        m: a mask.

    Returns:
        {block: (rows, columns) bool} in the network's order, True where a kernel is zero.
    """
    blocks: dict[str, list[np.ndarray]] = {}
    block = stages(m)
    for name, layer in _convolutions(m).items():
        if max(layer.shape[2:]) > 1:
            blocks.setdefault(block[name], []).append(_is_zero_kernel(layer).cpu().numpy())
    return {block: _side_by_side(layers) for block, layers in blocks.items()}


def masks_by_method(table: pd.DataFrame, pretraining: str = "AT") -> pd.DataFrame:
    """The masks that tickets of one theta_p are made of, for `similarity_table` between methods.

    Args:
        table: mask records, as `records.table` gives them.
        pretraining: STD, FAT or AT.

    Returns:
        The records of the base theta_p; and as method IMP-ST-transplant those of IMP-ST from the
        theta_p of the next seed, where there are any.
    """
    table = table[table["pretraining"] == pretraining]
    own = base_seeds(table)
    if own.empty or "theta_seed" not in own.columns:
        return own
    is_next = table["theta_seed"] == own["theta_seed"].iloc[0] + 1
    transplants = table[is_next & (table["method"] == "IMP-ST")].assign(method=TRANSPLANTED)
    return pd.concat([own, transplants], ignore_index=True)


def similarity_table(
    table: pd.DataFrame,
    load: Callable[[str], Mask],
    between: Literal["pretraining", "method"] = "pretraining",
) -> pd.DataFrame:
    """The relative similarity of all pairs of masks that differ in one setting (Figure A8, top).

    Args:
        table: mask records: id, pretraining, method, rounds, seed, perhaps sparsity.
        load: gives the mask of an id (`pruning.read_mask`).
        between: the setting in which a pair differs. The rest is the same: method, rounds and seed,
            or pretraining, rounds and seed.

    Returns:
        One row per pair: the column that is the same (method or pretraining), rounds, seed,
        sparsity (the records', NaN where they give none), pair ("STD and FAT"), similarity and
        chance, in [0, 1].
    """
    shared = "method" if between == "pretraining" else "pretraining"
    rows = []
    table = table.reindex(columns=["id", "pretraining", "method", "rounds", "seed", "sparsity"])
    for key, group in table.groupby([shared, "rounds", "seed"]):
        masks = {row[between]: load(row["id"]) for row in group.to_dict("records")}
        for p, q in combinations([name for name in ORDER[between] if name in masks], 2):
            similarity = relative_similarity(masks[p], masks[q])
            chance = chance_similarity(masks[p], masks[q])
            rows.append([*key, group["sparsity"].median(), f"{p} and {q}", similarity, chance])
    columns = [shared, "rounds", "seed", "sparsity", "pair", "similarity", "chance"]
    return pd.DataFrame(rows, columns=columns)


def zero_kernel_table(table: pd.DataFrame, load: Callable[[str], Mask]) -> pd.DataFrame:
    """The zero kernels of every mask record (Figure A8, bottom).

    Args:
        table: mask records: id, pretraining, method, rounds, seed, perhaps sparsity.
        load: gives the mask of an id (`pruning.read_mask`).

    Returns:
        The rows of `zero_kernels` of every mask, with its pretraining, method, rounds, seed and
        sparsity in front.
    """
    keys = ["pretraining", "method", "rounds", "seed", "sparsity"]
    columns = [*keys, *zero_kernels({}).columns]
    counts = [
        zero_kernels(load(row["id"])).assign(**{key: row[key] for key in keys})
        for row in table.reindex(columns=["id", *keys]).to_dict("records")
    ]
    if not counts:
        return pd.DataFrame(columns=columns)
    return pd.concat(counts, ignore_index=True)[columns]


def _paired_layers(a: Mask, b: Mask) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The layers of two masks of one architecture, as pairs."""
    shapes_a, shapes_b = ({name: tuple(layer.shape) for name, layer in m.items()} for m in (a, b))
    if differing := describe_differences(shapes_b, shapes_a):
        raise ValueError(f"{differing}: want masks of one architecture")
    return [(a[name].bool(), b[name].bool()) for name in a]


def _convolutions(m: Mask) -> Mask:
    """The layers whose weights have four dimensions, as bool."""
    return {name: layer.bool() for name, layer in m.items() if layer.ndim == 4}


def _is_zero_kernel(layer: torch.Tensor) -> torch.Tensor:
    """(out, in) bool: the kernels of an (out, in, kh, kw) mask without a weight left."""
    return ~layer.flatten(2).any(2)


def _side_by_side(layers: list[np.ndarray]) -> np.ma.MaskedArray:
    """One image of several, from left to right, with masked gaps between them."""
    gap = max(1, max(layer.shape[1] for layer in layers) // 32)
    width = sum(layer.shape[1] + gap for layer in layers) - gap
    image = np.ma.masked_all((max(len(layer) for layer in layers), width), dtype=bool)
    left = 0
    for layer in layers:
        image[: len(layer), left : left + layer.shape[1]] = layer
        left += layer.shape[1] + gap
    return image
