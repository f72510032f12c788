"""A compacted network computes what the masked one does, with fewer channels where some are dead.

Whether outputs agree is asked in double precision, where rounding is far below what a wrong channel
would do, and once in the precision of studies.
"""

import pytest
import seeds
import torch
from torch import nn

from dwlt_lib.models import architectures, compact

OWN = ("resnet8", "resnet20", "resnet18_32", "resnet50_32")
OTHERS = (
    "torchvision/squeezenet1_1",
    "torchvision/mobilenet_v3_small",
    "torchvision/densenet121",
    "timm/resnet10t",
    "timm/vit_tiny_patch16_224(img_size=32, depth=2)",
)


def unlike_its_start(model, rng):
    """Statistics, scales and biases as after training: any value, some channels never positive."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data = 0.3 * torch.randn(module.bias.shape, generator=rng)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = 1 + torch.rand(module.weight.shape, generator=rng)
            module.running_mean = 0.3 * torch.randn(module.bias.shape, generator=rng)
            module.running_var = 0.5 + torch.rand(module.bias.shape, generator=rng)
    return model


def prune(model, rng, share=0.5):
    """Kill that share of every layer's outputs, of its inputs, and of its other weights."""
    for weight in architectures.prunable(model).values():
        shapes = (len(weight), 1, *weight.shape[2:]), (1, *weight.shape[1:2]), weight.shape
        for shape in (shapes[0][:2], shapes[1], shapes[2]):
            alive = torch.rand(shape, generator=rng) >= share
            if weight.shape[1] > 3 or shape == weight.shape:  # the images' channels stay
                weight.data *= alive.view(*shape, *[1] * (weight.dim() - len(shape)))
    return model


def pruned(arch, seed, share=0.5):
    seeds.set_global(seed)
    rng = seeds.torch_rng(seed)
    model = architectures.build(arch, 7, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)).eval()
    return prune(unlike_its_start(model, rng), rng, share).double(), rng


def size(model):
    return sum(weight.numel() for weight in model.parameters())


def assert_the_same(model, smaller, x):
    with torch.no_grad():
        wanted, found = model(x), smaller(x)
    scale = wanted.abs().max()
    assert (wanted - found).abs().max() <= 1e-11 * scale, (wanted, found)
    spread = (wanted - wanted.mean(0)).abs().max()
    assert len(x) == 1 or spread > 1e-8 * scale, "images make no difference: nothing was compared"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("arch", OWN)
def test_a_compacted_ticket_computes_the_same_with_fewer_weights(arch, seed):
    model, rng = pruned(arch, seed, share=(0.2, 0.35, 0.5)[seed])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smaller = compact(model)
    for side in (8, 13):  # borders fall elsewhere
        assert_the_same(model, smaller, torch.rand(4, 3, side, side, generator=rng).double())
    assert size(smaller) < size(model) and not smaller.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert set(smaller.state_dict()) >= set(before), "a layer is gone"
    assert size(compact(smaller)) == size(smaller), "what is compact stays"


@pytest.mark.parametrize("arch", OTHERS)
def test_other_networks_compute_the_same(arch):
    if arch.startswith("timm"):
        pytest.importorskip("timm")
    model, rng = pruned(arch, 0, share=0.1)
    smaller = compact(model)
    assert_the_same(model, smaller, torch.rand(2, 3, 32, 32, generator=rng).double())
    assert size(smaller) < size(model) or "densenet" in arch  # all of it is concatenated


class Small(nn.Module):
    """Two convolutions in a row, then what a test makes of them."""

    def __init__(self, after, **options):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu, self.second = nn.ReLU(inplace=True), nn.Conv2d(8, 8, **options)
        self.fc, self.after = nn.Linear(8, 5), after

    def forward(self, x):
        return self.after(self, self.relu(self.norm(self.first(x))))


def plain(net, x):
    return pooled(net, net.second(x))


def pooled(net, x):
    return net.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def small(after, dead, constant, seed=0, **options):
    """Channels of the first convolution that are dead, and the constants that they are."""
    seeds.set_global(seed)
    model = unlike_its_start(Small(after, **options), seeds.torch_rng(seed)).double().eval()
    model.first.weight.data[dead] = 0
    model.norm.running_mean[dead] = model.first.bias.data[dead]
    model.norm.bias.data[dead] = constant
    return model, torch.rand(3, 3, 6, 6, generator=seeds.torch_rng(1)).double()


@pytest.mark.parametrize(
    "constant, options, left",
    [
        (-1.0, {"kernel_size": 3, "padding": 1}, 6),  # ReLU makes it 0
        (1.0, {"kernel_size": 3, "padding": 1}, 8),  # the border shows it
        (1.0, {"kernel_size": 3, "padding": "same"}, 8),
        (1.0, {"kernel_size": 3}, 6),
        (1.0, {"kernel_size": 1}, 6),
        (1.0, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, 6),
        (-1.0, {"kernel_size": 3, "padding": 1, "groups": 8}, 8),  # not followed
    ],
)
def test_a_constant_goes_into_the_bias_unless_padding_shows_where_it_ends(constant, options, left):
    model, x = small(plain, [1, 5], constant, **options)
    smaller = compact(model)
    assert_the_same(model, smaller, x)
    assert smaller.first.out_channels == smaller.norm.num_features == left
    assert smaller.second.in_channels == left


def test_what_nobody_reads_goes_however_alive():
    model, x = small(plain, [], 0.0, kernel_size=3, padding=1)
    model.second.weight.data[:, 2:4] = 0
    smaller = compact(model)
    assert_the_same(model, smaller, x)
    assert smaller.first.out_channels == 6


@pytest.mark.parametrize("both, left", [(False, 8), (True, 6)])
def test_a_channel_of_a_sum_goes_only_if_it_is_dead_in_all_summands(both, left):
    def residual(net, x):
        return net.fc((net.second(x) + x).flatten(1))

    model, x = small(residual, [0, 7], -1.0, kernel_size=3, padding=1)
    model.fc = nn.Linear(8 * 36, 5).double()  # 36 places of each channel
    if both:
        model.second.weight.data[[0, 7]] = 0
    smaller = compact(model)
    assert_the_same(model, smaller, x)
    assert smaller.first.out_channels == smaller.second.out_channels == left
    assert smaller.fc.in_features == 36 * left


def test_a_layer_of_dead_channels_keeps_one():
    model, x = small(plain, list(range(8)), 1.0, kernel_size=1)
    smaller = compact(model)
    with torch.no_grad():
        assert torch.allclose(model(x), smaller(x), atol=1e-12)
    assert smaller.first.out_channels == 1


def in_place(net, x):
    once = net.second(x)
    net.relu(once)  # which changes it for the sum, too
    return pooled(net, once + x)


def in_place_sum(net, x):
    total = net.second(x)
    total += x
    return pooled(net, total)


def twice(net, x):
    return plain(net, net.relu(net.second(x)))


def by_hand(net, x):
    again = nn.functional.conv2d(x, net.second.weight, net.second.bias)
    return plain(net, x) + again.mean((1, 2, 3)).unsqueeze(1)


def places(net, x):
    return net.fc(net.second(x)[..., :8, :8].transpose(1, 3)).mean((1, 2))


@pytest.mark.parametrize("after", [in_place, in_place_sum, twice, by_hand, places])
def test_what_is_not_followed_stays_right(after):
    model, x = small(after, [1, 5], -1.0, kernel_size=1)
    model.second.weight.data[[1, 2, 6]] = 0
    model.second.bias.data[[1, 2, 6]] = torch.tensor([-1.0, 1.0, 0.0]).double()
    assert_the_same(model, compact(model), x)


def test_a_constant_that_an_unknown_operation_changes_in_place_is_none_any_more():
    def changed(net, x):
        hidden = net.second(x)
        hidden.add_(x.mean((1, 2, 3), True))
        return net.last(pooled(net, hidden))

    model, x = small(changed, [], 0.0, kernel_size=1)
    model.second.weight.data[:], model.last = 0, nn.Linear(5, 3).double()
    assert_the_same(model, compact(model), x)


def test_hidden_features_of_a_perceptron_go():
    seeds.set_global()
    layers = [nn.Flatten(), nn.Linear(12, 9), nn.GELU(), nn.Linear(9, 9), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(9, 4)).double()
    model[1].weight.data[:3], model[3].weight.data[:, 8] = 0, 0
    model[3].weight.data[[2, 4]] = 0
    smaller = compact(model)
    assert_the_same(model, smaller, torch.rand(5, 3, 2, 2, generator=seeds.torch_rng()).double())
    assert [smaller[i].out_features for i in (1, 3, 5)] == [5, 7, 4]


def test_single_precision_agrees_to_five_digits():
    for arch in ("resnet8", "resnet20"):
        model, rng = pruned(arch, 4, share=0.3)
        model, x = model.float(), torch.rand(8, 3, 16, 16, generator=rng)
        with torch.no_grad():
            wanted, found = model(x), compact(model)(x)
        assert (wanted - found).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)


def test_a_network_that_cannot_be_traced_is_refused_in_one_line():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="Branching: torch.fx cannot trace it") as refusal:
        compact(Branching())
    assert "\n" not in str(refusal.value)
