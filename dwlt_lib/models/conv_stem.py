"""The convolutional stem of Singh, Croce and Hein (2023), for ConvNeXts and vision transformers.

It takes the place of the one convolution that cuts an image into patches. Names and shapes are
those of the checkpoints that they and RobustBench publish.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn


def replace_stem(model: Any) -> nn.Module:
    """Put the convolutional stem in the place of the patches' convolution.

    Args:
        model: timm's ConvNeXt, whose patches have a side of 4 pixels, or its vision transformer,
            where they have 16; changed in place.

    Returns:
        The network.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(getattr(model, "stem", None), nn.Sequential):
        width = model.stem[0].out_channels
        if width <= 96:  # tiny and small
            widths, strides = (width // 2, width), (2, 2)
        else:
            widths, strides = (width // 2, 3 * width // 4, width), (2, 2, 1)
        model.stem = _stem(widths, strides)
    elif hasattr(getattr(model, "patch_embed", None), "proj"):
        width = model.patch_embed.proj.out_channels
        model.patch_embed.proj = _stem((48, 96, 192, 384), (2, 2, 2, 2), width)
    else:
        raise ValueError("has no stem of patches; want a ConvNeXt or a vision transformer")
    return model


def _stem(
    widths: tuple[int, ...], strides: tuple[int, ...], last: int | None = None
) -> nn.Sequential:
    """Convolutions of 3x3, each with LayerNorm and GELU, and perhaps one of 1x1 to `last`."""
    from timm.layers.norm import LayerNorm2d

    layers: list[nn.Module] = []
    for before, width, stride in zip((3, *widths), widths, strides, strict=False):
        layers += [nn.Conv2d(before, width, 3, stride, padding=1), LayerNorm2d(width), nn.GELU()]
    if last is not None:
        layers.append(nn.Conv2d(widths[-1], last, 1))
    return nn.Sequential(OrderedDict(stem=nn.Sequential(*layers)))
