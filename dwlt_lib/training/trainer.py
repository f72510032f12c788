"""One training loop for standard, fast adversarial and adversarial training, with exact resume.

A regime differs only in the images a step sees: as they are (ST), moved by one step (FAT) or by PGD
(AT). BatchNorm is in train mode during the attack, as in the authors' algorithm, but for the epochs
of `linear_probe_epochs`, which train the head on a backbone that nothing moves.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.pgd import frozen, logits_in, perturb_unchecked
from dwlt_lib.config.recipes import PGD, TrainingConfig
from dwlt_lib.data.batches import Images, training_batches
from dwlt_lib.evaluation.accuracy import robust_accuracy, standard_accuracy
from dwlt_lib.models.architectures import heads
from dwlt_lib.models.tensors import Mask
from dwlt_lib.training import ranks, unfinished

State = dict[str, Tensor]
"""A network's state dictionary, on the CPU or on its device."""

MaskedParameters = list[tuple[nn.Parameter, Tensor]]
"""The weights that a mask names, each with its mask as numbers 0 and 1."""

COLLAPSE = 0.2
"""FAT stops once validation RA lies so far below its best: catastrophic overfitting (section 3)."""


class OutOfTime(Exception):
    """The deadline would pass before the next epoch ends; the checkpoint holds all so far."""


def generator(
    seed: int, purpose: str, epoch: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A stream of random numbers for one purpose, which never shifts that of another.

    Args:
        seed: the training's seed.
        purpose: what is drawn, such as "attack" or "order".
        epoch: from 0; each epoch has streams of its own.
        device: where the numbers are drawn.

    Returns:
        A generator seeded by the sha256 of these arguments.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def configure_backend(device: torch.device | str) -> None:
    """Set what all computations of this process share.

    On the CPU one thread, for which bit-equality is promised, and memory that stays; on CUDA no
    TF32, which torch would have convolutions take for fp32 (10 bits of 23).

    Args:
        device: where the process will compute.
    """
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)
        _keep_memory()
    else:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


@cache
def _keep_memory() -> None:
    """Have freed memory, up to 1 GiB, stay with this process.

    By itself glibc gives maps of a few megabytes back to the system, which clears them anew at the
    next batch: a seventh of the time of a small network's PGD-20.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, its largest value


@dataclass(frozen=True)
class Fitted:
    """What training found."""

    selected: State
    """The state dictionary after the epoch that counts."""
    last: State
    """The state dictionary after the last epoch."""
    epoch: int
    """The epoch that counts, from 1."""
    history: list[dict[str, float]]
    """One dictionary per epoch: epoch, lr, loss and, where they were validated, SA and RA; probe 1
    where the head alone was trained; the training attack's eps where the recipe warms it up."""


def learning_rate(config: TrainingConfig, epoch: int, part: float) -> float:
    """The learning rate at one moment of training.

    Args:
        config: the schedule: constant, steps (a tenth from each milestone on), cosine (by epoch) or
            one_cycle (linearly up for a quarter of the steps, then linearly down to 0).
        epoch: of `config.epochs`, from 0; negative while the head alone is trained, at `lr`.
        part: of the epoch that is over, in [0,1].

    Returns:
        The rate, at least 0.
    """
    if epoch < 0:
        return config.lr
    if config.schedule == "steps":
        return config.lr * 0.1 ** sum(epoch >= at for at in config.milestones)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    if config.schedule == "one_cycle":
        at = (epoch + part) / config.epochs
        return config.lr * (at / 0.25 if at < 0.25 else (1 - at) / 0.75)
    return config.lr


def fit(  # noqa: PLR0913  (all but the first six have defaults)
    model: nn.Module,
    m: Mask,
    train: Images,
    validation: Images | None,
    config: TrainingConfig,
    seed: int,
    eval_attack: PGD | None = None,
    keep: Callable[[int, State], None] | None = None,
    checkpoint: Path | None = None,
    deadline: float | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Train f(x; m * theta) in place, pruned weights exactly zero throughout.

    With `validation` and selection "best", the epoch with the best SA (ST) or RA (FAT, AT) is
    selected among those where it is measured, ties to the earlier; else the last one. FAT also
    stops early when RA collapses, and then its best epoch counts. BatchNorm is in train mode during
    the attack, as in the authors' algorithm.

    The first `config.linear_probe_epochs` train the head alone: the backbone has no
    gradients, and its BatchNorm is in eval mode in the attack and in the update, since statistics
    that move would be another backbone. These epochs are not validated and cannot be selected; the
    others then see the same batches and random starts as without them, from momenta of 0.

    Args:
        model: the network, trained in place.
        m: its mask; weights that it does not name are all trained.
        train: the training images, with the augmentation of their data set.
        validation: the images to select by; None selects the last epoch.
        config: epochs, batch, rate and its schedule, the attack that training faces, selection.
        seed: of the order, the augmentation, the attacks and layers that draw, such as dropout.
        eval_attack: what validation RA is measured by; None, as for ST: SA selects.
        keep: called with 0 and the state before training, then with each epoch and its state.
        checkpoint: a file written after every epoch, and continued from if it is there and whole;
            on CPU the outcome is bit-equal to an uninterrupted run.
        deadline: as time.time() counts.
        progress: called with each epoch's row of the history.

    Returns:
        One checkpoint for SA and RA, the last state, and the history.

    Raises:
        OutOfTime: the deadline would pass within the next epoch.
        FloatingPointError: the loss, a weight or a statistic is not finite.
        RankLost: another rank has died.
    """
    device = next(model.parameters()).device
    configure_backend(device)
    torch.backends.cudnn.deterministic = config.deterministic
    torch.backends.cudnn.benchmark = not config.deterministic
    metric = "SA" if eval_attack is None else "RA"
    masked_parameters, optimiser = masked(model, m), _optimiser(model, config)
    history, selected = [], {}
    saved = unfinished.load(checkpoint, device) if checkpoint is not None else None
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        history, selected = saved["history"], saved["selected"]
    elif keep is not None:
        keep(0, _snapshot(model))
    if config.micro_batch_size is not None:
        ranks.share(model)
    seconds = 0.0
    while len(history) < config.all_epochs and not _collapsed(history, config, metric):
        if deadline is not None and time.time() + seconds > deadline:
            raise OutOfTime
        began = time.time()
        # negative while the head alone is trained
        epoch = len(history) - config.linear_probe_epochs
        if epoch == 0:
            optimiser = _optimiser(model, config)  # a probe's momenta are not carried over
        layers = generator(seed, "layers", epoch).initial_seed()
        with frozen(_backbone(model) if epoch < 0 else []), ranks.random_layers(layers, device):
            row = _train_epoch(model, masked_parameters, optimiser, train, config, seed, epoch)
        if epoch >= 0 and validation is not None:
            row |= _validate(model, validation, config, eval_attack, seed, epoch + 1)
        history.append({"epoch": len(history) + 1, **row})
        if best_epoch(history, metric) == len(history):
            selected = _snapshot(model)
        if keep is not None:
            keep(len(history), _snapshot(model))
        seconds = time.time() - began
        if checkpoint is not None and len(history) < config.all_epochs:
            states = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            unfinished.save({"history": history, "selected": selected, **states}, checkpoint)
        if progress is not None:
            progress(history[-1])
    last = _snapshot(model)
    if selected and (config.selection == "best" or _collapsed(history, config, metric)):
        return Fitted(selected, last, best_epoch(history, metric), history)
    return Fitted(last, last, len(history), history)


def best_epoch(history: list[dict[str, float]], metric: str) -> int:
    """The epoch after which validation was best, ties to the earlier.

    Args:
        history: one dictionary per epoch.
        metric: SA or RA.

    Returns:
        An epoch, from 1; 0 if none was validated so.
    """
    scores = {int(row["epoch"]): row[metric] for row in history if metric in row}
    return max(scores, key=scores.__getitem__, default=0)


def _collapsed(history: list[dict[str, float]], config: TrainingConfig, metric: str) -> bool:
    """Whether FAT has just lost its robustness: it trains no further, and its best epoch counts."""
    if config.regime != "FAT" or not history or metric not in history[-1]:
        return False
    best = history[best_epoch(history, metric) - 1]
    return history[-1][metric] < best[metric] - COLLAPSE


def _optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    """SGD over all weights, of which it passes over those without a gradient."""
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _backbone(model: nn.Module) -> list[nn.Parameter]:
    head = {id(weight) for layer in heads(model) for weight in layer.parameters()}
    return [weight for weight in model.parameters() if id(weight) not in head]


def _train_epoch(  # noqa: PLR0913  (what an epoch takes)
    model: nn.Module,
    masked_parameters: MaskedParameters,
    optimiser: torch.optim.Optimizer,
    train: Images,
    config: TrainingConfig,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    """One pass over the training images; its row of the history."""
    model.train(epoch >= 0)  # a frozen backbone's statistics do not move
    device = next(model.parameters()).device
    attack, attack_rng = config.attack_at(epoch), generator(seed, "attack", epoch, device)
    total, steps = torch.zeros((), device=device), math.ceil(len(train) / config.batch)
    epoch_batches = training_batches(
        train, config.batch, generator(seed, "order", epoch), generator(seed, "augment", epoch)
    )
    for number, (x, y) in enumerate(epoch_batches):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, epoch, (number + 1) / steps)
        loss = step(
            model,
            masked_parameters,
            optimiser,
            x,
            y,
            attack,
            attack_rng,
            config.precision,
            config.micro_batch_size,
        )
        total += loss * len(y)
    mean, at = (total / len(train)).item(), epoch + 1 + config.linear_probe_epochs
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"the loss is {mean} in epoch {at}: want a finite one; lower lr={config.lr}"
        )
    if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
        raise FloatingPointError(
            f"a weight or statistic is not finite after epoch {at}; lower lr={config.lr}"
        )
    row = {"lr": optimiser.param_groups[0]["lr"], "loss": mean}
    if epoch < 0:
        row["probe"] = 1.0
    if config.eps_warmup and attack is not None:
        row["eps"] = attack.eps
    return row


def step(  # noqa: PLR0913  (what a step takes)
    model: nn.Module,
    masked_parameters: MaskedParameters,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    attack: PGD | None,
    rng: torch.Generator | None,
    precision: str = "fp32",
    micro_batch_size: int | None = None,
) -> Tensor:
    """One training step, whatever the regime: attack (if any), gradient, update, mask.

    No value leaves the device.

    Args:
        model: the network, in train mode.
        masked_parameters: of `masked`.
        optimiser: of the model's parameters.
        x: images (B,3,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: what training faces; None for ST.
        rng: where the attack's random start is drawn from.
        precision: fp32 or bf16, of the update's forward and backward pass.
        micro_batch_size: images that go through the network together; their gradients are summed.

    Returns:
        The mean loss of the images that were trained on, a scalar tensor.
    """
    count = math.ceil(len(x) / (micro_batch_size or len(x)))
    optimiser.zero_grad()
    if count > 1:
        loss = ranks.accumulate_gradients(model, x, y, attack, rng, precision, count)
    else:
        if attack is not None:
            x = perturb_unchecked(model, x, y, attack, rng)
        loss = F.cross_entropy(logits_in(model, x, precision), y)
        loss.backward()
    optimiser.step()
    _apply_masks(masked_parameters)  # neither momentum nor weight decay may revive a pruned weight
    return loss.detach()


def masked(model: nn.Module, m: Mask) -> MaskedParameters:
    """Set theta <- m * theta, in place.

    Args:
        model: the network.
        m: bool tensors by parameter name; True keeps the weight.

    Returns:
        The weights that m names, and m as numbers, for `step` to keep it so.
    """
    weights = dict(model.named_parameters())
    found = [(weights[name], torch.empty_like(weights[name]).copy_(m[name])) for name in m]
    _apply_masks(found)
    return found


@torch.no_grad()
def _apply_masks(masked_parameters: MaskedParameters) -> None:
    for weight, layer in masked_parameters:
        weight.mul_(layer)


def _validate(
    model: nn.Module,
    validation: Images,
    config: TrainingConfig,
    eval_attack: PGD | None,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    # batches of a split are decoded one by one, where an accuracy asks for them
    x, y = cast(Tensor, validation.lazy_batches()), validation.y
    row = {"SA": standard_accuracy(model, x, y)}
    if eval_attack is not None and config.evaluates_robustly_at(epoch):
        rng = generator(seed, "validation", epoch, x.device)
        row["RA"] = robust_accuracy(model, x, y, eval_attack, rng)
    return row


def _snapshot(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
