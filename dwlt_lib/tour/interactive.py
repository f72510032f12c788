"""The tour's controls: prune, attack and transfer a network and see at once what becomes of it."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import pandas as pd
from IPython.display import HTML, clear_output, display
from ipywidgets import SelectionSlider, ToggleButtons, interactive
from torch import nn

from dwlt_lib.config import studies
from dwlt_lib.config.specs import Regime, ladder
from dwlt_lib.execution import make, progress
from dwlt_lib.plotting import figures
from dwlt_lib.plotting.style import percent
from dwlt_lib.records import store
from dwlt_lib.tour import experiments

ROUNDS = (0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18)


def attack_slider(study: studies.Study, networks: dict[str, nn.Module]) -> interactive:
    """A slider over eps: the attacked images of each network, and what it reads.

    Args:
        study: its source gives the images.
        networks: {p: theta_p}.

    Returns:
        The slider, and beneath it a line and a picture per network.
    """
    x, y = experiments.source_images(study)

    def show(eps: float) -> None:
        attack = experiments.pgd_attack(eps)
        for p, network in networks.items():
            picture, predictions = experiments.attack_pictures(network, x, y, attack)
            right = sum(a == b for a, b in zip(predictions, y.tolist(), strict=False))
            classes = " ".join(map(str, predictions))
            display(HTML(f"theta_{p}: {right} of {len(predictions)} right; reads {classes}"))
            display(picture)

    options = [(f"{eps:g}", eps) for eps in experiments.eps_values(study)]
    return interactive(show, eps=_slider("eps", options, start=6))


def pruning_slider(study: studies.Study, networks: dict[str, nn.Module]) -> interactive:
    """A slider over the sparsity: which weights go, and SA and RA on the source, not retrained.

    Args:
        study: its source gives the images and eps.
        networks: {p: theta_p}; the weights of the last one are drawn.

    Returns:
        The slider, and beneath it a table of accuracies and a histogram of weights.
    """
    x, y = experiments.source_images(study)
    eps, fraction = studies.dataset(study, study.source).eps, study.prune_fraction
    p_drawn, drawn = list(networks.items())[-1]

    def show(rounds: int) -> None:
        rows = {}
        for p, network in networks.items():
            pruned = experiments.pruned_copy(network, rounds, fraction)
            rows[f"theta_{p}"] = experiments.accuracies(pruned, x, y, eps)
        display(pd.DataFrame(rows, index=["SA", "RA"]).T.round(3))
        display(experiments.weight_histogram(drawn, rounds, p_drawn, fraction))

    return interactive(show, rounds=_sparsity_slider(study))


def transfer_form(study: studies.Study) -> interactive:
    """A sparsity, a regime and a button, which makes that OMP ticket's record while you watch.

    Every press adds a row. A ticket that is among the records already is not trained again.

    Args:
        study: whose ticket it is, for the task of `experiments.example_transfers`.

    Returns:
        The controls, and beneath them the training's curve and the rows.
    """
    rows = []

    def transfer(rounds: int, regime: Regime) -> None:
        began = time.time()
        spec = experiments.one_shot_transfer(study, rounds, regime)
        try:
            record = store.read(make.make(spec, "cpu", progress.live()))
        except ValueError as error:
            display(HTML(escape(str(error))))
            return
        sparsity = percent(ladder(rounds, study.prune_fraction), " %")
        accuracies = {name: record.metrics[name] for name in ("SA", "RA")}
        took = f"{time.time() - began:.0f} s"
        rows.append({"sparsity": sparsity, "regime": regime, **accuracies, "took": took})
        clear_output(wait=True)
        display(figures.training_curve(record.history))
        display(pd.DataFrame(rows).round(3))

    button = {"manual": True, "manual_name": "transfer"}
    regimes = ToggleButtons(options=["ST", "AT"])
    return interactive(transfer, button, rounds=_sparsity_slider(study), regime=regimes)


def _sparsity_slider(study: studies.Study) -> SelectionSlider:
    """A slider over ROUNDS, labelled "48.8 %" for three rounds."""
    options = [(percent(ladder(r, study.prune_fraction), " %"), r) for r in ROUNDS]
    return _slider("sparsity", options)


def _slider(name: str, options: list[tuple[str, Any]], start: int = 0) -> SelectionSlider:
    layout = {"width": "min(100%, 540px)"}
    return SelectionSlider(
        description=name, options=options, index=start, continuous_update=False, layout=layout
    )
