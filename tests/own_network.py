"""Networks of a user's own, for `arch: own_network:build` and `arch: own_network:convnext`."""

from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt


class Patches(nn.Module):
    """Patches with learned positions, under torch's own transformer layer with its dropout."""

    def __init__(self, num_classes, width):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 4, stride=4)
        self.positions = nn.Embedding(4, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.embed(x).flatten(2).mT + self.positions.weight
        return self.out(self.norm(self.layer(x)).mean(1))


def build(num_classes, width=8):
    """For images of 8 x 8 pixels."""
    return Patches(num_classes, width)


def convnext(num_classes, width=8):
    """Torchvision's ConvNeXt with two stages of one block, for small images."""
    blocks = [CNBlockConfig(width, 2 * width, 1), CNBlockConfig(2 * width, None, 1)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.2, num_classes=num_classes)
