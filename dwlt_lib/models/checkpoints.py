"""theta_p out of its authors' checkpoints, and as a safetensors file with its provenance.

Whatever the layout of a checkpoint, exactly one network's tensors come out; nothing in it is run
(`pickles`). The safetensors file is what `dwlt weights import` writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dwlt_lib import files
from dwlt_lib.config.network_names import canonical, is_packaged
from dwlt_lib.models import tensor_files, torch_files
from dwlt_lib.models.architectures import (
    ARCHITECTURES,
    MAX_CLASSES,
    StateLayout,
    head_name,
    state_layout,
)
from dwlt_lib.models.imported import FORMAT, WRITER, is_sha256
from dwlt_lib.models.messages import describe_differences, printable
from dwlt_lib.models.pickles import CheckpointError, InertObject, StoredTensor
from dwlt_lib.models.tensor_files import Header
from dwlt_lib.models.tensors import Weights, fingerprint
from dwlt_lib.models.torch_files import TorchFile


@dataclass(frozen=True)
class Source:
    """Who published a checkpoint, and how it is laid out."""

    pretraining: str
    """The paper's name of theta_p: STD, FAT or AT."""
    layout: str
    """plain (torchvision's keys), parallel (behind module.), robustness (behind module.model.,
    beside an attacker and normalisers) or any (plain, or behind module., model. or both, perhaps
    beside a normaliser)."""
    publisher: str
    """Whose files have this layout."""
    raw: bool = False
    """Whether the network sees pixels in [0,1] as they are, where the file does not tell."""


SOURCES = {
    "std": Source("STD", "plain", "torchvision"),
    "at": Source("AT", "robustness", "microsoft/robust-models-transfer or MadryLab/robustness"),
    "fat": Source("FAT", "parallel", "locuslab/fast_adversarial"),
    "robustbench": Source("AT", "any", "RobustBench, thu-ml/ares or nmndeep/revisiting-at"),
    "robustbench-raw": Source("AT", "any", "RobustBench or nmndeep/revisiting-at", raw=True),
}
"""By the value of `dwlt weights import --as`."""

STATISTICS = {"normalizer.new_mean": "mean", "normalizer.new_std": "std"}
"""What a normaliser subtracts and divides by, as robustness files name it."""
COUNTER = "num_batches_tracked"  # BatchNorm's; files of torch before 0.4.1 have none

FILE_TYPES = {
    torch.float32: "F32",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in the header of a safetensors file."""

NETWORK_CHECKS = {
    "arch": is_packaged,
    "classes": lambda value: type(value) is int and 0 < value <= MAX_CLASSES,
    "theta": is_sha256,
}
"""Which values a description of a network may have (`tensor_files.check_values`)."""

StoredState = dict[str, StoredTensor]


@dataclass(frozen=True)
class Checkpoint:
    """theta_p with its provenance."""

    weights: Weights
    """A whole state dictionary by torchvision's names, in the network's order."""
    about: dict[str, Any]
    """pretraining, arch, classes, the file's name and sha256, theta (the hash of the weights)..."""


def import_checkpoint(path: str | Path, source: str, arch: str | None = None) -> Weights:
    """theta_p out of an official checkpoint, bit for bit.

    Example: `import_checkpoint("resnet50-0676ba61.pth", "std")`.

    Where all of BatchNorm's counters are absent, as in old files, they are 0. Nothing in the file
    is ever run.

    Args:
        path: the file, written by torch.save with pickle or dill.
        source: std (torchvision's plain keys), at (MadryLab's and Microsoft's: `model` or
            `state_dict` with module.model.*, with copies under module.attacker.model.*, which must
            agree, and normalisers, which are dropped), fat (fast_adversarial's: `state_dict` with
            module.*) or robustbench (RobustBench's, ARES's and those of Singh et al. 2023: plain,
            or with module.* or model.*, perhaps with a normaliser, which is dropped; -raw where the
            network sees pixels in [0,1] as they are).
        arch: the network that it must be, as `models.build` takes it; None takes the one of
            `models.ARCHITECTURES` that the keys fit best.

    Returns:
        Exactly the network's tensors by torchvision's names, float32 and finite.

    Raises:
        CheckpointError: a ValueError of one line that names what is missing, extra or misshapen.
        ValueError: there is no such source or architecture.
    """
    return read_checkpoint(path, source, arch).weights


def read_checkpoint(path: str | Path, source: str, arch: str | None = None) -> Checkpoint:
    """theta_p and its provenance out of an official checkpoint.

    Args:
        path: the file, as `import_checkpoint` takes it.
        source: a key of `SOURCES`.
        arch: the network that it must be; None takes the one that the keys fit best.

    Returns:
        The network's tensors, and what is known of the file they came from.

    Raises:
        CheckpointError: a ValueError of one line that names what is missing, extra or misshapen.
        ValueError: there is no such source or architecture.
    """
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: want one of {', '.join(SOURCES)}")
    if arch is not None:
        arch = canonical(arch)
    try:
        return _checkpoint(Path(path).name, _read_bytes(path), source, arch)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_bytes(path: str | Path) -> bytes:
    size = files.regular(path).stat().st_size
    if size > torch_files.MAX_BYTES:
        raise CheckpointError(
            f"{size:,} bytes, more than any checkpoint of these networks; want an official one"
        )
    with open(path, "rb") as file:
        torch_files.check_start(file.read(512))
        file.seek(0)
        return file.read(size)


def _checkpoint(name: str, data: bytes, source: str, arch: str | None) -> Checkpoint:
    file = torch_files.read_torch_file(data)
    state, statistics = _network_state(file, source)
    arch, layout = _matching_architecture(state, arch)
    raw = {"mean": [0.0] * 3, "std": [1.0] * 3} if SOURCES[source].raw else {}
    weights = {
        name: _finite_values(file, name, state[name], dtype)
        if name in state
        else torch.zeros(shape, dtype=dtype)  # a counter
        for name, (shape, dtype) in layout.items()
    }
    about = {
        "pretraining": SOURCES[source].pretraining,
        "source": source,
        "arch": arch,
        "classes": len(weights[f"{head_name(arch)}.weight"]),
        "file": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "counters": "in the file" if _has_counters(state) else "absent, so 0",
        **raw,
        **{STATISTICS[name]: _per_channel(file, name, statistics[name]) for name in statistics},
        "theta": fingerprint(weights),
    }
    return Checkpoint(weights, about)


def _network_state(file: TorchFile, source: str) -> tuple[StoredState, StoredState]:
    """The network's tensors by torchvision's names, and the normaliser's tensors; not yet read."""
    state, layout = dict(_state_dictionary(file.value)), "plain"
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): stored for name, stored in state.items()}
        layout = "parallel"
    expected = SOURCES[source]
    if expected.layout == "any":
        given = {name: f"normalize.{short}" for name, short in STATISTICS.items()}
        statistics = {name: state.pop(key) for name, key in given.items() if key in state}
        if all(name.startswith("model.") for name in state):
            state = {name.removeprefix("model."): stored for name, stored in state.items()}
        return state, statistics
    if any(name.startswith("model.") for name in state):
        layout = "robustness"
    if layout != expected.layout:
        fitting = next(key for key, other in SOURCES.items() if other.layout == layout)
        raise CheckpointError(
            f"its keys, as {printable(next(iter(state)))}, lie as in {SOURCES[fitting].publisher};"
            f" --as {source} wants them as in {expected.publisher}: say --as {fitting}, or take the"
            " other file"
        )
    return _without_attacker(file, state) if layout == "robustness" else (state, {})


def _without_attacker(file: TorchFile, state: StoredState) -> tuple[StoredState, StoredState]:
    """The network and the normaliser of a robustness file, whose attacker copies both."""
    network, statistics = {}, {}
    for name, stored in state.items():
        original = name.removeprefix("attacker.").replace("normalize.", "normalizer.")
        if name in STATISTICS:
            statistics[name] = stored
        elif name.startswith("model."):
            network[name.removeprefix("model.")] = stored
        elif original == name or original not in state:
            raise CheckpointError(
                f"not exactly a network and its attacker; extra: {printable(name)}"
            )
        elif not _are_equal(file, state[original], stored):
            raise CheckpointError(
                f"{printable(name)} differs from what it should be a copy of; want the file from"
                " its official source"
            )
    return network, statistics


def _state_dictionary(value: object) -> StoredState:
    """The state dictionary that a file holds, plain or in a wrapper."""
    state = value
    for wrapper in ("state_dict", "model"):
        if isinstance(value, dict) and wrapper in value:
            state = value[wrapper]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(
            f"holds {_describe(state)}; want a state dictionary, plain or under model or state_dict"
        )
    for name, stored in state.items():
        if type(name) is not str or not isinstance(stored, StoredTensor):
            raise CheckpointError(
                f"{printable(str(name))} is {_describe(stored)}; want tensors by name in its state"
                " dictionary"
            )
    return state


def _describe(value: object) -> str:
    if isinstance(value, InertObject):
        return f"an object of {value.name}"
    return type(value).__name__


def _are_equal(file: TorchFile, a: StoredTensor, b: StoredTensor) -> bool:
    same_layout = a.shape == b.shape and a.storage.dtype == b.storage.dtype
    return same_layout and torch.equal(file.tensor(a), file.tensor(b))


def _classes(head: tuple[int, ...]) -> int:
    """How many classes a head of this shape tells apart; 1000 where it is no head's."""
    return head[0] if len(head) in (2, 4) and 0 < head[0] <= MAX_CLASSES else 1000


def _has_counters(state: StoredState) -> bool:
    return any(name.endswith(COUNTER) for name in state)


def _matching_architecture(state: StoredState, arch: str | None) -> tuple[str, StateLayout]:
    """The network that fits best, or `arch`; refuses a state that is not exactly that network's.

    BatchNorm's counters may be absent, but only all of them.
    """
    shapes = {name: stored.shape for name, stored in state.items()}
    classes = _classes(shapes.get(f"{head_name(arch) if arch else 'fc'}.weight", ()))

    def score(arch: str) -> int:
        layout = state_layout(arch, classes)
        matches = sum(shapes.get(name) == shape for name, (shape, _) in layout.items())
        return 2 * matches - len(layout)

    arch = arch or max(ARCHITECTURES, key=score)  # the first of equals
    layout = state_layout(arch, classes)
    expected = {
        name: shape
        for name, (shape, _) in layout.items()
        if _has_counters(state) or not name.endswith(COUNTER)
    }
    if differences := describe_differences(shapes, expected):
        raise CheckpointError(f"not exactly a {arch} with {classes} classes; {differences}")
    return arch, layout


def _finite_values(file: TorchFile, name: str, stored: StoredTensor, dtype: torch.dtype) -> Tensor:
    if stored.storage.dtype != dtype:
        raise CheckpointError(
            f"{name} is {stored.storage.dtype}; want {dtype} (rounding theta_p is not ours to"
            " choose)"
        )
    values = file.tensor(stored)
    if dtype.is_floating_point and not bool(torch.isfinite(values).all()):
        raise CheckpointError(f"{name} holds a NaN or an infinity; want finite weights")
    return values


def _per_channel(file: TorchFile, name: str, stored: StoredTensor) -> list[float]:
    """A normaliser's mean or std, to be compared with the source data set's."""
    if stored.shape not in ((3, 1, 1), (1, 3, 1, 1)):
        raise CheckpointError(f"{name} {stored.shape}: want a number a channel, (3, 1, 1)")
    values = _finite_values(file, name, stored, torch.float32)
    return [round(value, 6) for value in values.flatten().tolist()]


def write_checkpoint(checkpoint: Checkpoint, path: str | Path) -> Path:
    """Write theta_p with its provenance; the same checkpoint gives the same bytes.

    Args:
        checkpoint: of `read_checkpoint`.
        path: the safetensors file, in a folder that exists.

    Returns:
        The path.
    """
    return tensor_files.write(path, checkpoint.weights, {"format": FORMAT, **checkpoint.about})


def load_checkpoint(path: str | Path, arch: str | None = None) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Args:
        path: the file.
        arch: the network that it must be; None takes any but a user's own, whose code would run.

    Returns:
        theta_p and its provenance, equal to what was written.

    Raises:
        ValueError: one line: it is another file, or was damaged since it was written.
    """
    expected = partial(_expected_header, arch)
    return Checkpoint(*tensor_files.read(path, FORMAT, WRITER, expected))


def read_weights(path: str | Path, arch: str) -> Weights:
    """A network's state dictionary out of a safetensors file, whoever wrote it.

    Args:
        path: the file.
        arch: the network, of any number of classes.

    Returns:
        The tensors by torchvision's names.

    Raises:
        ValueError: one line: the file holds other tensors than that network's. None of its numbers
            were read then.
    """
    with tensor_files.open_file(path) as file:
        header = tensor_files.read_header(file)
        classes = _classes(header.get(f"{head_name(arch)}.weight", ((), ""))[0])
        if differences := describe_differences(header, network_header(arch, classes)):
            raise ValueError(
                f"{path}: not the weights of a {arch} ({differences}); want theta_p as a"
                " safetensors file"
            )
        return {name: file.get_tensor(name) for name in header}


def network_header(arch: str, num_classes: int) -> Header:
    """The header of a safetensors file that holds a network's state dictionary.

    Args:
        arch: the network, as `models.build` takes it.
        num_classes: outputs of its head.

    Returns:
        (shape, type) by the tensor's name.
    """
    return {
        name: (shape, FILE_TYPES[dtype])
        for name, (shape, dtype) in state_layout(arch, num_classes).items()
    }


def describe(checkpoint: Checkpoint) -> str:
    """What was imported, in a few lines for a terminal.

    Args:
        checkpoint: of `read_checkpoint`.

    Returns:
        Three lines.
    """
    about = checkpoint.about
    return (
        f"theta_{about['pretraining']}, a {about['arch']} with {about['classes']} classes;"
        f" BatchNorm's counters {about['counters']}\nsha256 of {about['file']}: {about['sha256']}"
        f"\nsha256 of theta_p: {about['theta']}"
    )


def network_checks(arch: str | None) -> dict[str, Callable[[Any], object]]:
    """Which values a description of a network may have (`tensor_files.check_values`).

    Args:
        arch: the network that it must be; None takes any but a user's own, whose code would run.

    Returns:
        Checks by key.
    """
    if arch is None:
        return NETWORK_CHECKS
    return NETWORK_CHECKS | {"arch": lambda value: value == canonical(arch)}


def _expected_header(arch: str | None, about: Mapping[str, Any], header: Header) -> Header:
    tensor_files.check_values(about, network_checks(arch))
    return network_header(about["arch"], about["classes"])
