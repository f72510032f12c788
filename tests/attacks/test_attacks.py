"""Theorems on delta.

Ball, box, closed forms, another library's PGD, and what an attack leaves alone.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from seeds import set_global
from seeds import torch_rng as rng
from torch import nn
from torch.nn.utils import prune

from dwlt_lib.attacks import PGD, perturb, pgd
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.evaluation import accuracy
from dwlt_lib.models import architectures
from dwlt_lib.training import trainer


def small_net(seed=0, classes=4):
    set_global(seed)
    return (
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(6 * 36, classes),
        )
        .double()
        .eval()
    )


def batch(n=16, classes=4, seed=0):
    return (
        torch.rand(n, 3, 6, 6, generator=rng(seed), dtype=torch.float64),
        torch.randint(0, classes, (n,), generator=rng(seed + 1)),
    )


@pytest.mark.parametrize("with_start", [False, True])
def test_pgd_equals_foolboxs_from_the_same_start(with_start):
    foolbox = pytest.importorskip("foolbox")
    eagerpy = pytest.importorskip("eagerpy")
    model, (x, y) = small_net(), batch()
    start = (2 * torch.rand(x.shape, generator=rng(5), dtype=x.dtype) - 1) * 0.05 * with_start

    class Same(foolbox.attacks.LinfPGD):
        def get_random_start(self, x0, epsilon):
            return x0 + eagerpy.astensor(start)

    oracle = Same(abs_stepsize=0.013, steps=7, random_start=True)
    theirs, _, _ = oracle(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=0.05)
    ours = perturb(model, x, y, PGD(0.05, 0.013, 7), None, start=start)
    assert (ours - theirs).abs().max() < 1e-6
    assert (ours - x).abs().max() > 0.04


@pytest.mark.parametrize("label", [0, 1])
def test_linear_model_reaches_the_closed_form_worst_case(label):
    w = torch.randn(3 * 6 * 6, generator=rng(3), dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(
            torch.stack([-w / 2, w / 2])
        )  # the logit of class 1 against class 0 is w x
    x, _ = batch(8)
    y = torch.full((8,), label)
    toward = -1 if label == 1 else 1  # an adversary of class 1 lowers w x
    worst = (x + toward * 0.1 * w.sign().view(3, 6, 6)).clamp(0, 1)
    for attack in (
        PGD(0.1, 0.1, 1, random_start=False),
        PGD(0.1, 0.025, 8),
        PGD(0.1, 0.03, 10, restarts=2),
    ):
        assert torch.allclose(perturb(model, x, y, attack, rng()), worst, atol=1e-12)


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 0.3, 1.0])
@pytest.mark.parametrize("random_start", [False, True])
def test_ball_and_box_hold_at_every_pixel(eps, random_start):
    model, (x, y) = small_net(), batch()
    x[0], x[1] = 0.0, 1.0
    for steps in (0, 1, 5):
        out = perturb(model, x, y, PGD(eps, 0.7 * eps, steps, random_start), rng())
        assert out.shape == x.shape and out.dtype == x.dtype
        assert (out - x).abs().max() <= eps + 1e-15
        assert out.min() >= 0 and out.max() <= 1


def test_a_start_outside_the_ball_is_brought_back_into_it():
    model, (x, y) = small_net(), batch()
    out = perturb(model, x, y, PGD(0.1, 0.01, 0), None, start=torch.full_like(x, 0.5))
    assert torch.allclose(out, (x + 0.1).clamp(max=1))


def test_the_random_start_is_uniform_in_the_ball():
    model, x = small_net(), torch.full((200, 3, 6, 6), 0.5, dtype=torch.float64)
    delta = perturb(model, x, torch.zeros(200, dtype=torch.int64), PGD(0.1, 0.1, 0), rng()) - x
    assert abs(delta.mean()) < 0.002
    assert delta.var() == pytest.approx(0.1**2 / 3, rel=0.03)
    assert delta.min() < -0.0999 and delta.max() > 0.0999


def test_eps_0_leaves_images_and_verdicts_as_they_are(trained, net):
    state, x, y = trained
    model = net()
    model.load_state_dict(state)
    still = PGD(0.0, 0.1, 3)
    assert torch.equal(perturb(model.eval(), x[:64], y[:64], still, rng()), x[:64])
    assert torch.equal(accuracy.correct(model, x, y), accuracy.correct(model, x, y, still, rng()))


def test_a_ball_as_large_as_the_pixel_range_leaves_at_most_the_largest_classs_share(trained, net):
    state, x, y = trained
    model = net()
    model.load_state_dict(state)
    assert accuracy.standard_accuracy(model, x, y) > 0.9
    ra = accuracy.robust_accuracy(model, x, y, PGD(0.5, 2.5 * 0.5 / 20, 20), rng())
    assert ra <= y.bincount().max().item() / len(y)


def test_more_eps_never_helps_the_network(trained, net):
    state, x, y = trained
    model = net()
    model.load_state_dict(state)
    found = [
        accuracy.robust_accuracy(model, x, y, PGD(eps, 2.5 * eps / 10, 10), rng())
        for eps in (0, 0.05, 0.15)
    ]
    assert found[0] > found[1] > found[2]


def test_the_attack_raises_the_loss_step_by_step():
    model, (x, y) = small_net(), batch()
    losses = [
        F.cross_entropy(model(perturb(model, x, y, PGD(0.1, 0.01, steps, False), None)), y).item()
        for steps in range(6)
    ]
    assert losses == sorted(losses) and losses[5] > losses[0]


def test_model_is_left_as_found_in_eval_mode():
    model, (x, y) = small_net(), batch()
    model[1].train(False)
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    model[4].weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    kept = x.clone()
    perturb(model, x, y, PGD(0.1, 0.02, 3, restarts=2), rng())
    assert not model.training and not any(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (
        (model[0].weight.grad == 7).all()
        and model[4].weight.grad is None
        and model[0].bias.grad is None
    )
    assert not model[4].weight.requires_grad and model[0].weight.requires_grad
    assert torch.equal(x, kept) and not x.requires_grad and x.grad is None


def test_in_train_mode_batchnorm_moves_once_a_step_and_the_mode_stays():
    model, (x, y) = small_net().train(), batch()
    perturb(model, x, y, PGD(0.1, 0.02, 10), rng())
    assert model.training and model[1].num_batches_tracked == 10


def test_it_works_inside_no_grad_and_returns_a_plain_tensor():
    model, (x, y) = small_net(), batch()
    with torch.no_grad():
        out = perturb(model, x, y, PGD(0.1, 0.02, 3), rng())
    assert not out.requires_grad and torch.equal(
        out, perturb(model, x, y, PGD(0.1, 0.02, 3), rng())
    )


def single_starts(model, x, y, restarts):
    """What each start of an attack with restarts does alone: a list of its last iterates."""
    draws, found = rng(4), []
    for _ in range(restarts):
        found.append(perturb(model, x, y, PGD(0.1, 0.06, 2), draws))  # it draws what one start does
    return found


def test_with_restarts_each_image_has_the_worst_outcome_of_the_single_starts():
    model, (x, y) = small_net(), batch(256)
    y = model(x).argmax(1)
    together = perturb(model, x, y, PGD(0.1, 0.06, 2, restarts=4), rng(4))
    singles = single_starts(model, x, y, 4)
    right = torch.stack([model(moved).argmax(1) == y for moved in singles])
    assert torch.equal(model(together).argmax(1) == y, right.all(0))
    assert right.all(0).sum() < min(alone.sum() for alone in right)  # or it would show nothing
    loss = torch.stack([F.cross_entropy(model(moved), y, reduction="none") for moved in singles])
    # of an image that no start breaks the largest loss; the first that breaks it is its last
    first = right.int().argmin(0, keepdim=True)
    worst = torch.where(right.all(0), loss.amax(0), loss.gather(0, first).squeeze(0))
    assert torch.allclose(F.cross_entropy(model(together), y, reduction="none"), worst, atol=1e-9)


class Corner(nn.Module):
    """Three classes by the mean pixel m: 0 is right at y = 0. Near 0.4 the loss is large and 0
    still wins; near 0.6 class 1 wins by a hair, with a smaller loss."""

    def forward(self, x):
        m = x.mean((1, 2, 3))
        crowded = torch.stack([m - m + 1.1, m - m + 1.0, m - m + 1.0], 1)
        beaten = torch.stack([m - m + 1.0, m - m + 1.1, m - m - 9.0], 1)
        return torch.where((m > 0.5)[:, None], beaten, crowded)


def test_a_start_that_breaks_an_image_counts_before_one_of_a_larger_loss(monkeypatch):
    model, x, y = Corner(), torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    for order in ((0.1, -0.1), (-0.1, 0.1)):
        starts = iter([torch.full_like(x, level) for level in order])
        monkeypatch.setattr(pgd, "uniform_delta", lambda *_, starts=starts: next(starts))
        assert perturb(model, x, y, PGD(0.1, 0.0, 0, restarts=2), None).mean() > 0.5, order
    loss = F.cross_entropy(model(torch.cat([x - 0.1, x + 0.1])), y.expand(2), reduction="none")
    assert loss[0] > loss[1] and model(x + 0.1).argmax() != 0 == model(x - 0.1).argmax()


def test_same_generator_same_images_another_generator_others():
    model, (x, y) = small_net(), batch()
    attack = PGD(0.1, 0.03, 2)
    assert torch.equal(perturb(model, x, y, attack, rng(1)), perturb(model, x, y, attack, rng(1)))
    assert not torch.equal(
        perturb(model, x, y, attack, rng(1)), perturb(model, x, y, attack, rng(2))
    )


def test_a_start_replaces_the_random_one_and_leaves_the_generator_alone():
    model, (x, y) = small_net(), batch()
    zero, used = torch.zeros_like(x), rng(9)
    given = perturb(model, x, y, PGD(0.1, 0.03, 2), used, start=zero)
    assert torch.equal(given, perturb(model, x, y, PGD(0.1, 0.03, 2, random_start=False), None))
    assert torch.equal(used.get_state(), rng(9).get_state()) and (zero == 0).all()


def test_an_images_attack_does_not_depend_on_its_neighbours_in_eval_mode():
    model, (x, y) = small_net(), batch()
    attack = PGD(0.1, 0.03, 4, random_start=False)
    assert torch.allclose(
        perturb(model, x, y, attack, None)[:3], perturb(model, x[:3], y[:3], attack, None)
    )


def test_standing_at_every_step_is_the_conjunction_of_all_iterates():
    model, (x, y) = small_net(), batch(128)
    start = perturb(model, x, y, PGD(0.1, 0.02, 0), rng(3)) - x
    y = model(x + start).argmax(
        1
    )  # all are right at the start, so that the attack has something to break
    iterates = [perturb(model, x, y, PGD(0.1, 0.02, steps), None, start) for steps in range(6)]
    wanted = torch.stack([model(moved).argmax(1) == y for moved in iterates]).all(0)
    found = pgd.correct_at_every_step(model, x, y, PGD(0.1, 0.02, 5), rng(3))
    assert torch.equal(found, wanted) and 0 < wanted.float().mean() < 1


def test_bad_attacks_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="8/255"):
        PGD(8, 2 / 255, 10)
    for wrong in (
        dict(eps=-0.1, alpha=0.1, steps=1),
        dict(eps=0.1, alpha=-0.1, steps=1),
        dict(eps=0.1, alpha=0.1, steps=-1),
        dict(eps=0.1, alpha=0.1, steps=1, restarts=0),
        dict(eps=0.1, alpha=0.1, steps=1, precision="fp16"),
        dict(eps=0.1, alpha=0.1, steps=1, bn="batch"),
    ):
        with pytest.raises(ValueError):
            PGD(**wrong)
    model, (x, y) = small_net(), batch()
    with pytest.raises(ValueError, match="shape"):
        perturb(model, x, y, PGD(0.1, 0.1, 1), None, start=torch.zeros(1))
    with pytest.raises(ValueError, match="rng"):
        perturb(model, x, y, PGD(0.1, 0.1, 1), None)


WRONG = {
    "bytes": (lambda x, y: (255 * x, y), "want pixels in 0..1"),
    "normalised": (lambda x, y: (x - 0.5, y), "want pixels in 0..1"),
    "a NaN": (lambda x, y: (x.where(x < x.max(), torch.nan), y), "want pixels in 0..1 and no NaN"),
    "an infinity": (lambda x, y: (x.where(x < x.max(), torch.inf), y), "want pixels in 0..1"),
    "integers": (lambda x, y: (x.byte(), y), r"uint8: want images \(B,C,H,W\) as floats"),
    "one image": (lambda x, y: (x[0], y), r"x \(3, 6, 6\)"),
    "no image": (lambda x, y: (x[:0], y[:0]), r"x \(0, 3, 6, 6\)"),
    "an array": (lambda x, y: (x.numpy(), y), "x is a ndarray"),
    "a label less": (lambda x, y: (x, y[1:]), r"y \(15,\) .*want one class per image, \(16,\)"),
    "one-hot labels": (lambda x, y: (x, F.one_hot(y, 4)), r"y \(16, 4\)"),
    "labels as floats": (lambda x, y: (x, y.double()), "torch.float64 .*want one class per image"),
    "labels as int32": (lambda x, y: (x, y.int()), "torch.int32"),
    "a list of labels": (lambda x, y: (x, y.tolist()), "y is a list"),
    "a class too high": (lambda x, y: (x, y + 1), r"y lies in 1..4: want classes 0..3"),
    "a negative class": (lambda x, y: (x, y - 1), r"y lies in -1..2: want classes 0..3"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_image_or_no_label_is_refused_in_a_line_by_attacks_and_accuracies(what):
    model, (x, y) = small_net(), batch()
    y[:2] = torch.tensor([0, 3])
    seen = [value.clone() for value in model.state_dict().values()]
    change, said = WRONG[what]
    x, y = change(x, y)
    attack = PGD(0.1, 0.05, 1)
    for attempt in (
        lambda: perturb(model.train(), x, y, attack, rng()),
        lambda: perturb(model.eval(), x, y, attack, rng()),
        lambda: accuracy.standard_accuracy(model, x, y),
        lambda: accuracy.robust_accuracy(model, x, y, attack, rng()),
        lambda: accuracy.correct_throughout(model, x, y, attack, rng()),
        lambda: accuracy.correct(model, x, y, attack, rng(), source=small_net(1)),
        lambda: accuracy.attacked(model, x, y, attack, rng()),
        lambda: accuracy.mean_loss(model, x, y),
    ):
        with pytest.raises(ValueError, match=said) as refusal:
            attempt()
        assert "\n" not in str(refusal.value)
    assert all(map(torch.equal, seen, model.state_dict().values()))  # BatchNorm saw nothing


def test_rounding_is_no_fault_and_a_network_without_logits_is_one():
    model, (x, y) = small_net(), batch()
    attack = PGD(0.1, 0.05, 1)
    assert torch.equal(perturb(model, x, y, attack, rng()), perturb(model, x, y, attack, rng()))
    x[0] = 1 + 1e-7
    assert perturb(model, x, y, attack, rng()).max() <= 1
    with pytest.raises(ValueError, match=r"makes \(1, 6, 6, 6\) of one image: want logits"):
        perturb(model[:2], x, y, attack, rng())
    with pytest.raises(ValueError, match="start holds a NaN"):
        perturb(model, x, y, attack, None, start=torch.full_like(x, torch.nan))


def test_a_training_step_and_an_evaluations_batches_read_no_value_of_their_images(monkeypatch):
    """Reading one would wait for a GPU; an evaluation checks once."""
    model, (x, y) = small_net(), batch(accuracy.BATCH + 5)
    calls, real = [], pgd.check
    monkeypatch.setattr(pgd, "check", lambda *given: calls.append(given) or real(*given))
    monkeypatch.setattr(accuracy, "check", pgd.check)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    trainer.step(model.train(), [], optimiser, x[:8], y[:8], PGD(0.1, 0.05, 1), rng())
    assert calls == []
    accuracy.robust_accuracy(model, x, y, PGD(0.1, 0.05, 1), rng())
    assert len(calls) == 1


# --------------------------------------------------------------------------------------------------
# the gradient of the image


def settled(model, side):
    """A float64 network whose BatchNorm has any weights and has seen images, and 6 of them."""
    model = model.double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(8, 3, side, side, generator=rng(), dtype=torch.float64))
    x = torch.rand(6, 3, side, side, generator=rng(1), dtype=torch.float64)
    return model, x, torch.arange(6)


def resnet(arch, side):
    set_global()
    row = CATALOGUE["digits"]
    return settled(architectures.build(arch, 10, row.mean, row.std), side)


def gradient(model, x, y):
    """By autograd through the network as it is."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("arch, side", [("resnet8", 8), ("resnet18", 40), ("resnet50_32", 8)])
def test_the_gradient_is_autograds_and_batchnorm_moves_as_in_a_forward_pass(arch, side, train):
    model, x, y = resnet(arch, side)
    model.train(train)
    other = copy.deepcopy(model)
    wanted = gradient(other, x, y)
    with pgd.network_under_attack(model) as network:
        found = pgd.image_gradient(network, x, y)
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9 * wanted.abs().max())
    for name, value in other.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-9), name
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_a_frozen_batchnorm_gives_eval_modes_gradient_and_does_not_move():
    model, x, y = resnet("resnet8", 8)
    state = copy.deepcopy(model.state_dict())
    with pgd.network_under_attack(model, bn="eval") as network:
        found = pgd.image_gradient(network, x, y)
        assert model.training and not model.bn1.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.allclose(found, gradient(model.eval(), x, y), atol=1e-9)


def test_an_attack_that_fails_leaves_the_model_as_found():
    model, (x, y) = small_net().train(), batch()
    model[4].bias.requires_grad_(False)
    with pytest.raises(RuntimeError), pgd.network_under_attack(model, bn="eval") as network:
        pgd.image_gradient(network, x[:, :2], y)
    assert all(module.training for module in model.modules())
    assert [weight.requires_grad for weight in model.parameters()] == [True] * 5 + [False]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_the_callers_gradient_mode_changes_nothing(mode, train):
    model, (x, y) = small_net().train(train), batch()
    attack = PGD(0.1, 0.02, 3, random_start=False)
    wanted = perturb(model, x, y, attack, None)
    with mode():
        assert torch.equal(perturb(model, x.clone(), y, attack, None), wanted)


# BatchNorm after each convolution, before it (DenseNet) and across branches (ShuffleNet)
ARCHITECTURES = ("resnet18", "mobilenet_v2", "densenet121", "vgg11_bn", "shufflenet_v2_x0_5")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_batchnorm_is_fused_in_any_network_and_the_logits_stay(arch):
    torchvision = pytest.importorskip("torchvision")
    set_global()
    network = torchvision.models.get_model(arch, weights=None, num_classes=10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # so that maps keep their scale in eval mode
    model, x, _ = settled(network, 32)
    state = copy.deepcopy(model.eval().state_dict())
    fused = pgd.fuse_batchnorm(model)
    modules = dict(fused.named_modules())
    called = [modules[node.target] for node in fused.graph.nodes if node.op == "call_module"]
    left = sum(isinstance(module, nn.BatchNorm2d) for module in called)
    everything = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert left < everything and (left == 0 or arch == "densenet121")
    with torch.no_grad():
        wanted = model(x)
        assert torch.allclose(fused(x), wanted, atol=1e-9 * wanted.abs().max().item())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class Shared(nn.Module):
    """Convolutions that fusing would spoil: one is read twice, one is called twice."""

    def __init__(self):
        super().__init__()
        self.read, self.called = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(3) for _ in range(3))
        self.free = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        seen = self.read(x)
        x = self.bn1(seen) + seen
        x = self.bn2(self.called(x)) + self.bn3(self.called(x + 1))
        return self.free(self.called(x)).mean((2, 3))


def test_convolutions_with_several_readers_or_calls_are_not_fused():
    set_global()
    model, x, _ = settled(Shared(), 5)
    model.eval()
    assert torch.allclose(pgd.fuse_batchnorm(model)(x), model(x), atol=1e-12)


class Deciding(nn.Module):
    """A forward pass that depends on values, which no trace can hold."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 6)

    def forward(self, x):
        x = self.bn(self.conv(x))
        return self.fc((x if x.mean() > 0 else -x).mean((2, 3)))


def test_networks_with_hooks_or_decisions_are_attacked_as_they_are():
    model, x, y = resnet("resnet8", 8)
    half = torch.arange(model.conv1.weight.numel()).view(model.conv1.weight.shape) % 2 == 0
    prune.custom_from_mask(model.conv1, "weight", half)
    for one in (model.eval(), settled(Deciding(), 5)[0].eval()):
        with pgd.network_under_attack(one) as network:
            assert network is one
            found = pgd.image_gradient(network, x, y)
        assert torch.allclose(found, gradient(one, x, y), atol=1e-12)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_in_bf16_nearly_every_sign_is_fp32s(trained, net, train):
    state, x, y = trained
    model = net().train(train)
    model.load_state_dict(state)
    found = {}
    for precision in ("fp32", "bf16"):
        with pgd.network_under_attack(copy.deepcopy(model)) as network:
            found[precision] = pgd.image_gradient(network, x, y, precision)
    exact, rough = found["fp32"], found["bf16"]
    assert rough.dtype == x.dtype and not torch.equal(exact, rough)
    assert (exact.sign() == rough.sign()).float().mean() > 0.9
    assert F.cosine_similarity(exact.flatten(), rough.flatten(), 0) > 0.98


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_one_step_of_an_attack_and_its_loss_agree_with_float64s_to_1e_5(trained, net, train):
    state, x, y = trained
    x, y, eps = x[:64], y[:64], 0.15
    model = net().train(train)
    model.load_state_dict(state)
    exact = copy.deepcopy(model).double()
    start = (2 * torch.rand(x.shape, generator=rng()) - 1) * eps
    begun = (x + start).clamp(0, 1)
    slope = gradient(exact, begun.double(), y)
    stepped = begun + 0.05 * slope.sign().float()
    wanted = torch.clamp(stepped, (x - eps).clamp(0), (x + eps).clamp(max=1))
    found = perturb(model, x, y, PGD(eps, 0.05, 1), None, start)
    apart = (found - wanted).abs() > 1e-5
    small = slope.abs() < 1e-3 * slope.abs().amax((1, 2, 3), True)
    at_a_kink = (apart & ~small).flatten(1).any(1)
    assert at_a_kink.sum() <= 3  # else apart only where the sign is a matter of rounding
    assert apart[~at_a_kink].float().mean() < 0.002
    loss, exact_loss = F.cross_entropy(model(wanted), y), F.cross_entropy(exact(wanted.double()), y)
    assert abs(loss - exact_loss) < 1e-5
