"""delta, the adversary's perturbation: FGSM and PGD in the l-infinity ball and pixel box (paper, equations 1, 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.gradient import input_gradient


@dataclass(frozen=True)
class PGD:
    """delta <- proj(delta + alpha * sgn(grad L)) in |delta| <= eps, `steps` times; one step is FGSM.

    eps, alpha in [0,1] pixels; random_start: uniform in the ball; restarts: the strongest of so many starts counts.
    precision: fp32 or bf16, that the gradient is computed in. bn: of a model in train mode, whether BatchNorm takes the
    batch's statistics during the attack (train, the authors' way) or its running ones (eval; another algorithm).
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
                raise ValueError(f"{name}={value}: want 0..1, in [0,1] pixels (8/255 = 0.0314, not 8)")
        if self.steps < 0 or self.restarts < 1:
            raise ValueError(f"steps={self.steps}, restarts={self.restarts}: want steps >= 0 and restarts >= 1")


def perturb(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator | None,
            start: Tensor | None = None) -> Tensor:
    """x + delta, the last iterate of PGD against mean cross-entropy (equation 2).

    x: (B,C,H,W) in [0,1]; y: (B,); start: a first delta of x's shape, in place of the random one; rng: where the
    random one comes from (on the CPU or on x's device). Returns (B,C,H,W) within eps of x and within [0,1].
    The model's mode, gradients and, in eval mode, buffers are left as found; in train mode BatchNorm's statistics move
    once a step, as in the authors' adversarial training. With several restarts, each image keeps its largest loss.
    """
    x = x.detach()
    low, high = (x - attack.eps).clamp_(min=0), (x + attack.eps).clamp_(max=1)
    best, best_loss = None, None
    for _ in range(attack.restarts):
        adversarial = _one_start(model, x, y, attack, rng, start, low, high)
        if attack.restarts == 1:
            return adversarial
        with torch.no_grad():
            loss = F.cross_entropy(model(adversarial), y, reduction="none")
        if best is None:
            best, best_loss = adversarial, loss
        else:
            worse = loss > best_loss
            best = torch.where(worse[:, None, None, None], adversarial, best)
            best_loss = torch.where(worse, loss, best_loss)
    return best


def stands(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator | None) -> Tensor:
    """Which images stay rightly classified at the start and after every single step: (B,) bool.

    A stronger demand than the last iterate's (what `perturb` returns). Images that fall are attacked no further.
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
            adversarial[left] = torch.clamp(adversarial[left] + attack.alpha * found.sign(), low[left], high[left])
    return standing


def _one_start(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator | None,
               start: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
    adversarial = _start(x, attack, rng, start).clamp_(low, high)
    gradient = input_gradient(model, x.shape[2:], attack.precision, attack.bn)
    with torch.inference_mode():  # cheaper than no_grad; what was there before, as `adversarial`, stays ordinary
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
    """Where `perturb` starts without a `start`: uniform in the ball, or zero; x's shape (B,C,H,W)."""
    if not attack.random_start:
        return torch.zeros_like(x)
    if rng is None:
        raise ValueError("rng=None: want a torch.Generator for the random start, or random_start=False")
    noise = torch.rand(x.shape, generator=rng, device=rng.device, dtype=x.dtype).to(x.device)
    return (2 * noise - 1) * attack.eps
