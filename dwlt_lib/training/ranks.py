"""The micro-batches of a batch, computed by one process or by several ranks of torchrun.

Rank 0 trains; the other ranks compute micro-batches for it and keep nothing. For each batch it
sends them its weights and, wave by wave, the images of one micro-batch each; what they send back
it adds in the order of the micro-batches. The operations are the same whoever does them, so that a
result does not depend on the number of ranks. Communication is outside of autograd.
"""

from __future__ import annotations

import atexit
import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwlt_lib.attacks.pgd import logits_in, perturb_unchecked, uniform_delta
from dwlt_lib.config.recipes import PGD

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for another one's part of a batch."""
IDLE = timedelta(days=20)
"""How long a rank waits for the next batch, while rank 0 validates, tests and prunes."""

T = TypeVar("T")
MicroBatch = tuple[Tensor, Tensor]
"""Images (B,3,H,W) in [0,1] and their classes (B,)."""

_messages: dist.ProcessGroup | None = None
"""The ranks once more, for Python objects and long waits; tensors go by torch's default group."""


class RankLost(RuntimeError):
    """Another rank does not answer, as one line says; none can go on."""


@dataclass(frozen=True)
class _Batch:
    """What all ranks know of a batch."""

    shapes: list[torch.Size]
    """Of the images of each micro-batch."""
    streams: list[Tensor | None]
    """The state of the generator of random starts before each micro-batch."""
    seed: int
    """Of dropout and the like in the first micro-batch; each further one adds 1."""
    attack: PGD | None
    precision: str
    training: bool
    """Whether the network is in train mode."""
    trainable: list[bool]
    """Of each parameter: whether it gets a gradient."""
    deterministic: bool
    """Whether a GPU uses kernels that repeat to the bit."""


# ------------------------------------------------------------------------------------ the ranks


def join(device: str) -> torch.device:
    """Meet the other ranks, as torchrun's environment describes them.

    Args:
        device: cpu, where they speak by gloo, or cuda, where they speak by NCCL.

    Returns:
        The device of this rank; on cuda each has a GPU of its own.

    Raises:
        ValueError: there are more ranks than GPUs on this machine; one line.
    """
    global _messages
    own = torch.device(device)
    if device == "cuda":
        ranks, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if ranks > gpus:
            raise ValueError(f"{ranks} ranks on {gpus} GPUs: want at most one rank per GPU")
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    _messages = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=IDLE))
    atexit.register(dist.destroy_process_group)  # else its threads may end the process by SIGABRT
    return own


def dismiss() -> None:
    """On rank 0: tell the other ranks, if there are any, that all is over."""
    if _size() > 1:
        with suppress(RankLost):  # whoever has died need not be told
            _tell(None)


def share(model: nn.Module) -> None:
    """On rank 0: tell the other ranks, if there are any, which network is trained from now on.

    Args:
        model: the network; its weights are sent again with every batch.

    Raises:
        RankLost: another rank does not answer.
    """
    if _size() > 1:
        _tell(copy.deepcopy(model).cpu())


def follow(device: torch.device) -> bool:
    """On every other rank: compute micro-batches until rank 0 says that all is over.

    Args:
        device: of `join`.

    Returns:
        Whether it has said so; False where it does not answer any more.
    """
    model = nn.Module()
    while True:
        try:
            message = _tell(None)
            if isinstance(message, nn.Module):
                model = message.to(device)
            elif isinstance(message, _Batch):
                _take_part(model, message, device)
            else:
                return True
        except RankLost:
            return False
        except Exception:
            continue  # rank 0 has raised it, too, and may train something else


def _size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _tell(message: Any) -> Any:
    """Send an object from rank 0 to all ranks, each of which returns it."""
    objects = [message]
    with _connected():
        dist.broadcast_object_list(objects, src=0, group=_messages)
    return objects[0]


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankLost(f"another rank has died or does not answer ({error})") from error


# ------------------------------------------------------------------------------- the arithmetic


def accumulate_gradients(  # noqa: PLR0913  (what a step takes)
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: PGD | None,
    rng: torch.Generator | None,
    precision: str,
    count: int,
) -> Tensor:
    """Set the gradients of a batch's mean loss, summed over micro-batches in their order.

    Each micro-batch starts from BatchNorm's running statistics r_0 of before the batch, which its K
    passes with momentum a change by d = (1-a)^K r_0 + s - r_0. The batch changes them by D as all
    passes one after another would: D <- d + (1-a)^K D, for each micro-batch in turn.

    Args:
        model: the network; its parameters that require gradients get them.
        x: images (B,3,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: what training faces; None for ST.
        rng: where random starts are drawn from, for one micro-batch after another, on x's device.
        precision: fp32 or bf16, of the update's forward and backward pass.
        count: number of micro-batches, which are as equal as possible.

    Returns:
        The mean loss of the images that were trained on, a scalar tensor.

    Raises:
        Exception: what any rank met when it computed its part.
        RankLost: another rank does not answer.
    """
    parts = [
        (images.contiguous(), labels)
        for images, labels in zip(x.tensor_split(count), y.tensor_split(count), strict=True)
    ]
    batch = _Batch(
        shapes=[images.shape for images, _ in parts],
        streams=_streams(parts, attack, rng),
        seed=int(torch.randint(2**31, ())),
        attack=attack,
        precision=precision,
        training=model.training,
        trainable=[weight.requires_grad for weight in model.parameters()],
        deterministic=torch.backends.cudnn.deterministic,
    )
    buffers = [buffer for norm in _batch_norms(model) for buffer in norm.buffers()]
    entries = sum(buffer.numel() for buffer in buffers)
    total = change = torch.zeros((), device=x.device)
    for outcome in _outcomes(model, parts, batch):
        summand, changed, kept = outcome.split((len(outcome) - 2 * entries, entries, entries))
        total, change = total + summand, changed + kept * change
    gradients = _gradients(model)
    for gradient, found in zip(gradients, _pieces(total[1:], gradients), strict=True):
        gradient.copy_(found)
    for buffer, found in zip(buffers, _pieces(change, buffers), strict=True):
        buffer += found.to(buffer.dtype)
    return total[0]


@contextmanager
def random_layers(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what a network itself draws for a while: dropout, stochastic depth.

    Such layers draw from torch's global generator, which is put back.

    Args:
        seed: of that generator.
        device: where the network is.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _streams(
    parts: Sequence[MicroBatch], attack: PGD | None, rng: torch.Generator | None
) -> list[Tensor | None]:
    """The state of rng before each micro-batch; it moves on by what the attacks on all draw."""
    states = []
    for images, _ in parts:
        states.append(None if rng is None else rng.get_state())
        if attack is not None and attack.random_start:
            for _ in range(attack.restarts):
                uniform_delta(images, attack.eps, rng)
    return states


def _outcomes(model: nn.Module, parts: Sequence[MicroBatch], batch: _Batch) -> Iterator[Tensor]:
    """On rank 0: the outcome of each micro-batch, in their order, whoever computes it."""
    size = _size()
    if size > 1:
        _tell(batch)
        with _connected():
            dist.broadcast(_flat(_state(model)), src=0)
    for first in range(0, len(parts), size):
        wave = parts[first : first + size]
        with _connected():
            for rank, (images, labels) in enumerate(wave[1:], start=1):
                dist.send(images, rank)
                dist.send(labels, rank)
        own = _together(partial(_outcome, model, *wave[0], batch, first))
        yield own
        for rank in range(1, len(wave)):
            received = torch.empty_like(own)
            with _connected():
                dist.recv(received, rank)
            yield received


def _take_part(model: nn.Module, batch: _Batch, device: torch.device) -> None:
    """On every other rank: its micro-batches of the batch."""
    torch.backends.cudnn.deterministic = batch.deterministic
    torch.backends.cudnn.benchmark = not batch.deterministic
    model.train(batch.training)
    for weight, trainable in zip(model.parameters(), batch.trainable, strict=True):
        weight.requires_grad_(trainable)
    received = _flat(_state(model))
    with _connected():
        dist.broadcast(received, src=0)
    for value, new in zip(_state(model), _pieces(received, _state(model)), strict=True):
        value.copy_(new)
    for first in range(0, len(batch.shapes), _size()):
        number = first + dist.get_rank()
        if number >= len(batch.shapes):
            _together(lambda: None)
            continue
        images = torch.empty(batch.shapes[number], device=device)
        labels = torch.empty(len(images), dtype=torch.int64, device=device)
        with _connected():
            dist.recv(images, 0)
            dist.recv(labels, 0)
        outcome = _together(partial(_outcome, model, images, labels, batch, number))
        with _connected():
            dist.send(outcome, 0)


def _together(compute: Callable[[], T]) -> T:
    """What this rank computes; what one rank cannot is raised on all, so that none waits."""
    if _size() == 1:
        return compute()
    found, problem = None, None
    try:
        found = compute()
    except Exception as error:
        problem = error
    problems: list[Exception | None] = [None] * _size()
    with _connected():
        dist.all_gather_object(problems, problem, group=_messages)
    for problem in problems:
        if problem is not None:
            raise problem
    return cast(T, found)


def _outcome(model: nn.Module, x: Tensor, y: Tensor, batch: _Batch, number: int) -> Tensor:
    """A micro-batch as one vector.

    Its share of the batch's mean loss, the gradients of that, what it adds to each entry of
    BatchNorm's buffers, which are left as they were, and for each of these the factor (1-a)^K.
    """
    norms = _batch_norms(model)
    before = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    rng = None
    if (state := batch.streams[number]) is not None:
        rng = torch.Generator(x.device)
        rng.set_state(state)
    model.zero_grad()
    with random_layers(batch.seed + number, x.device):
        if batch.attack is not None:
            x = perturb_unchecked(model, x, y, batch.attack, rng)
        loss = F.cross_entropy(logits_in(model, x, batch.precision), y)
    loss = loss * (len(y) / sum(shape[0] for shape in batch.shapes))  # of the batch's mean
    loss.backward()
    changes, kept = [], []
    for norm, (mean, variance, count) in zip(norms, before, strict=True):
        passes = cast(Tensor, norm.num_batches_tracked) - count
        factor = (1 - cast(float, norm.momentum)) ** passes
        kept += [factor.expand_as(mean), factor.expand_as(variance), torch.ones_like(passes)]
        for buffer, old in zip(norm.buffers(), (mean, variance, count), strict=True):
            changes.append(buffer - old)
            buffer.copy_(old)
    return _flat([loss, *_gradients(model), *changes, *kept])


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Those that keep running statistics: a mean, a variance and a number of passes each."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [norm for norm in norms if norm.track_running_stats]


def _gradients(model: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in model.parameters() if weight.grad is not None]


def _state(model: nn.Module) -> list[Tensor]:
    """All that training moves and a micro-batch depends on."""
    buffers = (buffer for buffer in model.buffers() if buffer.is_floating_point())
    return [value.detach() for value in (*model.parameters(), *buffers)]


def _flat(values: Sequence[Tensor]) -> Tensor:
    """All their numbers in one vector."""
    return torch.cat([value.detach().flatten() for value in values])


def _pieces(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The vector cut to tensors of these shapes, each a view of it."""
    cut = vector.split([value.numel() for value in like])
    return [piece.view(value.shape) for piece, value in zip(cut, like, strict=True)]
