"""The browser's pictures.

Landscapes of several tickets on one scale, and test images under attack.
"""

import io
from types import SimpleNamespace
from typing import Any

import ipywidgets as w
import pandas as pd

from dwlt_lib.analysis import tables
from dwlt_lib.browser import markup
from dwlt_lib.browser.controls import WIDE, of_kind, offer, row
from dwlt_lib.plotting import landscapes
from dwlt_lib.plotting.style import PRETRAININGS, dataset_name, percent, style
from dwlt_lib.records import store

MOST = 8  # landscapes side by side


def png(fig: Any) -> str:
    """A matplotlib figure as the address of an image that a page carries in itself."""
    file = io.BytesIO()
    with style():
        fig.savefig(file, format="png", dpi=160)
    return markup.address(file.getvalue())


def _ticket(found: dict) -> str:
    """A row of a table as one line."""
    return (
        f"θ_{found['pretraining']}, {found['method']}, {percent(tables.sparsity_of(found))} %,"
        f" {dataset_name(found['dataset'])} {100 * found['fraction']:g} %, {found['regime']}, seed"
        f" {found['seed']}"
    )


def _whole(id: str, lines: list[str]) -> bool:
    """Whether a record's arrays can be read; if not, a line says so."""
    try:
        return bool(store.read(id).arrays())
    except Exception as error:  # safetensors' own, OSError, KeyError: a damaged file has many faces
        lines.append(markup.problem(f"record {id} cannot be read: {error}"))
        return False


def landscapes_tab(page: SimpleNamespace) -> SimpleNamespace:
    """Contours and 3-D surfaces of several tickets side by side, on one scale.

    Clean and attacked test data.
    """
    part = SimpleNamespace()
    part.kind = w.ToggleButtons(
        options=[("surface", "surface"), ("trajectory", "trajectory")],
        style={"button_width": "110px"},
    )
    part.look = w.ToggleButtons(options=["contours", "3-D"], style={"button_width": "90px"})
    part.images = w.ToggleButtons(
        options=["clean", "attacked", "both"], style={"button_width": "90px"}
    )
    part.chosen = w.SelectMultiple(rows=7, layout=w.Layout(width="100%", max_width="560px"))
    part.picture = w.HTML(layout=WIDE)
    hint = w.HTML(
        f"<small>Choose up to {MOST} tickets (Ctrl-click); all are drawn on one scale of"
        " loss.</small>"
    )
    part.box = w.VBox([row(part.kind, part.look, part.images), part.chosen, hint, part.picture])
    now = SimpleNamespace(table=pd.DataFrame(), busy=True, stale=True)

    def refresh(_: Any = None) -> None:
        now.busy, now.table, now.stale = True, of_kind(page, part.kind.value), True
        if len(now.table):
            order = now.table["pretraining"].map({p: i for i, p in enumerate(PRETRAININGS)})
            now.table = now.table.assign(order=order).sort_values(
                ["fraction", "dataset", "rounds", "order"], ascending=[False, True, True, True]
            )
        part.chosen.options = list({_ticket(r): None for r in now.table.to_dict("records")})
        if len(now.table):  # at first: one of each pre-training, the same otherwise
            first = now.table.drop_duplicates("pretraining")
            part.chosen.value = [_ticket(r) for r in first.to_dict("records")]
        now.busy = False
        if page.is_open(part):
            draw()

    def draw(_: Any = None) -> None:
        if now.busy:
            return
        now.stale, table = False, now.table
        if table.empty:
            part.picture.value = markup.problem(f"No {part.kind.value} record in this study yet.")
            return
        table = table[[_ticket(r) in part.chosen.value for r in table.to_dict("records")]]
        if part.images.value != "both":
            table = table[table["images"] == part.images.value]
        if table.empty or len(table) > MOST:
            part.picture.value = markup.problem(
                f"{len(table)} landscapes are chosen: want 1 to {MOST}."
            )
            return
        lines = []
        whole = [i for i, id in enumerate(table["id"]) if _whole(id, lines)]
        panels = landscapes.side_by_side(
            table.iloc[whole], store.read, columns=min(max(len(whole), 1), 4)
        )
        how = "contours" if part.kind.value == "trajectory" else part.look.value
        draw_them = landscapes.contours if how == "contours" else landscapes.surfaces_3d
        alt = f"loss {how}: {'; '.join(panel.title for panel in panels)}"
        drawn = markup.card("landscapes", drawn=png(draw_them(panels)), alt=alt)
        part.picture.value = "".join(lines) + drawn

    part.kind.observe(refresh, names="value")
    for control in (part.look, part.images, part.chosen):
        control.observe(draw, names="value")
    part.refresh, part.opened = refresh, lambda: draw() if now.stale else None
    return part


def images_tab(page: SimpleNamespace) -> SimpleNamespace:
    """Test images, their perturbation (amplified), and what dense and a ticket read, from
    transfer-attack records.
    """
    part = SimpleNamespace()
    part.who = w.Dropdown(description="ticket", layout=w.Layout(width="min(560px, 100%)"))
    part.level = w.SelectionSlider(
        options=[("dense", 0)], description="sparsity", continuous_update=False
    )
    part.source = w.Dropdown(
        options=[("each network's own PGD", "own"), ("the unseen model's images", "unseen")],
        description="attack",
    )
    part.amplify = w.FloatSlider(
        value=3, min=1, max=10, step=0.5, description="amplified", continuous_update=False
    )
    part.picture = w.HTML(layout=WIDE)
    part.box = w.VBox([row(part.who, part.source), row(part.level, part.amplify), part.picture])
    now = SimpleNamespace(table=pd.DataFrame(), busy=True, stale=True)
    keys = ["pretraining", "method", "dataset", "fraction", "regime", "seed"]

    def refresh() -> None:
        now.busy, now.table, now.stale = True, of_kind(page, "attack"), True
        table = now.table[now.table["rounds"] > 0] if len(now.table) else now.table
        groups = (
            table[keys].drop_duplicates().itertuples(index=False, name=None) if len(table) else ()
        )
        offer(
            part.who,
            [
                (f"θ_{p}, {m}, {dataset_name(d)} {100 * f:g} %, {r}, seed {s}", (p, m, d, f, r, s))
                for p, m, d, f, r, s in groups
            ],
        )
        now.busy = False
        levels()

    def levels(_: Any = None) -> None:
        if now.busy:
            return
        now.busy = True
        if part.who.value:
            at = tables.sparsities(of_ticket().reset_index(drop=True))
            sparse = [(f"{percent(at[r])} %", r) for r in sorted(at) if r]
            part.level.options = sparse or [("dense", 0)]
        now.busy = False
        if page.is_open(part):
            draw()

    def of_ticket() -> pd.DataFrame:
        p, m, *rest = part.who.value
        table = now.table[
            (now.table["pretraining"] == p)
            & ((now.table["method"] == m) | (now.table["rounds"] == 0))
        ]
        for key, value in zip(keys[2:], rest, strict=True):
            table = table[table[key] == value]
        return table.set_index("rounds", drop=False)

    def draw(_: Any = None) -> None:
        if now.busy:
            return
        now.stale = False
        if not part.who.value:
            part.picture.value = markup.problem(
                "No transfer-attack record in this study yet: they hold the images."
            )
            return
        table, found, lines = of_ticket(), {}, []
        for r in (0, part.level.value):
            if r in table.index and _whole(table.loc[r, "id"], lines):
                record = store.read(table.loc[r, "id"])
                label = f"{percent(tables.sparsity_of(table.loc[r]))} %" if r else "dense"
                if "image" in (arrays := record.arrays()):
                    found[label] = arrays | {"eps": record.spec["transfer"]["evaluation"]["eps"]}
        lines += (
            []
            if found
            else [markup.problem("No images are kept with these records; run the study again.")]
        )
        shown = markup.examples(found, part.source.value, part.amplify.value) if found else ""
        part.picture.value = "".join(lines) + shown

    part.who.observe(levels, names="value")
    for control in (part.level, part.source, part.amplify):
        control.observe(draw, names="value")
    part.refresh, part.opened = refresh, lambda: draw() if now.stale else None
    return part
