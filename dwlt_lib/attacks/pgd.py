"""delta, the adversary's perturbation.

FGSM and PGD in the l-infinity ball and pixel box (paper, equations 1, 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dwlt_lib.config.recipes import PGD

ROUNDING = 1e-5  # by how much a pixel of [0,1] may miss it


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
    x = x.detach()
    low, high = (x - attack.eps).clamp_(min=0), (x + attack.eps).clamp_(max=1)
    standing = torch.ones(len(x), dtype=torch.bool, device=x.device)
    with network_under_attack(model, attack.bn) as network:
        for _ in range(attack.restarts):
            adversarial = _start(x, attack, rng, None).clamp_(low, high)
            for step in range(attack.steps + 1):
                left = standing.nonzero().squeeze(1)
                with torch.no_grad():
                    standing[left] = model(adversarial[left]).argmax(1) == y[left]
                left = standing.nonzero().squeeze(1)
                if step == attack.steps or len(left) == 0:
                    break
                gradient = image_gradient(network, adversarial[left], y[left], attack.precision)
                adversarial[left] = torch.clamp(
                    adversarial[left] + attack.alpha * gradient.sign(), low[left], high[left]
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
    with network_under_attack(model, attack.bn) as network:
        adversarial = _start(x, attack, rng, start).clamp_(low, high)
        for _ in range(attack.steps):
            gradient = image_gradient(network, adversarial, y, attack.precision)
            adversarial = torch.clamp(adversarial + attack.alpha * gradient.sign(), low, high)
    return adversarial


def image_gradient(model: nn.Module, x: Tensor, y: Tensor, precision: str = "fp32") -> Tensor:
    """The gradient of the summed cross-entropy with respect to the images.

    Of the sum and not of the mean: the signs are the same, and no small factor flushes an entry to
    zero.

    Args:
        model: a network in the mode that its gradient is wanted in.
        x: images (B,C,H,W) in [0,1].
        y: their classes (B,), int64.
        precision: fp32, or bf16 for the network's passes under autocast; the loss stays float.
    Returns:
        A tensor of x's shape and type.
    """
    image = x.detach().requires_grad_(True)
    bf16 = precision == "bf16"
    with torch.enable_grad():
        # a cache of weights in bf16 may not outlive a captured CUDA graph
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            logits = model(image)
        if logits.dtype != torch.float64:
            logits = logits.float()
        loss = F.cross_entropy(logits, y, reduction="sum")
    return torch.autograd.grad(loss, image)[0]


@contextmanager
def network_under_attack(model: nn.Module, bn: str = "train") -> Iterator[nn.Module]:
    """The network whose gradient an attack follows, for as long as the attack lasts.

    Its parameters are frozen, so that no gradient of theirs is computed. Where every BatchNorm uses
    its running statistics, it is fused into the convolution before it (`fuse_batchnorm`).

    Args:
        model: any network, in any mode; modes and which parameters are frozen are put back.
        bn: "eval" has BatchNorm use its running statistics even where the model is in train mode.
    Yields:
        A network with the model's logits.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    # whatever the caller's mode: autograd takes no tensor that inference mode has made
    with torch.inference_mode(False), eval_mode(*(norms if bn == "eval" else ())):
        try:
            for weight in trainable:
                weight.requires_grad_(False)
            yield model if any(norm.training for norm in norms) else fuse_batchnorm(model)
        finally:
            for weight in trainable:
                weight.requires_grad_(True)


def fuse_batchnorm(model: nn.Module) -> nn.Module:
    """The network with BatchNorm's running statistics fused into the convolutions before it.

    With running statistics BatchNorm is an affine map of every channel, which the convolution can
    do by other weights and a bias: the same logits up to rounding, in fewer passes over the maps.
    A network with hooks, or one that torch.fx cannot trace, is returned as it is.

    Args:
        model: any network; it is not changed.
    Returns:
        A network with fused weights of this moment, which shares all other modules with `model`.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return model  # they may change weights (torch.nn.utils.prune) or maps
    try:
        traced = torch.fx.symbolic_trace(model)
    except Exception:  # a forward pass that depends on values may raise anything
        return model
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        bn, before = modules[node.target], node.all_input_nodes[0]
        if before.op != "call_module" or type(modules[before.target]) is not nn.Conv2d:
            continue
        if len(before.users) > 1 or calls[before.target] > 1 or bn.running_mean is None:
            continue
        conv = modules[before.target]
        with eval_mode(conv, bn):  # of a model in train mode only BatchNorm may be in eval mode
            traced.set_submodule(before.target, fuse_conv_bn_eval(conv, bn))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.recompile()
    return traced


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
