"""An exported network gives the logits of the one it was made from, for any number of images."""

import sys

import pytest
import seeds
import torch
from torch import nn

from dwlt_lib import models, pruning
from dwlt_lib.models import architectures


@pytest.fixture(scope="module")
def networks():
    """A masked network, some of whose channels are dead, and the same compacted."""
    seeds.set_global()
    model = architectures.build("resnet8", 7, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()
    theta = models.prunable(model)
    m = pruning.magnitude_prune(theta, pruning.dense_mask(theta), 0.5)
    m["layer2.0.conv1.weight"][:9] = False
    pruning.apply_(model, m)
    smaller = models.compact(model)
    assert smaller.layer2[0].conv1.out_channels == 32 - 9
    return {"masked": model, "compacted": smaller}


@pytest.mark.parametrize("which", ["masked", "compacted"])
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_an_exported_network_gives_the_same_logits(networks, which, suffix, tmp_path):
    if suffix == ".onnx":
        for package in ("onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    model = networks[which]
    path = models.export(model, tmp_path / f"network{suffix}", size=8)
    for count in (1, 5):
        x = torch.rand(count, 3, 8, 8, generator=seeds.torch_rng(count))
        with torch.no_grad():
            wanted = model(x)
            if suffix == ".pt2":
                found = torch.export.load(path).module()(x)
            else:
                import onnxruntime

                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                found = torch.from_numpy(session.run(None, {"images": x.numpy()})[0])
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x if x.sum() > 0 else self.scale * x


def test_what_cannot_be_exported_is_refused_in_one_line(networks, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # not installed
    for model, name, word in (
        (networks["masked"], "network.pth", "want one of .onnx, .pt2"),
        (networks["masked"], "network.onnx", "pip install onnxscript"),
        (Branching(), "network.pt2", "torch cannot export it"),
    ):
        with pytest.raises(ValueError, match=word) as refusal:
            models.export(model, tmp_path / name, size=8)
        assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())
