"""What the tour shows: a study's results, and small networks to prune and to attack.

Networks and tickets are records, made where they are missing. What `accuracies` and `robustness`
measure is computed live, on a few hundred images, and stored nowhere.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image as Picture
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from dwlt_lib.attacks import PGD, perturb
from dwlt_lib.config import planning, specs, studies
from dwlt_lib.config.datasets import DataSet
from dwlt_lib.config.specs import ladder
from dwlt_lib.data import batches
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution import progress
from dwlt_lib.execution.networks import load_network
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.models import architectures
from dwlt_lib.plotting.style import COLUMN, ROLES, figure, theta
from dwlt_lib.pruning import imp, masks
from dwlt_lib.records import store
from dwlt_lib.training import trainer

IMAGES_SHOWN, IMAGES_TESTED = 16, 300  # test images: in a picture, and behind an accuracy
SIDE = 44  # pixels of an image in a picture; smaller ones are enlarged by a whole factor


@dataclass(frozen=True)
class OpenedStudy:
    """A study that was found, and one to experiment with.

    Attributes:
        name: of the study whose results are shown.
        params: its resolved parameters.
        table: its transfers, one row per record; empty if there are none.
        note: a line that says what is there, and what is missing.
        demo: the study whose networks are attacked, pruned and transferred: the same one where its
            data sets come with the packages and its networks are here, else params/tour.yaml.
    """

    name: str
    params: dict[str, Any]
    table: pd.DataFrame
    note: str
    demo: studies.Study


def open_study(study: str) -> OpenedStudy:
    """The study of that name; if it has not run here, another one that is there.

    Args:
        study: its name.

    Returns:
        What was found, with a note that says so.
    """
    names = store.study_names()
    small = read_study(store.checkout() / "params" / "tour.yaml")
    if not names:
        note = (
            "No study has run here yet: networks are made live, and results stay empty. Make some: "
            "dwlt run params/tour.yaml (ten minutes)."
        )
        params = small.model_dump(mode="json")
        return OpenedStudy(small.name, params, store.empty_table(), note, small)
    longer = (name for name in names if name.startswith(study))  # tour_full stands in for tour
    name = study if study in names else next(longer, names[0])
    noted, table = store.study(name), store.table("transfer", study=name)
    missing = store.missing(name)
    note = (
        f"{name}: {len(noted['ids'])} records planned, {missing} missing; {len(table)} transfers to"
        f" look at. What is missing is made by: dwlt run params/{study}.yaml"
    )
    if name != study:
        note = f"Study {study!r} has not run here; the results below are those of {note}"
    own = studies.Study.model_validate_json(json.dumps(noted["params"]))
    demo = own if _is_quick(own) else small
    return OpenedStudy(name, noted["params"], table, note, demo)


def _is_quick(study: studies.Study) -> bool:
    """Whether its data sets come with the packages, and the networks to compare are here."""
    if not study.grid:
        return False
    rows = [studies.dataset(study, name) for name in (study.source, study.grid[0].dataset[0])]
    weights = [
        store.path_of("pretraining", specs.record_id(spec)) / "weights.safetensors"
        for spec in _two_pretrainings(study)
    ]
    return all(row.loader == "embedded" for row in rows) and all(path.exists() for path in weights)


def _two_pretrainings(study: studies.Study) -> list[specs.PretrainingSpec | specs.ImportedSpec]:
    """Two pre-trainings to compare: STD and AT if the study has them."""
    planned = {p for block in study.grid for p in block.pretraining}
    ordered: list[specs.Pretraining] = [p for p in ("STD", "AT", "FAT") if p in planned]
    return [planning.theta(study, p) for p in ordered[:2]]


def networks(study: studies.Study) -> dict[str, nn.Module]:
    """Two pre-trained networks, from their records; a record that is missing is made.

    Args:
        study: what the tour experiments with.

    Returns:
        {p: theta_p in eval mode}, STD and AT if the study has them.
    """
    records = [store.read(id) for id in progress.make_all(_two_pretrainings(study))]
    return {record.spec["pretraining"]: load_network(record) for record in records}


def example_transfers(study: studies.Study) -> list[specs.TransferSpec]:
    """The dense network and two tickets of the study's first block, in its first regime.

    Args:
        study: what the tour experiments with.

    Returns:
        Their descriptions, the dense one first.
    """
    block = study.grid[0]
    p = "AT" if "AT" in block.pretraining else block.pretraining[0]
    at = (p, block.method[0], block.dataset[0], block.fraction[0], block.regime[0])
    return [
        planning.transfer(study, *at, rounds, block.seeds[0]) for rounds in (0, *block.rounds[:2])
    ]


def one_shot_transfer(
    study: studies.Study, rounds: int, regime: specs.Regime
) -> specs.TransferSpec:
    """An OMP ticket of the pre-training and for the task of `example_transfers`, on all its data.

    Args:
        study: what the tour experiments with.
        rounds: the ticket's sparsity is that of so many pruning rounds; 0 is the dense network.
        regime: ST or AT.

    Returns:
        Its description.
    """
    dense = example_transfers(study)[0]
    p, task = dense.theta.pretraining, dense.data.name
    return planning.transfer(study, p, "OMP", task, 1.0, regime, rounds, dense.seed)


def data_sets(study: studies.Study) -> list[DataSet]:
    """The source and the downstream tasks of the first block.

    Args:
        study: what the tour experiments with.

    Returns:
        Their rows, each once, the source first.
    """
    names = dict.fromkeys([study.source, *study.grid[0].dataset])
    return [studies.dataset(study, name) for name in names]


def source_images(study: studies.Study) -> tuple[Tensor, Tensor]:
    """The first `IMAGES_TESTED` test images of the source.

    Args:
        study: what the tour experiments with.

    Returns:
        X, (N,3,H,W) in [0,1], and the labels y, (N,).
    """
    test = batches.load_images(studies.dataset(study, study.source), "test")
    test = test.take(torch.arange(min(IMAGES_TESTED, len(test))))
    return test.floats(), test.y


# ------------------------------------------------------------------------------------------
# attacks


def pgd_attack(eps: float) -> PGD:
    """PGD-20 whose steps together cross the ball more than twice.

    Args:
        eps: radius of the ball, in [0,1] pixels; 0 attacks nothing.

    Returns:
        The attack, with alpha = 2.5 eps / 20.
    """
    return PGD(eps, max(1e-3, 2.5 * eps / 20), steps=20)


def eps_values(study: studies.Study) -> list[float]:
    """Strengths of attacks to try.

    Args:
        study: its source's eps is the seventh of them.

    Returns:
        Ten values from 0 to half as much again as that eps, in [0,1] pixels.
    """
    eps = studies.dataset(study, study.source).eps
    return [round(step * eps / 6, 4) for step in range(10)]


def accuracies(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[float, float]:
    """SA and RA of a network on some images.

    Args:
        network: in eval mode.
        x: images (N,3,H,W) in [0,1].
        y: labels (N,).
        eps: of `pgd_attack`, from a fixed random start.

    Returns:
        (SA, RA), each in [0, 1].
    """
    rng = trainer.generator(0, "tour")
    return (
        accuracy.standard_accuracy(network, x, y),
        accuracy.robust_accuracy(network, x, y, pgd_attack(eps), rng),
    )


def robustness(study: studies.Study, networks: dict[str, nn.Module]) -> pd.DataFrame:
    """RA of each network on the source, as the adversary grows stronger.

    Args:
        study: its source gives the images.
        networks: {p: theta_p}.

    Returns:
        A row per network and every other of `eps_values`: p, eps, RA in [0, 1].
    """
    x, y = source_images(study)
    rows = [
        {"p": p, "eps": eps, "RA": accuracies(network, x, y, eps)[1]}
        for p, network in networks.items()
        for eps in eps_values(study)[::2]
    ]
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------
# pruning


def pruning_ladder(network: nn.Module, rounds: int, fraction: float) -> pd.DataFrame:
    """How many weights `masks.magnitude_prune` leaves in this network, round by round.

    Args:
        network: its prunable weights are counted; it is not changed.
        rounds: the last round.
        fraction: of the remaining weights, pruned each round.

    Returns:
        One row per round, from 0 (dense): rounds, kept (weights), sparsity (the share that is
        gone), and 1 - (1 - fraction)^rounds beside it, in the paper 1 - 0.8^rounds.
    """
    weights = _prunable_weights(network)
    m, rows = masks.dense_mask(weights), []
    for done in range(rounds + 1):
        rows.append((done, masks.num_kept(m), masks.sparsity(m), ladder(done, fraction)))
        m = masks.magnitude_prune(weights, m, fraction)
    return pd.DataFrame(
        rows, columns=["rounds", "kept", "sparsity", f"1 - {1 - fraction:g}^rounds"]
    )


def pruned_copy(network: nn.Module, rounds: int, fraction: float) -> nn.Module:
    """A network after one-shot magnitude pruning, not retrained.

    Args:
        network: is left as it is.
        rounds: whose sparsity the copy gets; 0 keeps everything.
        fraction: of the remaining weights, pruned each round.

    Returns:
        A copy whose pruned weights are zero.
    """
    pruned = copy.deepcopy(network)
    masks.apply_(
        pruned, imp.one_shot_magnitude_pruning(_prunable_weights(pruned), rounds, fraction)
    )
    return pruned


@figure
def weight_histogram(network: nn.Module, rounds: int, p: str, fraction: float) -> Figure:
    """Prunable weights by value: those that one-shot pruning keeps in colour, the others in grey.

    Args:
        network: theta_p.
        rounds: of pruning; 0 keeps everything.
        p: STD, FAT or AT.
        fraction: of the remaining weights, pruned each round.

    Returns:
        60 bars up to the 99.5 % quantile of |weight|.
    """
    weights = _prunable_weights(network)
    m = imp.one_shot_magnitude_pruning(weights, rounds, fraction)
    values = torch.cat([weight.flatten() for weight in weights.values()]).numpy()
    keep = torch.cat([mask.flatten() for mask in m.values()]).numpy()
    fig = Figure((COLUMN, 1.7), layout="constrained")
    axes, edge = fig.subplots(), np.quantile(np.abs(values), 0.995)
    groups, colors = [values[~keep], values[keep]], ["#BBBBBB", ROLES[p][0]]
    labels = [f"pruned: {len(groups[0]):,}", f"kept: {len(groups[1]):,}"]
    axes.hist(groups, bins=np.linspace(-edge, edge, 61), stacked=True, color=colors, label=labels)
    axes.set(xlabel=f"weights of {theta(p)}", ylabel="how many")
    axes.legend()
    return fig


def _prunable_weights(network: nn.Module) -> masks.Weights:
    return {name: weight.detach() for name, weight in architectures.prunable(network).items()}


# ------------------------------------------------------------------------------------------
# pictures


def image_grid(*rows: Tensor) -> Picture.Image:
    """Rows of images, one above the other, large enough to see their pixels.

    Args:
        *rows: images (N,3,H,W) in [0,1], of the same shape.

    Returns:
        The picture.
    """
    x = torch.cat(rows)
    grid = to_pil_image(make_grid(x.clamp(0, 1), nrow=len(rows[0]), padding=1, pad_value=1.0))
    scale = max(1, SIDE // x.shape[-1])
    return grid.resize((grid.width * scale, grid.height * scale), Picture.Resampling.NEAREST)


def attack_pictures(
    network: nn.Module, x: Tensor, y: Tensor, attack: PGD
) -> tuple[Picture.Image, list[int]]:
    """The first images under attack, and the classes that the network then reads.

    Args:
        network: in eval mode.
        x: images (N,3,H,W) in [0,1]; the first `IMAGES_SHOWN` are taken.
        y: labels (N,).
        attack: what the images are moved by.

    Returns:
        A picture of three rows (the images, what the attack adds, amplified around grey, and their
        sum), and a class per image.
    """
    x, y = x[:IMAGES_SHOWN], y[:IMAGES_SHOWN]
    attacked = perturb(network, x, y, attack, trainer.generator(0, "tour"))
    change = 0.5 + (attacked - x) / max(2 * attack.eps, 1e-9)
    return image_grid(x, change, attacked), network(attacked).argmax(1).tolist()
