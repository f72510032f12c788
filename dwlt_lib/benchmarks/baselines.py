"""What the benchmark compares: the authors' steps and torch's ways, and this code's own.

Every variant of a case has the same weights, mask, images, labels and start noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision.io import write_jpeg

from dwlt_lib.analysis import loss_landscape
from dwlt_lib.attacks import pgd
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.recipes import BatchNormMode, Precision
from dwlt_lib.config.specs import PRUNE_FRACTION
from dwlt_lib.data import decoding
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.training import trainer

EPS, ALPHA = 8 / 255, 2 / 255
ROUNDS = 6  # of pruning: 73.8 % sparsity


Result = tuple[Tensor, float]
"""The attack's delta, or what else the task finds, and the loss."""
Run = Callable[[int], Result]
"""Does a task once, with so many steps of its attack."""


@dataclass(frozen=True)
class Variant:
    """One way to do a task."""

    name: str
    """Its row in the table."""
    run: Callable[[], Result]
    """Does the task once."""
    first: Callable[[], Result] | None = None
    """Does what is compared with the first variant, `run` unless it is given: one step of an
    attack, since rounding grows with every sign."""
    same: bool = True
    """Whether it computes what the first variant computes."""
    tf32: bool = False
    """Whether a GPU may use TF32 for fp32."""


# ----------------------------------------------------------------------------------------------
# image files


def decodings(size: int, count: int, folder: Path) -> Iterator[Variant]:
    """Reading photographs as training and evaluation read them, on one core.

    Args:
        size: side of what comes out, in pixels.
        count: how many JPEG files of 500 x 375 pixels (ImageNet's usual size) are written.
        folder: where they go.

    Yields:
        A random crop and a centre crop of every file; the two have nothing to compare.
    """
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 24, 32), generator=rng)  # a photograph is smooth
    photographs = F.interpolate(coarse, (375, 500), mode="bicubic").mul(255).clamp(0, 255).byte()
    names = [str(folder / f"{number}.jpeg") for number in range(count)]
    for name, photograph in zip(names, photographs, strict=True):
        write_jpeg(photograph, name, quality=90)

    def read(decode: Callable[..., Tensor], *seeds: int) -> Result:
        return torch.stack([decode(name, size, *seeds) for name in names]), 0.0

    yield Variant("training: random crop", lambda: read(decoding.decode_random_crop, 0))
    yield Variant("evaluation: centre crop", lambda: read(decoding.decode_center_crop), same=False)


# ----------------------------------------------------------------------------------------------
# the authors' way


def reference_model(model: nn.Module, m: masks.Mask) -> nn.Module:
    """Copy a network as the paper's authors train it.

    In NCHW, with masks as hooks of torch.nn.utils.prune, multiplied in every forward pass.

    Args:
        model: the network; it is not changed.
        m: the mask, by the names of parameters.

    Returns:
        The copy.
    """
    reference = deepcopy(model).to(memory_format=torch.contiguous_format)
    for name, module in reference.named_modules():
        if f"{name}.weight" in m:
            prune.custom_from_mask(module, "weight", m[f"{name}.weight"].contiguous())
        if f"{name}.in_proj_weight" in m:  # torch's attention
            kept = m[f"{name}.in_proj_weight"]
            prune.custom_from_mask(module, "in_proj_weight", kept.contiguous())
    return reference


def authors_attack(
    model: nn.Module, x: Tensor, y: Tensor, start: Tensor, steps: int, parameters: bool
) -> Tensor:
    """Perturb images as the authors' PGD does, on the mean loss.

    Args:
        model: the network.
        x: images (B,3,H,W) in [0,1].
        y: their classes (B,).
        start: the first delta, of x's shape.
        steps: the number of steps.
        parameters: whether gradients of the weights are computed, too, though nothing uses them.

    Returns:
        The last delta, of x's shape.
    """
    delta = start.clone().requires_grad_(True)
    for _ in range(steps):
        loss = F.cross_entropy(model(x + delta), y)
        if parameters:
            loss.backward()
            gradient = cast(Tensor, delta.grad)
        else:
            gradient = torch.autograd.grad(loss, delta)[0]
        moved = torch.clamp(delta + ALPHA * torch.sign(gradient), -EPS, EPS)
        delta.data = torch.max(torch.min(1 - x, moved), 0 - x)
        if parameters:
            gradient.zero_()
    return delta.detach()


# ----------------------------------------------------------------------------------------------
# tasks


@dataclass(frozen=True)
class BenchmarkCase:
    """What every variant of a task shares."""

    model: nn.Module
    """The masked network, in train mode."""
    m: masks.Mask
    """Its mask."""
    x: Tensor
    """Images (B,3,H,W) in [0,1]."""
    y: Tensor
    """Their classes (B,)."""
    start: Tensor
    """The attack's first delta, of x's shape."""


def benchmark_case(network: str, size: int, batch: int, device: torch.device) -> BenchmarkCase:
    """Draw weights, mask, images, labels and start noise from fixed seeds on the CPU.

    Args:
        network: an architecture's name.
        size: the images' side in pixels.
        batch: the number of images.
        device: where all of it is put.

    Returns:
        The case, with a mask as sparse as after ROUNDS rounds of magnitude pruning.
    """
    row, rng = CATALOGUE["cifar10"], torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architectures.build(network, row.classes, row.mean, row.std)
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    pruned = 1 - (1 - PRUNE_FRACTION) ** ROUNDS
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), pruned)
    masks.apply_(model, m)
    x = torch.rand(batch, 3, size // 4, size // 4, generator=rng)
    x = F.interpolate(x, (size, size), mode="bilinear")  # smooth, as pictures are
    y = torch.randint(row.classes, (batch,), generator=rng)
    start = (x + (2 * torch.rand(x.shape, generator=rng) - 1) * EPS).clamp(0, 1) - x
    m = {name: part.to(device) for name, part in m.items()}
    model = model.to(device).train()
    return BenchmarkCase(model, m, x.to(device), y.to(device), start.to(device))


def _sgd(model: nn.Module, **options: bool) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, **options)


def training_steps(on: BenchmarkCase, steps: int) -> Iterator[Variant]:
    """One training step, adversarial or standard, on the case's images.

    Args:
        on: what the variants share.
        steps: of the attack; 0 for a standard step.

    Yields:
        The authors' step first, then this code's.
    """
    yield _compared("authors' step, fp32", _authors_step(on), steps)
    if on.x.is_cuda:
        yield _compared("authors' step, TF32", _authors_step(on), steps, tf32=True)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        run = _own_step(on, precision, "train")
        yield _compared(f"ours, exact, {precision}", run, steps)
    if steps:
        for precision in precisions:
            name = f"ours, eval-mode BatchNorm in the attack, {precision}"
            run = _own_step(on, precision, "eval")
            yield _compared(name, run, steps, same=False)


def _compared(name: str, run: Run, steps: int, **about: Any) -> Variant:
    """A variant that is compared after one step of its attack, from the same weights and start."""
    return Variant(name, lambda: run(steps), lambda: run(min(steps, 1)), **about)


def _authors_step(on: BenchmarkCase) -> Run:
    model = reference_model(on.model, on.m).train()
    optimiser = _sgd(model)

    def run(steps: int) -> Result:
        delta = torch.zeros_like(on.x)
        if steps:
            delta = authors_attack(model, on.x, on.y, on.start, steps, parameters=False)
        loss = F.cross_entropy(model(on.x + delta), on.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return delta, loss.item()

    return run


def _own_step(on: BenchmarkCase, precision: Precision, bn: BatchNormMode) -> Run:
    model = deepcopy(on.model)
    masked_parameters, optimiser = trainer.masked(model, on.m), _sgd(model, fused=True)

    def run(steps: int) -> Result:
        moved = on.x
        if steps:
            attack = pgd.PGD(EPS, ALPHA, steps, precision=precision, bn=bn)
            moved = pgd.perturb_unchecked(model, on.x, on.y, attack, None, on.start)
        given = (model, masked_parameters, optimiser, moved, on.y)
        loss = trainer.step(*given, attack=None, rng=None, precision=precision)
        return moved - on.x, loss.item()

    return run


def evaluations(on: BenchmarkCase, steps: int = 20) -> Iterator[Variant]:
    """RA of a batch: the attack, then the score.

    Args:
        on: what the variants share.
        steps: of the attack; the paper takes 20.

    Yields:
        The authors' evaluation first, then this code's.
    """
    reference, own = reference_model(on.model, on.m).eval(), deepcopy(on.model).eval()

    def authors(steps: int) -> Result:
        delta = authors_attack(reference, on.x, on.y, on.start, steps, parameters=True)
        with torch.no_grad():
            return delta, F.cross_entropy(reference(on.x + delta), on.y).item()

    def ours(steps: int, precision: Precision) -> Result:
        attack = pgd.PGD(EPS, ALPHA, steps, precision=precision)
        moved = pgd.perturb_unchecked(own, on.x, on.y, attack, None, on.start)
        with torch.no_grad():
            return moved - on.x, F.cross_entropy(own(moved), on.y).item()

    yield _compared("authors' evaluation, fp32", authors, steps)
    if on.x.is_cuda:
        yield _compared("authors' evaluation, TF32", authors, steps, tf32=True)
    yield _compared("ours, fp32", partial(ours, precision="fp32"), steps)
    name = "ours, attack in bf16, score in fp32"
    yield _compared(name, partial(ours, precision="bf16"), steps)


def surfaces(on: BenchmarkCase) -> Iterator[Variant]:
    """Points of a loss surface: the loss of the batch at each of 3 x 3, from -1 to 1.

    Args:
        on: what the variants share.

    Yields:
        Weights loaded point by point first, then this code's way.
    """
    d1, d2 = (
        loss_landscape.direction(on.model, on.m, torch.Generator().manual_seed(i)) for i in (1, 2)
    )
    grid = torch.linspace(-1, 1, 3)
    own, reference = deepcopy(on.model).eval(), reference_model(on.model, {}).eval()
    home = deepcopy(on.model.state_dict())

    def point_by_point() -> Result:
        losses = []
        for a, b in product(grid.tolist(), repeat=2):
            moved = {name: home[name] + a * d1[name] + b * d2[name] for name in d1}
            reference.load_state_dict(moved, strict=False)
            with torch.no_grad():
                losses.append(F.cross_entropy(reference(on.x), on.y).item())
        return torch.tensor(losses), 0.0

    def ours() -> Result:
        losses = loss_landscape.surface(own, on.m, d1, d2, on.x, on.y, grid)
        return losses.flatten(), 0.0

    yield Variant("weights loaded point by point, fp32", point_by_point)
    yield Variant("ours, fp32", ours)
