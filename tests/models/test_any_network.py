"""Networks by name, torchvision's, timm's and a user's own: masks, heads, attacks, landscapes."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from dwlt_lib.analysis import direction
from dwlt_lib.attacks import PGD, perturb
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks

VIT = "timm/vit_tiny_patch16_224(depth=1, embed_dim=16, img_size=8, num_heads=2, patch_size=4)"
CONVNEXT = "own_network:convnext(width=4)"
OWN = "own_network:build(width=8)"


def build(arch):
    if arch.startswith("timm/"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return architectures.build(arch, 10, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()


class Attention(nn.Module):
    """One of torch's, whose projection is a parameter and no layer."""

    def __init__(self):
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(4, 2), nn.Linear(4, 2)


def test_attentions_projections_are_prunable_and_the_head_is_not():
    found = architectures.prunable(Attention())
    assert set(found) == {"attention.in_proj_weight", "attention.out_proj.weight"}


@pytest.mark.parametrize("arch, head", [(VIT, "head"), (CONVNEXT, "classifier.2"), (OWN, "out")])
def test_masks_are_torchs_and_a_new_head_is_the_only_change(arch, head):
    model = build(arch)
    wanted = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and name != head
    } | {name for name, _ in model.named_parameters() if name.endswith("in_proj_weight")}
    assert set(architectures.prunable(model)) == wanted and architectures.head_name(arch) == head
    model.to(memory_format=torch.contiguous_format)  # as torch's pruning wants it
    m = masks.dense_mask(model)
    m = masks.magnitude_prune(dict(model.named_parameters()), m, 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    architectures.new_head(model, 3)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= {f"{head}.weight", f"{head}.bias"} and len(after[f"{head}.weight"]) == 3
    places = [name.rpartition(".") for name in m]
    layers = [(model.get_submodule(place), name) for place, _, name in places]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=masks.num_kept(m))
    for (layer, name), part in zip(layers, m.values(), strict=True):
        assert torch.equal(getattr(layer, f"{name}_mask").bool(), part), name


@pytest.mark.parametrize("arch", [VIT, CONVNEXT, OWN])
def test_the_attack_is_foolboxs(arch):
    foolbox, eagerpy = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")
    model, rng = build(arch).double(), torch.Generator().manual_seed(1)
    x = torch.rand(4, 3, 8, 8, generator=rng, dtype=torch.float64)
    y = torch.randint(10, (4,), generator=rng)
    start = (2 * torch.rand(x.shape, generator=rng, dtype=x.dtype) - 1) * 0.05

    class Same(foolbox.attacks.LinfPGD):
        def get_random_start(self, x0, epsilon):
            return x0 + eagerpy.astensor(start)

    oracle = Same(abs_stepsize=0.013, steps=3, random_start=True)
    theirs, _, _ = oracle(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=0.05)
    ours = perturb(model, x, y, PGD(0.05, 0.013, 3), None, start=start)
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("arch", [VIT, CONVNEXT, OWN])
def test_rows_of_linear_layers_are_filters_and_scales_of_channels_stay(arch):
    model, rng = build(arch), torch.Generator().manual_seed(2)
    m = masks.magnitude_prune(dict(model.named_parameters()), masks.dense_mask(model), 0.7)
    masks.apply_(model, m)
    d = direction(model, m, rng)
    for name, weight in model.named_parameters():
        if name in m:
            assert torch.equal(d[name].flatten(1).any(1), m[name].flatten(1).any(1)), name
            assert not d[name][~m[name]].any(), name
        if weight.squeeze().dim() > 1:  # also the embeddings of positions
            norms = d[name].flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1)
            torch.testing.assert_close(*norms, rtol=1e-4, atol=1e-7)
        elif name not in m and "token" not in name:
            assert not d[name].any(), name


def test_a_network_that_is_not_there_or_takes_no_such_images_is_one_line():
    for arch, said in (
        ("torchvision/convnext_tinny", "nearest: convnext_tiny"),
        ("own_network:bild", "no attribute 'bild'"),
        ("own_network:build(depth=3)", "unexpected keyword argument"),
        ("no_such_module:build", "No module named"),
        ("own_network:convnext", "takes no images of 2 x 2"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            architectures.gmac(arch, 2)
        assert len(str(error.value).splitlines()) == 1
