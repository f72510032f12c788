"""A convolution with its BatchNorm and ReLU, there and back, by the fastest kernels that this torch
has for its shapes.

A part of a network is a function x -> (value, pull), where pull takes the gradient of the value to
that of x and may overwrite what it is given. `onto` is what a sum begins with: the last pass of a
convolution over its result adds it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pull = Callable[..., Tensor]  # (gradient, onto=None); onto may be overwritten
Part = Callable[..., tuple[Tensor, Pull]]  # (x, onto=None)
There = Callable[..., Tensor]  # (x, onto=None)
Back = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (gradient, x, onto)
Side = tuple[int, int]
MATRIX = 2**16  # entries, the most that a convolution written as a matrix may have
IMAGE = [True, False, False]  # of the three gradients that a layer has, the one that is wanted
aten = torch.ops.aten
through_relu = aten.threshold_backward.grad_input
through_norm = aten.native_batch_norm_backward.default


def unit(
    conv: nn.Conv2d,
    bn: nn.BatchNorm2d,
    side: Side,
    dtype: torch.dtype,
    train: bool,
    role: str,
    std: Tensor | None = None,
) -> tuple[Part, Side]:
    """A convolution and its BatchNorm as one part; and the size of the map that it makes of one of
    `side`, (H,W).

    role: an `inner` one ends with a ReLU; the `last` of a block adds the shortcut, its `onto`,
    before the ReLU, which the block's own pull goes through; so does a `joint`, which may overwrite
    the shortcut; one `beside` has none. std: of images, which the stem divides by. dtype: of
    weights and maps. train: BatchNorm takes the batch's statistics, and moves its own; else it is
    folded. Of a 1x1 convolution with a stride the part is given every n-th pixel only.
    """
    weight, bias, after = (
        conv.weight.detach(),
        None,
        size_after(side, conv.kernel_size, conv.stride, conv.padding),
    )
    if std is not None:
        weight = weight / std
    if not train:
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        weight, bias = (
            weight * scale[:, None, None, None],
            (bn.bias - bn.running_mean * scale).to(dtype),
        )
    weight = weight.to(dtype, memory_format=torch.channels_last)
    fires, inner = role != "beside", role == "inner"
    there, back = _convolution(
        weight, bias, side, after, conv.stride, conv.padding, fires and not train, role == "joint"
    )
    gamma, beta, mean, var, momentum, eps = (
        bn.weight,
        bn.bias,
        bn.running_mean,
        bn.running_var,
        bn.momentum,
        bn.eps,
    )

    def part(x: Tensor, onto: Tensor | None = None) -> tuple[Tensor, Pull]:
        if train:
            z = there(x)
            out, at, inverse = torch.native_batch_norm(
                z, gamma, beta, mean, var, True, momentum, eps
            )
            _plus(out, onto)
            if fires:
                out.relu_()
        else:
            out = there(x, onto)

        def pull(g: Tensor, onto: Tensor | None = None) -> Tensor:
            if inner:
                g = through_relu(g, out, 0, grad_input=g)
            if train:
                g = through_norm(g, z, gamma, mean, var, at, inverse, True, eps, IMAGE)[0]
            return back(g, x, onto)

        return out, pull

    return part, after


def _convolution(
    weight: Tensor,
    bias: Tensor | None,
    side: Side,
    after: Side,
    stride: Side,
    padding: Side,
    fires: bool,
    over: bool,
) -> tuple[There, Back]:
    """x -> its convolution, through a ReLU where it `fires`, over `onto` if it may.

    And the way back.
    """
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
        there = _laid_out(weight, bias, stride, padding, fires, over)
    else:

        def there(x: Tensor, onto: Tensor | None = None) -> Tensor:
            z = _plus(torch.conv2d(x, weight, bias, stride, padding), onto)
            return z.relu_() if fires else z

    if (
        kernel == (3, 3)
        and padding == (1, 1)
        and stride[0] == stride[1]
        and side[0] == stride[0] * after[0]
        and (c < 4 or stride[0] == 2)
        and after[1] * o * 3 * side[1] * c <= MATRIX
    ):
        back = _by_rows(weight, side[1], after[1], stride[0])
    elif kept and stride == (1, 1):
        around = tuple(k - 1 - p for k, p in zip(kernel, padding, strict=True))
        turned = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
        turned = _laid_out(turned, None, stride, around, False, True)

        def back(g: Tensor, x: Tensor, onto: Tensor | None) -> Tensor:
            return turned(g, onto)
    else:

        def back(g: Tensor, x: Tensor, onto: Tensor | None) -> Tensor:
            return _plus(
                aten.convolution_backward(
                    g, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, IMAGE
                )[0],
                onto,
            )

    return there, back


def _plus(z: Tensor, onto: Tensor | None) -> Tensor:
    return z if onto is None else z.add_(onto)


def _product(
    matrix: Tensor,
    bias: Tensor | None,
    before: tuple[int, ...],
    after: tuple[int, ...],
    fires: bool,
) -> tuple[There, Back]:
    """A convolution as one matrix, (out, in), over pixels and channels. before, after.

    (H,W,C) of the maps.
    """
    turned, (made, seen) = matrix.t(), matrix.shape

    def there(x: Tensor, onto: Tensor | None = None) -> Tensor:
        rows = x.permute(0, 2, 3, 1).reshape(-1, seen)
        z = rows @ turned if bias is None else torch.addmm(bias, rows, turned)
        z = _plus(z.view(-1, *after).permute(0, 3, 1, 2), onto)
        return z.relu_() if fires else z

    def back(g: Tensor, x: Tensor, onto: Tensor | None) -> Tensor:
        g = g.permute(0, 2, 3, 1).reshape(-1, made) @ matrix
        return _plus(g.view(-1, *before).permute(0, 3, 1, 2), onto)

    return there, back


def _by_rows(weight: Tensor, width: int, made: int, stride: int) -> Back:
    """The way back through a 3x3 convolution with one matrix for a row of its output: what each of
    its entries gives to the three rows of input that it sees. Less work than a convolution makes of
    narrow maps with a stride, or of images.
    """
    o, c = weight.shape[:2]
    taps = _taps((1, width), (1, made), (1, 3), (1, stride), (0, 1), weight.device)
    above, at, below = (
        _gathered(row, taps).permute(1, 2, 0, 3).reshape(made * o, width * c)
        for row in weight.permute(2, 3, 0, 1)
    )
    own = (
        at if stride == 1 else torch.cat((at, below), 1)
    )  # output row r lies over the rows from stride r on

    def back(g: Tensor, x: Tensor, onto: Tensor | None) -> Tensor:
        b, _, h, _ = g.shape
        rows = g.permute(0, 2, 3, 1).reshape(b * h, made * o)
        out = (rows @ own).view(b, h, stride, width * c)
        out[:, :-1, -1].add_((rows @ above).view(b, h, width * c)[:, 1:])
        if stride == 1:
            out[:, 1:, 0].add_((rows @ below).view(b, h, width * c)[:, :-1])
        return _plus(out.view(b, h * stride, width, c).permute(0, 3, 1, 2), onto)

    return back


def _gathered(entries: Tensor, taps: Tensor) -> Tensor:
    """entries (taps, out, in) by which tap leads from input to output pixel.

    (inputs, outputs, out, in), 0 for none.
    """
    return F.pad(entries, (0, 0, 0, 0, 0, 1))[taps]


@cache
def _taps(
    side: Side, after: Side, kernel: Side, stride: Side, padding: Side, device: torch.device
) -> Tensor:
    """Which tap of the kernel leads from each input pixel to each output pixel: (inputs, outputs).

    The last: none.
    """
    found = torch.full((*side, *after), kernel[0] * kernel[1])
    for to in product(*map(range, after)):
        for tap in product(*map(range, kernel)):
            at = tuple(t * s - p + k for t, s, p, k in zip(to, stride, padding, tap, strict=True))
            if all(0 <= n < most for n, most in zip(at, side, strict=True)):
                found[(*at, *to)] = tap[0] * kernel[1] + tap[1]
    return found.reshape(side[0] * side[1], -1).to(device)


def size_after(side: Side, kernel: Side, stride: Side, padding: Side) -> Side:
    """(H,W) of the map that a convolution or a pooling makes of one of `side`."""
    return tuple(
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(side, kernel, stride, padding, strict=True)
    )


def _laid_out(
    weight: Tensor, bias: Tensor | None, stride: Side, padding: Side, fires: bool, over: bool
) -> There:
    """torch.conv2d on a processor, through a ReLU where it `fires`, over `onto` if it may: a pass
    less over the sum.

    The weights are laid out for x once, not at every call: a twentieth of a convolution's time. The
    same numbers.
    """
    laid: dict[int, Tensor] = {}  # by the size of the batch
    alone, summed = (
        torch.ops.mkldnn._convolution_pointwise.default,
        torch.ops.mkldnn._convolution_pointwise.binary,
    )
    in_place, after = torch.ops.mkldnn._convolution_pointwise_.binary, "relu" if fires else None

    def there(x: Tensor, onto: Tensor | None = None) -> Tensor:
        ready = laid.get(x.size(0))
        if ready is None:
            ready = torch._C._nn.mkldnn_reorder_conv2d_weight(
                weight.to_mkldnn(), padding, stride, (1, 1), 1, x.shape
            )
            laid[x.size(0)] = ready
        if onto is None:
            return alone(x, ready, bias, padding, stride, (1, 1), 1, after or "none", [], "")
        if over:
            return in_place(
                onto, x, ready, bias, padding, stride, (1, 1), 1, "add", 1.0, after, [], ""
            )
        return summed(x, onto, ready, bias, padding, stride, (1, 1), 1, "add", 1.0, after, [], "")

    return there


@cache
def _kept_layouts() -> tuple[torch.dtype, ...]:
    """The types of numbers for which this torch can keep weights laid out."""
    there = (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    )  # torch's own business: they may go
    bf16 = there and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if bf16 else (torch.float32,) if there else ()
