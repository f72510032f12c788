"""Theorems on SA, RA and the transfer attack."""

import torch
import torch.nn.functional as F
from seeds import torch_rng as rng
from torch import nn

from dwlt_lib.attacks.pgd import PGD
from dwlt_lib.evaluation import accuracy


class Brightness(nn.Module):
    """Class 1 when the mean pixel lies above 0.5: a network whose every answer is known."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)  # idle; shows whose mode is touched
        self.slope = nn.Parameter(torch.tensor(50.0))

    def forward(self, x):
        z = self.slope * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-z, z], 1)


def grey(*levels):
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()


def test_accuracies_are_the_share_of_images_by_hand():
    x, y = grey(0.1, 0.45, 0.55, 0.9), torch.tensor([0, 0, 1, 0])
    model, attack = Brightness(), PGD(0.1, 0.05, 5)
    assert accuracy.standard_accuracy(model, x, y) == 0.75
    assert accuracy.correct(model, x, y, attack, rng()).tolist() == [True, False, False, False]
    assert accuracy.robust_accuracy(model, x, y, attack, rng()) == 0.25


def test_batches_do_not_change_an_accuracy():
    n = 2 * accuracy.BATCH + 37
    x = torch.rand(n, 3, 4, 4, generator=rng())
    y = (x.mean((1, 2, 3)) > 0.5).long()
    y[::4] = 1 - y[::4]
    assert accuracy.standard_accuracy(Brightness(), x, y) == 1 - len(y[::4]) / n


def test_each_modules_mode_and_buffers_are_left_as_found():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 2)
    ).train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = torch.rand(8, 3, 4, 4), torch.zeros(8, dtype=torch.int64)
    accuracy.standard_accuracy(model, x, y)
    accuracy.robust_accuracy(model, x, y, PGD(0.1, 0.1, 2), rng())
    accuracy.attacked(model, x, y, PGD(0.1, 0.1, 2), rng())
    assert [module.training for module in model] == [
        True,
        False,
        True,
        True,
        True,
    ] and model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_mode_is_restored_even_when_the_network_fails():
    model = nn.Linear(3, 2).train()
    try:
        accuracy.standard_accuracy(model, torch.rand(4, 3, 2, 2), torch.zeros(4).long())
    except RuntimeError:
        pass
    assert model.training


def test_a_transfer_attack_takes_its_gradients_from_the_other_network():
    x, y = grey(0.45, 0.55), torch.tensor([0, 1])
    victim, backwards = Brightness(), Brightness()
    backwards.slope.data.neg_()  # an adversary of this network pushes images the harmless way
    attack = PGD(0.1, 0.05, 5)
    assert accuracy.correct(victim, x, y, attack, rng(), source=victim).tolist() == [False, False]
    assert accuracy.correct(victim, x, y, attack, rng(), source=backwards).tolist() == [
        True,
        True,
    ]
    backwards.train()
    accuracy.correct(victim, x, y, attack, rng(), source=backwards)
    assert backwards.training and backwards.norm.training


def test_accuracy_on_the_attacked_images_is_the_robust_accuracy(trained, net):
    state, x, y = trained
    model, attack = net(), PGD(0.15, 0.05, 4)
    model.load_state_dict(state)
    moved = accuracy.attacked(model, x, y, attack, rng(3))
    assert (moved - x).abs().max() <= 0.15 + 1e-6
    assert accuracy.standard_accuracy(model, moved, y) == accuracy.robust_accuracy(
        model, x, y, attack, rng(3)
    )


def test_mean_loss_is_cross_entropy_whatever_the_batches():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    x, y = torch.rand(accuracy.BATCH + 9, 3, 4, 4), torch.randint(0, 5, (accuracy.BATCH + 9,))
    assert abs(accuracy.mean_loss(model, x, y) - F.cross_entropy(model(x), y).item()) < 1e-5


def test_right_after_every_step_is_never_more_than_right_after_the_last(trained, net):
    state, x, y = trained
    model, attack = net().train(), PGD(0.1, 0.03, 6)
    model.load_state_dict(state)
    every, last = (
        measure(model, x, y, attack, rng(1))
        for measure in (accuracy.correct_throughout, accuracy.correct)
    )
    assert every.any() and (every <= last).all() and model.training


def test_large_images_come_in_smaller_batches_and_none_is_lost():
    for side, largest in ((8, 512), (64, 512), (224, 41)):
        x = torch.zeros(700, 1, side, side)
        sizes = [len(part) for part, _ in accuracy.batches(x, torch.zeros(700))]
        assert sum(sizes) == 700 and max(sizes) == largest
