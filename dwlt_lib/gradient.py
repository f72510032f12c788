"""The loss's gradient with respect to the image, and nothing else: a ResNet's forward and backward pass written out.

An attack asks for this thousands of times and never for the weights' gradients. Written out, a pass pays neither for
autograd's bookkeeping nor for work that no attack needs, and what is constant over an attack is prepared once: weights
in the attack's precision and, where BatchNorm is frozen, BatchNorm folded into the convolutions. The kernels are those
that autograd would call, or a matrix product where that is less work; other networks than ours are left to autograd.

Every part of the network is a function x -> (value, pull), where pull takes the gradient of the value to that of x and
may overwrite what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.models import Normalised

DTYPES = {"fp32": None, "bf16": torch.bfloat16}  # None: the weights' own
Gradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Pull = Callable[[Tensor], Tensor]
Part = Callable[[Tensor], tuple[Tensor, Pull]]
There = Callable[[Tensor], Tensor]
Back = Callable[[Tensor, Tensor], Tensor]
Side = tuple[int, int]
MATRIX = 2**16  # entries, the most that a convolution written as a matrix may have
LAYERS = ("layer1", "layer2", "layer3", "layer4")
IMAGE = [True, False, False]  # of the three gradients that a layer has, the one that is wanted
aten = torch.ops.aten
through_relu = aten.threshold_backward.grad_input


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
        parts = list(_parts(model, tuple(side), dtype, train))
    mean, fc, bias = model.mean, model.fc.weight.detach(), model.fc.bias.detach()
    counters = [module.num_batches_tracked for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    @torch.no_grad()
    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z, pulls = (x - mean).to(dtype).contiguous(memory_format=torch.channels_last), []
        for part in parts:
            z, pull = part(z)
            pulls.append(pull)
        b, c, h, w = z.shape
        features = z.permute(0, 2, 3, 1).reshape(b, h * w, c).mean(1, dtype=fc.dtype)
        logits = torch.addmm(bias, features, fc.t())
        g = torch.log_softmax(logits, 1).exp_()  # of the sum: no gradient is flushed to zero by a small factor
        g.scatter_add_(1, y[:, None], g.new_full((1, 1), -1.0).expand(b, 1))
        g = ((g @ fc) / (h * w)).to(dtype)[:, None, None, :].expand(b, h, w, c).contiguous().permute(0, 3, 1, 2)
        while pulls:  # and with each, what it kept
            g = pulls.pop()(g)
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


def _parts(model: nn.Module, side: Side, dtype: torch.dtype, train: bool) -> Iterator[Part]:
    """The network in order: stem, max pooling if any, residual blocks. side: (H,W) of what the stem sees."""
    stem, side = _unit(model.conv1, model.bn1, side, dtype, train, True, model.std)
    yield stem
    pool = getattr(model, "maxpool", None)
    if pool is not None and not isinstance(pool, nn.Identity):
        yield _pooling(pool)
        side = _after(side, (pool.kernel_size,) * 2, (pool.stride,) * 2, (pool.padding,) * 2)
    for block in (block for name in LAYERS for block in getattr(model, name, ())):
        part, side = _block(block, side, dtype, train)
        yield part


def _pooling(pool: nn.MaxPool2d) -> Part:
    shape = [pool.kernel_size] * 2, [pool.stride] * 2, [pool.padding] * 2

    def part(x: Tensor) -> tuple[Tensor, Pull]:
        out, where = F.max_pool2d(x, *shape, return_indices=True)
        return out, lambda g: aten.max_pool2d_with_indices_backward(g, x, *shape, [1, 1], False, where)

    return part


def _block(block: nn.Module, side: Side, dtype: torch.dtype, train: bool) -> tuple[Part, Side]:
    """A residual block and the size of the map that it makes."""
    names, at, units, shortcut, every = [i for i in (1, 2, 3) if hasattr(block, f"conv{i}")], side, [], None, 1
    for i in names:
        unit, at = _unit(getattr(block, f"conv{i}"), getattr(block, f"bn{i}"), at, dtype, train, i < names[-1])
        units.append(unit)
    if block.downsample is not None:
        shortcut, every = _unit(*block.downsample, side, dtype, train, False)[0], block.downsample[0].stride[0]

    def part(x: Tensor) -> tuple[Tensor, Pull]:
        z, pulls, beside = x, [], None
        for unit in units:
            z, pull = unit(z)
            pulls.append(pull)
        if shortcut is None:
            z.add_(x)
        else:
            other, beside = shortcut(x if every == 1 else x[:, :, ::every, ::every])
            z.add_(other)
        z.relu_()

        def back(g: Tensor) -> Tensor:
            g = inner = through_relu(g, z, 0, grad_input=g)
            while pulls:
                inner = pulls.pop()(inner)
            if beside is None:
                return inner.add_(g)
            (inner if every == 1 else inner[:, :, ::every, ::every]).add_(beside(g))
            return inner

        return z, back

    return part, at


def _unit(conv: nn.Conv2d, bn: nn.BatchNorm2d, side: Side, dtype: torch.dtype, train: bool, fires: bool,
          std: Tensor | None = None) -> tuple[Part, Side]:
    """A convolution, its BatchNorm and, where it `fires`, a ReLU; and the size of the map it makes of one of `side`.

    std: of images, which the stem divides by. Of a 1x1 convolution with a stride the part takes every n-th pixel only.
    """
    weight, bias, after = conv.weight.detach(), None, _after(side, conv.kernel_size, conv.stride, conv.padding)
    if std is not None:
        weight = weight / std
    if not train:
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        weight, bias = weight * scale[:, None, None, None], (bn.bias - bn.running_mean * scale).to(dtype)
    weight = weight.to(dtype, memory_format=torch.channels_last)
    there, back = _convolution(weight, bias, side, after, conv.stride, conv.padding, fires and not train)
    gamma, beta, mean, var, momentum, eps = bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps

    def part(x: Tensor) -> tuple[Tensor, Pull]:
        out = z = there(x)
        if train:
            out, at, inverse = torch.native_batch_norm(z, gamma, beta, mean, var, True, momentum, eps)
            if fires:
                out.relu_()

        def pull(g: Tensor) -> Tensor:
            if fires:
                g = through_relu(g, out, 0, grad_input=g)
            if train:
                g = aten.native_batch_norm_backward(g, z, gamma, mean, var, at, inverse, True, eps, IMAGE)[0]
            return back(g, x)

        return out, pull

    return part, after


def _convolution(weight: Tensor, bias: Tensor | None, side: Side, after: Side, stride: Side, padding: Side, fires: bool
                 ) -> tuple[There, Back]:
    """x -> its convolution, through a ReLU where it `fires`; and (gradient of that, x) -> gradient of x."""
    (o, c), kernel = weight.shape[:2], tuple(weight.shape[2:])
    if kernel == (1, 1) and stride != kernel:
        return _product(weight.flatten(1), bias, (*after, c), (*after, o), fires)
    pixels, made = side[0] * side[1], after[0] * after[1]
    if made <= 4 and pixels <= 16 and pixels * c * made * o <= MATRIX:
        taps = _taps(side, after, kernel, stride, padding, weight.device)
        matrix = _gathered(weight.permute(2, 3, 0, 1).reshape(-1, o, c), taps).permute(1, 2, 0, 3)
        bias = None if bias is None else bias.repeat(made)
        return _product(matrix.reshape(made * o, pixels * c), bias, (*side, c), (*after, o), fires)

    kept = weight.device.type == "cpu" and weight.dtype in _kept_layouts()
    if kept:
        there = _laid_out(weight, bias, stride, padding, fires)
    else:
        def there(x: Tensor) -> Tensor:
            z = torch.conv2d(x, weight, bias, stride, padding)
            return z.relu_() if fires else z

    if kernel == (3, 3) and padding == (1, 1) and stride[0] == stride[1] and side[0] == stride[0] * after[0] and (
            c < 4 or stride[0] == 2) and after[1] * o * 3 * side[1] * c <= MATRIX:
        back = _by_rows(weight, side[1], after[1], stride[0])
    elif kept and stride == (1, 1):
        around = tuple(k - 1 - p for k, p in zip(kernel, padding, strict=True))
        turned = _laid_out(weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last), None,
                           stride, around, False)

        def back(g: Tensor, x: Tensor) -> Tensor:
            return turned(g)
    else:
        def back(g: Tensor, x: Tensor) -> Tensor:
            return aten.convolution_backward(g, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, IMAGE)[0]
    return there, back


def _product(matrix: Tensor, bias: Tensor | None, before: tuple[int, ...], after: tuple[int, ...], fires: bool
             ) -> tuple[There, Back]:
    """A convolution as one matrix, (out, in), over pixels and channels. before, after: (H,W,C) of the maps."""
    turned = matrix.t()

    def there(x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).reshape(-1, len(turned))
        z = rows @ turned if bias is None else torch.addmm(bias, rows, turned)
        return (z.relu_() if fires else z).view(-1, *after).permute(0, 3, 1, 2)

    def back(g: Tensor, x: Tensor) -> Tensor:
        return (g.permute(0, 2, 3, 1).reshape(-1, len(matrix)) @ matrix).view(-1, *before).permute(0, 3, 1, 2)

    return there, back


def _by_rows(weight: Tensor, width: int, made: int, stride: int) -> Back:
    """The way back through a 3x3 convolution with one matrix for a row of its output: what each of its entries gives to
    the three rows of input that it sees. Less work than a convolution makes of narrow maps with a stride, or of images.
    """
    o, c = weight.shape[:2]
    taps = _taps((1, width), (1, made), (1, 3), (1, stride), (0, 1), weight.device)
    above, at, below = (_gathered(row, taps).permute(1, 2, 0, 3).reshape(made * o, width * c)
                        for row in weight.permute(2, 3, 0, 1))
    own = at if stride == 1 else torch.cat((at, below), 1)  # output row r lies over the rows from stride r on

    def back(g: Tensor, x: Tensor) -> Tensor:
        b, _, h, _ = g.shape
        rows = g.permute(0, 2, 3, 1).reshape(b * h, made * o)
        out = (rows @ own).view(b, h, stride, width * c)
        out[:, :-1, -1].add_((rows @ above).view(b, h, width * c)[:, 1:])
        if stride == 1:
            out[:, 1:, 0].add_((rows @ below).view(b, h, width * c)[:, :-1])
        return out.view(b, h * stride, width, c).permute(0, 3, 1, 2)

    return back


def _gathered(entries: Tensor, taps: Tensor) -> Tensor:
    """entries (taps, out, in) by which tap leads from input to output pixel: (inputs, outputs, out, in), 0 for none."""
    return F.pad(entries, (0, 0, 0, 0, 0, 1))[taps]


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


def _laid_out(weight: Tensor, bias: Tensor | None, stride: Side, padding: Side, fires: bool) -> There:
    """torch.conv2d on a processor, through a ReLU where it `fires`; the weights are laid out for x once, not at every
    call: a twentieth of a convolution's time. The same numbers."""
    laid: dict[int, Tensor] = {}  # by the size of the batch
    convolve, after = torch.ops.mkldnn._convolution_pointwise.default, "relu" if fires else "none"

    def there(x: Tensor) -> Tensor:
        ready = laid.get(len(x))
        if ready is None:
            ready = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), padding, stride, (1, 1), 1, x.shape)
            laid[len(x)] = ready
        return convolve(x, ready, bias, padding, stride, (1, 1), 1, after, [], "")

    return there


@cache
def _kept_layouts() -> tuple[torch.dtype, ...]:
    """The types of numbers for which this torch can keep weights laid out."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise") \
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")  # torch's own business: they may go
    bf16 = there and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if bf16 else (torch.float32,) if there else ()


def _by_autograd(model: nn.Module, precision: str, bn: str) -> Gradient:
    """Any other network, by autograd with respect to the image alone."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def gradient(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        were = [module.training for module in norms]
        if bn == "eval":
            for module in norms:
                module.training = False
        try:
            with torch.inference_mode(False), torch.enable_grad():
                image = x.detach().requires_grad_(True)
                with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
                    logits = model(image)
                # the sum, not the mean: the same signs, and no gradient flushed to zero by a small factor
                loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), y, reduction="sum")
                (found,) = torch.autograd.grad(loss, image)
        finally:
            for module, was in zip(norms, were, strict=True):
                module.training = was
        return found, logits.detach()

    return gradient
