"""What a benchmark compares: the authors' steps and other tools, re-created, and this code's own.

Every variant of a case has the same weights, mask, images, labels and start noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from dwlt_lib.analysis import loss_landscape
from dwlt_lib.attacks import pgd
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.recipes import BatchNormMode, Precision
from dwlt_lib.config.specs import PRUNE_FRACTION
from dwlt_lib.models import architectures
from dwlt_lib.pruning import kth_smallest, masks
from dwlt_lib.training import trainer

EPS, ALPHA = 8 / 255, 2 / 255
ROUNDS = 6  # of pruning: 73.8 % sparsity


Result = tuple[Tensor, float] | None


@dataclass(frozen=True)
class Variant:
    """One way to do a task.

    Attributes:
        name: its row in the table.
        run: does the task once; returns (delta or the like, loss), or None.
        first: does what is compared with the first variant, `run` unless it is given (one step of
            an attack, since rounding grows with every sign).
        same: whether it computes what the first variant computes.
        counted: whether its arithmetic is what the table counts.
        tf32: whether a GPU may use TF32 for fp32.
        note: a remark for the table.
        times: seconds of the repetitions that are kept.
        discarded: seconds of the repetitions during which others used the machine.
    """

    name: str
    run: Callable[[], Result]
    first: Callable[[], Result] | None = None
    same: bool = True
    counted: bool = True
    tf32: bool = False
    note: str = ""
    times: list[float] = field(default_factory=list)
    discarded: list[float] = field(default_factory=list)


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
    """What every variant of a task shares.

    Attributes:
        network: the architecture.
        size: the images' side in pixels.
        model: the masked network, in train mode.
        m: its mask.
        x: images (B,3,H,W) in [0,1].
        y: their classes (B,).
        start: the attack's first delta, of x's shape.
        gmac: 10^9 multiply-adds of the convolutions in one image's forward pass.
        elements: how many numbers those convolutions read and write.
    """

    network: str
    size: int
    model: nn.Module
    m: masks.Mask
    x: Tensor
    y: Tensor
    start: Tensor
    gmac: float
    elements: float


def benchmark_case(network: str, size: int, batch: int, device: torch.device) -> BenchmarkCase:
    """Draw weights, mask, images, labels and start noise from fixed seeds on the CPU.

    Args:
        network: an architecture's name.
        size: the images' side in pixels.
        batch: the number of images.
        device: where all of it is put.

    Returns:
        The case, with a mask of ROUNDS rounds of magnitude pruning.
    """
    row, rng = CATALOGUE["cifar10"], torch.Generator().manual_seed(0)
    was = torch.get_rng_state()
    torch.manual_seed(0)
    model = architectures.build(network, row.classes, row.mean, row.std)
    torch.set_rng_state(was)
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    m = masks.dense_mask(theta)
    for _ in range(ROUNDS):
        m = masks.magnitude_prune(theta, m, PRUNE_FRACTION)
    masks.apply_(model, m)
    x = torch.rand(batch, 3, size // 4, size // 4, generator=rng)
    x = F.interpolate(x, (size, size), mode="bilinear")  # smooth, as pictures are
    y = torch.randint(row.classes, (batch,), generator=rng)
    start = (x + (2 * torch.rand(x.shape, generator=rng) - 1) * EPS).clamp(0, 1) - x
    seen = []
    hooks = [
        module.register_forward_hook(
            lambda module, given, out: seen.append(
                (
                    out.numel() * module.get_parameter("weight")[0].numel(),
                    given[0].numel() + out.numel(),
                )
            )
        )
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        deepcopy(model).eval()(x[:1])
    for hook in hooks:
        hook.remove()
    model = model.to(device).train()
    return BenchmarkCase(
        network,
        size,
        model,
        {name: part.to(device) for name, part in m.items()},
        x.to(device),
        y.to(device),
        start.to(device),
        sum(one for one, _ in seen) / 1e9,
        sum(other for _, other in seen),
    )


def _sgd(model: nn.Module, **options: bool) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, **options)


def training_steps(on: BenchmarkCase, steps: int) -> Iterator[Variant]:
    """One training step, adversarial or standard, on the case's images.

    Args:
        on: what the variants share.
        steps: of the attack; 0 for a standard step.

    Yields:
        The authors' step first, then foolbox's if it is installed, then this code's.
    """

    def baseline(parameters: bool) -> Callable[..., Result]:
        model = reference_model(on.model, on.m).train()
        optimiser = _sgd(model)

        def run(steps: int = steps) -> Result:
            delta = (
                authors_attack(model, on.x, on.y, on.start, steps, parameters)
                if steps
                else 0 * on.x
            )
            loss = F.cross_entropy(model(on.x + delta), on.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return delta, loss.item()

        return run

    pool = torch.cuda.graph_pool_handle() if on.x.is_cuda else None

    def candidate(precision: Precision, bn: BatchNormMode = "train") -> Callable[..., Result]:
        model, ways = deepcopy(on.model), {}
        masked_parameters, optimiser = trainer.masked(model, on.m), _sgd(model, fused=True)
        if on.x.is_cuda:
            optimiser.param_groups[0]["lr"] = torch.tensor(
                optimiser.param_groups[0]["lr"], device=on.x.device
            )

        def run(steps: int = steps) -> Result:
            if steps not in ways:
                attack = pgd.PGD(EPS, ALPHA, steps, precision=precision, bn=bn) if steps else None
                ways[steps] = trainer.stepper(
                    model, masked_parameters, optimiser, attack, len(on.x), precision, pool=pool
                )
            moved, loss = ways[steps](on.x, on.y, None, on.start)
            return moved - on.x, loss.item()

        return run

    def foolbox(steps: int) -> Callable[..., Result] | None:
        try:
            import foolbox
        except ImportError:
            return None
        model = reference_model(on.model, on.m).eval()
        attack = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=steps, random_start=True)
        wrapped, optimiser = (
            foolbox.models.pytorch.PyTorchModel(model, bounds=(0, 1), device=on.x.device),
            _sgd(model),
        )

        def run() -> None:
            moved = attack(wrapped, on.x, on.y, epsilons=EPS)[1]
            loss = F.cross_entropy(model.train()(moved), on.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            model.eval()

        return run

    yield _compared("authors' step, fp32", baseline(False), steps)
    if on.x.is_cuda:
        yield _compared("authors' step, TF32", baseline(False), steps, tf32=True)
    if steps:
        yield _compared("and gradients of the weights in the attack", baseline(True), steps)
        if (run := foolbox(steps)) is not None:
            yield Variant(
                "foolbox's attack, eval-mode BatchNorm", run, same=False, note="its own start noise"
            )
    yield _compared("ours, exact, fp32", candidate("fp32"), steps)
    yield _compared("ours, exact, bf16", candidate("bf16"), steps)
    if steps:
        yield _compared(
            "ours, eval-mode BatchNorm in the attack, fp32",
            candidate("fp32", "eval"),
            steps,
            same=False,
        )
        yield _compared(
            "ours, eval-mode BatchNorm in the attack, bf16",
            candidate("bf16", "eval"),
            steps,
            same=False,
        )


def _compared(name: str, run: Callable[..., Result], steps: int, **about: Any) -> Variant:
    """A variant that is compared after one step of its attack, from the same weights and start."""
    return Variant(name, run, (lambda: run(1)) if steps else None, **about)


def evaluations(on: BenchmarkCase, steps: int = 20) -> Iterator[Variant]:
    """RA of a batch: the attack, then the score.

    Args:
        on: what the variants share.
        steps: of the attack; the paper takes 20.

    Yields:
        The authors' evaluation first, then this code's.
    """

    def baseline(parameters: bool) -> Callable[..., Result]:
        model = reference_model(on.model, on.m).eval()

        def run(steps: int = steps) -> Result:
            delta = authors_attack(model, on.x, on.y, on.start, steps, parameters)
            with torch.no_grad():
                return delta, F.cross_entropy(model(on.x + delta), on.y).item()

        return run

    def candidate(precision: Precision) -> Callable[..., Result]:
        model = deepcopy(on.model).eval()

        def run(steps: int = steps) -> Result:
            attack = pgd.PGD(EPS, ALPHA, steps, precision=precision)
            moved = pgd.perturb_unchecked(model, on.x, on.y, attack, None, on.start)
            with torch.no_grad():
                return moved - on.x, F.cross_entropy(model(moved), on.y).item()

        return run

    yield _compared("authors' evaluation, fp32", baseline(True), steps)
    if on.x.is_cuda:
        yield _compared("authors' evaluation, TF32", baseline(True), steps, tf32=True)
    yield _compared("and no gradients of the weights", baseline(False), steps)
    yield _compared("ours, fp32", candidate("fp32"), steps)
    yield _compared("ours, attack in bf16, score in fp32", candidate("bf16"), steps)
    model, attack = deepcopy(on.model).eval(), pgd.PGD(EPS, ALPHA, steps)

    def any_step() -> None:
        pgd.correct_at_every_step(model, on.x, on.y, attack, torch.Generator().manual_seed(0))

    yield Variant("ours, broken at any step, fp32", any_step, same=False, counted=False)


def thresholds(device: torch.device) -> Iterator[Variant]:
    """The global threshold at 20 % of ResNet-50's 23.45 million weights.

    Args:
        device: where the weights are.

    Yields:
        Torch's ways first, then this code's.
    """
    flat = torch.randn(23_454_912, generator=torch.Generator().manual_seed(0)).abs().to(device)
    k = round(0.2 * len(flat))
    yield Variant("torch.topk", lambda: (flat.topk(k, largest=False).values.max().view(1), 0.0))
    yield Variant("torch.sort", lambda: (flat.sort().values[k - 1].view(1), 0.0))
    yield Variant("torch.kthvalue", lambda: (flat.kthvalue(k).values.view(1), 0.0))
    yield Variant("ours", lambda: (kth_smallest.kth_smallest(flat, k).view(1), 0.0))


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
    candidate, baseline = deepcopy(on.model).eval(), reference_model(on.model, {}).eval()
    parts = list(zip(on.x.split(128), on.y.split(128), strict=True))

    def naive() -> tuple[Tensor, float]:
        home, found = deepcopy(baseline.state_dict()), []
        for a in grid.tolist():
            for b in grid.tolist():
                baseline.load_state_dict(
                    {
                        name: value + a * d1[name] + b * d2[name] if name in d1 else value
                        for name, value in home.items()
                    }
                )
                with torch.no_grad():
                    found.append(
                        sum(
                            F.cross_entropy(baseline(x), y, reduction="sum").item()
                            for x, y in parts
                        )
                    )
        baseline.load_state_dict(home)
        return torch.tensor(found) / len(on.y), 0.0

    yield Variant("weights loaded point by point, batch 128, fp32", naive)
    yield Variant(
        "ours, fp32",
        lambda: (loss_landscape.surface(candidate, on.m, d1, d2, on.x, on.y, grid).flatten(), 0.0),
    )
