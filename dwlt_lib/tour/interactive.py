"""The tour's sliders.

Prune, attack and transfer a network and see what becomes of it, within a second or a few.
"""

from __future__ import annotations

import io
import time
from typing import Any

import pandas as pd
from ipywidgets import HTML, Box, Button, Image, SelectionSlider, ToggleButtons, VBox
from torch import nn

from dwlt_lib.analysis.double_win import ladder, sparsities, spread
from dwlt_lib.config import studies
from dwlt_lib.plotting import figures
from dwlt_lib.tour import experiments

ROUNDS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18)
ROOMY = (
    "<style>.dwlt th, .dwlt td {padding: 0 0.8em 0 0; text-align: left; line-height: 1.7}</style>"
)
WIDE = {"width": "min(100%, 540px)"}
COLUMNS = [
    "pretraining",
    "method",
    "dataset",
    "fraction",
    "regime",
    "SA",
    "RA",
    "SA_std",
    "RA_std",
    "seeds",
]


def adversary(study: studies.Study, networks: dict[str, nn.Module]) -> VBox:
    """A slider over eps: what each network is shown, and what it reads."""
    x, y = experiments.some_images(study)
    pictures, lines = {p: _picture() for p in networks}, {p: HTML() for p in networks}

    def show(eps: float) -> None:
        seen = {
            p: experiments.attack_strip(network, x, y, experiments.adversary(eps))
            for p, network in networks.items()
        }
        for p, (picture, reads) in seen.items():
            pictures[p].value = _png(picture)
            right = sum(a == b for a, b in zip(reads, y.tolist(), strict=False))
            said = " ".join(map(str, reads))
            lines[
                p
            ].value = f"theta_{p} at eps {eps:g}: {right} of {len(reads)} right; reads {said}"

    slider = _slider(
        "eps", {f"{eps:g}": eps for eps in experiments.strengths(study)}, show, start=6
    )
    return VBox([slider, *(part for p in networks for part in (lines[p], pictures[p]))])


def pruning(study: studies.Study, networks: dict[str, nn.Module]) -> VBox:
    """A slider over the sparsity.

    Which weights go, and SA and RA on the source without any retraining.
    """
    (x, y), eps, picture, text = (
        experiments.some_images(study),
        studies.dataset(study, study.source).eps,
        _picture(),
        HTML(),
    )

    def show(rounds: int) -> None:
        picture.value = _png(
            experiments.magnitudes(
                next(reversed(networks.values())),
                rounds,
                next(reversed(networks)),
                study.prune_fraction,
            )
        )
        rows = [
            (
                f"theta_{p}",
                *experiments.judge(
                    experiments.pruned(network, rounds, study.prune_fraction), x, y, eps
                ),
            )
            for p, network in networks.items()
        ]
        text.value = _table(pd.DataFrame(rows, columns=["pruned, not retrained", "SA", "RA"]))

    return VBox([_slider("sparsity", _levels(_ladder(study)), show), text, picture])


def transfer(study: studies.Study) -> VBox:
    """A sparsity, a regime and a button: the ticket is trained downstream while you watch.

    Results add up below.
    """
    picture, text, rows = _picture(), HTML(), []
    levels = list(_levels(_ladder(study)).items())
    slider = SelectionSlider(description="sparsity", options=levels, layout=WIDE)
    regime, button = (
        ToggleButtons(options=["ST", "AT"]),
        Button(description="transfer", button_style="primary"),
    )

    def start(_: Button) -> None:
        button.disabled, history, began = True, [], time.time()
        try:
            SA, RA = experiments.transferred(
                study, slider.value, regime.value, lambda row: grow(row, history)
            )
            rows.append((slider.label, regime.value, SA, RA, f"{time.time() - began:.0f} s"))
            text.value = _table(
                pd.DataFrame(rows, columns=["sparsity", "regime", "SA", "RA", "took"])
            )
        finally:
            button.disabled = False

    def grow(row: dict[str, float], history: list) -> None:
        history.append(row)
        picture.value, picture.layout.display = _png(figures.training_curve(history)), None

    picture.layout.display = "none"
    button.on_click(start)
    return VBox([slider, Box([regime, button], layout={"flex_flow": "row wrap"}), text, picture])


def results(table: pd.DataFrame) -> VBox:
    """A slider over the sparsities of a table of transfers.

    Mean and deviation of every curve there.
    """
    found, text = (
        spread(table) if len(table) else table.reindex(columns=["rounds", *COLUMNS]),
        HTML(),
    )
    at = sparsities(found) or {0: 0.0}

    def show(at: int) -> None:
        text.value = _table(found.loc[found["rounds"] == at, COLUMNS])

    return VBox([_slider("sparsity", _levels(at), show), text])


def _slider(name: str, options: dict[str, Any], show: Any, start: int = 0) -> SelectionSlider:
    slider = SelectionSlider(
        description=name,
        options=list(options.items()),
        index=start,
        continuous_update=False,
        layout=WIDE,
    )
    slider.observe(lambda change: show(change["new"]), names="value")
    show(slider.value)
    return slider


def _ladder(study: studies.Study) -> dict[int, float]:
    return {r: ladder(r, study.prune_fraction) for r in ROUNDS}


def _levels(at: dict[int, float]) -> dict[str, int]:
    """A slider's options. at: the sparsity of each of the rounds."""
    return {f"{100 * at[r]:.1f} %": r for r in sorted(at)}


def _table(frame: pd.DataFrame) -> str:
    shown = frame.to_html(
        index=False,
        float_format="{:.3f}".format,
        na_rep="",
        border=0,
        classes="dwlt",
        formatters={"fraction": "{:g}".format},
    )
    return f'{ROOMY}<div style="overflow-x: auto">{shown}</div>'


def _picture() -> Image:
    return Image(
        format="png",
        layout={"max_width": "100%", "object_fit": "contain", "align_self": "flex-start"},
    )


def _png(picture: Any) -> bytes:
    """A PIL picture or a Figure as a PNG file."""
    out = io.BytesIO()
    (
        picture.savefig(out, format="png", dpi=150)
        if hasattr(picture, "savefig")
        else picture.save(out, "png")
    )
    return out.getvalue()
