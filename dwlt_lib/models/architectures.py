"""Networks by name, with the normalisation of images inside: ours, torchvision's, timm's, any.

Also which layer is a network's head, and which of its weights are prunable: those of convolutions
and linear layers but the head, which in a ResNet are the convolutions (paper, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dwlt_lib.config import network_names
from dwlt_lib.models.conv_stem import replace_stem

_CIFAR = {"resnet8": (1, 16, 1), "resnet20": (3, 16, 1), "resnet8x2_s2": (1, 32, 2)}
"""CIFAR ResNets: blocks of a stage, width of the first stage, stride of the stem."""

ARCHITECTURES = network_names.OWN
"""Names of our own networks; `build` takes others, too."""

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

    def __reduce_ex__(self, protocol: Any) -> tuple:
        """Pickled by the network's own class: the one with normalisation is made at run time."""
        return _blank, (type(self).__bases__[1],), self.__dict__


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


@cache
def _normalised(network: type[nn.Module]) -> type[Normalised]:
    """A class of networks with normalisation inside; names in its state dictionary stay."""
    return type(network.__name__.lstrip("_"), (Normalised, network), {})


def _blank(network: type[nn.Module]) -> Normalised:
    """A network that pickle fills."""
    found = _normalised(network)
    return found.__new__(found)


def build(arch: str, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> Normalised:
    """A network at its initialisation, which torch's global generator draws.

    Example: `build("resnet18_32", 10, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))`. Weights lie
    channels-last in memory, where convolutions run faster; shapes and values do not depend on it.

    Args:
        arch: resnet8 or resnet20 (CIFAR's), resnet8x2_s2 (resnet8 twice as wide, at half the
            resolution by a stem of stride 2: four times the weights at the same cost), resnet18 or
            resnet50 (torchvision's, with ImageNet's stem), resnet18_32 or resnet50_32
            (torchvision's, with a 3x3 stem and no max pooling); torchvision/NAME, timm/NAME, or
            package.module:function for a function of num_classes that returns a network; these
            three perhaps with keyword arguments, as "timm/vit_tiny_patch16_224(img_size=32)"; of a
            timm network conv_stem=True is ours (`conv_stem`).
        num_classes: outputs of the head.
        mean: of the data set that the network sees, one number per channel, of pixels in [0,1].
        std: likewise.

    Returns:
        The network in train mode; it takes images (B,3,H,W) in [0,1] and gives logits
        (B, num_classes). Ours take images of any size.

    Raises:
        ValueError: one line: there is no such architecture, or it cannot be built so.
    """
    name, options = network_names.parse(arch)
    model: Any  # of a class that is made below
    if name in _CIFAR:
        model = _CifarResNet(*_CIFAR[name], num_classes)
    elif name in network_names.OWN:
        model = _large_resnet(name, num_classes)
    else:
        model = _foreign(arch, _builder(name), {"num_classes": num_classes, **options})
    model.__class__ = _normalised(type(model))
    model.set_normalisation(mean, std)
    return model.train().to(memory_format=torch.channels_last)


def _large_resnet(name: str, num_classes: int) -> nn.Module:
    # takes seconds, and small networks need none
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    block, layers = (BasicBlock, [2, 2, 2, 2]) if "18" in name else (Bottleneck, [3, 4, 6, 3])
    model: Any = ResNet(block, layers, num_classes=num_classes)
    if name.endswith("_32"):
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model


def _builder(name: str) -> Callable[..., Any]:
    """The function that builds a network of torchvision, timm or the user's own."""
    library, _, model = name.partition("/")
    if library == "torchvision":
        from torchvision import models

        known = models.list_models(module=models)
        if model not in known:
            raise ValueError(
                f"{name}: torchvision has no {model}{network_names.nearest(model, known)}"
            )
        return models.get_model_builder(model)
    if library == "timm":
        try:
            import timm
        except ModuleNotFoundError as error:
            raise ValueError(f"{name}: wants the package timm: pip install timm") from error
        if not timm.is_model(model):
            near = network_names.nearest(model, timm.list_models())
            raise ValueError(f"{name}: timm has no {model}{near}")
        return partial(_timm_network, model)
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{name}: {error}; want a function of a module on Python's path (PYTHONPATH)"
        ) from error


def _timm_network(model: str, conv_stem: bool = False, **options: Any) -> nn.Module:
    import timm

    built = timm.create_model(model, **options)
    return replace_stem(built) if conv_stem else built


def _foreign(arch: str, builder: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    try:
        model = builder(**options)
    except Exception as error:  # a builder may raise anything at arguments that it does not like
        raise ValueError(f"{arch}: cannot be built: {_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{arch}: built a {type(model).__name__}; want a torch.nn.Module")
    if hasattr(model, "mean") or hasattr(model, "std"):
        raise ValueError(f"{arch}: has a mean or std of its own; normalisation is added to it here")
    if not heads(model):
        raise ValueError(f"{arch}: has no linear layer that could be its head")
    return model


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def heads(model: nn.Module) -> list[nn.Module]:
    """The layer that gives a network's logits.

    Timm's networks tell it themselves (`get_classifier`). Of others it is the last linear layer
    within fc, classifier, head or heads, as torchvision names it, or the last convolution there
    (SqueezeNet's); without such a name the network's last linear layer.

    Args:
        model: any network.

    Returns:
        One layer; two of timm's distilled transformers; none where there is none.
    """
    if callable(getattr(model, "get_classifier", None)):
        found = cast(Any, model).get_classifier()
        return [found] if isinstance(found, nn.Linear | nn.Conv2d) else list(found)
    places = [getattr(model, name, None) for name in ("fc", "classifier", "head", "heads")]
    named = [place for place in places if isinstance(place, nn.Module)]
    within = list((named[0] if named else model).modules())
    layers = [layer for layer in within if isinstance(layer, nn.Linear)]
    if named and not layers:
        layers = [layer for layer in within if isinstance(layer, nn.Conv2d)]
    return list(layers[-1:])


def new_head(model: nn.Module, num_classes: int) -> None:
    """Replace the head by a freshly initialised one, for another task; nothing is frozen.

    Args:
        model: a network of `build`, changed in place.
        num_classes: of the new task.
    """
    if callable(getattr(model, "reset_classifier", None)):
        cast(Any, model).reset_classifier(num_classes)
        return
    (old,) = heads(model)
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes, old.bias is not None)
    else:
        old = cast(nn.Conv2d, old)
        new = nn.Conv2d(old.in_channels, num_classes, cast(Any, old.kernel_size))
    place, _, name = _name_of(model, old).rpartition(".")
    setattr(model.get_submodule(place), name, new)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of convolutions and linear layers but the head; no bias, no normalisation.

    For any network. Of a ResNet these are the convolutions (paper, section 3); of a transformer
    the projection of patches, and in each block attention's projections and the two linear layers.

    Args:
        model: the network.

    Returns:
        The parameters themselves, by name, in the network's order.
    """
    chosen = set()
    for module in model.modules():
        if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
            chosen.add(id(module.weight))
        elif isinstance(module, nn.MultiheadAttention):
            chosen |= {id(getattr(module, f"{each}_proj_weight")) for each in ("in", *"qkv")}
    chosen -= {id(weight) for head in heads(model) for weight in head.parameters()}
    return {name: weight for name, weight in model.named_parameters() if id(weight) in chosen}


def gmac(arch: str, size: int) -> float:
    """What a network's forward pass takes on one image, counted in a pass without numbers.

    Args:
        arch: as `build` takes it.
        size: side of the image in pixels.

    Returns:
        GMAC: thousand millions of multiply-accumulates in convolutions, linear layers, attention.

    Raises:
        ValueError: one line: there is no such network, or it takes no such images.
    """
    return _gmac(arch, size, 10)


@cache
def _gmac(arch: str, size: int, num_classes: int) -> float:
    with torch.random.fork_rng(devices=[]), torch.device(_device(arch)), torch.no_grad():
        model = build(arch, num_classes, (0.5,) * 3, (0.5,) * 3)
        try:
            with FlopCounterMode(display=False) as counter:
                logits = model(torch.zeros(2, 3, size, size))
        except Exception as error:  # a network may raise anything at images that it does not take
            raise ValueError(
                f"{arch}: takes no images of {size} x {size} pixels: {_line(error)}"
            ) from error
    if getattr(logits, "shape", None) != (2, num_classes):
        raise ValueError(f"{arch}: does not give one logit per class; want a classifier of images")
    return counter.get_total_flops() / 4e9  # two images, two operations each


def _device(arch: str) -> str:
    """Where a network is built for its shapes: a user's own may keep tensors that meta has not."""
    return "cpu" if network_names.is_module(arch) else "meta"


@cache
def skeleton(arch: str, num_classes: int) -> Normalised:
    """A network without numbers: shapes alone, on torch's device meta.

    Args:
        arch: as `build` takes it.
        num_classes: outputs of its head.

    Returns:
        The network, shared by all callers.
    """
    with torch.random.fork_rng(devices=[]), torch.device(_device(arch)):
        return build(arch, num_classes, (0.5,) * 3, (0.5,) * 3).to("meta")


def head_name(arch: str) -> str:
    """The name of a network's head, such as fc.

    Args:
        arch: as `build` takes it.

    Returns:
        The module's name.
    """
    model = skeleton(arch, 10)
    return _name_of(model, heads(model)[0])


def _name_of(model: nn.Module, layer: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is layer)


@cache
def state_layout(arch: str, num_classes: int) -> StateLayout:
    """Shape and type of each tensor in a network's state dictionary; no memory is taken for them.

    Args:
        arch: as `build` takes it.
        num_classes: outputs of its head.

    Returns:
        (shape, dtype) by the tensor's name, in the network's order.
    """
    state = skeleton(arch, num_classes).state_dict()
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
