"""Networks have torchvision's names and normalise inside; every convolution is prunable."""

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn

from dwlt_lib.models import architectures

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def build(arch, classes=10):
    return architectures.build(arch, classes, MEAN, STD)


@pytest.mark.parametrize("arch", architectures.ARCHITECTURES)
def test_every_architecture_takes_images_of_any_size(arch):
    model = build(arch, 7).eval()
    with torch.no_grad():
        for side in (8, 33) if arch.startswith("resnet50") else (8, 16, 33):
            assert model(torch.rand(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_state_is_torchvisions_name_by_name_and_gives_the_same_logits(arch):
    theirs = getattr(torchvision.models, arch)(num_classes=10).eval()
    ours = build(arch).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(2, 3, 64, 64)
    normalised = torchvision.transforms.functional.normalize(x, MEAN, STD)
    with torch.no_grad():
        found, wanted = ours(x), theirs(normalised)
    # 24 bits through fifty layers: errors are relative to the largest logit, which may be 26
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_normalisation_is_inside_once_per_channel_and_not_part_of_the_state():
    model = build("resnet8")
    seen = []
    model.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()(torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1).expand(2, 3, 8, 8))
    assert seen[0].abs().max() < 1e-6
    model(torch.ones(1, 3, 8, 8))
    assert torch.allclose(seen[1][0, :, 0, 0], torch.tensor([0.6 / 0.2, 0.5 / 0.25, 0.4 / 0.3]))
    assert not {"mean", "std"} & set(model.state_dict())
    model.set_normalisation((0, 0, 0), (1, 1, 1))
    model(torch.ones(1, 3, 8, 8))
    assert (seen[2] == 1).all()


def test_prunable_is_every_convolution_and_nothing_else():
    model = build("resnet18")
    found = architectures.prunable(model)
    parameters = dict(model.named_parameters())
    assert all(
        found[name] is parameters[name] for name in found
    )  # the parameters themselves, not copies
    assert set(found) == {name for name, weight in parameters.items() if weight.dim() == 4}
    assert "conv1.weight" in found and "layer2.0.downsample.0.weight" in found
    assert "fc.weight" not in found and "bn1.weight" not in found


@pytest.mark.parametrize(
    "arch, convolutions, weights",
    [
        ("resnet8", 9, 432 + 2 * 2304 + 4608 + 9216 + 512 + 18432 + 36864 + 2048),
        ("resnet18", 20, 11_166_912),
        ("resnet50", 53, 23_454_912),
        ("resnet50_32", 53, 23_454_912 - 64 * 3 * (49 - 9)),
    ],
)
def test_counts_of_convolutions_and_prunable_weights(arch, convolutions, weights):
    with torch.device("meta"):
        found = architectures.prunable(build(arch))
    assert (len(found), sum(weight.numel() for weight in found.values())) == (convolutions, weights)


@pytest.mark.parametrize(
    "arch, stride, pool",
    [
        ("resnet18", 2, nn.MaxPool2d),
        ("resnet18_32", 1, nn.Identity),
        ("resnet50_32", 1, nn.Identity),
    ],
)
def test_the_stem_for_small_images_keeps_their_resolution(arch, stride, pool):
    model = build(arch)
    assert model.conv1.stride == (stride, stride) and isinstance(model.maxpool, pool)
    assert model.conv1.kernel_size == ((3, 3) if arch.endswith("_32") else (7, 7))


def test_resnet8_and_resnet20_have_the_depth_they_are_named_after():
    for depth, arch in ((8, "resnet8"), (20, "resnet20"), (8, "resnet8x2_s2")):
        model = build(arch)
        layers = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
        ]
        assert len(layers) == depth


def test_twice_the_width_at_half_the_resolution_is_four_times_the_weights_of_resnet8():
    narrow, wide = build("resnet8"), build("resnet8x2_s2")
    for name, weight in architectures.prunable(wide).items():
        factor = 2 if name == "conv1.weight" else 4  # the stem has three channels to read from
        assert weight.numel() == factor * architectures.prunable(narrow)[name].numel()
    seen = []
    wide.layer1.register_forward_hook(lambda module, x, out: seen.append(x[0].shape[-2:]))
    assert wide(torch.rand(2, 3, 32, 32)).shape == narrow(torch.rand(2, 3, 32, 32)).shape
    assert seen == [(16, 16)]


def test_a_new_head_is_a_fresh_default_linear_and_nothing_is_frozen():
    model = build("resnet8")
    body = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if not name.startswith("fc")
    }
    torch.manual_seed(3)
    architectures.new_head(model, 37)
    torch.manual_seed(3)
    expected = nn.Linear(64, 37)
    assert torch.equal(model.fc.weight, expected.weight) and torch.equal(
        model.fc.bias, expected.bias
    )
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in body.items())


def test_an_initialisation_depends_on_torchs_seed_alone():
    torch.manual_seed(0)
    one = build("resnet8").state_dict()
    torch.manual_seed(0)
    same = build("resnet8").state_dict()
    other = build("resnet8").state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="resnet9.*resnet50_32"):
        build("resnet9")


@pytest.mark.parametrize("arch", ["resnet8", "resnet18_32", "torchvision/shufflenet_v2_x0_5"])
def test_a_network_goes_through_pickle_and_copies_as_it_is(arch):
    model = architectures.build(arch, 4, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()
    x = torch.rand(2, 3, 32, 32)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other) is type(model) and isinstance(other, architectures.Normalised)
        assert torch.equal(other(x), model(x))
        assert list(other.state_dict()) == list(model.state_dict())
