"""The adversary: FGSM and PGD in the l-infinity ball and pixel box (paper, equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.modules.batchnorm import _BatchNorm

from dwlt_lib.config.recipes import PGD

ROUNDING = 1e-5  # by how much a pixel of [0,1] may miss it


def perturb_unchecked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: PGD,
    rng: torch.Generator | None,
    start: Tensor | None = None,
) -> Tensor:
    """The images x + delta: delta maximises the cross-entropy in the l-infinity ball (equation 2).

    PGD: x <- clip(x + alpha * sign(gradient)), `attack.steps` times; FGSM is one step. In train
    mode BatchNorm's statistics move once per step, as in the authors' adversarial training. With
    several restarts each image keeps its worst outcome: the first last iterate that is
    misclassified, after which it is attacked no further, else the one of the largest loss.

    Nothing is checked: for a training step, and for the batches of an evaluation, which checks all
    of its images at once.

    Args:
        model: as for `adversaries.perturb`, as all that follows.
        x: images (B,C,H,W), float in [0,1].
        y: their classes (B,), int64.
        attack: the adversary.
        rng: where the random start is drawn from.
        start: a first delta, in place of the random one.

    Returns:
        Images (B,C,H,W) within eps of x and within [0,1]: the last iterate.
    """
    x = x.detach()
    if attack.restarts == 1:
        return _last_iterate(model, x, y, attack, first_iterate(x, attack, rng, start))
    worst, largest = x.clone(), x.new_full((len(x),), -torch.inf)
    remaining = torch.arange(len(x), device=x.device)
    for _ in range(attack.restarts):
        begin = first_iterate(x, attack, rng, start)
        if len(remaining) == 0:
            break
        moved = _last_iterate(model, x[remaining], y[remaining], attack, begin[remaining])
        wrong, loss = _outcome(model, moved, y[remaining])
        worse = wrong | (loss > largest[remaining])
        worst[remaining[worse]], largest[remaining[worse]] = moved[worse], loss[worse]
        remaining = remaining[~wrong]
    return worst


def _last_iterate(
    model: nn.Module, x: Tensor, y: Tensor, attack: PGD, adversarial: Tensor
) -> Tensor:
    low, high = ball(x, attack.eps)
    with network_under_attack(model, attack.bn) as network:
        adversarial = torch.clamp(adversarial, low, high)
        for _ in range(attack.steps):
            adversarial = _step(network, adversarial, y, attack, low, high)
    return adversarial


def _step(
    network: nn.Module, images: Tensor, y: Tensor, attack: PGD, low: Tensor, high: Tensor
) -> Tensor:
    """One step: x <- clip(x + alpha * sign(gradient))."""
    gradient = image_gradient(network, images, y, attack.precision)
    return torch.clamp(images + attack.alpha * gradient.sign(), low, high)


def first_iterate(
    x: Tensor, attack: PGD, rng: torch.Generator | None, start: Tensor | None = None
) -> Tensor:
    """Where PGD starts: x + delta, with a random delta, a given one or none; not yet clipped.

    Args:
        x: images (B,C,H,W).
        attack: eps, and whether the start is random.
        rng: where the random delta is drawn from.
        start: a delta of x's shape, in place of the random one.

    Returns:
        Images (B,C,H,W).
    """
    if start is not None:
        return x + start.detach()
    return x + uniform_delta(x, attack.eps, rng) if attack.random_start else x


def ball(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The least and the greatest pixels within eps of x and within [0,1].

    Args:
        x: images (B,C,H,W) in [0,1].
        eps: radius of the l-infinity ball.

    Returns:
        Two tensors of x's shape.
    """
    return (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)


@torch.no_grad()
def _outcome(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Which images are misclassified, and the loss of each: (B,) bool and (B,) float."""
    logits = model(x)
    return logits.argmax(1) != y, F.cross_entropy(logits, y, reduction="none")


def check(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse what are no images and labels for this network.

    One pass over the values and, in eval mode, one image through the network.

    Args:
        model: the network.
        x: images (B,C,H,W), float in [0,1], B at least 1.
        y: classes (B,), int64, below the number of the network's logits.

    Raises:
        ValueError: one line, with what was given and what was expected.
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
            f"y {tuple(y.shape)} {y.dtype} on {y.device}: want one class per image, "
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
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Models in eval mode for a while; each module's own mode is restored afterwards.

    Args:
        models: networks or single modules.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def correct_at_every_step(
    model: nn.Module, x: Tensor, y: Tensor, attack: PGD, rng: torch.Generator | None
) -> Tensor:
    """Which images are classified rightly at the start and after every single step.

    A stronger demand than the last iterate's (what `perturb` returns). Images that are
    misclassified once are attacked no further.

    Args:
        model: the network, in eval mode.
        x: images (B,C,H,W), float in [0,1]; what `check` refuses is the caller's to keep out.
        y: their classes (B,), int64.
        attack: the adversary; with restarts an image must be right from every start.
        rng: where the random starts are drawn from.

    Returns:
        (B,) bool.
    """
    x = x.detach()
    low, high = ball(x, attack.eps)
    correct = torch.ones(len(x), dtype=torch.bool, device=x.device)
    remaining = torch.arange(len(x), device=x.device)
    with network_under_attack(model, attack.bn) as network:
        for _ in range(attack.restarts):
            adversarial = torch.clamp(first_iterate(x, attack, rng), low, high)
            for number in range(attack.steps + 1):
                if len(remaining) == 0:
                    break
                images, labels = adversarial[remaining], y[remaining]
                if number > 0:
                    images = _step(network, images, labels, attack, low[remaining], high[remaining])
                    adversarial[remaining] = images
                wrong, _ = _outcome(model, images, labels)
                correct[remaining[wrong]] = False
                remaining = remaining[~wrong]
    return correct


def image_gradient(model: nn.Module, x: Tensor, y: Tensor, precision: str = "fp32") -> Tensor:
    """The gradient of the summed cross-entropy with respect to the images.

    The sum has the signs of the mean, and no small factor that flushes an entry to zero.

    Args:
        model: a network in the mode that its gradient is wanted in.
        x: images (B,C,H,W) in [0,1].
        y: their classes (B,), int64.
        precision: fp32, or bf16 for the network's passes under autocast; the loss stays float.

    Returns:
        A tensor of x's shape and type.
    """
    image = x.detach().requires_grad_(True)
    with torch.enable_grad():
        loss = F.cross_entropy(logits_in(model, image, precision), y, reduction="sum")
    return torch.autograd.grad(loss, image)[0]


def logits_in(model: nn.Module, x: Tensor, precision: str) -> Tensor:
    """f(x), computed in a number format; the loss of it is float32 (or float64) in any case.

    Args:
        model: the network.
        x: images (B,C,H,W) in [0,1].
        precision: fp32, or bf16 for the network under autocast.

    Returns:
        Logits (B,K), float.
    """
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(x)
    return logits if logits.dtype == torch.float64 else logits.float()


@contextmanager
def frozen(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Compute no gradient of these weights for a while.

    Args:
        weights: parameters; those that were frozen before stay so.

    Yields:
        Nothing.
    """
    trainable = [weight for weight in weights if weight.requires_grad]
    try:
        for weight in trainable:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trainable:
            weight.requires_grad_(True)


@contextmanager
def network_under_attack(model: nn.Module, bn: str = "train") -> Iterator[nn.Module]:
    """Lend the network whose gradient an attack follows, for as long as the attack lasts.

    Its parameters are frozen, so that no gradient of theirs is computed. Where every BatchNorm uses
    its running statistics, it is fused into the convolution before it (`fuse_batchnorm`).

    Args:
        model: any network, in any mode; modes and which parameters are frozen are put back.
        bn: "eval" has BatchNorm use its running statistics even where the model is in train mode.

    Yields:
        A network with the model's logits.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    # whatever the caller's mode: autograd takes no tensor that inference mode has made
    in_eval_mode = norms if bn == "eval" else []
    with torch.inference_mode(False), eval_mode(*in_eval_mode), frozen(model.parameters()):
        fusible = norms and not any(norm.training for norm in norms)
        yield fuse_batchnorm(model) if fusible else model


def fuse_batchnorm(model: nn.Module) -> nn.Module:
    """Fuse BatchNorm's running statistics into the convolutions before it.

    With running statistics BatchNorm is an affine map of every channel, which the convolution can
    do by other weights and a bias: the same logits up to rounding, in fewer passes over the maps.
    A network with hooks, one that torch.fx cannot trace, or one that calls a layer with weights
    twice is returned as it is.

    Args:
        model: any network, its BatchNorm in eval mode; it is not changed.

    Returns:
        A network with fused weights of this moment, which shares all other modules with `model`.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return model  # they may change weights (torch.nn.utils.prune) or maps
    try:
        traced = torch.fx.symbolic_trace(model)
    except Exception:  # a forward pass that depends on values may raise anything
        return model
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    layers = [name for name in called if list(traced.get_submodule(str(name)).parameters())]
    if len(set(layers)) < len(layers):
        return model  # a convolution before two BatchNorms cannot be fused with both
    with eval_mode(traced):  # of a model in train mode only BatchNorm may be in eval mode
        return fuse(traced, inplace=True, no_trace=True)


def uniform_delta(x: Tensor, eps: float, rng: torch.Generator | None) -> Tensor:
    """A delta that is uniform in the l-infinity ball.

    Args:
        x: images (B,C,H,W), for their shape, type and device.
        eps: radius of the ball.
        rng: where it is drawn from, on the CPU or on x's device.

    Returns:
        (B,C,H,W), within eps of 0.

    Raises:
        ValueError: there is no rng.
    """
    if rng is None:
        raise ValueError(
            "rng=None: want a torch.Generator for the random start, or random_start=False"
        )
    noise = torch.rand(x.shape, generator=rng, device=rng.device, dtype=x.dtype).to(x.device)
    return (2 * noise - 1) * eps
