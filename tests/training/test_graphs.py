"""Theorems on captured steps, with a stand-in for CUDA that records a step and runs it again on its
buffers.
"""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from dwlt_lib.attacks.pgd import PGD
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.training import graphs, trainer

PGD2 = PGD(0.15, 0.075, 2)


def fit(model, m, train, validation, config, seed, **settings):
    """`trainer.fit`, whose adversarial training is validated by PGD-2."""
    eval_attack = PGD2 if config.attack else None
    return trainer.fit(model, m, train, validation, config, seed, eval_attack, **settings)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def cuda(monkeypatch):
    """What `captured` asks of torch.cuda; works.

    The last step, what it was given and what it returned.
    """
    found = SimpleNamespace(captures=0, replays=0, pools=[], fails=False, works={})

    class Graph:
        def replay(self):
            found.replays += 1
            work, given, returned = self.work
            for old, new in zip(returned, work(*given), strict=True):
                old.copy_(new)

    @contextmanager
    def graph(one, pool=None):
        found.pools.append(pool)
        if found.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nat a line of C++")
        found.captures += 1
        yield
        one.work = found.works["last"]

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(),
        "CUDAGraph": Graph,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def places(model, optimiser):
        kept = [part for one in trainer._WARM.values() for part in one.masked_parameters[1]]
        moving = [
            value
            for state in optimiser.state.values()
            for value in state.values()
            if value is not None
        ]
        rates = [
            group["lr"] for group in optimiser.param_groups if isinstance(group["lr"], torch.Tensor)
        ]
        return [
            value.data_ptr()
            for value in (*model.parameters(), *model.buffers(), *kept, *moving, *rates)
        ]

    def recorded(work, model, optimiser, *others):
        def noted(*given):
            returned = work(*given)
            found.works["last"] = work, given, returned
            return returned

        def checked(*given):
            assert places(model, optimiser) == known, (
                "a graph's tensor was replaced: it would not see the new one"
            )
            return replay(*given)

        replay = graphs.captured(noted, model, optimiser, *others)
        known = places(model, optimiser)
        return replay and checked

    monkeypatch.setattr(trainer, "captured", recorded)
    monkeypatch.setattr(trainer, "_WARM", {})
    return found


@pytest.fixture
def trained(net, digits):
    """A network after two steps, so that there are statistics and momenta.

    Its mask, optimiser and a batch.
    """
    model = net().train()
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    kept = trainer.masked(model, masks.magnitude_prune(theta, masks.dense_mask(theta), 0.5))
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-3, fused=True
    )
    x, y = digits.floats()[:32], digits.y[:32]
    for _ in range(2):
        trainer.step(model, kept, optimiser, x, y, None, None)
    return model, kept, optimiser, x, y


def momenta(model, optimiser):
    return {
        name: optimiser.state[weight]["momentum_buffer"].clone()
        for name, weight in model.named_parameters()
    }


@pytest.mark.parametrize("fails", [False, True])
def test_capturing_leaves_model_and_optimiser_as_it_found_them(cuda, trained, fails, caplog):
    model, kept, optimiser, x, y = trained
    state, moving = (
        {name: value.clone() for name, value in model.state_dict().items()},
        momenta(model, optimiser),
    )
    cuda.fails = fails

    def work(x, y, start):
        return trainer.step(model, kept, optimiser, x, y, PGD2, None, start=start)

    assert (
        trainer.captured(work, model, optimiser, x, y, torch.zeros_like(x), (0, 7)) is None
    ) == fails
    assert (
        same(model.state_dict(), state)
        and same(momenta(model, optimiser), moving)
        and cuda.pools == [(0, 7)]
    )
    assert caplog.text.count("step by step") == fails


def test_before_the_first_step_momenta_are_zero_which_is_the_same_as_none(cuda, net, digits):
    model = net().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)

    def work(x, y, start):
        return trainer.step(
            model, trainer.masked(model, {}), optimiser, x, y, None, None, start=start
        )

    x = digits.floats()[:8]
    trainer.captured(work, model, optimiser, x, digits.y[:8], torch.zeros_like(x))
    assert all((value == 0).all() for value in momenta(model, optimiser).values())


def regime(name, **changes):
    attack = {"ST": None, "FAT": PGD(0.15, 0.18, 1), "AT": PGD2}[name]
    settings = dict(
        epochs=2,
        batch=64,
        lr=0.1,
        schedule="one_cycle",
        milestones=(),
        momentum=0.9,
        weight_decay=5e-3,
        attack=attack,
    )
    return TrainingConfig(**{**settings, **changes})


def mask(model, fraction):
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    return masks.magnitude_prune(theta, masks.dense_mask(theta), fraction)


def alike(found, wanted):
    return (
        found.history == wanted.history
        and same(found.last, wanted.last)
        and same(found.selected, wanted.selected)
    )


@pytest.mark.parametrize("name", ["ST", "FAT", "AT"])
@pytest.mark.parametrize("fails", [False, True])
def test_training_by_replays_ends_with_the_same_bits(cuda, net, digits, name, fails, monkeypatch):
    train, validation = (
        digits.take(torch.arange(150)),
        digits.take(torch.arange(150, 250)),
    )  # batches of 64, 64, 22
    m = mask(net(), 0.5)
    wanted = fit(net(), m, train, validation, regime(name), 7)
    monkeypatch.setattr(trainer, "_capturable", lambda x: True)
    cuda.fails, model = fails, net()
    found = fit(model, m, train, validation, regime(name), 7)
    assert (cuda.captures, cuda.replays) == ((0, 0) if fails else (1, 4))
    assert alike(found, wanted) and same(model.state_dict(), wanted.last) and model.training


def test_a_probe_and_every_eps_have_captured_steps_of_their_own(cuda, net, digits, monkeypatch):
    train = digits.take(torch.arange(150))  # batches of 64, 64, 22
    how = regime("AT", epochs=4, linear_probe_epochs=1, eps_warmup=0.5)
    m = mask(net(), 0.5)
    wanted = fit(net(), m, train, None, how, 7)
    monkeypatch.setattr(trainer, "_capturable", lambda x: True)
    for captures in (4, 3):  # the head's, eps 0 and a half; eps itself, which stays captured
        cuda.captures = 0
        assert alike(fit(net(), m, train, None, how, 7), wanted) and cuda.captures == captures


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_tickets_one_after_another_share_a_captured_step_and_nothing_else(
    cuda, net, digits, momentum, monkeypatch, tmp_path
):
    """Other weights, mask, normalisation, seed, rate and length.

    One is interrupted, and resumed after another.
    """
    train, validation = digits.take(torch.arange(150)), digits.take(torch.arange(150, 250))

    def one(seed, **settings):
        model = net(seed)
        model.set_normalisation((0.1 * seed,) * 3, (0.3 + seed,) * 3)
        how = regime("AT", epochs=2 + seed, lr=0.1 / (1 + seed), momentum=momentum)
        return fit(model, mask(model, 0.2 * seed), train, validation, how, seed, **settings)

    wanted = [one(seed) for seed in range(3)]
    monkeypatch.setattr(trainer, "_capturable", lambda x: True)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one(2, checkpoint=tmp_path / "run.pt", progress=stop)
    assert alike(one(0), wanted[0]) and alike(one(1), wanted[1])
    assert alike(one(2, checkpoint=tmp_path / "run.pt"), wanted[2])
    assert cuda.captures == 1
    fit(net(), mask(net(), 0.5), train, None, regime("ST", epochs=1), 0)  # of another kind
    assert cuda.captures == 2 and len(trainer._WARM) == 1
