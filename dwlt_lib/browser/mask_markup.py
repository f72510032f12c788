"""What the browser says of masks (paper, section 6), as HTML.

It stands apart from `markup` because masks need torch.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from dwlt_lib.analysis import mask_patterns
from dwlt_lib.browser.markup import card, png
from dwlt_lib.plotting.style import PRETRAININGS
from dwlt_lib.pruning.masks import Mask

# a kernel with weights, a zero kernel, and the gap between layers
COLORS = np.array([[43, 43, 79], [245, 199, 16], [255, 255, 255]], np.uint8)


def masks_at(masks: Mapping[str, Mask], method: str, rounds: int, sparsity: float) -> str:
    """Kernel maps, zero kernels, similarities and densities of the masks at one level.

    Args:
        masks: by pre-training.
        method: how they were pruned.
        rounds: the level.
        sparsity: that of the level, in [0, 1].

    Returns:
        The HTML.
    """
    masks = {p: masks[p] for p in (*PRETRAININGS, *masks) if p in masks}  # in the paper's order
    kernels = {p: mask_patterns.zero_kernels(m) for p, m in masks.items()}
    pairs = [
        {
            "first": p,
            "second": q,
            "similarity": mask_patterns.relative_similarity(masks[p], masks[q]),
            "chance": mask_patterns.chance_similarity(masks[p], masks[q]),
        }
        for p, q in combinations(masks, 2)
    ]
    densities = {p: table.set_index("name")["density"] for p, table in kernels.items()}
    return card(
        "masks",
        method=method,
        sparsity=sparsity,
        rounds=rounds,
        maps={p: _kernel_maps(m, kernels[p]) for p, m in masks.items()},
        pairs=pairs,
        layers=list(pd.DataFrame(densities).itertuples(name=None)),
    )


def _kernel_maps(m: Mask, kernels: pd.DataFrame) -> list[dict[str, Any]]:
    """A row of Figure 7, block by block, of the kernels larger than 1x1.

    It is an image with a dot per kernel, the number of kernels, how many are zero and how many
    would be by chance.
    """
    larger = kernels[kernels["kernel"] > 1]
    counts = larger.groupby("block")[["kernels", "zero", "chance"]].sum()
    blocks = []
    for block, image in mask_patterns.kernel_map(m).items():
        color = np.where(np.ma.getmaskarray(image), 2, image.filled(False).astype(int))
        columns = color.shape[1]
        width = round(columns * min(2, 250 / columns))
        shown = {"name": block, "map": png(COLORS[color]), "width": width}
        blocks.append(shown | counts.loc[block].to_dict())
    return blocks
