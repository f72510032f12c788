"""What the tour plays with: a study's results, or others in their place, and small networks to
prune and to attack.

Numbers of `judge`, `fall` and `transferred` are computed live, on a few hundred images, and kept
nowhere.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image as Picture
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from dwlt_lib.attacks import pgd
from dwlt_lib.config import specs, studies
from dwlt_lib.config.specs import PRUNE_FRACTION
from dwlt_lib.data import loading
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution import make
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.models import architectures
from dwlt_lib.plotting.style import COLUMN, ROLES, figure, theta
from dwlt_lib.pruning import imp, masks
from dwlt_lib.records import store
from dwlt_lib.training import trainer

SHOWN, JUDGED = 16, 300  # test images: those in a picture, those behind an accuracy


@dataclass(frozen=True)
class Opened:
    """name, params: of the study whose results are shown; table: its transfers; note: what is
    there, what is missing; live: the study whose networks are played with (an embedded data set,
    weights at hand or made in seconds)."""

    name: str
    params: dict[str, Any]
    table: pd.DataFrame
    note: str
    live: studies.Study


def opened(study: str) -> Opened:
    """The study of that name.

    If it has not run here, the results of another one that is there, and says so.
    """
    names, small = (
        store.study_names(),
        read_study(store.checkout() / "params" / "tour.yaml"),
    )
    if not names:
        note = (
            "No study has run here yet: networks are made live, and results stay empty. Make some: "
            "dwlt run params/tour.yaml (ten minutes)."
        )
        return Opened(small.name, small.model_dump(mode="json"), _none(), note, small)
    name = study if study in names else names[0]
    noted, table = store.study(name), store.table("transfer", study=name)
    missing = store.missing(name)
    note = (
        f"{name}: {len(noted['ids'])} records planned, {missing} missing; {len(table)} transfers to"
        " look at."
    )
    if name != study:
        note = (
            f"Study {study!r} has not run here (make it: dwlt run params/{study}.yaml); the results"
            f" below are those of {note}"
        )
    elif missing:
        note += f" The rest: dwlt run params/{name}.yaml"
    own = studies.Study.model_validate_json(json.dumps(noted["params"]))
    return Opened(name, noted["params"], table, note, own if _playable(own) else small)


def _none() -> pd.DataFrame:
    return pd.DataFrame(columns=[*store.ORDER, "id", "seconds"])


def _playable(study: studies.Study) -> bool:
    if not study.grid:
        return False
    rows = [studies.dataset(study, name) for name in (study.source, study.grid[0].dataset[0])]
    weights = [
        store.path_of("pretraining", specs.record_id(spec)) / "weights.safetensors"
        for spec in _thetas(study)
    ]
    return all(row.loader == "embedded" for row in rows) and all(path.exists() for path in weights)


def _thetas(study: studies.Study) -> list[specs.PretrainingSpec | specs.ImportedSpec]:
    """Two pre-trainings to compare: STD and AT if the study has them."""
    planned = sorted(
        {p for block in study.grid for p in block.pretraining}, key=("STD", "AT", "FAT").index
    )
    return [studies.theta(study, p) for p in planned[:2]]


def networks(study: studies.Study, progress: Callable | None = None) -> dict[str, nn.Module]:
    """{p: theta_p in eval mode}, from their records; a record that is missing is made."""
    found = {}
    for spec in _thetas(study):
        record = store.read(make.make(spec, "cpu", progress))
        network = architectures.build(
            spec.arch, spec.data.classes, spec.data.mean, spec.data.std
        ).eval()
        network.load_state_dict(load_file(record.file("weights.safetensors")))
        found[spec.pretraining] = network
    return found


def transfers(study: studies.Study) -> list[specs.TransferSpec]:
    """The dense network and two tickets of the study's first block, trained in the standard way.

    Seconds each.
    """
    block = study.grid[0]
    at = (
        "AT" if "AT" in block.pretraining else block.pretraining[0],
        block.method[0],
        block.dataset[0],
        block.fraction[0],
        block.regime[0],
    )
    return [
        studies.transfer(study, *at, rounds, block.seeds[0]) for rounds in (0, *block.rounds[:2])
    ]


def some_images(study: studies.Study) -> tuple[Tensor, Tensor]:
    """(x, y): the first test images of the source, (N,3,H,W) in [0,1] and (N,)."""
    test = loading.images(studies.dataset(study, study.source), "test")
    test = test.take(torch.arange(min(JUDGED, len(test))))
    return test.floats(), test.y


def adversary(eps: float) -> pgd.PGD:
    """PGD-20 of that strength, its steps long enough to cross the ball more than twice."""
    return pgd.PGD(eps, max(1e-3, 2.5 * eps / 20), steps=20)


def strengths(study: studies.Study) -> list[float]:
    """eps from none to half as much again as the source's."""
    return [round(part * studies.dataset(study, study.source).eps / 6, 4) for part in range(10)]


def fall(study: studies.Study, found: dict[str, nn.Module]) -> pd.DataFrame:
    """RA of each network at every other strength, one row each: p, eps, RA."""
    x, y = some_images(study)
    return pd.DataFrame(
        [
            {
                "p": p,
                "eps": eps,
                "RA": accuracy.robust_accuracy(
                    network, x, y, adversary(eps), trainer.generator(0, "tour")
                ),
            }
            for p, network in found.items()
            for eps in strengths(study)[::2]
        ]
    )


@figure
def falling(table: pd.DataFrame) -> Figure:
    """The table of `fall` as curves."""
    fig = Figure((COLUMN, 2), layout="constrained")
    axes = fig.subplots()
    for p, part in table.groupby("p", sort=False):
        color, marker, line = ROLES[p]
        axes.plot(
            part["eps"],
            100 * part["RA"],
            color=color,
            marker=marker,
            linestyle=line,
            label=theta(p),
        )
    axes.set(xlabel="eps", ylabel="RA on the source (%)", ylim=(-3, 103))
    axes.legend()
    return fig


@figure
def magnitudes(network: nn.Module, rounds: int, p: str, fraction: float = PRUNE_FRACTION) -> Figure:
    """Every prunable weight by its value: those that pruning keeps in colour, those that go in
    grey. fraction: of the remaining weights, pruned each round."""
    weights = {name: weight.detach() for name, weight in architectures.prunable(network).items()}
    m = imp.one_shot(weights, rounds, fraction)
    values = torch.cat([weight.flatten() for weight in weights.values()]).numpy()
    kept = torch.cat([part.flatten() for part in m.values()]).numpy()
    fig = Figure((COLUMN, 1.7), layout="constrained")
    axes, edge = fig.subplots(), np.quantile(np.abs(values), 0.995)
    parts, colors = [values[~kept], values[kept]], ["#BBBBBB", ROLES[p][0]]
    labels = [f"pruned: {len(parts[0]):,}", f"kept: {len(parts[1]):,}"]
    axes.hist(parts, bins=np.linspace(-edge, edge, 61), stacked=True, color=colors, label=labels)
    axes.set(xlabel=f"weights of {theta(p)}", ylabel="how many")
    axes.legend()
    return fig


def pruned(network: nn.Module, rounds: int, fraction: float = PRUNE_FRACTION) -> nn.Module:
    """A copy of the network after one-shot magnitude pruning, not retrained."""
    found = copy.deepcopy(network)
    weights = {name: weight.detach() for name, weight in architectures.prunable(found).items()}
    masks.apply_(found, imp.one_shot(weights, rounds, fraction))
    return found


def judge(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[float, float]:
    """SA and RA, 0..1, on these images."""
    return accuracy.standard_accuracy(network, x, y), accuracy.robust_accuracy(
        network, x, y, adversary(eps), trainer.generator(0, "tour")
    )


def transferred(
    study: studies.Study, rounds: int, regime: str, progress: Callable
) -> tuple[float, float]:
    """SA and RA downstream of an OMP ticket of the first pre-training that `transfers` uses.

    Trained now, not kept.
    """
    dense, *_ = transfers(study)
    spec = studies.transfer(
        study, dense.theta.pretraining, "OMP", dense.data.name, 1.0, regime, 0, 0
    )
    model = make.ticket(spec)
    weights = {
        name: weight.detach().clone() for name, weight in architectures.prunable(model).items()
    }
    m, recipe = imp.one_shot(weights, rounds, study.prune_fraction), spec.recipe
    attack = pgd.PGD(**recipe.attack.model_dump()) if recipe.attack else None
    how = trainer.Regime(
        name=regime,
        attack=attack,
        judge=None,
        **recipe.model_dump(exclude={"attack", "validation"}),
    )
    trainer.fit(model, m, loading.images(spec.data, "train"), None, how, 0, progress=progress)
    test = loading.images(spec.data, "test").take(torch.arange(min(JUDGED, spec.data.test_images)))
    return judge(model.eval(), test.floats(), test.y, spec.data.eps)


# ------------------------------------------------------------------------------------------
# pictures


def strip(*rows: Tensor, side: int = 44) -> Picture.Image:
    """Rows of images (N,3,H,W), one above the other, large enough to see their pixels."""
    x = torch.cat(rows)
    grid = to_pil_image(make_grid(x.clamp(0, 1), nrow=len(rows[0]), padding=1, pad_value=1.0))
    scale = max(1, side // x.shape[-1])
    return grid.resize((grid.width * scale, grid.height * scale), Picture.Resampling.NEAREST)


def attack_strip(
    network: nn.Module, x: Tensor, y: Tensor, attack: pgd.PGD
) -> tuple[Picture.Image, list[int]]:
    """What a network is shown, the change (amplified: grey is none) and the sum.

    And what it then reads.
    """
    x, y = x[:SHOWN], y[:SHOWN]
    attacked = pgd.perturb(network, x, y, attack, trainer.generator(0, "tour"))
    change = 0.5 + (attacked - x) / max(2 * attack.eps, 1e-9)
    return strip(x, change, attacked), network(attacked).argmax(1).tolist()
