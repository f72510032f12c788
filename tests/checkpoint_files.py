"""Checkpoints of theta_p in the layouts that their authors publish, out of any network's state
dictionary.
"""

import json
import os
import subprocess
import sys
from collections import OrderedDict

import torch
from seeds import set_global

from dwlt_lib.models import architectures
from dwlt_lib.records.store import checkout

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def trained_state(arch="resnet8", classes=10):
    """A network's state as training leaves it: no two entries alike, counters above 0."""
    set_global(3)
    model = architectures.build(arch, classes, (0.5,) * 3, (0.5,) * 3)
    state = OrderedDict((name, part.clone()) for name, part in model.state_dict().items())
    for name, part in state.items():
        part.copy_(
            torch.full_like(part, 7) if name.endswith("tracked") else torch.randn(part.shape)
        )
    return state


def same_tensors(a, b):
    """Same names in the same order, same types, same values."""
    return list(a) == list(b) and all(
        part.dtype == b[name].dtype and torch.equal(part, b[name]) for name, part in a.items()
    )


def safetensors_file(header, data=b""):
    """A safetensors file by hand."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def plain(state):
    return state


def parameters(state):
    """As torchvision's older files: what is trained is a Parameter."""
    return OrderedDict(
        (
            name,
            torch.nn.Parameter(part)
            if "running" not in name and part.is_floating_point()
            else part,
        )
        for name, part in state.items()
    )


def robust(state, key="model"):
    """As robust-models-transfer and MadryLab's robustness.

    The attacker holds the same network once more.
    """
    found = OrderedDict(
        {
            "module.normalizer.new_mean": MEAN.view(3, 1, 1),
            "module.normalizer.new_std": STD.view(3, 1, 1),
        }
    )
    found |= {f"module.model.{name}": part for name, part in state.items()}
    found |= {
        "module.attacker.normalize.new_mean": MEAN.view(3, 1, 1).clone(),
        "module.attacker.normalize.new_std": STD.view(3, 1, 1).clone(),
    }
    found |= {f"module.attacker.model.{name}": part.clone() for name, part in state.items()}
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 50)
    return {
        key: found,
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "epoch": 90,
        "nat_prec1": torch.tensor(47.91),
        "adv_prec1": torch.tensor(33.06),
    }


def older_robust(state):
    return robust(state, "state_dict")


def parallel(state):
    """As fast_adversarial: a DataParallel network beside epoch, arch, best_prec1 and optimizer."""
    rest = robust(state)
    return {
        "epoch": 15,
        "arch": "resnet50",
        "state_dict": OrderedDict((f"module.{name}", part) for name, part in state.items()),
        "best_prec1": torch.tensor(55.62),
        "optimizer": rest["optimizer"],
    }


def normalised(state, prefix=""):
    """As RobustBench and Singh et al. 2023: a normaliser, then the network."""
    found = OrderedDict({f"{prefix}model.{name}": part for name, part in state.items()})
    statistics = {"mean": MEAN.view(1, 3, 1, 1), "std": STD.view(1, 3, 1, 1)}
    return found | {f"{prefix}normalize.{name}": part for name, part in statistics.items()}


READER = """if True:
    import json, resource, sys, time
    import torch
    from dwlt_lib.models import checkpoints, imported
    from dwlt_lib.pruning import tickets
    read = eval(sys.argv[1])
    def most():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for path in sys.argv[2:]:  # the first is sound: what reading needs is imported then
        before, began = most(), time.process_time()
        try:
            read(path)
            said = None
        except ValueError as error:
            said = str(error)
        print(json.dumps([said, time.process_time() - began, most() - before]), flush=True)
    """


def outcomes(read, sound, paths):
    """(what was said, seconds of processor time, bytes more than ever before) of each path.

    read: an expression, given `weights`; all paths are read in one process of their own, after
    `sound`, which has to be read. Whatever happens to that process, this one lives.
    """
    done = subprocess.run(
        [sys.executable, "-c", READER, read, sound, *paths],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        cwd=checkout(),
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(found) == 1 + len(paths), (len(found), done.stderr[-2000:])
    assert found[0][0] is None, found[0]
    return found[1:]


def refused_in_a_line(read, sound, paths):
    """{name: what was said}: every path was refused in one line, in 2 s, all in 200 MB."""
    found = dict(zip(paths, outcomes(read, sound, list(paths.values())), strict=True))
    for name, (said, seconds, _) in found.items():
        assert said is not None, f"{name}: was taken"
        assert "\n" not in said and len(said) < 800 and str(paths[name])[:50] in said, (name, said)
        assert seconds < 2, (name, seconds)
    assert sum(more for _, _, more in found.values()) < 200e6, found
    return {name: said for name, (said, _, _) in found.items()}


def pretend(folder):
    """{name: path} of what is no file: its reading would wait or never end."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "a link to a pipe").symlink_to(folder / "pipe")
    (folder / "a link in a circle").symlink_to(folder / "a link in a circle")
    with open(folder / "zeros", "wb") as file:
        file.truncate(2**31 - 1)  # a hole, no bytes
    (folder / "empty").touch()
    names = (
        "pipe",
        "folder",
        "a link to a pipe",
        "a link in a circle",
        "zeros",
        "empty",
        "missing",
    )
    return {"/dev/zero": "/dev/zero", "/dev/stdin": "/dev/stdin"} | {
        name: str(folder / name) for name in names
    }
