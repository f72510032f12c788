"""The tour's controls: prune, attack and transfer a network and see at once what becomes of it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from html import escape
from typing import Any

import pandas as pd
from ipywidgets import HTML, Box, Button, Image, SelectionSlider, ToggleButtons, VBox
from torch import nn

from dwlt_lib.analysis.double_win import GROUP
from dwlt_lib.analysis.statistics import spread
from dwlt_lib.analysis.tables import sparsities
from dwlt_lib.config import studies
from dwlt_lib.config.specs import ladder
from dwlt_lib.execution import make
from dwlt_lib.plotting import figures
from dwlt_lib.records import store
from dwlt_lib.tour import experiments

ROUNDS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18)
TABLE_STYLE = (
    "<style>.dwlt th, .dwlt td {padding: 0 0.8em 0 0; text-align: left; line-height: 1.7}</style>"
)
SLIDER_LAYOUT = {"width": "min(100%, 540px)"}
RESULT_COLUMNS = [*GROUP, "regime", "SA", "RA", "SA_std", "RA_std", "seeds"]


def attack_slider(study: studies.Study, networks: dict[str, nn.Module]) -> VBox:
    """A slider over eps: the attacked images of each network, and what it reads.

    Args:
        study: its source gives the images.
        networks: {p: theta_p}.

    Returns:
        The slider, and a line and a picture per network.
    """
    x, y = experiments.source_images(study)
    pictures = {p: _picture() for p in networks}
    lines = {p: HTML() for p in networks}

    def show(eps: float) -> None:
        for p, network in networks.items():
            picture, predictions = experiments.attack_pictures(
                network, x, y, experiments.pgd_attack(eps)
            )
            right = sum(a == b for a, b in zip(predictions, y.tolist(), strict=False))
            score = f"{right} of {len(predictions)} right"
            classes = " ".join(map(str, predictions))
            pictures[p].value = _png(picture)
            lines[p].value = f"theta_{p} at eps {eps:g}: {score}; reads {classes}"

    options = {f"{eps:g}": eps for eps in experiments.eps_values(study)}
    slider = _slider("eps", options, show, start=6)
    return VBox([slider, *(part for p in networks for part in (lines[p], pictures[p]))])


def pruning_slider(study: studies.Study, networks: dict[str, nn.Module]) -> VBox:
    """A slider over the sparsity: which weights go, and SA and RA on the source, not retrained.

    Args:
        study: its source gives the images and eps.
        networks: {p: theta_p}; the weights of the last one are drawn.

    Returns:
        The slider, a table of accuracies and a histogram of weights.
    """
    x, y = experiments.source_images(study)
    eps, fraction = studies.dataset(study, study.source).eps, study.prune_fraction
    picture, text = _picture(), HTML()
    p_drawn, drawn = list(networks.items())[-1]

    def show(rounds: int) -> None:
        picture.value = _png(experiments.weight_histogram(drawn, rounds, p_drawn, fraction))
        rows = []
        for p, network in networks.items():
            pruned = experiments.pruned_copy(network, rounds, fraction)
            rows.append((f"theta_{p}", *experiments.accuracies(pruned, x, y, eps)))
        text.value = _table(pd.DataFrame(rows, columns=["pruned, not retrained", "SA", "RA"]))

    options = _sparsity_options(_paper_sparsities(study))
    return VBox([_slider("sparsity", options, show), text, picture])


class TransferForm(VBox):
    """A sparsity, a regime and a button, which makes that OMP ticket's record while you watch.

    Every press adds a row. A ticket that is among the records already is not trained again.

    Attributes:
        rows: what the presses have made: sparsity, regime, SA, RA, and how long it took.
        history: the epochs of the training that is under way or has ended last.
    """

    def __init__(self, study: studies.Study) -> None:
        """The controls, before any press.

        Args:
            study: whose ticket it is, for the task of `experiments.example_transfers`.
        """
        self.study = study
        options = list(_sparsity_options(_paper_sparsities(study)).items())
        self.slider = SelectionSlider(description="sparsity", options=options, layout=SLIDER_LAYOUT)
        self.regime: Any = ToggleButtons(options=["ST", "AT"])
        self.button = Button(description="transfer", button_style="primary")
        self.button.on_click(self._transfer)
        self.text, self.picture = HTML(), _picture()
        self.picture.layout.display = "none"
        self.rows: list[tuple] = []
        self.history: list[dict[str, float]] = []
        choice = Box([self.regime, self.button], layout={"flex_flow": "row wrap"})
        super().__init__([self.slider, choice, self.text, self.picture])

    def _transfer(self, _: Button) -> None:
        self.button.disabled = True
        began = time.time()
        try:
            spec = experiments.one_shot_transfer(self.study, self.slider.value, self.regime.value)
            record = store.read(make.make(spec, "cpu", self._show_epoch))
        except ValueError as error:  # the kernel's log alone would have it
            self.text.value = escape(str(error))
            return
        finally:
            self.button.disabled = False
        self._draw(record.history)
        took = f"{time.time() - began:.0f} s"
        found = record.metrics["SA"], record.metrics["RA"]
        self.rows.append((self.slider.label, self.regime.value, *found, took))
        columns = ["sparsity", "regime", "SA", "RA", "took"]
        self.text.value = _table(pd.DataFrame(self.rows, columns=columns))

    def _show_epoch(self, row: dict[str, float]) -> None:
        if row["epoch"] == 1:  # another training has begun
            self.history = []
        self.history.append(row)
        self._draw(self.history)

    def _draw(self, history: list[dict[str, float]]) -> None:
        self.picture.value = _png(figures.training_curve(history))
        self.picture.layout.display = None


def results_slider(table: pd.DataFrame) -> VBox:
    """A slider over a table of transfers: mean and deviation of every curve at one sparsity.

    Args:
        table: of `records.table("transfer")`, or an empty one.

    Returns:
        The slider and a table.
    """
    text = HTML()
    empty = table.reindex(columns=["rounds", *RESULT_COLUMNS])
    means = spread(table) if len(table) else empty

    def show(rounds: int) -> None:
        text.value = _table(means.loc[means["rounds"] == rounds, RESULT_COLUMNS])

    options = _sparsity_options(sparsities(means) or {0: 0.0})
    return VBox([_slider("sparsity", options, show), text])


def _slider(
    name: str, options: dict[str, Any], show: Callable[[Any], None], start: int = 0
) -> SelectionSlider:
    """A slider over the options, which calls `show` with each value that it is moved to."""
    slider = SelectionSlider(
        description=name,
        options=list(options.items()),
        index=start,
        continuous_update=False,
        layout=SLIDER_LAYOUT,
    )
    slider.observe(lambda change: show(change["new"]), names="value")
    show(slider.value)
    return slider


def _paper_sparsities(study: studies.Study) -> dict[int, float]:
    """The sparsity after each of ROUNDS, in [0, 1]."""
    return {rounds: ladder(rounds, study.prune_fraction) for rounds in ROUNDS}


def _sparsity_options(sparsity: dict[int, float]) -> dict[str, int]:
    """A slider's options, "48.8 %" for three rounds. sparsity: by rounds, in [0, 1]."""
    return {f"{100 * sparsity[rounds]:.1f} %": rounds for rounds in sorted(sparsity)}


def _table(frame: pd.DataFrame) -> str:
    shown = frame.to_html(
        index=False,
        float_format="{:.3f}".format,
        na_rep="",
        border=0,
        classes="dwlt",
        formatters={"fraction": "{:g}".format},
    )
    return f'{TABLE_STYLE}<div style="overflow-x: auto">{shown}</div>'


def _picture() -> Image:
    layout = {"max_width": "100%", "object_fit": "contain", "align_self": "flex-start"}
    return Image(format="png", layout=layout)


def _png(picture: Any) -> bytes:
    """A PIL picture or a Figure as a PNG file."""
    out = io.BytesIO()
    if hasattr(picture, "savefig"):
        picture.savefig(out, format="png", dpi=150)
    else:
        picture.save(out, "png")
    return out.getvalue()
