"""Auto-PGD: a step that adapts, momentum and scale-free losses (Croce & Hein, ICML 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.pgd import ball, network_under_attack, uniform_delta
from dwlt_lib.config.recipes import APGD

MOMENTUM = 0.75  # weight of the new direction, alpha in the paper
IMPROVING = 0.75  # the share of steps that must raise the loss, rho in the paper


def perturb(model: nn.Module, x: Tensor, y: Tensor, attack: APGD, rng: torch.Generator) -> Tensor:
    """The images as each start, and each target of a targeted attack, leaves them.

    Args:
        model: a network in eval mode.
        x: images (B,C,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: the adversary.
        rng: where the starts are drawn from.

    Returns:
        (B,C,H,W), within eps of x and within [0,1]: the first image of the right size that is
        misclassified (x itself, if it is), else that of the largest loss under the last target.
    """
    adversarial = x.clone()
    with network_under_attack(model) as network:
        with torch.no_grad():
            logits = network(x)
        likeliest = logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
        classes = logits.shape[1]
        aims = [likeliest[:, i] for i in range(min(attack.targets, classes - 1))] or [None]
        remaining = (logits.argmax(1) == y).nonzero().squeeze(1)
        for target in aims:
            for _ in range(attack.restarts):
                if len(remaining) == 0:
                    return adversarial
                aim = None if target is None else target[remaining]
                moved, fooled = _ascend(network, x[remaining], y[remaining], aim, attack, rng)
                adversarial[remaining] = moved
                remaining = remaining[~fooled]
    return adversarial


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step size may be halved (the paper's w_j, section 3.2).

    w_j = ceil(p_j * steps), p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06).

    Args:
        steps: of the attack.

    Returns:
        Rising, each at least 1 and at most `steps`.
    """
    found, p, gap = [], 22, 22  # in percent, so that no rounding moves a checkpoint
    while p <= 100:
        found.append(-(-p * steps // 100))
        gap = max(gap - 3, 6)
        p += gap
    return sorted(set(found))


def dlr(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """The difference of logits ratio: the same for logits that are all scaled or shifted.

    With z_1 >= z_2 >= ... the sorted logits, (max_(i != y) z_i - z_y) / (z_1 - z_3), and for a
    target t (z_t - z_y) / (z_1 - (z_3 + z_4) / 2) (sections 4.1 and 5.1). With fewer classes than
    that takes the numerator alone, whose gradient has the scale of the logits, but for its sign
    that makes no difference.

    Args:
        logits: (B,K), K at least 2.
        y: right classes (B,), int64.
        target: the class that each image is to be taken for, (B,), or None for any.

    Returns:
        (B,), positive only if the image is misclassified.
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    if target is None:
        other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    else:
        other = logits.gather(1, target[:, None]).squeeze(1)
    ordered = logits.sort(1, descending=True).values
    needed = 3 if target is None else 4
    if logits.shape[1] < needed:
        return other - own
    return (other - own) / (ordered[:, 0] - ordered[:, 2:needed].mean(1) + 1e-12)


def _ascend(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor | None,
    attack: APGD,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 from one random start.

    Returns:
        The images, misclassified or of the largest loss, and (B,) bool: which are misclassified.
    """
    low, high = ball(x, attack.eps)

    def evaluate(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, their gradients, and which images are misclassified."""
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = network(images)
            if attack.loss == "DLR":
                loss = dlr(logits, y, target)
            else:
                loss = F.cross_entropy(logits, y, reduction="none")
        (gradient,) = torch.autograd.grad(loss.sum(), images)
        return loss.detach(), gradient, logits.argmax(1) != y

    def where(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
        return torch.where(condition[:, None, None, None], new, old)

    current = torch.clamp(x + uniform_delta(x, attack.eps, rng), low, high)
    previous = current
    loss, gradient, fooled = evaluate(current)
    adversarial = best = current
    best_loss, best_gradient = loss, gradient
    step = torch.full_like(loss, 2 * attack.eps)
    raised = torch.zeros_like(loss)  # steps since the last checkpoint that raised the loss
    best_at_checkpoint, halved = best_loss, torch.ones_like(fooled)
    last, marks = 0, checkpoints(attack.steps)

    for k in range(1, attack.steps + 1):
        if bool(fooled.all()):
            break
        ahead = current + step[:, None, None, None] * gradient.sign()
        ahead = torch.clamp(ahead, low, high)
        if k > 1:
            ahead = current + MOMENTUM * (ahead - current) + (1 - MOMENTUM) * (current - previous)
            ahead = torch.clamp(ahead, low, high)
        previous, current, before = current, ahead, loss
        loss, gradient, wrong = evaluate(current)
        raised += loss > before
        better = loss > best_loss
        best, best_gradient = where(better, current, best), where(better, gradient, best_gradient)
        best_loss = torch.where(better, loss, best_loss)
        adversarial = where(fooled, adversarial, where(wrong, current, best))
        fooled = fooled | wrong
        if k in marks:
            stalled = ~halved & (best_loss <= best_at_checkpoint)
            halved = (raised < IMPROVING * (k - last)) | stalled
            step = torch.where(halved, step / 2, step)
            current, gradient = where(halved, best, current), where(halved, best_gradient, gradient)
            loss = torch.where(halved, best_loss, loss)
            last, best_at_checkpoint = k, best_loss
            raised = torch.zeros_like(raised)
    return adversarial, fooled
