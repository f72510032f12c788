"""Networks.

ResNets with torchvision's parameter names, normalisation inside, and what is prunable.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

ARCHITECTURES = ("resnet8", "resnet20", "resnet18", "resnet18_32", "resnet50", "resnet50_32")
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Normalised:
    """Takes images in [0,1]; subtracts the data set's mean and divides by its std before the
    network.

    The statistics are not part of the state: a ticket moves between data sets, its normalisation
    stays behind.
    """

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / self.std)


class _Block(nn.Module):
    """The basic residual block.

    Two 3x3 convolutions and a shortcut, named as torchvision names them.
    """

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


class _SmallResNet(nn.Module):
    """He et al.'s CIFAR ResNet of depth 6 n + 2.

    Widths 16, 32, 64, a 3x3 stem, 1x1 convolutions on the shortcuts.
    """

    def __init__(self, n: int, num_classes: int) -> None:
        super().__init__()
        self.inplanes = 16
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3 = (
            self._stage(w, n, s) for w, s in ((16, 1), (32, 2), (64, 2))
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
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


class SmallResNet(Normalised, _SmallResNet):
    pass


@cache
def _large_resnet() -> type[nn.Module]:
    """torchvision's ResNet with normalisation inside.

    Imported where it is needed, since that takes seconds.
    """
    from torchvision.models.resnet import ResNet

    return type("LargeResNet", (Normalised, ResNet), {})


def build(arch: str, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """A freshly initialised network (from torch's global generator) for images (B,3,H,W) in [0,1]
    of any size.

    arch: resnet8, resnet20 (CIFAR style), resnet18, resnet50 (torchvision's, ImageNet stem),
    resnet18_32, resnet50_32 (a 3x3 stem without max pooling). mean, std: per channel, of the data
    set the network will see. Weights lie channels-last, which convolutions run faster on; shapes
    and values do not depend on it.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"arch={arch!r}: want one of {', '.join(ARCHITECTURES)}")
    if arch in ("resnet8", "resnet20"):
        model = SmallResNet(1 if arch == "resnet8" else 3, num_classes)
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
    """A fresh, default-initialised nn.Linear for another task, in place; nothing is frozen."""
    model.fc = nn.Linear(model.fc.in_features, num_classes)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every convolution's weight, by its parameter's name, in the network's order (section 3).

    Of any network, torchvision's among them; not a linear head, not BatchNorm. A head that is a
    convolution itself (SqueezeNet's) is one of them. Linear layers stay dense: most of
    torchvision's ConvNeXt, and all of its vision transformers but the projection of patches.
    """
    ours = {id(module.weight) for module in model.modules() if isinstance(module, _CONVOLUTIONS)}
    return {name: weight for name, weight in model.named_parameters() if id(weight) in ours}
