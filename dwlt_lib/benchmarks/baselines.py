"""What a benchmark compares: faithful re-creations of the authors' steps and of other tools, and
this code's own.

Every variant of a case has the same weights, mask, images, labels and start noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from dwlt_lib.analysis import loss_landscape
from dwlt_lib.attacks import pgd
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.specs import PRUNE_FRACTION
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.training import trainer

EPS, ALPHA = 8 / 255, 2 / 255
ROUNDS = 6  # of pruning: 73.8 % sparsity


Result = tuple[Tensor, float] | None


@dataclass(frozen=True)
class Variant:
    """One way to do a task. run: does it once; first: does what is compared with the first variant,
    run unless it is given (of an attack one step, since rounding grows with every sign), and
    returns (delta or alike, loss) or None.

    same: whether it computes what the first variant computes; counted: whether its arithmetic is
    what the table counts; tf32: whether a GPU may take TF32 for fp32.
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


# ---------------------------------------------------------------------------------------------- the
# authors' way


def authors(model: nn.Module, m: masks.Mask) -> nn.Module:
    """The network as its authors train it.

    NCHW, masks as torch.nn.utils.prune's hooks, multiplied in every forward.
    """
    theirs = deepcopy(model).to(memory_format=torch.contiguous_format)
    for name, module in theirs.named_modules():
        if f"{name}.weight" in m:
            prune.custom_from_mask(module, "weight", m[f"{name}.weight"].contiguous())
    return theirs


def authors_attack(
    model: nn.Module, x: Tensor, y: Tensor, start: Tensor, steps: int, parameters: bool
) -> Tensor:
    """delta after `steps` of PGD on the mean loss; parameters.

    The weights' gradients are computed too, for nothing.
    """
    delta = start.clone().requires_grad_(True)
    for _ in range(steps):
        loss = F.cross_entropy(model(x + delta), y)
        if parameters:
            loss.backward()
            gradient = delta.grad.detach()
        else:
            gradient = torch.autograd.grad(loss, delta)[0].detach()
        moved = torch.clamp(delta + ALPHA * torch.sign(gradient), -EPS, EPS)
        delta.data = torch.max(torch.min(1 - x, moved), 0 - x)
        if parameters:
            delta.grad.zero_()
    return delta.detach()


# ----------------------------------------------------------------------------------------------
# tasks


@dataclass(frozen=True)
class Case:
    """What every variant of a task shares. x: (B,3,H,W) in [0,1]; start: the first delta; gmac,
    elements: of one image's forward pass, arithmetic and numbers that convolutions read and
    write."""

    network: str
    size: int
    model: nn.Module
    m: masks.Mask
    x: Tensor
    y: Tensor
    start: Tensor
    gmac: float
    elements: float


def case(network: str, size: int, batch: int, device: torch.device) -> Case:
    """Weights, mask, images, labels and start noise, drawn from fixed seeds on the CPU."""
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
                (out.numel() * module.weight[0].numel(), given[0].numel() + out.numel())
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
    return Case(
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


def _sgd(model: nn.Module, **how: bool) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, **how)


def training_steps(on: Case, steps: int) -> Iterator[Variant]:
    """An adversarial (steps > 0) or standard training step."""

    def theirs(parameters: bool) -> Callable[..., Result]:
        model = authors(on.model, on.m).train()
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

    def ours(precision: str, bn: str = "train") -> Callable[..., Result]:
        model, ways = deepcopy(on.model), {}
        kept, optimiser = trainer.masked(model, on.m), _sgd(model, fused=True)
        if on.x.is_cuda:
            optimiser.param_groups[0]["lr"] = torch.tensor(
                optimiser.param_groups[0]["lr"], device=on.x.device
            )

        def run(steps: int = steps) -> Result:
            if steps not in ways:
                attack = pgd.PGD(EPS, ALPHA, steps, precision=precision, bn=bn) if steps else None
                ways[steps] = trainer.stepper(
                    model, kept, optimiser, attack, len(on.x), precision, pool=pool
                )
            moved, loss = ways[steps](on.x, on.y, None, on.start)
            return moved - on.x, loss.item()

        return run

    def foolbox(steps: int) -> Callable[..., Result] | None:
        try:
            import foolbox
        except ImportError:
            return None
        model = authors(on.model, on.m).eval()
        attack = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=steps, random_start=True)
        wrapped, optimiser = (
            foolbox.PyTorchModel(model, bounds=(0, 1), device=on.x.device),
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

    yield _compared("authors' step, fp32", theirs(False), steps)
    if on.x.is_cuda:
        yield _compared("authors' step, TF32", theirs(False), steps, tf32=True)
    if steps:
        yield _compared("and gradients of the weights in the attack", theirs(True), steps)
        if (run := foolbox(steps)) is not None:
            yield Variant(
                "foolbox's attack, eval-mode BatchNorm", run, same=False, note="its own start noise"
            )
    yield _compared("ours, exact, fp32", ours("fp32"), steps)
    yield _compared("ours, exact, bf16", ours("bf16"), steps)
    if steps:
        yield _compared(
            "ours, eval-mode BatchNorm in the attack, fp32", ours("fp32", "eval"), steps, same=False
        )
        yield _compared(
            "ours, eval-mode BatchNorm in the attack, bf16", ours("bf16", "eval"), steps, same=False
        )


def _compared(name: str, run: Callable[..., Result], steps: int, **about: object) -> Variant:
    """A variant that is compared after one step of its attack, from the same weights and start."""
    return Variant(name, run, (lambda: run(1)) if steps else None, **about)


def evaluations(on: Case, steps: int = 20) -> Iterator[Variant]:
    """RA of a batch: the attack, then the score."""

    def theirs(parameters: bool) -> Callable[..., Result]:
        model = authors(on.model, on.m).eval()

        def run(steps: int = steps) -> Result:
            delta = authors_attack(model, on.x, on.y, on.start, steps, parameters)
            with torch.no_grad():
                return delta, F.cross_entropy(model(on.x + delta), on.y).item()

        return run

    def ours(precision: str) -> Callable[..., Result]:
        model = deepcopy(on.model).eval()

        def run(steps: int = steps) -> Result:
            attack = pgd.PGD(EPS, ALPHA, steps, precision=precision)
            moved = pgd.perturb_unchecked(model, on.x, on.y, attack, None, on.start)
            with torch.no_grad():
                return moved - on.x, F.cross_entropy(model(moved), on.y).item()

        return run

    yield _compared("authors' evaluation, fp32", theirs(True), steps)
    if on.x.is_cuda:
        yield _compared("authors' evaluation, TF32", theirs(True), steps, tf32=True)
    yield _compared("and no gradients of the weights", theirs(False), steps)
    yield _compared("ours, fp32", ours("fp32"), steps)
    yield _compared("ours, attack in bf16, score in fp32", ours("bf16"), steps)
    model, attack = deepcopy(on.model).eval(), pgd.PGD(EPS, ALPHA, steps)

    def any_step() -> None:
        pgd.correct_at_every_step(model, on.x, on.y, attack, torch.Generator().manual_seed(0))

    yield Variant("ours, broken at any step, fp32", any_step, same=False, counted=False)


def thresholds(device: torch.device) -> Iterator[Variant]:
    """The global threshold at 20 % of ResNet-50's 23.45 million weights."""
    flat = torch.randn(23_454_912, generator=torch.Generator().manual_seed(0)).abs().to(device)
    k = round(0.2 * len(flat))
    yield Variant("torch.topk", lambda: (flat.topk(k, largest=False).values.max().view(1), 0.0))
    yield Variant("torch.sort", lambda: (flat.sort().values[k - 1].view(1), 0.0))
    yield Variant("torch.kthvalue", lambda: (flat.kthvalue(k).values.view(1), 0.0))
    yield Variant("ours", lambda: (masks.threshold(flat, k).view(1), 0.0))


def surfaces(on: Case, points: int = 3) -> Iterator[Variant]:
    """Points of a surface: the loss of the batch at each of points x points."""
    d1, d2 = (
        loss_landscape.direction(on.model, on.m, torch.Generator().manual_seed(i)) for i in (1, 2)
    )
    grid = torch.linspace(-1, 1, points)
    mine, theirs = deepcopy(on.model).eval(), authors(on.model, {}).eval()
    parts = list(zip(on.x.split(128), on.y.split(128), strict=True))

    def naive() -> tuple[Tensor, float]:
        home, found = deepcopy(theirs.state_dict()), []
        for a in grid.tolist():
            for b in grid.tolist():
                theirs.load_state_dict(
                    {
                        name: value + a * d1[name] + b * d2[name] if name in d1 else value
                        for name, value in home.items()
                    }
                )
                with torch.no_grad():
                    found.append(
                        sum(F.cross_entropy(theirs(x), y, reduction="sum").item() for x, y in parts)
                    )
        theirs.load_state_dict(home)
        return torch.tensor(found) / len(on.y), 0.0

    yield Variant("weights loaded point by point, batch 128, fp32", naive)
    yield Variant(
        "ours, fp32",
        lambda: (loss_landscape.surface(mine, on.m, d1, d2, on.x, on.y, grid).flatten(), 0.0),
    )
