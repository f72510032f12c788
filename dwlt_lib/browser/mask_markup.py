"""What the browser says of masks.

Kernel maps, zero kernels, densities and similarity, as HTML (paper, section 6).
"""

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd

from dwlt_lib.analysis import mask_patterns
from dwlt_lib.browser.markup import box, key, picture, rows_of
from dwlt_lib.plotting.style import PRETRAININGS, percent
from dwlt_lib.pruning.masks import Mask


def _meter(value: float, chance: float | None = None) -> str:
    """A bar from 0 to 1, with a tick at what chance gives."""
    tick = "" if chance is None else f'<i style="left:{100 * chance:.1f}%"></i>'
    return f'<span class="meter"><b style="width:{100 * value:.1f}%"></b>{tick}</span>'


def kernel_maps(masks: Mapping[str, Mask]) -> str:
    """Figure 7, {pretraining: mask}.

    One dot a kernel larger than 1x1, yellow where no weight is left, by block.
    """
    ramp, rows = np.array([[43, 43, 79], [245, 199, 16], [255, 255, 255]], np.uint8), []
    for p, m in masks.items():
        counts = mask_patterns.zero_kernels(m)
        counts = counts[counts["kernel"] > 1].groupby("block")[["kernels", "zero", "chance"]].sum()
        cells = []
        for block, image in mask_patterns.kernel_map(m).items():
            zero, every, chance = (
                float(counts.loc[block, c]) for c in ("zero", "kernels", "chance")
            )
            code = np.where(np.ma.getmaskarray(image), 2, image.filled(False).astype(int))
            alt = f"kernel map of theta_{p}, {block}: {zero:.0f} of {every:.0f} kernels are zero"
            text = (
                f"{escape(block)}: <b>{zero:.0f}</b><br><small>of {every:.0f}, chance"
                f" {chance:.0f}</small>"
            )
            shown = picture(ramp[code], round(code.shape[1] * min(2, 250 / code.shape[1])), alt)
            cells.append(
                f'<div data-zero="{zero:.0f}" data-block="{escape(block)}">{text}{shown}</div>'
            )
        rows.append(
            f'<p>{key(p)}</p><div class="row" data-pretraining="{escape(p)}">{"".join(cells)}</div>'
        )
    return "".join(rows)


def density(masks: Mapping[str, Mask]) -> str:
    """Share of weights kept, a layer a row, a pre-training a column."""
    found = {
        p: mask_patterns.zero_kernels(m).set_index("name")["density"] for p, m in masks.items()
    }
    rows = [
        f"<tr><td>{escape(layer.removesuffix('.weight'))}</td>"
        + "".join(f"<td>{percent(v)} {_meter(v)}</td>" for v in values)
        + "</tr>"
        for layer, *values in pd.DataFrame(found).itertuples(name=None)
    ]
    return rows_of(["kept (%)", *(f"θ {p}" for p in found)], rows)


def similarity(masks: Mapping[str, Mask]) -> str:
    """Relative similarity of every pair of pre-trainings, its chance level as a tick."""
    rows, names = [], list(masks)
    for i, p in enumerate(names):
        for q in names[i + 1 :]:
            value, chance = (
                f(masks[p], masks[q])
                for f in (mask_patterns.relative_similarity, mask_patterns.chance_similarity)
            )
            rows.append(
                f"<tr><td>{escape(f'{p} and {q}')}</td><td"
                f' data-similarity="{value:.6f}">{percent(value)}</td>'
                f"<td>{percent(chance)}</td><td>{_meter(value, chance)}</td></tr>"
            )
    return rows_of(["masks of", "similar (%)", "by chance", ""], rows) if rows else ""


def masks_at(masks: Mapping[str, Mask], method: str, rounds: int, sparsity: float) -> str:
    """All that the browser says of the masks of one method and level, {pretraining: mask}.

    sparsity: that of the level, in [0,1].
    """
    head = f"<h4>Masks by {escape(method)} at {percent(sparsity)} % sparsity</h4>"
    if not masks:
        found = "Dense: nothing is pruned." if rounds == 0 else "No mask record at this level."
        return box(f"{head}<p>{found}</p>", "masks")
    masks = {p: masks[p] for p in PRETRAININGS if p in masks}
    return box(
        f"{head}<p>Zero kernels among those larger than 1x1, block by block: a dot a kernel, yellow"
        " where no "
        f"weight is left, rows are output channels.</p>{kernel_maps(masks)}"
        f'<div class="row"><div><h4>Similarity between pre-trainings</h4>{similarity(masks)}'
        f"<p><small>| what independent random masks of the same layer densities"
        f" give</small></p></div>"
        f"<div><h4>Density of each layer</h4>{density(masks)}</div></div>",
        "masks",
    )
