"""Theorems on ranks: training in micro-batches gives the same bits on any number of them."""

import itertools
import multiprocessing
import os
import shutil
import socket

import pytest
import seeds
import torch
import torch.distributed as dist
from torch import nn

from dwlt_lib.attacks.pgd import PGD
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.data.batches import load_images
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.training import ranks, trainer

STEPS2 = {"eps": 0.15, "alpha": 0.075, "steps": 2}
CASES = {
    "ST": {},
    "FAT": {"attack": PGD(0.15, 0.18, 1)},
    "AT": {"attack": PGD(**STEPS2)},
    "AT, BatchNorm in eval mode": {"attack": PGD(**STEPS2, bn="eval")},
    "AT, two starts": {"attack": PGD(**STEPS2, restarts=2)},
    "AT, bf16": {"attack": PGD(**STEPS2, precision="bf16"), "precision": "bf16"},
    "linear probe": {"attack": PGD(**STEPS2), "linear_probe_epochs": 1, "epochs": 1},
}
RESUMED = {"attack": PGD(**STEPS2), "epochs": 3}


class Stopped(Exception):
    """Stands for whatever ends a training after an epoch."""


class FailsOnRank1(nn.Module):
    """A network that one rank has no room for."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 10)

    def forward(self, x):
        if dist.get_rank() == 1:
            raise MemoryError("no room")
        return self.fc(x.flatten(1))


class DrawsItself(nn.Sequential):
    """A network with a layer that draws from torch's global generator."""

    def __init__(self):
        seeds.set_global(0)
        super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 8 * 8, 10))


def train(model=None, progress=None, checkpoint=None, **changes):
    """The state and the losses after training on 108 digits, whose batches have 3 and 2 parts."""
    row = CATALOGUE["digits"]
    if model is None:
        seeds.set_global(0)
        model = architectures.build("resnet8", 10, row.mean, row.std)
    settings = {"epochs": 2, "batch": 64, "micro_batch_size": 24, "lr": 0.1, "momentum": 0.9}
    settings |= {"schedule": "one_cycle", "milestones": (), "weight_decay": 5e-3, **changes}
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), 0.5) if theta else {}
    images = load_images("digits", "train").take(torch.arange(108))
    config = TrainingConfig(**settings)
    given = {"checkpoint": checkpoint, "progress": progress}
    found = trainer.fit(model, m, images, None, config, 0, **given)
    return {**found.last, "losses": torch.tensor([row["loss"] for row in found.history])}


def stop(row):
    raise Stopped


def rank_of(rank, size, port, folder):
    """What one process does: rank 0 trains all cases, the others help it."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = ranks.join("cpu")
    trainer.configure_backend(device)
    if rank > 0:
        raise SystemExit(0 if ranks.follow(device) else 1)
    with pytest.raises(MemoryError, match="^no room$"):
        train(FailsOnRank1())
    found = {name: train(**changes) for name, changes in CASES.items()}
    torch.rand(rank + size)  # whatever was drawn before
    found["dropout"] = train(DrawsItself(), **RESUMED)
    if size == 4:
        with pytest.raises(Stopped):
            train(checkpoint=folder / "checkpoint.pt", progress=stop, **RESUMED)
        shutil.copy(folder / "checkpoint.pt", folder / "first.pt")
    shutil.copy(folder / "first.pt", folder / "checkpoint.pt")
    found["resumed"] = train(checkpoint=folder / "checkpoint.pt", **RESUMED)
    torch.save(found, folder / f"{size}.pt")
    ranks.dismiss()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What four ranks found, and then two, that go on from a checkpoint of the four."""
    folder = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    for size in (4, 2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        given = [(rank, size, port, folder) for rank in range(size)]
        processes = [context.Process(target=rank_of, args=args) for args in given]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
            process.kill()
        assert [process.exitcode for process in processes] == [0] * size
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    """What one process finds; it goes on from the same checkpoint."""
    shutil.copy(folder / "first.pt", folder / "checkpoint.pt")
    found = {name: train(**changes) for name, changes in CASES.items()}
    found["dropout"] = train(DrawsItself(), **RESUMED)
    return {**found, "resumed": train(checkpoint=folder / "checkpoint.pt", **RESUMED)}


@pytest.mark.parametrize("size, name", itertools.product((2, 4), (*CASES, "dropout", "resumed")))
def test_any_number_of_ranks_gives_the_same_bits(size, name, alone, folder):
    found, want = torch.load(folder / f"{size}.pt")[name], alone[name]
    assert found.keys() == want.keys()
    assert [key for key, value in want.items() if not torch.equal(value, found[key])] == []


def test_a_training_that_changes_ranks_is_as_one_that_was_never_stopped(alone):
    never_stopped = train(**RESUMED)
    assert all(torch.equal(value, never_stopped[key]) for key, value in alone["resumed"].items())


@pytest.mark.parametrize("attack", [None, PGD(**STEPS2)], ids=["ST", "AT"])
def test_a_network_in_eval_mode_keeps_its_statistics_to_the_bit(attack, net, digits):
    model = net().eval()
    before = {name: value.clone() for name, value in model.named_buffers()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = digits.floats()[:12], digits.y[:12]
    trainer.step(model, [], optimiser, x, y, attack, seeds.torch_rng(), micro_batch_size=5)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_a_network_without_batchnorm_is_trained_in_micro_batches_too(digits):
    x, y = digits.floats()[:12], digits.y[:12]
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 10))
    whole = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), model[1].weight)[0]
    loss = ranks.accumulate_gradients(model, x, y, None, None, "fp32", 5)
    assert torch.allclose(loss, nn.functional.cross_entropy(model(x), y))
    assert torch.allclose(model[1].weight.grad, whole, atol=1e-6)
