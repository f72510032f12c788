"""The paper's own scale: ResNet-50 at 224 pixels from official layouts, one record of each kind, by
`dwlt run`.

The recipes are the preset's, cut to a step or two; files are generated in the layouts of the real
ones. Twelve minutes on two cores, 15 GiB: `make test-paper`.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import dill
import layout_files
import numpy as np
import pytest
import torch
import yaml
from checkpoint_files import parallel, plain, robust
from safetensors.torch import load_file

from dwlt_lib.models import architectures
from dwlt_lib.models.tensors import fingerprint

pytestmark = pytest.mark.paper
ONE = {"epochs": 1, "schedule": "constant", "milestones": []}
FEW = {**ONE, "batch": 6}
OTHERS = ("train_images", "test_images", "path", "classes")


def checkpoint(path, layout, seed, classes):
    """A ResNet-50 as its authors would publish it, with fresh weights.

    MadryLab's files are dill's.
    """
    torch.manual_seed(seed)
    state = architectures.build("resnet50", classes, (0.5,) * 3, (0.5,) * 3).state_dict()
    torch.save(layout(state), path, **({"pickle_module": dill} if layout is robust else {}))
    return path


def dwlt(home, *arguments):
    """What a command printed, and the time and memory that it took, in words; it must succeed."""
    environment = {
        **os.environ,
        "DWLT_DATA": str(home / "data"),
        "DWLT_OUTPUTS": str(home / "outputs"),
        "OMP_NUM_THREADS": "1",
    }
    began, log = time.time(), home / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from dwlt_lib.cli.main import main; main()",
                *map(str, arguments),
            ],
            stdout=file,
            stderr=file,
            env=environment,
        )
        _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()
    return (
        log.read_text(),
        (
            f"{time.time() - began:.0f} s ({used.ru_utime + used.ru_stime:.0f} s of processor),"
            f" peak {used.ru_maxrss / 2**20:.1f} GiB"
        ),
    )


def imported(home, source, layout, seed, classes):
    """The official-looking checkpoint after `dwlt weights import`, where a study looks for it."""
    folder = home / "data" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    raw = checkpoint(home / f"{source}.pth", layout, seed, classes)
    out = folder / f"{source}.safetensors"
    said, used = dwlt(home, "weights", "import", raw, "--as", source, "--out", out)
    assert "a resnet50" in said
    print(f"weights import --as {source}: {used}")


def run(home, study):
    """Runs the study inline; {kind: its records' contents}.

    Everything must be there, finite and undamaged.
    """
    path = home / f"{study['name']}.yaml"
    path.write_text(yaml.safe_dump(study))
    said, used = dwlt(home, "run", path, "--executor", "inline", "--device", "cpu")
    print(f"{said}{study['name']}: {used}")
    dwlt(home, "verify"), dwlt(home, "status", path)
    found = {}
    for file in sorted((home / "outputs").glob("records/*/*/record.json")):
        content = json.loads(file.read_bytes()) | {"path": file.parent}
        found.setdefault(content["kind"], []).append(content)
        assert all(math.isfinite(value) for value in content["metrics"].values()), content["label"]
        for epoch in content["history"]:
            assert math.isfinite(epoch["loss"]), content["label"]
    for content in found["mask"]:
        assert content["metrics"]["sparsity"] == pytest.approx(
            1 - 0.8 ** content["columns"]["rounds"], abs=1e-6
        )
    for content in found["pretraining"]:
        if "theta" in content["spec"]:
            state = load_file(content["path"] / "weights.safetensors")
            assert fingerprint(state) == content["spec"]["theta"]
    return found


def row(found):
    """What of a generated data set's row differs from the catalogue's, at its own size."""
    return {name: getattr(found, name) for name in OTHERS}


def what_this_processor_can() -> tuple[int, str]:
    """Images a batch and the precision; DWLT_TEST_PRECISION=fp32 or bf16 asks for the other one."""
    about = Path("/proc/cpuinfo")
    flags = about.read_text(encoding="utf-8") if about.exists() else ""
    if asked := os.environ.get("DWLT_TEST_PRECISION"):
        return 32, asked
    return (128 if "amx_bf16" in flags else 32), ("bf16" if "bf16" in flags else "fp32")


def test_robust_weights_transfer_by_pgd_10_in_batches(tmp_path):
    """MadryLab's file with its thousand classes, OMP (ImageNet is not here), photographs of 224
    pixels, PGD-20.

    Two steps, of 128 pictures in bf16 where the processor has tiles for it; elsewhere 32 take as
    long.
    """
    batch, precision = what_this_processor_can()
    imported(tmp_path, "at", robust, 0, 1000)
    rng = np.random.default_rng(0)
    for split, count in (("train", 2 * batch), ("test", 4)):
        np.savez(
            tmp_path / "data" / f"photos_{split}.npz",
            labels=np.arange(count) % 10,
            images=rng.integers(0, 256, (count, 224, 224, 3), dtype=np.uint8),
        )
    photos = {
        "loader": "npz",
        "path": "photos_{split}.npz",
        "classes": 10,
        "size": 224,
        "augment": ["crop", "flip"],
        "train_images": 2 * batch,
        "test_images": 4,
    }
    grid = {
        "pretraining": ["AT"],
        "method": ["OMP"],
        "dataset": ["photos"],
        "regime": ["AT"],
        "rounds": [6],
        "seeds": [0],
    }
    found = run(
        tmp_path,
        {
            "name": "batches",
            "arch": "resnet50",
            "source": "imagenet",
            "precision": precision,
            "weights": {"AT": "at.safetensors"},
            "transfer": {"AT": {**ONE, "batch": batch}},
            "data": {"photos": photos},
            "grid": [grid],
        },
    )
    dense, ticket = sorted(found["transfer"], key=lambda content: content["columns"]["rounds"])
    for content in (dense, ticket):
        recipe = content["spec"]["recipe"]
        assert (recipe["attack"]["steps"], recipe["batch"]) == (10, batch)
        assert content["metrics"]["train_images"] == 2 * batch
        assert content["spec"]["evaluation"]["steps"] == 20
    assert sorted(content["spec"]["rounds"] for content in found["mask"]) == [1, 2, 3, 4, 5, 6]


def test_every_kind_of_record_from_imagenets_cubs_and_visdas_layouts(tmp_path, monkeypatch):
    """IMP-ST and IMP-AT retrain on the source, tickets go to CUB-200 and VisDA-17 by ST and AT,
    then surfaces, trajectories and transfer attacks."""
    monkeypatch.setattr(layout_files, "SCALE", 8)
    data = tmp_path / "data"
    rows = {
        "imagenet": row(layout_files.imagenet(data / "imagenet")),
        "cub200": row(layout_files.cub(data / "cub")),
        "visda17": row(layout_files.visda(data / "visda")),
    }
    for source, layout, seed in (("std", plain, 1), ("fat", parallel, 2), ("at", robust, 3)):
        imported(tmp_path, source, layout, seed, 3)
    ticket = {
        "pretraining": ["AT"],
        "method": ["IMP-AT"],
        "dataset": ["cub200"],
        "regime": ["AT"],
        "rounds": [2],
        "seeds": [0],
    }
    found = run(
        tmp_path,
        {
            "name": "kinds",
            "arch": "resnet50",
            "source": "imagenet",
            "data": rows,
            "evaluation_steps": 2,
            "weights": {p: f"{p.lower()}.safetensors" for p in ("STD", "FAT", "AT")},
            "retraining": {"IMP-ST": FEW, "IMP-AT": FEW},
            "transfer": {"ST": FEW, "FAT": FEW, "AT": FEW},
            "overrides": [
                {"dataset": "cub200", "regime": "AT", "recipe": {"epochs": 2}}
            ],  # two make a trajectory
            "grid": [
                {**ticket, "regime": ["ST", "AT"]},
                {
                    **ticket,
                    "pretraining": ["STD"],
                    "method": ["IMP-ST"],
                    "dataset": ["visda17"],
                    "regime": ["ST", "AT"],
                },
                {
                    **ticket,
                    "pretraining": ["FAT"],
                    "method": ["RP"],
                    "dataset": ["visda17"],
                    "regime": ["FAT"],
                    "rounds": [1],
                },
            ],
            "landscape": {"points": 3, "count": 2},
            "landscapes": [ticket],
            "surrogate": {"arch": "resnet18", "recipe": FEW},
            "transfer_attacks": [ticket],
        },
    )
    retrained = {
        content["columns"]["method"]: content for content in found["mask"] if content["history"]
    }
    assert retrained.keys() == {"IMP-ST", "IMP-AT"}
    assert retrained["IMP-AT"]["spec"]["retrain"]["attack"]["steps"] == 3
    assert all(0 <= content["metrics"]["SA_source"] <= 1 for content in retrained.values())
    tasks = {
        (content["columns"]["dataset"], content["columns"]["regime"])
        for content in found["transfer"]
    }
    assert tasks == {
        ("cub200", "ST"),
        ("cub200", "AT"),
        ("visda17", "ST"),
        ("visda17", "FAT"),
        ("visda17", "AT"),
    }
    assert {kind: len(contents) for kind, contents in found.items()} == {
        "pretraining": 4,
        "mask": 5,
        "transfer": 10,
        "surface": 2,
        "trajectory": 2,
        "attack": 1,
    }
