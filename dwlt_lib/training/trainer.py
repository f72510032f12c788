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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.pgd import first_delta, perturb_unchecked
from dwlt_lib.config.recipes import PGD, TrainingConfig
from dwlt_lib.data.batches import Images, StreamedImages, training_batches
from dwlt_lib.evaluation.accuracy import robust_accuracy, standard_accuracy
from dwlt_lib.models.tensors import Mask
from dwlt_lib.training import unfinished
from dwlt_lib.training.graphs import Pool, Work, captured

State = dict[str, Tensor]
"""A network's state dictionary, on the CPU or on its device."""

MaskedParameters = tuple[list[Tensor], list[Tensor]]
"""The weights that a mask names, and the mask of each as numbers 0 and 1."""

Stepper = Callable[..., tuple[Tensor, Tensor]]
"""(x, y, noise, start=None) -> the images that were trained on, and their mean loss."""

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
    train: Images | StreamedImages,
    validation: Images | StreamedImages | None,
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

    The first `config.linear_probe_epochs` train the head, `model.fc`, alone: the backbone has no
    gradients, and its BatchNorm is in eval mode in the attack and in the update, since statistics
    that move would be another backbone. These epochs are not validated and cannot be selected; the
    others then see the same batches and random starts as without them, from momenta of 0.

    Args:
        model: the network, trained in place.
        m: its mask; weights that it does not name are all trained.
        train: the training images, with the augmentation of their data set.
        validation: the images to select by; None selects the last epoch.
        config: epochs, batch, rate and its schedule, the attack that training faces, selection.
        seed: of the order, the augmentation and the attacks.
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
        FloatingPointError: the loss is not finite.
    """
    device = next(model.parameters()).device
    configure_backend(device)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = (
        config.deterministic,
        not config.deterministic,
    )
    metric = "SA" if eval_attack is None else "RA"
    own, ready = model, _ready(model, m, config)
    model, probes = ready.model, config.linear_probe_epochs
    head = _head(ready, config) if probes else ready
    state = {
        "epoch": 0,
        "history": [],
        "best": -1.0,
        "best_epoch": 0,
        "selected": {},
        "stopped": False,
    }
    saved = unfinished.load(checkpoint, device) if checkpoint is not None else None
    if saved is not None:
        model.load_state_dict(saved.pop("model"))
        momenta, state = saved.pop("optimiser"), saved
        if state["epoch"] != probes:  # the head's own end with its last epoch
            _recall((head if state["epoch"] < probes else ready).optimiser, momenta)
    elif keep is not None:
        keep(0, _snapshot(model))
    seconds = 0.0
    while state["epoch"] < config.all_epochs and not state["stopped"]:
        if deadline is not None and time.time() + seconds > deadline:
            raise OutOfTime
        began = time.time()
        epoch = state["epoch"] - probes  # negative while the head alone is trained
        trained = head if epoch < 0 else _at_its_eps(ready, config, epoch)
        with _frozen_backbone(model) if epoch < 0 else nullcontext():
            row = _epoch(trained, train, config, seed, epoch)
        state["epoch"] += 1
        row = {"epoch": state["epoch"], **row}
        if epoch >= 0:
            row |= _validate(model, validation, config, eval_attack, seed, epoch + 1)
        state["history"].append(row)
        _select(state, model, row, metric, config.regime == "FAT")
        if keep is not None:
            keep(state["epoch"], _snapshot(model))
        seconds = time.time() - began
        if checkpoint is not None and state["epoch"] < config.all_epochs:
            momenta = trained.optimiser.state_dict()
            unfinished.save(
                {**state, "model": model.state_dict(), "optimiser": momenta}, checkpoint
            )
        if progress is not None:
            progress(row)
    if model is not own:
        own.train().load_state_dict(model.state_dict())
    last = _snapshot(model)
    chosen = validation is not None and (config.selection == "best" or state["stopped"])
    return Fitted(
        selected=state["selected"] if chosen else last,
        last=last,
        epoch=state["best_epoch"] if chosen else state["epoch"],
        history=state["history"],
    )


@dataclass(frozen=True)
class _Ready:
    """A network that can be trained: its mask as `step` wants it, its optimiser and its steps."""

    model: nn.Module
    masked_parameters: MaskedParameters
    optimiser: torch.optim.Optimizer
    go: Stepper


_WARM: dict[tuple, _Ready] = {}  # on CUDA, the last one


def _ready(model: nn.Module, m: Mask, config: TrainingConfig) -> _Ready:
    """The model itself, new to training; on CUDA a twin of it.

    The next ticket of its kind finds the twin's steps captured: weights, statistics, mask and
    momenta are data in the tensors that the graph knows.
    """
    if not _capturable(next(model.parameters())):
        return _new(model, m, config)
    known_to_a_step = (
        config.batch,
        config.momentum,
        config.weight_decay,
        config.attack,
        config.precision,
        config.deterministic,
        config.micro_batch_size,
    )
    key = (str(model), tuple(m), known_to_a_step)
    if key not in _WARM:
        _WARM.clear()  # and with it a graph's memory
        _WARM[key] = _new(deepcopy(model), m, config)
    found = _WARM[key]
    with torch.no_grad():
        for tensor, given in zip(
            (*found.model.parameters(), *found.model.buffers(), *found.masked_parameters[1]),
            (*model.parameters(), *model.buffers(), *m.values()),
            strict=True,
        ):
            tensor.copy_(given)
        for state in found.optimiser.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"].zero_()  # before the first step the same as none
    _mask_(found.masked_parameters)
    return found


def _new(model: nn.Module, m: Mask, config: TrainingConfig) -> _Ready:
    return _steps(model, masked(model, m), _optimiser(model.parameters(), config), config)


def _head(ready: _Ready, config: TrainingConfig) -> _Ready:
    """The same network, of which the optimiser trains the head alone."""
    optimiser = _optimiser(cast(nn.Module, ready.model.fc).parameters(), config)
    return _steps(ready.model, ready.masked_parameters, optimiser, config)


def _at_its_eps(ready: _Ready, config: TrainingConfig, epoch: int) -> _Ready:
    """The same network, trained against this epoch's attack: a captured step knows but one eps."""
    attack = config.attack_at(epoch)
    if attack == config.attack:
        return ready
    warming = config.model_copy(update={"attack": attack})
    return _steps(ready.model, ready.masked_parameters, ready.optimiser, warming)


def _optimiser(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.SGD:
    weights = list(parameters)
    one = weights[0]
    rate = torch.tensor(config.lr, device=one.device) if _capturable(one) else config.lr
    return torch.optim.SGD(
        weights,
        lr=rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _steps(
    model: nn.Module,
    masked_parameters: MaskedParameters,
    optimiser: torch.optim.Optimizer,
    config: TrainingConfig,
) -> _Ready:
    go = stepper(
        model,
        masked_parameters,
        optimiser,
        config.attack,
        config.batch,
        config.precision,
        config.micro_batch_size,
    )
    return _Ready(model, masked_parameters, optimiser, go)


@contextmanager
def _frozen_backbone(model: nn.Module) -> Iterator[None]:
    """Lend the network without gradients but the head's."""
    head = {id(weight) for weight in cast(nn.Module, model.fc).parameters()}
    backbone = [w for w in model.parameters() if w.requires_grad and id(w) not in head]
    try:
        for weight in backbone:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in backbone:
            weight.requires_grad_(True)


def _recall(optimiser: torch.optim.Optimizer, saved: dict) -> None:
    """Momenta from an optimiser's state_dict, into the tensors that are there.

    A graph may know them.
    """
    for number, weight in enumerate(optimiser.param_groups[0]["params"]):
        momentum = saved["state"].get(number, {}).get("momentum_buffer")
        if momentum is not None:
            optimiser.state[weight].setdefault("momentum_buffer", torch.empty_like(weight)).copy_(
                momentum
            )


def _epoch(
    trained: _Ready,
    train: Images | StreamedImages,
    config: TrainingConfig,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    trained.model.train(epoch >= 0)  # a frozen backbone's statistics do not move
    device = next(trained.model.parameters()).device
    noise = generator(seed, "attack", epoch, device)
    total, steps = torch.zeros((), device=device), max(1, math.ceil(len(train) / config.batch))
    epoch_batches = training_batches(
        train, config.batch, generator(seed, "order", epoch), generator(seed, "augment", epoch)
    )
    rate = config.lr
    for number, (x, y) in enumerate(epoch_batches):
        rate = learning_rate(config, epoch, (number + 1) / steps)
        for group in trained.optimiser.param_groups:
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
        total += trained.go(x, y, noise)[1] * len(y)
    mean = (total / len(train)).item()
    if not math.isfinite(mean):
        at = epoch + 1 + config.linear_probe_epochs
        raise FloatingPointError(
            f"the loss is {mean} in epoch {at}: want a finite one; lower lr={config.lr}"
        )
    row = {"lr": rate, "loss": mean}
    if epoch < 0:
        row["probe"] = 1.0
    if config.eps_warmup and (attack := config.attack_at(epoch)):
        row["eps"] = attack.eps
    return row


def stepper(  # noqa: PLR0913  (what a step takes that no batch changes)
    model: nn.Module,
    masked_parameters: MaskedParameters,
    optimiser: torch.optim.Optimizer,
    attack: PGD | None,
    batch: int,
    precision: str = "fp32",
    micro_batch_size: int | None = None,
    pool: Pool | None = None,
) -> Stepper:
    """Make `step` a function of one batch after another.

    On CUDA it is captured as a graph at the first batch of `batch` images, and those that follow
    replay it. Written without a GPU at hand: not yet proved on one.

    Args:
        model: as for `step`, as are those that are not named here.
        masked_parameters: of `masked`.
        optimiser: on CUDA its rate must be a tensor.
        attack: what training faces; None for ST.
        batch: images in a full batch; smaller ones are not captured.
        precision: fp32 or bf16, of the update's forward and backward pass.
        micro_batch_size: images that go through the network together.
        pool: of `graphs.captured`.

    Returns:
        A function (x, y, noise, start=None) -> (images, loss); on CUDA what it returns holds until
        the next call.
    """
    graphs: dict[torch.Size, Work | None] = {}

    def run(
        x: Tensor, y: Tensor, noise: torch.Generator | None, start: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return step(
            model,
            masked_parameters,
            optimiser,
            x,
            y,
            attack,
            noise,
            precision,
            start,
            micro_batch_size,
        )

    def work(x: Tensor, y: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        return run(x, y, None, start)

    def go(
        x: Tensor, y: Tensor, noise: torch.Generator | None, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if not _capturable(x) or len(x) != batch:
            return run(x, y, noise, start)
        if start is None:
            start = torch.zeros_like(x) if attack is None else first_delta(x, attack, noise)
        if x.shape not in graphs:
            graphs[x.shape] = captured(work, model, optimiser, x, y, start, pool)
        return (graphs[x.shape] or work)(x, y, start)

    return go


def _capturable(x: Tensor) -> bool:
    return x.device.type == "cuda"


def step(  # noqa: PLR0913  (what a step takes)
    model: nn.Module,
    masked_parameters: MaskedParameters,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    attack: PGD | None,
    noise: torch.Generator | None,
    precision: str = "fp32",
    start: Tensor | None = None,
    micro_batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """One training step, whatever the regime: attack (if any), gradient, update, mask.

    No value leaves the device.

    Args:
        model: the network, in train mode.
        masked_parameters: of `masked`.
        optimiser: of the model's parameters.
        x: images (B,3,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: what training faces; None for ST.
        noise: where the attack's random start is drawn from.
        precision: fp32 or bf16, of the update's forward and backward pass.
        start: of `attacks.perturb`.
        micro_batch_size: images that go through the network together; their gradients are summed.

    Returns:
        The images that were trained on, and their mean loss, a scalar tensor.
    """
    count = math.ceil(len(x) / (micro_batch_size or len(x)))
    optimiser.zero_grad(set_to_none=True)
    seen, total = [], torch.zeros((), device=x.device)
    starts = (None,) * count if start is None else start.tensor_split(count)
    for part, labels, begun in zip(
        x.tensor_split(count), y.tensor_split(count), starts, strict=True
    ):
        if attack is not None:
            part = perturb_unchecked(model, part, labels, attack, noise, begun)
        with torch.autocast(
            x.device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
        ):
            logits = model(part)
        loss = F.cross_entropy(logits.float() if precision == "bf16" else logits, labels)
        loss = loss * (len(labels) / len(y))  # the batch's mean loss is the sum over its parts
        loss.backward()
        seen.append(part)
        total += loss.detach()
    optimiser.step()
    _mask_(masked_parameters)  # neither momentum nor weight decay may revive a pruned weight
    return torch.cat(seen) if count > 1 else seen[0], total


def masked(model: nn.Module, m: Mask) -> MaskedParameters:
    """Set theta <- m * theta, in place.

    Args:
        model: the network.
        m: bool tensors by parameter name; True keeps the weight.

    Returns:
        The weights that m names, and m as numbers, for `step` to keep it so.
    """
    parameters = dict(model.named_parameters())
    weights: list[Tensor] = [parameters[name] for name in m]
    numbers = [
        torch.empty_like(weight).copy_(part)
        for weight, part in zip(weights, m.values(), strict=True)
    ]
    _mask_((weights, numbers))
    return weights, numbers


@torch.no_grad()
def _mask_(masked_parameters: MaskedParameters) -> None:
    weights, numbers = masked_parameters
    if weights:
        torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
            [weight.detach() for weight in weights], numbers
        )


def _validate(
    model: nn.Module,
    validation: Images | StreamedImages | None,
    config: TrainingConfig,
    eval_attack: PGD | None,
    seed: int,
    epoch: int,
) -> dict[str, float]:
    if validation is None:
        return {}
    # batches of a split are decoded one by one, where an accuracy asks for them
    x, y = cast(Tensor, validation.lazy_batches()), validation.y
    row = {"SA": standard_accuracy(model, x, y)}
    if eval_attack is not None and config.evaluates_robustly_at(epoch):
        row["RA"] = robust_accuracy(
            model, x, y, eval_attack, generator(seed, "validation", epoch, x.device)
        )
    return row


def _select(
    state: dict, model: nn.Module, row: dict[str, float], metric: str, stops_on_collapse: bool
) -> None:
    score = row.get(metric)
    if score is None:
        return
    if score > state["best"]:
        state.update(best=score, best_epoch=state["epoch"], selected=_snapshot(model))
    state["stopped"] = stops_on_collapse and score < state["best"] - COLLAPSE


def _snapshot(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
