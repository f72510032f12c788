"""Networks: ResNets with torchvision's parameter names and the normalisation of images inside.

Also which of a network's weights are prunable: every convolution's (paper, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

_CIFAR = {"resnet8": (1, 16, 1), "resnet20": (3, 16, 1), "resnet8x2_s2": (1, 32, 2)}
"""CIFAR ResNets: blocks of a stage, width of the first stage, stride of the stem."""

ARCHITECTURES = (*_CIFAR, "resnet18", "resnet18_32", "resnet50", "resnet50_32")
"""Names of the networks that `build` knows."""

MAX_CLASSES = 100_000
"""The most classes that a network read from a file may have."""

StateLayout = dict[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and type of each tensor of a state dictionary, by name."""

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Normalised(nn.Module):
    """A network that takes images in [0,1] and normalises them itself: f((x - mean) / std).

    A mixin, named before the network's own class. Mean and std are not part of the state
    dictionary: a ticket moves between data sets, each of which brings its own.
    """

    mean: Tensor
    """Of the data set's images, (C,1,1)."""
    std: Tensor
    """Of the data set's images, (C,1,1)."""

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the data set whose images the network sees.

        Args:
            mean: one number per channel, of pixels in [0,1].
            std: one number per channel, of pixels in [0,1].
        """
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the images, then pass them through the network.

        Args:
            x: images (B,C,H,W) with pixels in [0,1].

        Returns:
            Logits (B, classes).
        """
        return super().forward((x - self.mean) / self.std)


class _Block(nn.Module):
    """A basic residual block: two 3x3 convolutions and a shortcut, named as in torchvision."""

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class _CifarResNet(nn.Module):
    """The CIFAR ResNet of He et al. (2016), of depth 6 n + 2.

    Three stages of n blocks, each twice as wide as the one before, a 3x3 stem, 1x1 convolutions on
    the shortcuts.
    """

    def __init__(self, n: int, width: int, stem_stride: int, num_classes: int) -> None:
        super().__init__()
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(width, n, stride=1)
        self.layer2 = self._stage(2 * width, n, stride=2)
        self.layer3 = self._stage(4 * width, n, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, width: int, blocks: int, stride: int) -> nn.Sequential:
        shortcut = None
        if stride != 1 or self.inplanes != width:
            shortcut = nn.Sequential(
                nn.Conv2d(self.inplanes, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        stage = [_Block(self.inplanes, width, stride, shortcut)]
        self.inplanes = width
        return nn.Sequential(*stage, *(_Block(width, width) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SmallResNet(Normalised, _CifarResNet):
    """The CIFAR ResNet with normalisation inside."""


@cache
def _large_resnet() -> type[Normalised]:
    from torchvision.models.resnet import ResNet  # takes seconds, and small networks need none

    class LargeResNet(Normalised, ResNet):
        """Torchvision's ResNet with normalisation inside."""

    return LargeResNet


def build(arch: str, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> Normalised:
    """A network at its initialisation, which torch's global generator draws.

    Example: `build("resnet18_32", 10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))`. Weights lie
    channels-last in memory, where convolutions run faster; shapes and values do not depend on it.

    Args:
        arch: resnet8 or resnet20 (CIFAR's), resnet8x2_s2 (resnet8 twice as wide, at half the
            resolution by a stem of stride 2: four times the weights at the same cost), resnet18 or
            resnet50 (torchvision's, with ImageNet's stem), resnet18_32 or resnet50_32
            (torchvision's, with a 3x3 stem and no max pooling).
        num_classes: outputs of the linear head.
        mean: of the data set that the network sees, one number per channel, of pixels in [0,1].
        std: likewise.

    Returns:
        The network in train mode; it takes images (B,3,H,W) in [0,1] of any size and gives logits
        (B, num_classes).

    Raises:
        ValueError: there is no such architecture.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch={arch!r}: want one of {', '.join(ARCHITECTURES)}")
    if arch in _CIFAR:
        model = SmallResNet(*_CIFAR[arch], num_classes)
    else:
        from torchvision.models.resnet import BasicBlock, Bottleneck

        block, layers = (BasicBlock, [2, 2, 2, 2]) if "18" in arch else (Bottleneck, [3, 4, 6, 3])
        model = _large_resnet()(block, layers, num_classes=num_classes)
        if arch.endswith("_32"):
            model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
    model.set_normalisation(mean, std)
    return model.to(memory_format=torch.channels_last)


def new_head(model: nn.Module, num_classes: int) -> None:
    """Replace the linear head by a freshly initialised one, for another task; nothing is frozen.

    Args:
        model: a network of `build`, changed in place.
        num_classes: of the new task.
    """
    model.fc = nn.Linear(cast(nn.Linear, model.fc).in_features, num_classes)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weight of every convolution (paper, section 3); no linear layer, no BatchNorm.

    For any network. A head that is a convolution itself (SqueezeNet's) counts. Linear layers stay
    dense: most of ConvNeXt, and all of a vision transformer but the projection of its patches.

    Args:
        model: the network.

    Returns:
        The parameters themselves, by name, in the network's order.
    """
    convolution_weights = {
        id(module.weight) for module in model.modules() if isinstance(module, _CONVOLUTIONS)
    }
    return {
        name: weight
        for name, weight in model.named_parameters()
        if id(weight) in convolution_weights
    }


@cache
def state_layout(arch: str, num_classes: int) -> StateLayout:
    """Shape and type of each tensor in a network's state dictionary; no memory is taken for them.

    Args:
        arch: one of `ARCHITECTURES`.
        num_classes: outputs of its head.

    Returns:
        (shape, dtype) by the tensor's name, in the network's order.
    """
    with torch.device("meta"):
        model = build(arch, num_classes, (0.5,) * 3, (0.5,) * 3)
    return {
        name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()
    }
