"""Theorems on training.

Pruned weights, exact resume, schedules, selection, early stopping and random streams.
"""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import without_kinks
from seeds import torch_rng

from dwlt_lib import attacks
from dwlt_lib.attacks.pgd import PGD
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.training import trainer
from dwlt_lib.training.trainer import OutOfTime, generator, learning_rate

PGD2 = PGD(0.15, 0.075, 2)


def fit(model, m, train, validation, config, seed, **settings):
    """`trainer.fit`, whose adversarial training is validated by PGD-2."""
    settings.setdefault("eval_attack", PGD2 if config.attack else None)
    return trainer.fit(model, m, train, validation, config, seed, **settings)


def regime(name="ST", **changes):
    attack = {"ST": None, "FAT": PGD(0.15, 0.18, 1), "AT": PGD2}[name]
    settings = dict(
        epochs=3,
        batch=64,
        lr=0.1,
        schedule="one_cycle",
        milestones=(),
        momentum=0.9,
        weight_decay=5e-3,
        attack=attack,
    )
    return TrainingConfig(**{**settings, **changes})


def half_mask(model):
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    return masks.magnitude_prune(theta, masks.dense_mask(theta), 0.5)


def run(model, *args, **settings):
    """Training with nothing pruned."""
    return fit(model, masks.dense_mask(architectures.prunable(model)), *args, **settings)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------ pruned
# weights


@pytest.mark.parametrize("name", ["ST", "FAT", "AT"])
def test_pruned_weights_stay_exactly_zero_through_momentum_and_weight_decay(name, net, digits):
    model = net()
    m = half_mask(model)
    states = {}
    found = fit(model, m, digits, digits, regime(name, epochs=2), 0, keep=states.__setitem__)
    for state in (found.last, found.selected, *states.values(), model.state_dict()):
        assert all((state[weight][~part] == 0).all() for weight, part in m.items())
    moved = [(found.last[weight] - states[0][weight])[part] for weight, part in m.items()]
    assert all(
        (delta != 0).float().mean() > 0.99 for delta in moved
    )  # kept weights, all layers, are trained


def test_pruned_weights_are_zero_after_every_single_step(net, digits, monkeypatch):
    model = net()
    m = half_mask(model)
    seen = []
    real = trainer.F.cross_entropy

    def watch(logits, y, *args, **kw):
        seen.append(
            all(
                (parameter[~m[name]] == 0).all()
                for name, parameter in architectures.prunable(model).items()
            )
        )
        return real(logits, y, *args, **kw)

    monkeypatch.setattr(trainer, "F", SimpleNamespace(cross_entropy=watch))
    fit(model, m, digits, None, regime(epochs=2), 0)
    assert len(seen) == 10 and all(seen)


def test_the_head_and_batchnorm_are_trained_too(net, digits):
    model = net()
    states = {}
    found = fit(model, half_mask(model), digits, None, regime(epochs=1), 0, keep=states.__setitem__)
    for name in (
        "fc.weight",
        "fc.bias",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "layer3.0.bn2.running_var",
    ):
        assert not torch.equal(found.last[name], states[0][name])


def test_adversarial_training_with_10_steps_moves_batchnorm_11_times_a_step(net, digits):
    model = net()
    how = regime("AT", epochs=2, attack=PGD(0.15, 0.04, 10))
    fit(model, masks.dense_mask(architectures.prunable(model)), digits, None, how, 0)
    assert model.bn1.num_batches_tracked == 2 * 5 * 11  # 300 images in batches of 64
    model = net()
    fit(
        model,
        masks.dense_mask(architectures.prunable(model)),
        digits,
        digits,
        regime("ST", epochs=2),
        0,
    )
    assert model.bn1.num_batches_tracked == 2 * 5  # validation does not count


def test_adversarial_training_is_what_makes_a_network_robust(net, digits):
    found = {}
    for name in ("ST", "AT"):
        model = net()
        history = fit(
            model,
            masks.dense_mask(architectures.prunable(model)),
            digits,
            digits,
            regime(name, epochs=4, weight_decay=5e-4),
            0,
            eval_attack=PGD(0.15, 0.04, 10),
        ).history
        found[name] = history[-1]
    assert found["AT"]["RA"] > found["ST"]["RA"] + 0.1 and found["ST"]["SA"] > 0.5


# ------------------------------------------------------------------------------------------ resume


class Killed(Exception):
    pass


PROBED = {"epochs": 2, "linear_probe_epochs": 2, "eps_warmup": 0.9}


@pytest.mark.parametrize(
    "name, after, settings",
    [
        *((name, after, {}) for name, after in [("ST", 1), ("ST", 3), ("AT", 1), ("AT", 3)]),
        *(("AT", after, PROBED) for after in (1, 2, 3)),
        ("AT", 2, {"eps_warmup": 0.75}),
    ],
)
def test_resuming_after_any_epoch_ends_with_the_same_bits(
    name, after, settings, net, digits, tmp_path
):
    train, validation = digits.take(torch.arange(130)), digits.take(torch.arange(130, 250))
    how = regime(name, **{"epochs": 4, **settings})
    assert how.all_epochs == 4
    model = net()
    m = half_mask(model)
    states, parts = {}, {}
    whole = fit(model, m, train, validation, how, 7, keep=states.__setitem__)

    def stop(row):
        if row["epoch"] == after:
            raise Killed

    file = tmp_path / "part" / "run.pt"
    with pytest.raises(Killed):
        fit(
            net(),
            m,
            train,
            validation,
            how,
            7,
            keep=parts.__setitem__,
            checkpoint=file,
            progress=stop,
        )
    assert file.exists() and len(list(file.parent.iterdir())) == 1
    rest = []
    resumed = fit(
        net(seed=99),
        m,
        train,
        validation,
        how,
        7,
        keep=parts.__setitem__,
        checkpoint=file,
        progress=rest.append,
    )
    assert [row["epoch"] for row in rest] == list(range(after + 1, 5))  # nothing is trained twice
    assert resumed.history == whole.history and resumed.epoch == whole.epoch
    assert same(resumed.last, whole.last) and same(resumed.selected, whole.selected)
    assert list(parts) == list(states) == [0, 1, 2, 3, 4]
    assert all(same(parts[epoch], states[epoch]) for epoch in states)


def test_out_of_time_leaves_a_checkpoint_and_nothing_lost(net, digits, tmp_path, monkeypatch):
    clock = itertools.count()
    how, file = regime(epochs=4), tmp_path / "run.pt"
    model = net()
    m = half_mask(model)
    whole = fit(net(), m, digits, None, how, 0)
    assert whole.epoch == 4
    monkeypatch.setattr(trainer, "time", SimpleNamespace(time=lambda: float(next(clock))))
    done = []
    with pytest.raises(OutOfTime):  # an epoch takes three looks at this clock
        fit(model, m, digits, None, how, 0, checkpoint=file, deadline=6.0, progress=done.append)
    assert len(done) == 2 and file.exists()
    finished = fit(net(seed=5), m, digits, None, how, 0, checkpoint=file)
    assert same(finished.last, whole.last) and finished.history == whole.history


def test_a_deadline_that_has_passed_trains_nothing(net, digits, tmp_path):
    done = []
    with pytest.raises(OutOfTime):
        run(
            net(),
            digits,
            None,
            regime(),
            0,
            checkpoint=tmp_path / "x.pt",
            deadline=1.0,
            progress=done.append,
        )
    assert not done


def test_a_run_is_repeated_bit_by_bit_and_differs_between_seeds(net, digits):
    one, again, other = (
        run(net(), digits, None, regime("AT", epochs=1), seed) for seed in (0, 0, 1)
    )
    assert same(one.last, again.last) and not same(one.last, other.last)


# ------------------------------------------------------------------------------------------
# the head alone first; eps from 0


@pytest.mark.parametrize("name", ["ST", "FAT", "AT"])
def test_a_linear_probe_moves_the_head_and_no_bit_of_the_backbone(name, net, digits):
    model, states = net(), {}
    m = half_mask(model)
    how = regime(name, epochs=1, linear_probe_epochs=2)
    found = fit(model, m, digits, digits, how, 0, keep=states.__setitem__)
    assert list(states) == [0, 1, 2, 3] and len(found.history) == 3
    for before, after in ((states[0], states[1]), (states[1], states[2])):
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved == {"fc.weight", "fc.bias"}
    assert not torch.equal(states[2]["conv1.weight"], states[3]["conv1.weight"])
    for state in states.values():
        assert all((state[weight][~part] == 0).all() for weight, part in m.items())
    assert [row.get("probe") for row in found.history] == [1, 1, None]
    assert ["SA" in row for row in found.history] == [False, False, True] and found.epoch == 3
    assert [row["lr"] for row in found.history] == [how.lr, how.lr, 0.0]
    assert model.training and all(weight.requires_grad for weight in model.parameters())


def test_a_step_of_the_probe_is_sgd_on_the_backbones_features_by_hand(net, digits):
    few = digits.take(torch.arange(20))
    model, by_hand, states = net(), net().eval(), {}
    how = regime(epochs=1, linear_probe_epochs=1, lr=0.1, weight_decay=0.01, batch=20)
    run(model, few, None, how, 0, keep=states.__setitem__)
    F.cross_entropy(by_hand(few.floats()), few.y).backward()
    for name, theta in by_hand.fc.named_parameters():
        expected = theta - 0.1 * (theta.grad + 0.01 * theta)
        assert torch.allclose(states[1][f"fc.{name}"], expected, rtol=1e-4, atol=1e-6)


def test_what_follows_a_probe_draws_what_it_draws_without(net, digits, monkeypatch):
    def drawn(**settings):
        calls, real = [], generator
        monkeypatch.setattr(
            trainer, "generator", lambda *args: calls.append(args[1:3]) or real(*args)
        )
        run(net(), digits, digits, regime("AT", **settings), 0)
        monkeypatch.setattr(trainer, "generator", real)
        return calls

    alone, probed = drawn(), drawn(linear_probe_epochs=2)
    assert probed[-len(alone) :] == alone
    assert {epoch for _, epoch in probed[: -len(alone)]} == {-2, -1}


def test_a_probe_that_fails_names_its_epoch_and_leaves_nothing_frozen(net, digits):
    model = net()
    with pytest.raises(FloatingPointError, match="in epoch 1:.*lower lr"):
        run(model, digits, None, regime(lr=1e38, linear_probe_epochs=1), 0)
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("name", ["FAT", "AT"])
def test_training_faces_the_eps_of_each_epoch_and_its_history_says_it(
    name, net, digits, monkeypatch
):
    faced, real = [], trainer.perturb_unchecked

    def watch(model, x, y, attack, *rest):
        moved = real(model, x, y, attack, *rest)
        faced.append(attack.eps)
        assert (moved - x).abs().max() <= attack.eps + 1e-6
        return moved

    monkeypatch.setattr(trainer, "perturb_unchecked", watch)
    how = regime(name, epochs=4, eps_warmup=0.5, batch=300)
    found = run(net(), digits, None, how, 0)
    assert faced == [row["eps"] for row in found.history] == pytest.approx([0, 0.075, 0.15, 0.15])


# ------------------------------------------------------------------------------------------
# schedules


def rates(epochs=100, **how):
    how = regime(epochs=epochs, **how)
    return lambda epoch, part=1.0: learning_rate(how, epoch, part)


def test_steps_divide_the_rate_by_ten_at_each_milestone():
    at = rates(schedule="steps", milestones=(50, 75))
    assert [at(e) for e in (0, 49, 50, 74, 75, 99)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_cosine_falls_from_the_rate_by_the_epoch():
    at = rates(80, schedule="cosine", lr=0.01)
    assert at(0) == 0.01 and at(40) == pytest.approx(0.005)
    assert at(79) == pytest.approx(0.005 * (1 + math.cos(math.pi * 79 / 80)))
    assert at(20, 0.1) == at(20, 0.9) == pytest.approx(0.01 * 0.5 * (1 + math.sqrt(0.5)))


def test_one_cycle_rises_for_a_quarter_and_falls_to_zero():
    at = rates(8, schedule="one_cycle", lr=0.2)
    assert (
        at(0, 0.5) == pytest.approx(0.05)
        and at(1, 1.0) == pytest.approx(0.2)
        and at(2, 0.0) == pytest.approx(0.2)
    )
    assert at(4, 1.0) == pytest.approx(0.1) and at(7, 1.0) == 0


def test_constant_stays_and_history_reports_the_rate_used(net, digits):
    assert {rates(schedule="constant")(epoch) for epoch in range(100)} == {0.1}
    model = net()
    how = regime(epochs=3, schedule="steps", milestones=(2,))
    found = run(model, digits, digits, how, 0)
    assert [row["epoch"] for row in found.history] == [1, 2, 3]
    assert [row["lr"] for row in found.history] == pytest.approx([0.1, 0.1, 0.01])
    assert all({"epoch", "lr", "loss", "SA"} == set(row) for row in found.history)
    assert found.history[-1]["loss"] < found.history[0]["loss"]


def test_one_step_is_sgd_by_hand(net, digits):
    few = digits.take(torch.arange(20))
    model, by_hand = without_kinks(net()), without_kinks(net())
    how = regime(epochs=1, lr=0.1, schedule="constant", weight_decay=0.01, batch=20)
    run(model, few, None, how, 0)
    order = torch.randperm(20, generator=generator(0, "order", 0))
    by_hand.train()
    torch.nn.functional.cross_entropy(by_hand(few.floats()[order]), few.y[order]).backward()
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        expected = theirs - 0.1 * (theirs.grad + 0.01 * theirs)
        assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_a_loss_that_is_not_finite_stops_with_the_remedy(net, digits):
    with pytest.raises(FloatingPointError, match="lower lr"):
        run(net(), digits, None, regime(lr=1e30, schedule="constant"), 0)


# ------------------------------------------------------------------------------------------
# selection


def judged(monkeypatch, sa, ra=None):
    """Validation that returns these values, epoch by epoch."""
    sa, ra = iter(sa), iter(ra or [])
    monkeypatch.setattr(trainer, "standard_accuracy", lambda *_: next(sa))
    monkeypatch.setattr(trainer, "robust_accuracy", lambda *_: next(ra))


def test_standard_training_selects_by_sa_ties_to_the_earlier_epoch(monkeypatch, net, digits):
    judged(monkeypatch, [0.5, 0.7, 0.7, 0.6])
    states = {}
    found = run(net(), digits, digits, regime(epochs=4), 0, keep=states.__setitem__)
    assert found.epoch == 2 and same(found.selected, states[2]) and same(found.last, states[4])
    assert [row["SA"] for row in found.history] == [0.5, 0.7, 0.7, 0.6]


@pytest.mark.parametrize("name", ["AT", "FAT"])
def test_robust_training_selects_by_ra_whatever_sa_says(name, monkeypatch, net, digits):
    judged(monkeypatch, [0.9, 0.8, 0.7], [0.3, 0.4, 0.4] if name == "FAT" else [0.4, 0.4])
    states = {}
    found = run(net(), digits, digits, regime(name), 0, keep=states.__setitem__)
    assert found.epoch == 2 and same(found.selected, states[2])


def test_ra_is_validated_in_55_of_100_epochs_and_for_fat_in_all_unless_a_recipe_says_from_when():
    def evaluated(name, **settings):
        config = regime(name, epochs=100, **settings)
        return [epoch for epoch in range(1, 101) if config.evaluates_robustly_at(epoch)]

    assert evaluated("AT") == [10, 20, 30, 40, 50, *range(51, 101)]
    assert evaluated("FAT") == list(range(1, 101))
    for epochs in range(1, 30):  # something is always selected
        assert regime("AT", epochs=epochs).evaluates_robustly_at(epochs)
    for name in ("AT", "FAT"):
        assert evaluated(name, validate_ra_from=46) == list(range(46, 101))


def test_training_validates_ra_from_the_epoch_its_recipe_names(monkeypatch, net, digits):
    judged(monkeypatch, [0.5] * 5, [0.2, 0.4, 0.3])
    found = run(net(), digits, digits, regime("AT", epochs=5, validate_ra_from=3), 0)
    assert [row["epoch"] for row in found.history if "RA" in row] == [3, 4, 5] and found.epoch == 4


def test_an_accuracy_of_zero_in_the_first_judged_epoch_is_still_a_selection(
    monkeypatch, net, digits
):
    judged(monkeypatch, [0.1] * 3, [0.0] * 2)
    found = run(net(), digits, digits, regime("AT"), 0)
    assert found.epoch == 2 and found.selected.keys() == found.last.keys()


def test_fast_adversarial_training_stops_when_robustness_collapses(monkeypatch, net, digits):
    judged(monkeypatch, [0.5] * 9, [0.3, 0.5, 0.31, 0.29, 0.4])
    states = {}
    found = run(net(), digits, digits, regime("FAT", epochs=9), 0, keep=states.__setitem__)
    assert len(found.history) == 4 and found.epoch == 2 and same(found.selected, states[2])


def test_a_run_that_asks_for_its_last_epoch_gets_it_but_for_one_that_collapsed(
    monkeypatch, net, digits
):
    judged(monkeypatch, [0.5] * 9, [0.3, 0.5, 0.45, 0.4])
    how = regime("FAT", epochs=4, selection="last")
    found = run(net(), digits, digits, how, 0)
    assert found.epoch == 4 and same(found.selected, found.last)
    judged(monkeypatch, [0.5] * 9, [0.3, 0.5, 0.29, 0.4])
    found = run(net(), digits, digits, how, 0)
    assert len(found.history) == 3 and found.epoch == 2


def test_adversarial_training_does_not_stop_early(monkeypatch, net, digits):
    judged(monkeypatch, [0.5] * 5, [0.9, 0.0, 0.0])
    assert len(run(net(), digits, digits, regime("AT", epochs=5), 0).history) == 5


def test_a_collapsed_run_that_is_resumed_stays_stopped(monkeypatch, net, digits, tmp_path):
    judged(monkeypatch, [0.5] * 9, [0.5, 0.1])

    def stop(row):
        if row["epoch"] == 2:
            raise Killed

    file, how = tmp_path / "run.pt", regime("FAT", epochs=9)
    with pytest.raises(Killed):
        run(net(), digits, digits, how, 0, checkpoint=file, progress=stop)
    found = run(net(), digits, digits, how, 0, checkpoint=file)
    assert len(found.history) == 2 and found.epoch == 1


def test_without_validation_the_last_epoch_counts(net, digits):
    found = run(net(), digits, None, regime(), 0)
    assert found.epoch == 3 and same(found.selected, found.last)
    assert all(set(row) == {"epoch", "lr", "loss"} for row in found.history)


@pytest.mark.parametrize("epochs", [1, 3])
def test_kept_checkpoints_are_the_start_and_every_epoch(epochs, net, digits):
    states = {}
    found = run(net(), digits, None, regime(epochs=epochs), 0, keep=states.__setitem__)
    assert list(states) == [*range(epochs + 1)]
    assert same(states[0], net().state_dict()) and same(states[epochs], found.last)


# ------------------------------------------------------------------------------------------ streams


def draw(*which):
    return torch.rand(4, generator=generator(*which)).tolist()


def test_every_seed_purpose_and_epoch_has_a_stream_of_its_own():
    drawn = {
        tuple(draw(seed, purpose, epoch))
        for seed in (0, 1, 2)
        for purpose in ("order", "attack", "head")
        for epoch in (0, 1, 2)
    }
    assert len(drawn) == 27 and draw(0, "order", 0) == draw(0, "order", 0)


def test_streams_do_not_shift_each_other_whatever_the_order():
    first = generator(0, "order"), generator(0, "attack")
    torch.rand(1000, generator=first[1])
    torch.manual_seed(3)
    assert torch.rand(4, generator=first[0]).tolist() == draw(0, "order")


def test_training_leaves_torchs_global_generator_alone_and_does_not_heed_it(net, digits):
    model = net()
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = run(model, digits, None, regime("AT", epochs=1), 0)
    assert torch.equal(torch.get_rng_state(), before)
    model = net()
    torch.manual_seed(12)
    assert same(run(model, digits, None, regime("AT", epochs=1), 0).last, one.last)


# ------------------------------------------------------------------------------------------ a batch
# in parts


def parts_step(net, digits, micro_batch_size, attack=None):
    """A network after one step on twelve images, and what `step` returned."""
    model, x, y = without_kinks(net()), digits.floats()[:12], digits.y[:12]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    given = (model.train(), trainer.masked(model, {}), optimiser, x, y, attack, torch_rng())
    return model, trainer.step(*given, micro_batch_size=micro_batch_size)


@pytest.mark.parametrize("attack", [None, PGD2], ids=["ST", "AT"])
def test_a_batch_in_one_part_is_the_batch_to_the_bit(net, digits, attack):
    (whole, loss), (other, same_loss) = (parts_step(net, digits, at, attack) for at in (None, 12))
    assert same(whole.state_dict(), other.state_dict()) and torch.equal(loss, same_loss)


@pytest.mark.parametrize("attack", [None, PGD2], ids=["ST", "AT"])
@pytest.mark.parametrize("micro_batch_size, sizes", [(4, (4, 4, 4)), (5, (4, 4, 4)), (8, (6, 6))])
def test_parts_of_a_batch_sum_to_its_mean_gradient_and_keep_their_own_attack_and_statistics(
    net, digits, attack, micro_batch_size, sizes
):
    model, loss = parts_step(net, digits, micro_batch_size, attack)
    by_hand, losses, rng = without_kinks(net()).train(), [], torch_rng()
    for part, labels in zip(
        digits.floats()[:12].split(sizes), digits.y[:12].split(sizes), strict=True
    ):
        if attack is not None:
            part = attacks.perturb(by_hand, part, labels, attack, rng)
        losses.append(F.cross_entropy(by_hand(part), labels) * len(labels) / 12)
        losses[-1].backward()
    assert torch.allclose(loss, sum(losses))
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, weight in by_hand.named_parameters():
        moved = 0.1 * weight.grad
        assert torch.allclose(
            state[name], weight - moved, rtol=1e-4, atol=1e-5 * moved.abs().max().item()
        ), name
    for name, value in by_hand.named_buffers():
        assert torch.allclose(state[name], value, atol=1e-5), name
