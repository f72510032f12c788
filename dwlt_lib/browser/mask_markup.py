"""What the browser says of masks.

Kernel maps, zero kernels, densities and similarity, as HTML (paper, section 6).
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

RAMP = np.array([[43, 43, 79], [245, 199, 16], [255, 255, 255]], np.uint8)


def kernel_maps(m: Mask) -> list[dict[str, Any]]:
    """A row of Figure 7, block by block.

    One dot a kernel larger than 1x1, yellow where no weight is left; how many there are, how many
    are zero and how many would be by chance.
    """
    counts = mask_patterns.zero_kernels(m)
    counts = counts[counts["kernel"] > 1].groupby("block")[["kernels", "zero", "chance"]].sum()
    blocks = []
    for block, image in mask_patterns.kernel_map(m).items():
        code = np.where(np.ma.getmaskarray(image), 2, image.filled(False).astype(int))
        columns = code.shape[1]
        blocks.append(
            {
                "name": block,
                "map": png(RAMP[code]),
                "width": round(columns * min(2, 250 / columns)),
                **{name: f"{value:.0f}" for name, value in counts.loc[block].items()},
            }
        )
    return blocks


def density(masks: Mapping[str, Mask]) -> dict[str, list[float]]:
    """{layer: the share of its weights that each mask keeps}."""
    found = {
        p: mask_patterns.zero_kernels(m).set_index("name")["density"] for p, m in masks.items()
    }
    rows = pd.DataFrame(found).itertuples(name=None)
    return {layer.removesuffix(".weight"): values for layer, *values in rows}


def similarity(masks: Mapping[str, Mask]) -> list[dict[str, Any]]:
    """Relative similarity of every pair of pre-trainings, and what chance gives."""
    return [
        {
            "first": p,
            "second": q,
            "similarity": mask_patterns.relative_similarity(masks[p], masks[q]),
            "chance": mask_patterns.chance_similarity(masks[p], masks[q]),
        }
        for p, q in combinations(masks, 2)
    ]


def masks_at(masks: Mapping[str, Mask], method: str, rounds: int, sparsity: float) -> str:
    """All that the browser says of the masks of one method and level, {pretraining: mask}.

    sparsity: that of the level, in [0,1].
    """
    masks = {p: masks[p] for p in (*PRETRAININGS, *masks) if p in masks}  # in the paper's order
    return card(
        "masks",
        method=method,
        sparsity=sparsity,
        rounds=rounds,
        maps={p: kernel_maps(m) for p, m in masks.items()},
        pairs=similarity(masks),
        layers=density(masks),
    )
