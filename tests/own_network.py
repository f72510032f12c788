"""A network of a user's own, for `arch: own_network:build`: a small ConvNeXt, without BatchNorm."""

from torchvision.models.convnext import CNBlockConfig, ConvNeXt


def build(num_classes, width=8):
    return ConvNeXt(
        [CNBlockConfig(width, 2 * width, 1), CNBlockConfig(2 * width, None, 1)],
        num_classes=num_classes,
    )
