"""Theorems on the gradient written out.

It is autograd's, BatchNorm's statistics included, whatever the network.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import without_kinks
from seeds import set_global, torch_rng
from torch.nn.utils import prune

from dwlt_lib.attacks import layers, pgd
from dwlt_lib.attacks.gradient import input_gradient
from dwlt_lib.attacks.pgd import PGD
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.models import architectures

SIDES = {
    "resnet8": 8,
    "resnet20": 12,
    "resnet18_32": 16,
    "resnet50_32": 8,
    "resnet18": 40,
    "resnet50": 33,
}


def network(arch, train, dtype=torch.float64):
    """A network whose BatchNorm has seen images, and a batch of them."""
    set_global()
    row = CATALOGUE["digits"]
    model = architectures.build(arch, 10, row.mean, row.std).to(dtype)
    x, y = torch.rand(6, 3, SIDES[arch], SIDES[arch], dtype=dtype), torch.arange(6)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5), module.bias.normal_(0, 0.3)
        for _ in range(3):
            model.train()(torch.rand(8, *x.shape[1:], dtype=dtype))
    return model.train(train), x, y


def network_without_kinks(arch, train):
    """A float network that no rounding takes across a kink, and images.

    Max pooling would be one.
    """
    set_global()
    row = CATALOGUE["digits"]
    model = without_kinks(architectures.build(arch, 10, row.mean, row.std))
    side = {"resnet18": 20, "resnet50": 17}.get(arch, SIDES[arch])
    if hasattr(model, "maxpool"):
        model.maxpool = torch.nn.Identity()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.momentum = 1.0
        model.train()(torch.rand(8, 3, side, side))
    for norm in norms:
        norm.momentum = 0.1
    return model.train(train), torch.rand(6, 3, side, side), torch.arange(6)


def by_autograd(model, x, y):
    x = x.clone().requires_grad_()
    logits = model(x)
    return torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)[0], logits.detach()


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("arch", architectures.ARCHITECTURES)
def test_it_is_autograds_and_leaves_the_same_statistics(arch, train):
    model, x, y = network(arch, train)
    other = copy.deepcopy(model)
    wanted, logits = by_autograd(other, x, y)
    found, mine = input_gradient(model, x.shape[2:])(x, y)
    assert (
        torch.allclose(found, wanted, rtol=1e-6, atol=1e-9 * wanted.abs().max())
        and wanted.abs().max() > 0
    )
    assert torch.allclose(mine, logits, atol=1e-9)
    for name, value in other.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-9), name
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("arch", architectures.ARCHITECTURES)
def test_weights_laid_out_once_and_sums_in_place_are_as_near_the_truth_as_torchs_own(
    arch, train, precision, monkeypatch
):
    """Within five times the error.

    A few numbers, the logits, carry most of it, and luck decides less.
    """
    model, x, y = network_without_kinks(arch, train)
    exact, _ = input_gradient(copy.deepcopy(model).double(), x.shape[2:])(x.double(), y)
    found, _ = input_gradient(model, x.shape[2:], precision)(x, y)
    monkeypatch.setattr(layers, "_kept_layouts", tuple)
    plain, _ = input_gradient(model, x.shape[2:], precision)(x, y)
    assert (found - exact).norm() <= 5 * (plain - exact).norm() + 1e-6 * exact.norm()


def test_one_gradient_takes_batches_of_several_sizes():
    model, x, y = network_without_kinks("resnet8", False)
    once = input_gradient(model, x.shape[2:])
    for n in (6, 2, 5, 6):
        found, wanted = once(x[:n], y[:n])[0], by_autograd(model, x[:n], y[:n])[0]
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_frozen_batchnorm_is_eval_modes_gradient_and_does_not_move():
    model, x, y = network("resnet8", True)
    state = copy.deepcopy(model.state_dict())
    found, _ = input_gradient(model, x.shape[2:], bn="eval")(x, y)
    wanted, _ = by_autograd(model.eval(), x, y)
    assert torch.allclose(found, wanted, atol=1e-9)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_of_the_moment_of_preparation_count():
    model, x, y = network("resnet8", False)
    wanted, _ = by_autograd(model, x, y)
    gradient = input_gradient(model, x.shape[2:])
    model.conv1.weight.data.zero_()
    assert torch.allclose(gradient(x, y)[0], wanted, atol=1e-9)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_network_with_hooks_is_left_to_autograd(train):
    (model, x, y), (other, _, _) = network("resnet8", train), network("resnet8", train)
    half = torch.arange(model.conv1.weight.numel()).view(model.conv1.weight.shape) % 2 == 0
    for one in (model, other):
        prune.custom_from_mask(one.conv1, "weight", half)
    assert torch.allclose(
        input_gradient(model, x.shape[2:])(x, y)[0], by_autograd(other, x, y)[0], atol=1e-12
    )


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_in_bf16_nearly_every_sign_is_fp32s(trained, net, train):
    state, x, y = trained
    model = net().train(train)
    model.load_state_dict(state)
    exact, _ = input_gradient(copy.deepcopy(model), x.shape[2:])(x, y)
    rough, logits = input_gradient(model, x.shape[2:], "bf16")(x, y)
    assert rough.dtype == x.dtype and logits.dtype == torch.float32
    assert (exact.sign() == rough.sign()).float().mean() > 0.9
    assert F.cosine_similarity(exact.flatten(), rough.flatten(), 0) > 0.98


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_one_step_of_an_attack_and_its_loss_agree_with_autograds_to_1e_5(trained, net, train):
    state, x, y = trained
    x, y, eps = x[:64], y[:64], 0.15
    model = net().train(train)
    model.load_state_dict(state)
    other = copy.deepcopy(model)
    start = (2 * torch.rand(x.shape, generator=torch_rng()) - 1) * eps
    begun = (x + start).clamp(0, 1)
    gradient, _ = by_autograd(other, begun, y)
    wanted = torch.clamp(begun + 0.05 * gradient.sign(), (x - eps).clamp(0), (x + eps).clamp(max=1))
    found = pgd.perturb(model, x, y, PGD(eps, 0.05, 1), None, start)
    apart = (found - wanted).abs() > 1e-5
    small = gradient.abs() < 1e-3 * gradient.abs().amax((1, 2, 3), True)
    at_a_kink = (apart & ~small).flatten(1).any(1)
    assert at_a_kink.sum() <= 3  # else apart only where the sign is a matter of rounding
    assert apart[~at_a_kink].float().mean() < 0.002
    assert abs(F.cross_entropy(model(wanted), y) - F.cross_entropy(other(wanted), y)) < 1e-5


def test_unknown_ways_are_refused():
    model, x, _ = network("resnet8", True)
    for how in ({"precision": "fp16"}, {"bn": "batch"}):
        with pytest.raises(ValueError, match="want fp32 or bf16"):
            input_gradient(model, x.shape[2:], **how)
