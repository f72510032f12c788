"""delta, the adversary's perturbation.

FGSM and PGD in the l-infinity ball and pixel box (paper, equations 1, 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.gradient import input_gradient

ROUNDING = 1e-5  # by how much a pixel of [0,1] may miss it


@dataclass(frozen=True)
class PGD:
    """delta <- proj(delta + alpha * sgn(grad L)) in |delta| <= eps, `steps` times; one step is
    FGSM.

    eps, alpha in [0,1] pixels; random_start: uniform in the ball; restarts: from how many starts
    each image is attacked, of which its worst outcome counts. precision: fp32 or bf16, that the
    gradient is computed in. bn: of a model in train mode, whether BatchNorm takes the batch's
    statistics during the attack (train, the authors' way) or its running ones (eval; another
    algorithm).
    """

    eps: float
    alpha: float
    steps: int
    random_start: bool = True
    restarts: int = 1
    precision: str = "fp32"
    bn: str = "train"

    def __post_init__(self) -> None:
        for name, value in (("eps", self.eps), ("alpha", self.alpha)):
            if not 0 <= value <= 1:
                raise ValueError(
                    f"{name}={value}: want 0..1, in [0,1] pixels (8/255 = 0.0314, not 8)"
                )
        if self.steps < 0 or self.restarts < 1:
            raise ValueError(
                f"steps={self.steps}, restarts={self.restarts}: want steps >= 0 and restarts >= 1"
            )


def perturb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: PGD,
    rng: torch.Generator | None,
    start: Tensor | None = None,
) -> Tensor:
    """x + delta, the last iterate of PGD against mean cross-entropy (equation 2).

    x: (B,C,H,W) float in [0,1]; y: (B,) int64, classes of the model's; start: a first delta of x's
    shape, in place of the random one; rng: where the random one comes from (on the CPU or on x's
    device). Returns (B,C,H,W) within eps of x and within [0,1].
    The model's mode, gradients and, in eval mode, buffers are left as found; in train mode
    BatchNorm's statistics move once a step, as in the authors' adversarial training. With several
    restarts each image keeps its worst outcome: a start whose last iterate is misclassified before
    one whose is not, among equals the larger loss; in train mode the pass that compares them moves
    the statistics, too.
    Raises ValueError, one line, before anything is attacked (see `check`). That reads values, so it
    waits for a GPU and cannot be captured in a CUDA graph; `perturb_unchecked` does neither.
    """
    check(model, x, y)
    if start is not None and not bool(start.isfinite().all()):
        raise ValueError("start holds a NaN or an infinity: want a finite first delta")
    return perturb_unchecked(model, x, y, attack, rng, start)


def perturb_unchecked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: PGD,
    rng: torch.Generator | None,
    start: Tensor | None = None,
) -> Tensor:
    """What `perturb` computes, of images and labels that are known to be good; no value is read.

    For a training step, which may be under capture in a CUDA graph, and for the batches of an
    evaluation, which checks all of its images at once.
    """
    x = x.detach()
    low, high = (x - attack.eps).clamp_(min=0), (x + attack.eps).clamp_(max=1)
    worst = worst_wrong = worst_loss = None
    for _ in range(attack.restarts):
        adversarial = _one_start(model, x, y, attack, rng, start, low, high)
        if attack.restarts == 1:
            return adversarial
        with torch.no_grad():
            logits = model(adversarial)
            wrong = logits.argmax(1) != y
            loss = F.cross_entropy(logits, y, reduction="none")
        if worst is None:
            worst, worst_wrong, worst_loss = adversarial, wrong, loss
            continue
        worse = (wrong & ~worst_wrong) | ((wrong == worst_wrong) & (loss > worst_loss))
        worst = torch.where(worse[:, None, None, None], adversarial, worst)
        worst_wrong = torch.where(worse, wrong, worst_wrong)
        worst_loss = torch.where(worse, loss, worst_loss)
    return worst


def check(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Raises ValueError, one line, if these are no images and labels for this network.

    x: (B,C,H,W) float in [0,1], B at least 1; y: (B,) int64 below the number of logits that the
    network has. One pass over the values and, in eval mode, one image through the network.
    """
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is a {type(value).__name__}: want a torch.Tensor")
    if x.ndim != 4 or x.numel() == 0 or not x.is_floating_point():
        raise ValueError(f"x {tuple(x.shape)} {x.dtype}: want images (B,C,H,W) as floats in [0,1]")
    low, high = (value.item() for value in x.detach().aminmax())  # of a NaN both are NaN
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(
            f"x lies in {low:.4g}..{high:.4g}: want pixels in 0..1 and no NaN; the "
            "network normalises by itself, and bytes are to be divided by 255"
        )
    if y.shape != x.shape[:1] or y.dtype != torch.int64 or y.device != x.device:
        raise ValueError(
            f"y {tuple(y.shape)} {y.dtype} on {y.device}: want a class an image, "
            f"({len(x)},) torch.int64 on {x.device}"
        )
    with eval_mode(model), torch.no_grad():
        shape = tuple(model(x[:1]).shape)
    if len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"the network makes {shape} of one image: want logits (1, classes)")
    low, high = (value.item() for value in y.aminmax())
    if low < 0 or high >= shape[1]:
        raise ValueError(f"y lies in {low}..{high}: want classes 0..{shape[1] - 1} of this network")


@contextmanager
def eval_mode(*models: nn.Module | None) -> Iterator[None]:
    """Models in eval mode for a while; each module's own mode is restored afterwards."""
    were = [
        (module, module.training)
        for model in models
        if model is not None
        for module in model.modules()
    ]
    try:
        for module, _ in were:
            module.training = False
        yield
    finally:
        for module, was in were:
            module.training = was


def stands(
    model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator | None
) -> Tensor:
    """Which images stay rightly classified at the start and after every single step: (B,) bool.

    A stronger demand than the last iterate's (what `perturb` returns). Images that fall are
    attacked no further. What `check` refuses is the caller's to keep out.
    """
    low, high = (x - attack.eps).clamp_(min=0), (x + attack.eps).clamp_(max=1)
    gradient = input_gradient(model, x.shape[2:], attack.precision, attack.bn)
    standing = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(attack.restarts):
        adversarial = _start(x, attack, rng, None).clamp_(low, high)
        for step in range(attack.steps + 1):
            left = standing.nonzero().squeeze(1)
            with torch.no_grad():
                standing[left] = model(adversarial[left]).argmax(1) == y[left]
            left = standing.nonzero().squeeze(1)
            if step == attack.steps or len(left) == 0:
                break
            found, _ = gradient(adversarial[left], y[left])
            adversarial[left] = torch.clamp(
                adversarial[left] + attack.alpha * found.sign(), low[left], high[left]
            )
    return standing


def _one_start(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: PGD,
    rng: torch.Generator | None,
    start: Tensor | None,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    adversarial = _start(x, attack, rng, start).clamp_(low, high)
    gradient = input_gradient(model, x.shape[2:], attack.precision, attack.bn)
    with (
        torch.inference_mode()
    ):  # cheaper than no_grad; what was there before, as `adversarial`, stays ordinary
        for _ in range(attack.steps):
            found, _ = gradient(adversarial, y)
            adversarial.add_(found.sign_(), alpha=attack.alpha).clamp_(low, high)
    return adversarial


def _start(x: Tensor, attack: PGD, rng: torch.Generator | None, start: Tensor | None) -> Tensor:
    """x and the first delta; not yet clipped."""
    if start is not None:
        if start.shape != x.shape:
            raise ValueError(f"start {tuple(start.shape)}: want the shape of x, {tuple(x.shape)}")
        return x.detach() + start.detach()
    return x.detach() + first_delta(x, attack, rng)


def first_delta(x: Tensor, attack: PGD, rng: torch.Generator | None) -> Tensor:
    """Where `perturb` starts without a `start`: uniform in the ball, or zero.

    X's shape (B,C,H,W).
    """
    if not attack.random_start:
        return torch.zeros_like(x)
    if rng is None:
        raise ValueError(
            "rng=None: want a torch.Generator for the random start, or random_start=False"
        )
    noise = torch.rand(x.shape, generator=rng, device=rng.device, dtype=x.dtype).to(x.device)
    return (2 * noise - 1) * attack.eps
