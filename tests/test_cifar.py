"""CIFAR-10 itself, through the packed-array door, where packs lie beside the checkout."""

import io

import numpy as np
import pytest
from PIL import Image

from dwlt_lib.config import planning
from dwlt_lib.execution import make
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

PACKS = store.checkout().parent / "shared" / "data"


def unpacked(path):
    """A pack's images uint8 (N,32,32,3) and labels (N,).

    Chunks are PNGs or JPEGs, each a grid of pictures.
    """
    with np.load(path, allow_pickle=False) as pack:
        side, columns, y = int(pack["side"]), int(pack["cols"]), pack["y"]
        tiles = []
        for key in sorted(key for key in pack.files if key.startswith("chunk_")):
            grid = np.asarray(Image.open(io.BytesIO(pack[key].tobytes())).convert("RGB"))
            tiles.append(
                grid.reshape(-1, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
            )
        return np.concatenate(tiles)[: len(y)], y.astype(np.int64)


STUDY = """
name: cifar
arch: resnet8
source: mnist5k
evaluation_steps: 2
pretraining: {STD: {epochs: 1, batch: 64, lr: 0.1, schedule: one_cycle}}
transfer: {ST: {epochs: 4, batch: 64, lr: 0.2, schedule: one_cycle, milestones: []}}
data:
  cifar10: {loader: npz, path: "PLACE/cifar10_{split}.npz", train_images: 4000, test_images: 500}
grid:
  - {pretraining: [STD], method: [OMP], dataset: [cifar10], regime: [ST], rounds: [2], seeds: [0]}
"""


@pytest.mark.skipif(
    not (PACKS / "cifar10_train_a.npz").exists(), reason="no packs of CIFAR-10 beside the checkout"
)
def test_a_ticket_learns_cifar10_far_better_than_chance(tmp_path, outputs):
    for split, name, count in (("train", "cifar10_train_a", 4000), ("test", "cifar10_test_a", 500)):
        x, y = unpacked(PACKS / f"{name}.npz")
        np.savez(tmp_path / f"cifar10_{split}.npz", images=x[:count], labels=y[:count])
    (tmp_path / "cifar.yaml").write_text(STUDY.replace("PLACE", str(tmp_path)), encoding="utf-8")
    study = read_study(tmp_path / "cifar.yaml")
    ticket = planning.transfer(study, "STD", "OMP", "cifar10", 1.0, "ST", 2, 0)
    make.make(ticket)
    metrics = store.read(ticket).metrics
    assert metrics["SA"] > 0.3 and metrics["sparsity"] == pytest.approx(
        0.36, abs=1e-3
    )  # chance is 0.1
