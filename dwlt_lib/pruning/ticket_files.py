"""theta_p from its authors' checkpoints in; our tickets out into a file, and in again elsewhere.

Both become one safetensors file whose single metadata entry `dwlt` is JSON: what this is, where it
comes from, and a digest over all of it. The same input gives the same bytes. Loading a ticket needs
torch, safetensors and lazy_loader alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dwlt_lib import files
from dwlt_lib.models import architectures
from dwlt_lib.models.checkpoints import (
    MOST_CLASSES,
    Checkpoint,
    demand,
    differences,
    few,
    read_checkpoint,
)
from dwlt_lib.models.imported import WEIGHTS, normalises
from dwlt_lib.models.pickles import plain
from dwlt_lib.models.tensors import Mask, Weights, fingerprint
from dwlt_lib.pruning import masks

TICKET = "dwlt-ticket-1"  # rises when a file's layout changes
OURS = "weights.safetensors"  # a record's
TYPES = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}  # in a file's header
Header = dict[str, tuple[tuple[int, ...], str]]  # {name: (shape, type)}


@dataclass(frozen=True)
class Ticket:
    """A ticket (theta_p, m). weights: all of its network's, after a transfer that kept them.

    Else None.
    """

    mask: Mask
    weights: Weights | None
    about: dict[str, Any]


# ----------------------------------------------------------------------------------------------
# checkpoints


def import_checkpoint(path: str | Path, source: str, arch: str | None = None) -> Weights:
    """theta_p out of an official checkpoint: {torchvision's name: (*shape,)}, exactly a network's
    keys and shapes.

    source: std (torchvision's plain keys), at (MadryLab's and Microsoft's: `model` or `state_dict`
    holding module.model.*, with duplicates under module.attacker.model.*, which must agree, and
    normalisers, which are dropped) or fat (fast_adversarial: `state_dict` holding module.*). arch:
    demand this network; None takes the one of models.ARCHITECTURES that the keys fit best. Weights
    are float32 and finite; nothing is converted. Where all of BatchNorm's counters are absent, as
    in old files, they are 0. Raises BadCheckpoint, a ValueError of one line that names what is
    missing, extra or misshapen. Nothing in the file is ever run (see `pickles`).
    """
    return read_checkpoint(path, source, arch).weights


def write_checkpoint(found: Checkpoint, path: str | Path) -> Path:
    """theta_p as one safetensors file with its provenance.

    The same checkpoint gives the same bytes.
    """
    return _write(path, found.weights, {"format": WEIGHTS, **found.about})


def load_checkpoint(path: str | Path) -> Checkpoint:
    """What write_checkpoint wrote; refuses anything else, and a file that was damaged since."""
    return Checkpoint(*_read(path, WEIGHTS))


def describe(found: Checkpoint) -> str:
    """What was imported, for a terminal."""
    about = found.about
    lines = [
        (
            f"theta_{about['pretraining']}, a {about['arch']} with {about['classes']} classes;"
            f" layout {about['layout']} ({about['container']}), BatchNorm's counters"
            f" {about['counters']}"
        ),
        f"sha256 of {about['file']}: {about['sha256']}",
        f"sha256 of theta_p: {about['theta']}",
    ]
    if about["unread"]:
        lines.append(f"left unread, names that the file mentions: {', '.join(about['unread'])}")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------
# tickets


def export_ticket(record: Any, path: str | Path) -> Path:
    """A ticket as one safetensors file for elsewhere: m's bits (2.9 MB for a ResNet-50), theta_p's
    hash, provenance.

    record: a mask record, or a transfer that kept its weights (its id, its description or the
    Record); of a transfer the weights that m keeps go along, and its SA and RA. theta_p itself
    stays behind: whoever loads a mask has it.
    """
    from dwlt_lib.records import store  # loading a ticket needs neither records nor pandas

    record = record if isinstance(record, store.Record) else store.read(record)
    if record.kind not in ("mask", "transfer"):
        raise ValueError(f"record {record.id} is a {record.kind}; want a mask or a transfer")
    data = (record.spec["theta"] if record.kind == "mask" else record.spec)["data"]
    about = {
        "format": TICKET,
        "kind": record.kind,
        "record": record.id,
        "theta_record": record.upstream[0],
        "arch": record.spec["theta"]["arch"],
        "classes": data["classes"],
        "mean": data["mean"],
        "std": data["std"],
        "columns": record.columns,
        "metrics": record.metrics,
        "spec": record.spec,
        "code": record.made.get("code"),
    }
    if record.kind == "transfer" and not record.has(OURS):
        raise ValueError(
            f"record {record.id}: its weights were not kept; want a transfer that a landscape or a "
            f"transfer attack needs, or its mask's record {' '.join(record.upstream[1:])}"
        )
    if record.kind == "transfer" and len(record.upstream) == 1:  # dense
        m = masks.dense_mask(architectures.prunable(_built(about)))
        about["theta"] = fingerprint(_tensors(store.read(record.upstream[0]).file(OURS))[0])
    else:
        of = record if record.kind == "mask" else store.read(record.upstream[1])
        packed = of.read("mask.safetensors")
        m, about["theta"] = masks.unpack(packed), masks.packed_header(packed)["theta"]
    about |= {"sparsity": masks.sparsity(m), "kept": masks.kept(m)}
    tensors = {f"mask/{name}": masks.to_bits(part) for name, part in m.items()}
    if record.kind == "transfer":
        state = _tensors(record.file(OURS))[0]
        if revived := [name for name, part in m.items() if bool(state[name][~part].any())]:
            raise ValueError(
                f"record {record.id}: {few(revived)} is not 0 where its mask is; run: dwlt verify"
            )
        tensors |= {
            f"weights/{name}": part[m[name]] if name in m else part for name, part in state.items()
        }
    return _write(path, tensors, about)


def mask_of(id: str) -> Mask:
    """The mask of a mask record.

    Args:
        id: the record's id.
    Returns:
        bool tensors by torchvision's parameter names; True keeps the weight.
    Raises:
        KeyError: there is no such record.
        ValueError: it is damaged.
    """
    from dwlt_lib.records import store

    return masks.unpack(store.read(id).read("mask.safetensors"))


def load_ticket(
    path: str | Path, theta: Mapping[str, Tensor] | str | Path | None = None
) -> nn.Module:
    """The masked model f(x; m * theta) of a ticket that export_ticket wrote, in eval mode; x:
    (B,3,H,W) in [0,1].

    theta: theta_p, as a state dictionary or a safetensors file; one with another hash than the
    ticket's is refused. A transferred ticket has its own weights and needs none. None: its own
    weights, or theta_p's record on this machine. Raises ValueError, one line: no ticket, damaged,
    no theta_p or a wrong one. Nothing that a file claims is allocated on its word: its header must
    be that of the network it names before any of its numbers are read.
    """
    ticket = read_ticket(path)
    about, state = ticket.about, ticket.weights
    if theta is None and state is None:
        theta = _theta_here(about["theta_record"])
        if theta is None:
            raise ValueError(
                f"{path}: a mask of theta_p {about['theta'][:12]}, whose record"
                f" {about['theta_record']} is not on this machine; give theta=, its weights or"
                " their safetensors file"
            )
    if theta is not None:
        given = dict(theta) if isinstance(theta, Mapping) else _theta(theta, about["arch"])
        if (found := fingerprint(given)) != about["theta"]:
            raise ValueError(
                f"{path}: drawn from theta_p {about['theta'][:12]}, but the one given is"
                f" {found[:12]}; want the very weights that it was drawn from"
            )
        state = given if state is None else state
    shapes = {name: (tuple(part.shape), part.dtype) for name, part in state.items()}
    if shapes != demand(about["arch"], about["classes"]):
        raise ValueError(
            f"{path}: of a {about['arch']} with {about['classes']} classes, which theta_p is not;"
            " want the ticket as it was exported"
        )
    model = _built(about)
    model.load_state_dict(state)
    masks.apply_(model, ticket.mask)
    return model.eval()


def read_ticket(path: str | Path) -> Ticket:
    """m, the weights if it has its own, and what it says of itself (arch, sparsity, theta_p's hash,
    SA, RA...).
    """
    tensors, about = _read(path, TICKET)
    try:
        m, weights = {}, {}
        for name, (shape, dtype) in demand(about["arch"], about["classes"]).items():
            part = tensors.get(f"weights/{name}")
            if len(shape) == 4:
                m[name] = masks.from_bits(tensors[f"mask/{name}"], shape)
                if part is not None:
                    if len(part) != (count := int(m[name].sum())):
                        raise ValueError(f"{name} has {len(part)} weights, its mask {count}")
                    part = torch.zeros(shape, dtype=dtype).masked_scatter_(m[name], part)
            if part is not None and (tuple(part.shape), part.dtype) != (shape, dtype):
                raise ValueError(f"{name} is {tuple(part.shape)} {part.dtype}")
            weights[name] = part
    except (LookupError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path}: holds no ticket of the network that it names ({error}); export it again"
        ) from error
    return Ticket(m, weights if about["kind"] == "transfer" else None, about)


def _built(about: Mapping[str, Any]) -> nn.Module:
    return architectures.build(about["arch"], about["classes"], about["mean"], about["std"])


def _theta_here(id: str) -> Path | None:
    """theta_p's weights among the records of this machine, if it has any."""
    try:
        from dwlt_lib.records.store import read

        record = read(id)
    except (ImportError, KeyError):
        return None
    return record.path / OURS if record.has(OURS) else None


# ----------------------------------------------------------------------------------------------
# files


def _write(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
    """One metadata entry, sorted: safetensors leaves the order of several to chance."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: {path.parent} is not there; want a path in a folder that is")
    text = json.dumps({**about, "digest": _digest(tensors, about)}, sort_keys=True)
    return files.write(
        path, save({name: part.contiguous() for name, part in tensors.items()}, {"dwlt": text})
    )


def _read(path: str | Path, format: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _opened(path) as (file, header, said):
        try:
            about = json.loads(said.get("dwlt", "null"))
        except (ValueError, RecursionError):
            about = None
        if not isinstance(about, dict) or about.get("format") != format:
            raise ValueError(
                f"{path}: not a file of format {format}; want one that "
                f"{'dwlt weights import' if format == WEIGHTS else 'weights.export_ticket'} wrote"
            )
        try:
            _check_about(about, format)
            if wrong := differences(header, _expected(about, format, header)):
                raise ValueError(wrong)
        except ValueError as error:
            what = "theta_p" if format == WEIGHTS else "ticket"
            raise ValueError(
                f"{path}: holds no {what} of the network that it names ({error}); want the file as"
                " it was first written"
            ) from error
        tensors = {name: file.get_tensor(name) for name in header}
    if about.pop("digest", None) != _digest(tensors, about):
        raise ValueError(f"{path}: damaged or changed since it was written; write it again")
    return tensors, about


def _theta(path: str | Path, arch: str) -> Weights:
    """theta_p of that network out of a safetensors file, whoever wrote it."""
    with _opened(path) as (file, header, _):
        shape, _ = header.get("fc.bias", ((), ""))
        classes = shape[0] if len(shape) == 1 and 0 < shape[0] <= MOST_CLASSES else 1000
        if wrong := differences(header, _state(arch, classes)):
            raise ValueError(
                f"{path}: not the weights of a {arch} ({wrong}); want theta_p as a safetensors file"
            )
        return {name: file.get_tensor(name) for name in header}


def _check_about(about: Mapping[str, Any], format: str) -> None:
    """What a file says of itself is complete and of use, before anything is built by it."""
    wanted = {
        "arch": lambda value: value in architectures.ARCHITECTURES,
        "classes": lambda value: type(value) is int and 0 < value <= MOST_CLASSES,
        "theta": lambda value: re.fullmatch("[0-9a-f]{64}", value),
    }
    if format == TICKET:
        wanted |= {
            "kind": lambda value: value in ("mask", "transfer"),
            "mean": normalises,
            "std": lambda value: normalises(value) and all(0 < each <= 1 for each in value),
            "theta_record": lambda value: re.fullmatch("[0-9a-f]+", value),
        }
    for name, good in wanted.items():
        if name not in about:
            raise ValueError(f"it does not say its {name}")
        try:
            fine = good(about[name])
        except TypeError:  # a list where a text should be
            fine = False
        if not fine:
            raise ValueError(f"{name} is {plain(str(about[name]))}")


def _state(arch: str, classes: int) -> Header:
    return {name: (shape, TYPES[dtype]) for name, (shape, dtype) in demand(arch, classes).items()}


def _expected(about: Mapping[str, Any], format: str, header: Header) -> Header:
    """The header that a file has which says this of itself.

    How many weights a mask keeps is the file's to say.
    """
    state = _state(about["arch"], about["classes"])
    if format == WEIGHTS:
        return state
    expected = {}
    for name, (shape, dtype) in state.items():
        if len(shape) == 4:
            expected[f"mask/{name}"] = (-(-prod(shape) // 8),), TYPES[torch.uint8]
            found, _ = header.get(f"weights/{name}", (shape, dtype))
            shape = found if len(found) == 1 and found[0] <= prod(shape) else (prod(shape),)
        if about["kind"] == "transfer":
            expected[f"weights/{name}"] = shape, dtype
    return expected


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Header, dict[str, str]]]:
    """A safetensors file, its header {name: (shape, type)} and what it says.

    No number of it is read yet.
    """
    path = files.regular(path)
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            header = {
                name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
            }
            yield file, header, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        line = plain(" ".join(str(error).split()), 300)
        raise ValueError(f"{path}: no safetensors file, or a damaged one ({line})") from error


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All of a file of our own."""
    with _opened(path) as (file, header, said):
        return {name: file.get_tensor(name) for name in header}, said


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    text = json.dumps(about, sort_keys=True) + fingerprint(tensors)
    return hashlib.sha256(text.encode()).hexdigest()
