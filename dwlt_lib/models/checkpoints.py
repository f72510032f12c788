"""theta_p out of its authors' checkpoints.

Which layout, which network, and nothing but that network's tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dwlt_lib import files
from dwlt_lib.models import architectures, containers
from dwlt_lib.models.containers import Contents
from dwlt_lib.models.pickles import BadCheckpoint, Inert, Stored, plain
from dwlt_lib.models.tensors import Weights, fingerprint

# theta_p by --as: its name in the paper's figures, the layout that its authors publish, and whose
# that is
SOURCES = {
    "std": ("STD", "plain", "torchvision"),
    "at": ("AT", "robustness", "microsoft/robust-models-transfer or MadryLab/robustness"),
    "fat": ("FAT", "parallel", "locuslab/fast_adversarial"),
}
NORMALISERS = {
    f"{of}.new_{what}" for of in ("normalizer", "attacker.normalize") for what in ("mean", "std")
}
MOST_CLASSES = 100_000
# BatchNorm's; torch before 0.4.1 has none, and nothing reads it with a momentum
COUNTER = "num_batches_tracked"
Demand = dict[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Checkpoint:
    """theta_p. weights: {torchvision's name: (*shape,)} in the network's order; about.

    Its provenance.
    """

    weights: Weights
    about: dict[str, Any]


def read_checkpoint(path: str | Path, source: str, arch: str | None = None) -> Checkpoint:
    """theta_p and its provenance out of an official checkpoint, as `weights.import_checkpoint`
    describes it.
    """
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: want one of {', '.join(SOURCES)}")
    if arch is not None and arch not in architectures.ARCHITECTURES:
        raise ValueError(f"arch={arch!r}: want one of {', '.join(architectures.ARCHITECTURES)}")
    try:
        path = files.regular(path)
    except ValueError as error:
        raise BadCheckpoint(f"{error} that torch.save wrote") from error
    try:
        if (size := path.stat().st_size) > containers.MOST_BYTES:
            raise BadCheckpoint(
                f"{size:,} bytes, more than any checkpoint of these networks; want an official one"
            )
        with open(path, "rb") as file:
            containers.recognise(file.read(512), size)  # before it is read whole
            file.seek(0)
            data = file.read(size)
        contents = containers.parse(data)
        described, layout, normalisers = _network_of(contents, source)
        arch, wanted = _fitting({name: part.shape for name, part in described.items()}, arch)
        weights = {
            name: _values(contents, name, described[name], dtype)
            if name in described
            else torch.zeros(shape, dtype=dtype)  # a counter
            for name, (shape, dtype) in wanted.items()
        }
        counted = any(name.endswith(COUNTER) for name in described)
        about = {
            "pretraining": SOURCES[source][0],
            "source": source,
            "arch": arch,
            "classes": len(weights["fc.bias"]),
            "layout": layout,
            "container": contents.container,
            "file": path.name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "counters": "in the file" if counted else "absent, so 0",
            "unread": list(contents.unread),
            **_normalisation(contents, normalisers),
            "theta": fingerprint(weights),
        }
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    return Checkpoint(weights, about)


def _network_of(
    contents: Contents, source: str
) -> tuple[dict[str, Stored], str, dict[str, Stored]]:
    """(the network's tensors by torchvision's name, the layout, the normalisers' tensors), still
    described only.
    """
    state = _state_dictionary(contents.root)
    layout = "plain"
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): part for name, part in state.items()}
        layout = "parallel"
    if any(name.startswith("model.") for name in state):
        layout = "robustness"
    if layout != SOURCES[source][1]:
        usual = next(key for key, (_, its, _) in SOURCES.items() if its == layout)
        raise BadCheckpoint(
            f"its keys, as {plain(next(iter(state)))}, lie as in {SOURCES[usual][2]}; --as {source}"
            f" wants them as in {SOURCES[source][2]}: say --as {usual}, or take the other file"
        )
    if layout != "robustness":
        return state, layout, {}
    network, normalisers = {}, {}
    for name, part in state.items():
        twin = state.get(name.removeprefix("attacker."))
        if name in NORMALISERS:
            normalisers[name] = part
        elif name.startswith("attacker.model.") and twin is not None:
            if twin != part and not _same(contents, twin, part):
                raise BadCheckpoint(
                    f"{plain(name)} differs from the weight that it should be a copy of; want the "
                    "file from its official source"
                )
        elif name.startswith("model."):
            network[name.removeprefix("model.")] = part
        else:
            raise BadCheckpoint(f"not exactly a network and its attacker; extra: {plain(name)}")
    return network, layout, normalisers


def _state_dictionary(root: object) -> dict[str, Stored]:
    """The state dictionary that a file holds, plain or in a wrapper: tensors by name."""
    state = root
    for wrapper in ("state_dict", "model"):
        if isinstance(root, dict) and wrapper in root:
            state = root[wrapper]
    if not isinstance(state, dict) or not state:
        raise BadCheckpoint(
            f"holds {_kind(state)}; want a state dictionary, plain or under model or state_dict"
        )
    for name, part in state.items():
        if type(name) is not str:
            raise BadCheckpoint(
                f"a key of its state dictionary is no text ({type(name).__name__}); want names"
            )
        if not isinstance(part, Stored):
            raise BadCheckpoint(
                f"{plain(name)} is {_kind(part)}; want tensors by name in its state dictionary"
            )
    return state


def _kind(value: object) -> str:
    return f"an object of {value.of}" if isinstance(value, Inert) else type(value).__name__


def _same(contents: Contents, a: Stored, b: Stored) -> bool:
    alike = a.shape == b.shape and a.storage.dtype == b.storage.dtype
    return alike and torch.equal(contents.tensor(a), contents.tensor(b))


def _fitting(shapes: dict[str, tuple[int, ...]], arch: str | None) -> tuple[str, Demand]:
    """The network that fits best (or `arch`) and what it demands: {name: (shape, dtype)}.

    Refuses what differs; counters may be absent together.
    """
    head = shapes.get("fc.weight", ())
    classes = head[0] if len(head) == 2 and 0 < head[0] <= MOST_CLASSES else 1000

    def fit(name: str) -> int:
        wanted = demand(name, classes)
        return 2 * sum(shapes.get(key) == shape for key, (shape, _) in wanted.items()) - len(wanted)

    arch = arch or max(architectures.ARCHITECTURES, key=fit)  # the first of equals
    wanted = demand(arch, classes)
    counted = any(name.endswith(COUNTER) for name in shapes)
    wrong = differences(
        shapes,
        {name: of for name, (of, _) in wanted.items() if counted or not name.endswith(COUNTER)},
    )
    if wrong:
        raise BadCheckpoint(f"not exactly a {arch} with {classes} classes; {wrong}")
    return arch, wanted


def differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """What tells two {name: shape} apart, by name; "" if nothing does."""
    lists = {
        "missing": [name for name in wanted if name not in found],
        "extra": [plain(name) for name in found if name not in wanted],
        "misshapen": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in wanted.items()
            if found.get(name, shape) != shape
        ],
    }
    return "; ".join(f"{what}: {few(names)}" for what, names in lists.items() if names)


@cache
def demand(arch: str, classes: int) -> Demand:
    """The state of that network: {name: (shape, dtype)}, without building one."""
    with torch.device("meta"):
        model = architectures.build(arch, classes, (0.5,) * 3, (0.5,) * 3)
    return {name: (tuple(part.shape), part.dtype) for name, part in model.state_dict().items()}


def few(names: list[str]) -> str:
    """The first three of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _values(contents: Contents, name: str, stored: Stored, dtype: torch.dtype) -> Tensor:
    if stored.storage.dtype != dtype:
        raise BadCheckpoint(
            f"{name} is {stored.storage.dtype}; want {dtype} (rounding theta_p is not ours to"
            " choose)"
        )
    values = contents.tensor(stored)
    if dtype.is_floating_point and not bool(torch.isfinite(values).all()):
        raise BadCheckpoint(f"{name} holds a NaN or an infinity; want finite weights")
    return values


def _normalisation(contents: Contents, normalisers: dict[str, Stored]) -> dict[str, list[float]]:
    """mean and std as the file's own normalisers have them, to be compared with the source's.

    Empty without any.
    """
    found: dict[str, list[float]] = {}
    for name, stored in normalisers.items():
        key = name.rsplit("new_", 1)[1]
        if stored.shape not in ((3, 1, 1), (3,), (1, 3, 1, 1)):
            raise BadCheckpoint(f"{name} {stored.shape}: want a number a channel, (3, 1, 1)")
        values = [
            round(value, 6)
            for value in _values(contents, name, stored, torch.float32).flatten().tolist()
        ]
        if found.setdefault(key, values) != values:
            raise BadCheckpoint(
                f"{name} {values} differs from the other normaliser's {found[key]}; want one"
            )
    return found
