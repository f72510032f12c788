"""The loss's gradient with respect to the image, and nothing else: a ResNet's forward and backward
pass written out.

An attack asks for this thousands of times and never for the weights' gradients. Written out, a pass
pays neither for autograd's bookkeeping nor for work that no attack needs, and what is constant over
an attack is prepared once: weights in the attack's precision and, where BatchNorm is frozen,
BatchNorm folded into the convolutions. The kernels are those that autograd would call, or a matrix
product where that is less work; other networks than ours are left to autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.attacks.layers import Part, Pull, Side, aten, size_after, through_relu, unit
from dwlt_lib.models.architectures import Normalised

Gradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
DTYPES = {"fp32": None, "bf16": torch.bfloat16}  # None: the weights' own
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def input_gradient(
    model: nn.Module, side: Side, precision: str = "fp32", bn: str = "train"
) -> Gradient:
    """(x, y) -> (gradient of the summed cross-entropy with respect to x, logits), for the weights
    as they are now.

    side: (H,W) of the images. x: (B,3,H,W) in [0,1]; y: (B,); the gradient has x's shape and type,
    logits (B, classes) are float. precision: fp32 or bf16 (weights and activations; BatchNorm's
    statistics and the loss stay float). bn: eval freezes BatchNorm even where the model is in train
    mode. In train mode its running statistics move once a call, as in any forward pass.
    """
    if precision not in DTYPES or bn not in ("train", "eval"):
        raise ValueError(
            f"precision={precision!r}, bn={bn!r}: want fp32 or bf16, and train or eval"
        )
    norms = _norms(model)
    if norms is None:
        return _by_autograd(model, precision, bn)
    train = model.training and bn == "train"
    dtype = DTYPES[precision] or model.fc.weight.dtype
    with torch.no_grad():
        parts = list(_parts(model, tuple(side), dtype, train))
    mean, fc, bias = model.mean, model.fc.weight.detach(), model.fc.bias.detach()
    counters = [module.num_batches_tracked for module in norms]

    @torch.no_grad()
    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z, pulls = (x - mean).to(dtype).contiguous(memory_format=torch.channels_last), []
        for part in parts:
            z, pull = part(z)
            pulls.append(pull)
        b, c, h, w = z.shape
        features = z.permute(0, 2, 3, 1).reshape(b, h * w, c).mean(1, dtype=fc.dtype)
        logits = torch.addmm(bias, features, fc.t())
        g = torch.log_softmax(
            logits, 1
        ).exp_()  # of the sum: no gradient is flushed to zero by a small factor
        g.scatter_add_(1, y[:, None], g.new_full((1, 1), -1.0).expand(b, 1))
        g = (
            ((g @ fc) / (h * w))
            .to(dtype)[:, None, None, :]
            .expand(b, h, w, c)
            .contiguous()
            .permute(0, 3, 1, 2)
        )
        while pulls:  # and with each, what it kept
            g = pulls.pop()(g)
        if train and counters:
            torch._foreach_add_(counters, 1)
        return g.to(x.dtype), logits

    return gradient


def _norms(model: nn.Module) -> list[nn.BatchNorm2d] | None:
    """The BatchNorms of one of our ResNets as we build it, nothing hooked in and all in the model's
    own mode; of any other network None."""
    if not isinstance(model, Normalised):
        return None
    found = []
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            return None
        if isinstance(module, nn.BatchNorm2d):
            if (
                module.training != model.training
                or not module.track_running_stats
                or module.momentum is None
            ):
                return None
            found.append(module)
        if isinstance(module, nn.Conv2d) and (module.groups, module.dilation, module.bias) != (
            1,
            (1, 1),
            None,
        ):
            return None
    return found


def _parts(model: nn.Module, side: Side, dtype: torch.dtype, train: bool) -> Iterator[Part]:
    """The network in order: stem, max pooling if any, residual blocks. side.

    (H,W) of what the stem sees.
    """
    stem, side = unit(model.conv1, model.bn1, side, dtype, train, "inner", model.std)
    yield stem
    pool = getattr(model, "maxpool", None)
    if pool is not None and not isinstance(pool, nn.Identity):
        yield _pooling(pool)
        side = size_after(side, (pool.kernel_size,) * 2, (pool.stride,) * 2, (pool.padding,) * 2)
    for block in (block for name in LAYERS for block in getattr(model, name, ())):
        part, side = _block(block, side, dtype, train)
        yield part


def _pooling(pool: nn.MaxPool2d) -> Part:
    shape = [pool.kernel_size] * 2, [pool.stride] * 2, [pool.padding] * 2

    def part(x: Tensor) -> tuple[Tensor, Pull]:
        out, where = F.max_pool2d(x, *shape, return_indices=True)
        return out, lambda g: aten.max_pool2d_with_indices_backward(
            g, x, *shape, [1, 1], False, where
        )

    return part


def _block(block: nn.Module, side: Side, dtype: torch.dtype, train: bool) -> tuple[Part, Side]:
    """A residual block and the size of the map that it makes."""
    names, at, units, shortcut, every = (
        [i for i in (1, 2, 3) if hasattr(block, f"conv{i}")],
        side,
        [],
        None,
        1,
    )
    own = block.downsample is not None
    for i in names:
        role = "inner" if i < names[-1] else "joint" if own else "last"
        made, at = unit(
            getattr(block, f"conv{i}"), getattr(block, f"bn{i}"), at, dtype, train, role
        )
        units.append(made)
    if own:
        shortcut, every = (
            unit(*block.downsample, side, dtype, train, "beside")[0],
            block.downsample[0].stride[0],
        )
    first, *others, last = units

    def part(x: Tensor) -> tuple[Tensor, Pull]:
        other, beside = x, None
        if shortcut is not None:
            other, beside = shortcut(x if every == 1 else x[:, :, ::every, ::every])
        z, to_image = first(x)
        pulls = []
        for one in others:
            z, pull = one(z)
            pulls.append(pull)
        z, pull = last(z, other)
        pulls.append(pull)

        def back(g: Tensor) -> Tensor:
            g = inner = through_relu(g, z, 0, grad_input=g)
            while pulls:
                inner = pulls.pop()(inner)
            if beside is None:
                return to_image(inner, g)
            inner = to_image(inner)
            (inner if every == 1 else inner[:, :, ::every, ::every]).add_(beside(g))
            return inner

        return z, back

    return part, at


def _by_autograd(model: nn.Module, precision: str, bn: str) -> Gradient:
    """Any other network, by autograd with respect to the image alone."""
    norms = [
        module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]

    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        were = [module.training for module in norms]
        if bn == "eval":
            for module in norms:
                module.training = False
        try:
            with torch.inference_mode(False), torch.enable_grad():
                image = x.detach().requires_grad_(True)
                with torch.autocast(
                    x.device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
                ):
                    logits = model(image)
                # the sum, not the mean: the same signs, and no gradient flushed to zero by a small
                # factor
                loss = F.cross_entropy(
                    logits if logits.dtype == torch.float64 else logits.float(), y, reduction="sum"
                )
                (found,) = torch.autograd.grad(loss, image)
        finally:
            for module, was in zip(norms, were, strict=True):
                module.training = was
        return found, logits.detach()

    return gradient
