"""The loss's gradient with respect to the image, and nothing else: a ResNet's forward and backward pass written out.

An attack asks for this thousands of times and never for the weights' gradients. Written out, a pass pays neither for
autograd's bookkeeping nor for work that no attack needs, and what is constant over an attack is prepared once: weights
in the attack's precision and, where BatchNorm is frozen, BatchNorm folded into the convolutions. The kernels are those
that autograd would call; other networks than ours are left to autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.models import Normalised

DTYPES = {"fp32": None, "bf16": torch.bfloat16}  # None: the weights' own
Gradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Side = tuple[int, int]
MATRIX = 2**18  # entries, the most that a convolution written as a matrix may have
LAYERS = ("layer1", "layer2", "layer3", "layer4")
aten = torch.ops.aten


@dataclass(frozen=True)
class _Unit:
    """A convolution and the BatchNorm after it; bn is None once it is folded into weight and bias.

    every: the stride of a 1x1 convolution, which is taken on the picture beforehand; matrix: the whole convolution as
    one (pixels and channels in, out) where that is less work, else None; laid_out: on a processor, the weights as its
    convolutions want them, by the shape of their input. The same numbers, sooner.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    every: int
    matrix: Tensor | None
    bn: nn.BatchNorm2d | None
    laid_out: dict[tuple, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Block:
    units: tuple[_Unit, ...]
    shortcut: _Unit | None


def input_gradient(model: nn.Module, side: Side, precision: str = "fp32", bn: str = "train") -> Gradient:
    """(x, y) -> (gradient of the summed cross-entropy with respect to x, logits), for the weights as they are now.

    side: (H,W) of the images. x: (B,3,H,W) in [0,1]; y: (B,); the gradient has x's shape and type, logits (B, classes)
    are float. precision: fp32 or bf16 (weights and activations; BatchNorm's statistics and the loss stay float). bn:
    eval freezes BatchNorm even where the model is in train mode. In train mode its running statistics move once a
    call, as in any forward pass.
    """
    if precision not in DTYPES or bn not in ("train", "eval"):
        raise ValueError(f"precision={precision!r}, bn={bn!r}: want fp32 or bf16, and train or eval")
    if not _ours(model):
        return _by_autograd(model, precision, bn)
    train = model.training and bn == "train"
    dtype = DTYPES[precision] or model.fc.weight.dtype
    with torch.no_grad():
        stem, side = _unit(model.conv1, model.bn1, tuple(side), dtype, train, model.std)
        pool = getattr(model, "maxpool", None)
        pool = None if isinstance(pool, nn.Identity) else pool
        if pool is not None:
            side = _after(side, (pool.kernel_size,) * 2, (pool.stride,) * 2, (pool.padding,) * 2)
        blocks = []
        for block in (block for name in LAYERS for block in getattr(model, name, ())):
            prepared, side = _block(block, side, dtype, train)
            blocks.append(prepared)
        fc, bias = model.fc.weight.detach(), model.fc.bias.detach()
    counters = [module.num_batches_tracked for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    @torch.no_grad()
    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z, at_stem = _forward(stem, (x - model.mean).to(dtype).contiguous(memory_format=torch.channels_last))
        first = z = z.relu_()
        if pool is not None:
            z, where = F.max_pool2d(z, pool.kernel_size, pool.stride, pool.padding, return_indices=True)
        seen = []
        for block in blocks:
            z, saved = _forward_block(block, z)
            seen.append(saved)
        b, c, h, w = z.shape
        features = z.permute(0, 2, 3, 1).reshape(b, h * w, c).mean(1, dtype=fc.dtype)
        logits = torch.addmm(bias, features, fc.t())
        g = torch.log_softmax(logits, 1).exp_()  # of the sum: no gradient is flushed to zero by a small factor
        g.scatter_add_(1, y[:, None], g.new_full((1, 1), -1.0).expand(b, 1))
        g = ((g @ fc) / (h * w)).to(dtype)[:, None, None, :].expand(b, h, w, c).contiguous().permute(0, 3, 1, 2)
        for block, saved in zip(reversed(blocks), reversed(seen), strict=True):
            g = _backward_block(block, g, saved)
        if pool is not None:
            g = aten.max_pool2d_with_indices_backward(g, first, [pool.kernel_size] * 2, [pool.stride] * 2,
                                                      [pool.padding] * 2, [1, 1], False, where)
        g = _backward(stem, _through_relu(g, first), at_stem)
        if train and counters:
            torch._foreach_add_(counters, 1)
        return g.to(x.dtype), logits

    return gradient


def _ours(model: nn.Module) -> bool:
    """Whether this is one of our ResNets as we build it: nothing hooked in, every BatchNorm in the model's own mode."""
    if not isinstance(model, Normalised):
        return False
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            return False
        if isinstance(module, nn.BatchNorm2d):
            if module.training != model.training or not module.track_running_stats or module.momentum is None:
                return False
        if isinstance(module, nn.Conv2d) and (module.groups, module.dilation, module.bias) != (1, (1, 1), None):
            return False
    return True


def _unit(conv: nn.Conv2d, bn: nn.BatchNorm2d, side: Side, dtype: torch.dtype, train: bool, std: Tensor | None = None
          ) -> tuple[_Unit, Side]:
    """The unit and the size of the map it makes of one of `side`; std: of images, which the stem divides by."""
    weight, bias = conv.weight.detach(), None
    after = _after(side, conv.kernel_size, conv.stride, conv.padding)
    if std is not None:
        weight = weight / std
    if not train:
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        weight, bias = weight * scale[:, None, None, None], (bn.bias - bn.running_mean * scale).to(dtype)
    weight = weight.to(dtype, memory_format=torch.channels_last)
    every, matrix = 1, None
    if conv.kernel_size == (1, 1) and conv.stride[0] > 1:
        every, matrix = conv.stride[0], weight.flatten(1).t()
    entries = conv.in_channels * side[0] * side[1] * conv.out_channels * after[0] * after[1]
    if after[0] * after[1] <= 4 and side[0] * side[1] <= 16 and every == 1 and entries <= MATRIX:
        matrix = _matrix(weight, _taps(side, after, conv.kernel_size, conv.stride, conv.padding, weight.device))
        bias = None if bias is None else bias.repeat(after[0] * after[1])
    return _Unit(weight, bias, conv.stride, conv.padding, every, matrix, bn if train else None), after


def _matrix(weight: Tensor, taps: Tensor) -> Tensor:
    """A convolution as one matrix, (pixels and channels of its input, pixels and channels of its output)."""
    o, c = weight.shape[:2]
    entries = F.pad(weight.permute(2, 3, 1, 0).reshape(-1, c * o), (0, 0, 0, 1))  # and a row of zeros: no tap
    blocks = entries[taps].view(*taps.shape, c, o)
    return blocks.permute(0, 2, 1, 3).reshape(taps.shape[0] * c, -1)


@cache
def _taps(side: Side, after: Side, kernel: Side, stride: Side, padding: Side, device: torch.device) -> Tensor:
    """Which tap of the kernel leads from each input pixel to each output pixel: (inputs, outputs); the last: none."""
    found = torch.full((*side, *after), kernel[0] * kernel[1])
    for to in product(*map(range, after)):
        for tap in product(*map(range, kernel)):
            at = tuple(t * s - p + k for t, s, p, k in zip(to, stride, padding, tap, strict=True))
            if all(0 <= n < most for n, most in zip(at, side, strict=True)):
                found[(*at, *to)] = tap[0] * kernel[1] + tap[1]
    return found.reshape(side[0] * side[1], -1).to(device)


def _after(side: Side, kernel: Side, stride: Side, padding: Side) -> Side:
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(side, kernel, stride, padding, strict=True))


def _block(block: nn.Module, side: Side, dtype: torch.dtype, train: bool) -> tuple[_Block, Side]:
    units, at = [], side
    for i in (1, 2, 3):
        if hasattr(block, f"conv{i}"):
            unit, at = _unit(getattr(block, f"conv{i}"), getattr(block, f"bn{i}"), at, dtype, train)
            units.append(unit)
    shortcut = None if block.downsample is None else _unit(*block.downsample, side, dtype, train)[0]
    return _Block(tuple(units), shortcut), at


def _forward(unit: _Unit, x: Tensor) -> tuple[Tensor, tuple]:
    size = x.shape
    if unit.every > 1:
        x = x[:, :, ::unit.every, ::unit.every]
    if unit.matrix is None:
        z = _convolve(x, unit, unit.bias, unit.stride, unit.padding)
    else:
        b, _, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(-1, len(unit.matrix))
        z = rows @ unit.matrix if unit.bias is None else torch.addmm(unit.bias, rows, unit.matrix)
        after = (h, w) if unit.every > 1 else _after((h, w), unit.weight.shape[2:], unit.stride, unit.padding)
        z = z.view(b, *after, len(unit.weight)).permute(0, 3, 1, 2)
    if unit.bn is None:
        return z, (x, size)
    bn = unit.bn
    out, mean, inverse = torch.native_batch_norm(z, bn.weight, bn.bias, bn.running_mean, bn.running_var, True,
                                                 bn.momentum, bn.eps)
    return out, (x, size, z, mean, inverse)


def _backward(unit: _Unit, g: Tensor, saved: tuple, onto: Tensor | None = None) -> Tensor:
    """The gradient of a unit's input, added to `onto` where that is given."""
    x, size = saved[:2]
    if unit.bn is not None:
        z, mean, inverse = saved[2:]
        bn = unit.bn
        g = aten.native_batch_norm_backward(g, z, bn.weight, bn.running_mean, bn.running_var, mean, inverse, True,
                                            bn.eps, [True, False, False])[0]
    if unit.matrix is None and tuple(unit.stride) == (1, 1) and _lays_out(g):
        around = tuple(k - 1 - p for k, p in zip(unit.weight.shape[2:], unit.padding, strict=True))
        g = _convolve(g, unit, None, unit.stride, around, back=True)
    elif unit.matrix is None:
        g = aten.convolution_backward(g, x, unit.weight, None, unit.stride, unit.padding, [1, 1], False, [0, 0], 1,
                                      [True, False, False])[0]
    else:
        rows = g.permute(0, 2, 3, 1).reshape(-1, unit.matrix.shape[1]) @ unit.matrix.t()
        g = rows.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    if unit.every > 1:
        if onto is None:
            onto = torch.zeros(size, dtype=g.dtype, device=g.device).contiguous(memory_format=torch.channels_last)
        onto[:, :, ::unit.every, ::unit.every] += g
        return onto
    return g if onto is None else onto.add_(g)


def _convolve(x: Tensor, unit: _Unit, bias: Tensor | None, stride: Side, padding: Side, back: bool = False) -> Tensor:
    """torch.conv2d of x with the unit's weights, or with them turned round: what comes back through a stride of 1.

    On a processor the weights are laid out for x once, not at every call: a twentieth of the time of wide layers.
    """
    if not _lays_out(x):
        return torch.conv2d(x, unit.weight, bias, stride, padding)
    if (x.shape, back) not in unit.laid_out:
        weight = unit.weight.flip(2, 3).transpose(0, 1) if back else unit.weight
        weight = weight.contiguous(memory_format=torch.channels_last).to_mkldnn()
        unit.laid_out[x.shape, back] = torch._C._nn.mkldnn_reorder_conv2d_weight(weight, padding, stride, (1, 1), 1,
                                                                                 x.shape)
    return torch.ops.mkldnn._convolution_pointwise(x, unit.laid_out[x.shape, back], bias, padding, stride, (1, 1), 1,
                                                   "none", [], "")


def _lays_out(x: Tensor) -> bool:
    """Whether this torch can keep weights laid out for x."""
    return x.device.type == "cpu" and x.dtype in _kept_layouts()


@cache
def _kept_layouts() -> tuple[torch.dtype, ...]:
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise") \
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")  # torch's own business: they may go
    bf16 = there and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if bf16 else (torch.float32,) if there else ()


def _through_relu(g: Tensor, out: Tensor) -> Tensor:
    """g where the unit fired, in place."""
    return aten.threshold_backward.grad_input(g, out, 0, grad_input=g)


def _forward_block(block: _Block, x: Tensor) -> tuple[Tensor, tuple]:
    saved, z, beside = [], x, None
    for unit in block.units[:-1]:
        z, kept = _forward(unit, z)
        z.relu_()
        saved.append(kept)
    z, kept = _forward(block.units[-1], z)
    saved.append(kept)
    if block.shortcut is None:
        z += x
    else:
        shortcut, beside = _forward(block.shortcut, x)
        z += shortcut
    z.relu_()
    return z, (saved, beside, z)


def _backward_block(block: _Block, g: Tensor, kept: tuple) -> Tensor:
    saved, beside, out = kept
    g = _through_relu(g, out)
    inner = _backward(block.units[-1], g, saved[-1])
    for unit, mine, after in zip(reversed(block.units[:-1]), reversed(saved[:-1]), reversed(saved[1:]), strict=True):
        inner = _backward(unit, _through_relu(inner, after[0]), mine)
    return inner.add_(g) if block.shortcut is None else _backward(block.shortcut, g, beside, onto=inner)


def _by_autograd(model: nn.Module, precision: str, bn: str) -> Gradient:
    """Any other network, by autograd with respect to the image alone."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        were = [module.training for module in norms]
        if bn == "eval":
            for module in norms:
                module.training = False
        try:
            with torch.enable_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16",
                                                     cache_enabled=False):
                image = x.detach().requires_grad_(True)
                logits = model(image)
            with torch.enable_grad():
                # the sum, not the mean: the same signs, and no gradient flushed to zero by a small factor
                loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), y, reduction="sum")
                (found,) = torch.autograd.grad(loss, image)
        finally:
            for module, was in zip(norms, were, strict=True):
                module.training = was
        return found, logits.detach()

    return gradient
