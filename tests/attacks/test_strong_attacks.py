"""Theorems on APGD and Square: closed forms, scales, and what they leave alone."""

import logging

import pytest
import torch
from seeds import torch_rng as rng
from test_attacks import batch, small_net
from torch import nn

from dwlt_lib.attacks import apgd, auto, perturb, square
from dwlt_lib.config.recipes import APGD, PGD, AutoAttack, Square
from dwlt_lib.evaluation import accuracy

EVERY = [
    APGD(0.1, steps=12),
    APGD(0.1, "DLR", 12, restarts=2),
    APGD(0.1, "DLR", 12, targets=2),
    Square(0.1, 40),
]


def linear(classes=2, seed=3):
    """Logits that are linear in the pixels, and the weights of each class, (classes, 3, 6, 6)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, classes)).double().eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 108, generator=rng(seed)))
        model[1].bias.zero_()
    return model, model[1].weight.detach().view(classes, 3, 6, 6)


@pytest.fixture
def network(trained, net):
    """A network that was trained on 8x8 images, and its images and labels."""
    state, x, y = trained
    model = net()
    model.load_state_dict(state)
    return model.eval(), x[:320], y[:320]


@pytest.mark.parametrize("attack", EVERY, ids=str)
def test_images_stay_in_ball_and_box_and_the_model_is_left_as_found(attack):
    model, (x, y) = small_net(), batch()
    x[0], x[1] = 0.0, 1.0
    y = torch.where(torch.arange(16) < 12, model(x).argmax(1), y)
    model.train()
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    model[4].weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    kept = x.clone()
    with torch.no_grad():
        out = perturb(model, x, y, attack, rng())
    assert out.shape == x.shape and out.dtype == x.dtype and not out.requires_grad
    assert 0.05 < (out - x).abs().max() <= 0.1 + 1e-15 and out.min() >= 0 and out.max() <= 1
    assert torch.equal(x, kept) and model.training and model[1].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (model[0].weight.grad == 7).all() and not model[4].weight.requires_grad
    assert torch.equal(out, perturb(model, x, y, attack, rng()))


@pytest.mark.parametrize("attack", EVERY, ids=str)
def test_images_that_are_misclassified_already_are_not_touched(attack):
    model, (x, _) = small_net(), batch()
    wrong = (model(x).argmax(1) + 1) % 4
    assert torch.equal(perturb(model, x, wrong, attack, rng()), x)


@pytest.mark.parametrize(("loss", "targets"), [("CE", 0), ("DLR", 0), ("DLR", 9)])
def test_apgd_on_a_linear_network_reaches_the_closed_form_worst_case(loss, targets):
    model, weights = linear()
    x, _ = batch(8)
    y = model(x).argmax(1)
    direction = (weights[1] - weights[0]).sign() * torch.where(y == 0, 1, -1)[:, None, None, None]
    worst = (x + 1e-3 * direction).clamp(0, 1)
    standing = model(worst).argmax(1) == y
    out = perturb(model, x, y, APGD(1e-3, loss, 100, targets), rng())
    assert standing.any() and torch.allclose(out[standing], worst[standing], atol=1e-6)


def test_targeted_apgd_breaks_whatever_some_target_breaks_of_a_linear_network():
    model, weights = linear(5)
    x, _ = batch(64)
    y = model(x).argmax(1)
    margins = []
    for target in range(5):
        direction = (weights[target] - weights[y]).sign()
        logits = model((x + 0.01 * direction).clamp(0, 1))
        margins.append(logits[:, target] - logits.gather(1, y[:, None]).squeeze(1))
    broken = torch.stack(margins).amax(0) > 1e-6
    assert 0 < broken.sum() < 64
    found = ~accuracy.correct(model, x, y, APGD(0.01, "DLR", 50, targets=9), rng())
    assert (found != broken).sum() <= 1


def test_targets_beyond_the_likeliest_break_what_that_cannot():
    model, weights = linear(4)  # class 1 is next to 0 and stays so, class 2 can be brought up
    with torch.no_grad():
        weights.copy_(0.1 * torch.tensor([0.0, 0, 1, 0])[:, None, None, None] * weights.sign())
        model[1].bias.copy_(torch.tensor([0.0, -0.01, -weights[2].sum() / 2, -5]))
    x = torch.rand(256, 3, 6, 6, generator=rng(), dtype=torch.float64)
    logits, y = model(x), torch.zeros(256, dtype=torch.int64)
    clean = logits.argmax(1) == 0
    reached = clean & (logits[:, 2] > -0.01 * 0.1 * 108 / 2)
    assert not accuracy.correct(model, x, y, APGD(0.01, "DLR", 20, targets=2), rng())[reached].any()
    beyond = reached & (logits[:, 2] < -0.01)
    one = accuracy.correct(model, x, y, APGD(0.01, "DLR", 20, targets=1), rng())
    assert beyond.any() and one[beyond].all()


def test_square_finds_the_worst_case_of_a_network_that_looks_at_one_pixel():
    model, weights = linear()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[1, 40] = 1.0
    x, _ = batch(8)
    y = torch.ones(8, dtype=torch.int64)
    out = perturb(model, x, y, Square(0.1, 1500), rng())
    changed = (x - 0.1).clamp(min=0).flatten(1)[:, 40]
    assert torch.allclose(out.flatten(1)[:, 40], changed)


def test_more_queries_never_help_the_network(network):
    model, x, y = network
    found = [accuracy.correct(model, x, y, Square(0.1, n), rng()).sum() for n in (1, 20, 200)]
    assert accuracy.correct(model, x, y).sum() > found[0] > found[1] > found[2]


def test_checkpoints_and_squares_follow_the_papers_schedules():
    assert apgd.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd.checkpoints(1) == [1]
    assert [square.share(n, 10_000) for n in (0, 10, 11, 50, 51)] == [0.8, 0.8, 0.4, 0.4, 0.2]
    assert square.share(8001, 10_000) == square.share(801, 1000) == 0.8 / 512


def test_the_difference_of_logits_ratio_knows_neither_scale_nor_shift():
    logits = torch.randn(50, 6, generator=rng(), dtype=torch.float64)
    y = torch.randint(0, 6, (50,), generator=rng(1))
    for target in (None, (y + 1) % 6):
        loss = apgd.dlr(logits, y, target)
        assert torch.allclose(loss, apgd.dlr(1000 * logits - 3, y, target))
        wrong = logits.argmax(1) != y
        assert (wrong | (loss <= 0)).all() and (target is not None or (loss[wrong] > 0).all())
    few, few_y = torch.tensor([[3.0, 2.0, 1.0]] * 2), torch.tensor([0, 1])
    assert apgd.dlr(few, few_y, None).tolist() == [-0.5, 0.5]
    assert apgd.dlr(few, few_y, torch.tensor([1, 2])).tolist() == [-1.0, -1.0]  # the margin alone
    assert apgd.dlr(few[:, :2], few_y, None).tolist() == [-1.0, 1.0]


class Scaled(nn.Module):
    """A network whose logits are 2^14 times another's: its softmax is 0 or 1 in float32."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) * 2**14


@pytest.mark.parametrize("attack", [APGD(0.1, "DLR", 20, targets=2), Square(0.1, 100)], ids=str)
def test_scaled_logits_mislead_pgd_but_neither_targeted_apgd_nor_square(network, attack):
    model, x, y = network
    scaled = Scaled(model)
    plain = accuracy.correct(model, x, y, attack, rng())
    assert (plain != accuracy.correct(scaled, x, y, attack, rng())).sum() <= 1
    pgd = PGD(0.1, 0.02, 20)
    misled = accuracy.correct(scaled, x, y, pgd, rng()).sum()
    assert misled > accuracy.correct(model, x, y, pgd, rng()).sum() and misled > plain.sum()


def test_apgd_is_no_weaker_than_pgd_of_as_many_steps(network):
    model, x, y = network
    pgd = accuracy.correct(model, x, y, PGD(0.1, 0.0125, 20), rng()).sum()
    for attack in (APGD(0.1, steps=20), APGD(0.1, "DLR", 20, targets=9)):
        assert accuracy.correct(model, x, y, attack, rng()).sum() <= pgd + len(y) // 40


def test_apgd_breaks_as_many_images_as_autoattacks_own(network):
    theirs = pytest.importorskip("pyautoattack.autopgd_base")
    model, x, y = network
    settings = dict(n_iter=30, eps=0.1, seed=0, device="cpu")
    for ours, oracle in (
        (APGD(0.1, steps=30), theirs.APGDAttack(model, loss="ce", **settings)),
        (
            APGD(0.1, "DLR", 30, targets=3),
            theirs.APGDAttack_targeted(model, n_target_classes=3, **settings),
        ),
    ):
        right = accuracy.correct(model, x, y, ours, rng())
        with torch.no_grad():
            their_right = model(oracle.perturb(x, y)).argmax(1) == y
        assert 0 < right.sum() < accuracy.correct(model, x, y).sum()
        assert abs(right.sum() - their_right.sum()) <= len(y) // 40


def test_autoattack_through_our_door_is_the_packages_own(network):
    package = pytest.importorskip("pyautoattack")
    model, x, y = network
    x, y = x[:12], y[:12]
    state = torch.random.get_rng_state()
    right = accuracy.correct(model, x, y, AutoAttack(0.1), rng(3))
    assert torch.equal(torch.random.get_rng_state(), state)
    seed = int(torch.randint(2**31, (), generator=rng(3)))
    direct = package.AutoAttack(model, eps=0.1, seed=seed)
    classes = model(x[:1]).shape[1]
    direct.apgd_targeted.n_target_classes = direct.fab.n_target_classes = min(9, classes - 1)
    moved, _ = direct.run_standard_evaluation(x, y, batch_size=12)
    theirs = model(moved).argmax(1) == y
    assert 0 < right.sum() < accuracy.correct(model, x, y).sum()
    assert abs(right.sum() - theirs.sum()) <= 1  # fusing BatchNorm rounds otherwise
    ours = accuracy.correct(model, x, y, APGD(0.1, "DLR", 100, targets=9), rng())
    assert right.sum() <= ours.sum() + 1


def test_autoattack_is_refused_without_its_package_and_on_few_classes(monkeypatch):
    monkeypatch.setattr(auto, "find_spec", lambda name: None)
    model, (x, y) = small_net(), batch()
    with pytest.raises(ValueError, match=r"pip install 'double-win-lottery-tickets\[attacks\]'"):
        perturb(model, x, y, AutoAttack(0.1), rng())
    monkeypatch.setattr(auto, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="AutoAttack on 3 classes: want 4 or more"):
        auto.check(3)


def test_what_autoattack_warns_of_is_collected_in_place_of_printed(caplog):
    logger = logging.getLogger("auto-attack")
    with auto.collected_warnings() as said:
        for _ in range(2):
            logger.warning("there are 3 points with zero gradient! See flags_doc.md for details.")
        logger.info("running apgd-ce")
    assert said == ["there are 3 points with zero gradient!"] and not caplog.records
    logger.warning("as ever")
    assert len(said) == 1 and len(caplog.records) == 1


def test_bad_attacks_are_refused_with_the_remedy():
    for kind in (APGD, Square, AutoAttack):
        with pytest.raises(ValueError, match="8/255"):
            kind(8)
    for wrong in (dict(loss="MSE"), dict(targets=2), dict(steps=0), dict(restarts=0)):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            APGD(0.1, **wrong)
    with pytest.raises(ValueError, match="queries=0"):
        Square(0.1, 0)
    model, (x, y) = small_net(), batch()
    with pytest.raises(ValueError, match="rng=None.*Square"):
        perturb(model, x, y, Square(0.1, 3), None)
    with pytest.raises(ValueError, match="PGD alone"):
        perturb(model, x, y, Square(0.1, 3), rng(), start=torch.zeros_like(x))
