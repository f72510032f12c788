"""Theorems on m: counts, nesting and ties (paper, section 3)."""

import pytest
import torch
import torchvision
from seeds import torch_rng
from torch import nn
from torch.nn.utils import prune

from dwlt_lib.config import specs
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks, packed_masks


def weights(seed=0):
    rng = torch_rng(seed)
    shapes = {"a.weight": (8, 3, 3, 3), "b.weight": (16, 8, 1, 1), "c.weight": (5, 7)}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def resnet50():
    with torch.device("meta"):
        found = architectures.prunable(architectures.build("resnet50", 1000, (0,) * 3, (1,) * 3))
    return {name: torch.ones(weight.shape) for name, weight in found.items()}


def test_resnet50_has_53_convolutions_of_23454912_weights(resnet50):
    assert len(resnet50) == 53
    assert masks.num_kept(masks.dense_mask(resnet50)) == 23_454_912
    assert masks.sparsity(masks.dense_mask(resnet50)) == 0


def test_resnet50_follows_the_papers_ladder_to_the_weight(resnet50, monkeypatch):
    monkeypatch.setattr(
        torch, "randperm", lambda n, generator: torch.arange(n)
    )  # which weights go is nothing here
    m, rng, counts = masks.dense_mask(resnet50), torch_rng(0), {}
    for k in range(1, 20):
        m = masks.random_prune(m, specs.PRUNE_FRACTION, rng)
        counts[k] = masks.num_kept(m)
    assert (counts[6], counts[10], counts[19]) == (6_148_565, 2_518_453, 338_021)
    assert masks.sparsity(m) == pytest.approx(0.9856, abs=5e-5)


def test_count_is_exact_when_every_weight_ties_and_ties_go_by_position():
    theta = {"a": torch.full((4, 5), -0.5), "b": torch.full((10,), 0.5)}
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), 0.2)
    assert (
        m["a"].flatten().tolist() == [False] * 6 + [True] * 14
    )  # the sign does not matter, the place does
    assert m["b"].all()


def test_ties_at_the_threshold_go_by_position_after_all_smaller_ones():
    theta = {"a": torch.tensor([3.0, 1.0, -1.0, 2.0, 1.0, 0.5])}
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), 0.5)
    assert m["a"].tolist() == [True, False, False, True, True, False]


def test_only_weights_still_kept_are_counted_and_ranked():
    theta = {"a": torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0])}
    m = {"a": torch.tensor([False, False, True, True, True, True, True])}
    assert masks.magnitude_prune(theta, m, 0.2)["a"].tolist() == [False] * 3 + [True] * 4


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_masks_nest_and_their_input_is_left_alone(method):
    theta, rng = weights(), torch_rng(1)
    m = masks.dense_mask(theta)
    for _ in range(8):
        before = {name: part.clone() for name, part in m.items()}
        less = (
            masks.magnitude_prune(theta, m, 0.2)
            if method == "magnitude"
            else masks.random_prune(m, 0.2, rng)
        )
        assert all(torch.equal(m[name], before[name]) for name in m)
        assert all((less[name] <= m[name]).all() for name in m)
        m = less


def test_the_globally_smallest_go_never_layer_by_layer():
    theta = {"small": torch.full((10,), 1e-3), "large": torch.arange(1.0, 31.0)}
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), 0.25)
    assert not m["small"].any() and m["large"].all()


def test_one_shot_equals_torchs_global_unstructured():
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 8, 1))
    theta = {f"{i}.weight": layer.weight.detach().clone() for i, layer in enumerate(net)}
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), 0.37)
    prune.global_unstructured(
        [(layer, "weight") for layer in net], prune.L1Unstructured, amount=0.37
    )
    for i, layer in enumerate(net):
        assert torch.equal(m[f"{i}.weight"], layer.weight_mask.bool())


def test_every_weight_is_equally_likely_to_go_at_random():
    m, rng, gone = {"a": torch.ones(5, dtype=torch.bool)}, torch_rng(0), torch.zeros(5)
    for _ in range(2000):
        gone += ~masks.random_prune(m, 0.2, rng)["a"]
    assert gone.sum() == 2000
    assert (gone - 400).abs().max() < 80  # four and a half standard deviations


def test_random_masks_depend_on_the_generator_alone():
    m = masks.dense_mask(weights())
    one, same, other = (masks.random_prune(m, 0.5, torch_rng(s)) for s in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in m)
    assert not all(torch.equal(one[name], other[name]) for name in m)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    theta = weights()
    theta["b.weight"][3, 2] = value
    with pytest.raises(ValueError, match="finite"):
        masks.magnitude_prune(theta, masks.dense_mask(theta), 0.2)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_fractions_outside_0_to_1_are_refused_with_the_papers_value(fraction):
    theta = weights()
    for attempt in (
        lambda: masks.magnitude_prune(theta, masks.dense_mask(theta), fraction),
        lambda: masks.random_prune(masks.dense_mask(theta), fraction, torch.Generator()),
    ):
        with pytest.raises(ValueError, match="0.2 a round"):
            attempt()


def test_fraction_0_drops_nothing():
    theta = weights()
    assert masks.sparsity(masks.magnitude_prune(theta, masks.dense_mask(theta), 0.0)) == 0


def test_a_mask_of_another_network_is_refused():
    theta = weights()
    m = masks.dense_mask(theta)
    for wrong in (
        {**m, "d.weight": torch.ones(2, dtype=torch.bool)},
        {**m, "c.weight": torch.ones(7, 5) > 0},
    ):
        with pytest.raises(ValueError, match="mask of this network"):
            masks.magnitude_prune(theta, wrong, 0.2)


def test_applying_a_mask_zeroes_what_it_drops_and_nothing_else(net):
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), 0.5)
    masks.apply_(model, m)
    for name, value in model.state_dict().items():
        assert torch.equal(
            value, torch.where(m[name], before[name], 0) if name in m else before[name]
        )
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_pruned_nan_becomes_zero(net):
    model = net()
    model.conv1.weight.data[0, 0, 0, 0] = float("nan")
    m = masks.dense_mask(architectures.prunable(model))
    m["conv1.weight"][0, 0, 0, 0] = False
    masks.apply_(model, m)
    assert model.conv1.weight[0, 0, 0, 0] == 0


def refused(attempt, said):
    with pytest.raises(ValueError, match=said) as refusal:
        attempt()
    assert "\n" not in str(refusal.value)


def test_what_is_no_mask_no_weights_or_no_generator_is_refused_in_a_line(net):
    theta, rng = weights(), torch.Generator()
    m = masks.dense_mask(theta)
    numbers = {name: part.float() for name, part in m.items()}
    for wrong, said in (
        (net(), "m is a CifarResNet: want tensors by name"),
        (None, "m is a NoneType"),
        (numbers, r"m\['a.weight'\] is torch.float32: want torch.bool"),
        ({"a.weight": [True]}, r"m\['a.weight'\] is a list"),
    ):
        for attempt in (
            lambda w=wrong: masks.magnitude_prune(theta, w, 0.2),
            lambda w=wrong: masks.num_kept(w),
            lambda w=wrong: masks.random_prune(w, 0.2, rng),
            lambda w=wrong: masks.sparsity(w),
            lambda w=wrong: masks.apply_(net(), w),
            lambda w=wrong: packed_masks.pack(w),
        ):
            refused(attempt, said)
    for attempt in (
        lambda: masks.sparsity({}),
        lambda: masks.magnitude_prune(theta, {}, 0.2),
        lambda: masks.random_prune({}, 0.2, rng),
        lambda: masks.sparsity({"a": torch.ones(0, dtype=torch.bool)}),
    ):
        refused(attempt, "m names no weight")
    assert masks.num_kept({}) == 0
    for wrong in (None, 3, torch.default_generator.get_state()):
        refused(lambda w=wrong: masks.random_prune(m, 0.2, w), "want a torch.Generator on the CPU")
    refused(lambda: masks.magnitude_prune(net(), m, 0.2), "theta is a CifarResNet")
    for wrong in (None, 3, [torch.ones(2)], torch.ones(2)):
        said = f"theta is a {type(wrong).__name__}: want a network"
        refused(lambda w=wrong: masks.dense_mask(w), said)
    refused(lambda: masks.dense_mask(nn.Linear(2, 2)), "Linear has no convolution to prune")
    refused(
        lambda: masks.apply_(dict(net().named_parameters()), m), "model is a dict: want the network"
    )
    refused(lambda: masks.magnitude_prune(theta, m, "0.2"), "fraction='0.2'")


@pytest.mark.parametrize(
    "name, count",
    [
        ("mobilenet_v2", 2_189_760),
        ("densenet121", 6_870_208),
        ("convnext_tiny", 27_756_000),
        ("squeezenet1_1", 719_552),
        ("r3d_18", 33_156_672),
        ("vit_b_16", 85_524_480),
    ],
)
def test_any_network_of_torchvision_is_pruned_in_all_layers_but_its_head(name, count):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    m = masks.dense_mask(model)
    assert sum(part.numel() for part in m.values()) == count
    parameters = dict(model.named_parameters())
    assert list(m) == [name for name in parameters if name in m]
    for name, part in m.items():
        assert part.shape == parameters[name].shape and part.ndim > 1 and part.dtype == torch.bool


def test_a_network_of_torchvision_is_pruned_in_five_lines():
    model = torchvision.models.mobilenet_v2()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    m = masks.dense_mask(model)
    m = masks.magnitude_prune(dict(model.named_parameters()), m, 0.2)
    masks.apply_(model, m)
    assert masks.sparsity(m) == pytest.approx(0.2, abs=1e-6)

    for name, value in model.state_dict().items():
        wanted = torch.where(m[name], before[name], 0) if name in m else before[name]
        assert torch.equal(value, wanted)


def test_the_mask_of_a_network_is_that_of_its_prunable_weights_whatever_wraps_it(net):
    model = net()
    m, same = masks.dense_mask(model), masks.dense_mask(architectures.prunable(model))
    assert list(m) == list(same) and all(part.all() for part in m.values())
    assert all(torch.equal(m[name], same[name]) for name in m)
    assert list(masks.dense_mask(nn.DataParallel(model))) == [f"module.{name}" for name in m]
    assert list(masks.dense_mask(nn.Conv2d(1, 1, 1))) == ["weight"]


def test_a_weight_that_two_convolutions_share_is_counted_once():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[1].weight = model[0].weight
    m = masks.magnitude_prune(dict(model.named_parameters()), masks.dense_mask(model), 1 / 3)
    masks.apply_(model, m)
    assert masks.num_kept(m) == int(model[1].weight.count_nonzero()) == 54


def test_two_of_four_keeps_the_two_largest_of_every_four_inputs_and_nothing_else():
    theta = weights()  # of 3, 8 and 7 inputs
    m = masks.two_of_four_prune(theta, masks.dense_mask(theta), 1)
    assert m["a.weight"].all() and m["c.weight"].all()
    for kept, weight in zip(
        m["b.weight"].flatten().view(-1, 4), theta["b.weight"].flatten().view(-1, 4), strict=True
    ):
        assert kept.sum() == 2 and weight[kept].abs().min() >= weight[~kept].abs().max()


def test_fours_are_of_inputs_at_one_place_of_a_kernel():
    theta = {"a": torch.rand(2, 8, 3, 3, generator=torch_rng(0))}
    kept = masks.two_of_four_prune(theta, masks.dense_mask(theta), 1)["a"]
    assert (kept.view(2, 2, 4, 3, 3).sum(2) == 2).all()


def test_on_the_way_to_two_of_four_the_smallest_go_first_and_none_of_the_two():
    theta = {"a": torch.randn(16, 32, generator=torch_rng(1)), "b": torch.ones(8, 6)}
    m, ladder = masks.dense_mask(theta), []
    for fraction in (0.2, 0.2, 1):
        before, m = m, masks.two_of_four_prune(theta, m, fraction)
        assert all((m[name] <= before[name]).all() for name in m)
        ladder.append(m)
    dense = sum(weight.numel() for weight in theta.values())
    assert masks.num_kept(ladder[0]) == dense - round(0.2 * dense)
    pattern = masks.two_of_four_prune(theta, masks.dense_mask(theta), 1)
    assert all(torch.equal(m[name], pattern[name]) for name in m)
    spared, gone = ladder[0]["a"] & ~pattern["a"], ~ladder[0]["a"]
    assert theta["a"][spared].abs().min() >= theta["a"][gone].abs().max()


def test_channels_of_a_layer_go_as_torchs_ln_structured_has_them():
    layer = nn.Conv2d(8, 20, 3)
    theta = {"weight": layer.weight.detach().clone()}
    m = masks.channel_prune(theta, masks.dense_mask(theta), 0.35)
    prune.ln_structured(layer, "weight", amount=7, n=1, dim=0)
    assert torch.equal(m["weight"], layer.weight_mask.bool())


def test_channels_go_whole_the_smallest_of_each_layer_as_near_to_the_share_as_they_can():
    theta = weights()
    m = masks.dense_mask(theta)
    for _ in range(12):
        before, m = m, masks.channel_prune(theta, m, 0.2)
        for layer in m.values():
            alive = layer.flatten(1).sum(1)
            assert ((alive == 0) | (alive == layer[0].numel())).all() and alive.any()
        assert all((m[name] <= before[name]).all() for name in m)
        wanted = masks.num_kept(before) - round(0.2 * masks.num_kept(before))
        assert abs(masks.num_kept(m) - wanted) <= 27 / 2  # of the largest channel
        for name, layer in m.items():
            norms, stays = theta[name].flatten(1).norm(p=1, dim=1), layer.flatten(1).any(1)
            assert stays.all() or norms[stays].min() >= norms[~stays].max()


def test_every_layer_loses_the_same_share_of_its_channels_whatever_its_scale():
    rng = torch_rng(2)
    theta = {
        str(k): 10.0**-k * torch.randn(n, 4, generator=rng) for k, n in enumerate((10, 20, 50))
    }
    m = masks.channel_prune(theta, masks.dense_mask(theta), 0.3)
    assert [int(layer.any(1).sum()) for layer in m.values()] == [7, 14, 35]


def test_the_last_channel_of_a_layer_stays():
    theta = {"small": torch.full((3, 4), 1e-3), "large": torch.ones(3, 4)}
    m = masks.dense_mask(theta)
    for _ in range(30):
        m = masks.channel_prune(theta, m, 0.5)
    assert [int(layer.any(1).sum()) for layer in m.values()] == [1, 1]
