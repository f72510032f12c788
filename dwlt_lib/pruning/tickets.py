"""Tickets (theta_p, m) that travel: a record exported as one file, and loaded again elsewhere.

Loading needs torch, safetensors and lazy_loader alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from dwlt_lib.models import tensor_files
from dwlt_lib.models.architectures import (
    Normalised,
    build,
    prunable,
    skeleton,
    state_layout,
)
from dwlt_lib.models.checkpoints import network_checks, network_header, read_weights
from dwlt_lib.models.imported import is_normalisation
from dwlt_lib.models.tensor_files import Header
from dwlt_lib.models.tensors import Mask, Weights, fingerprint
from dwlt_lib.pruning.masks import apply_, dense_mask, num_kept, sparsity
from dwlt_lib.pruning.packed_masks import from_bits, packed_header, to_bits, unpack

if TYPE_CHECKING:  # loading a ticket needs neither records nor pandas
    from dwlt_lib.records.store import Record

FORMAT = "dwlt-ticket-1"
"""Of a ticket's file; rises when its layout changes."""
WRITER = "pruning.export_ticket"

MASK_FILE, WEIGHTS_FILE = "mask.safetensors", "weights.safetensors"  # of records
TICKET_FILE = "ticket.safetensors"
"""Of a shared ticket, in its folder or on the hub."""

TICKET_CHECKS = {
    "kind": lambda value: value in ("mask", "transfer"),
    "mean": is_normalisation,
    "std": lambda value: is_normalisation(value) and all(0 < each <= 1 for each in value),
    "theta_record": lambda value: re.fullmatch("[0-9a-f]+", value),
}
"""Which values a ticket's description has (`tensor_files.check_values`)."""


@dataclass(frozen=True)
class Ticket:
    """What a ticket's file holds."""

    mask: Mask
    """m."""
    weights: Weights | None
    """The network's whole state dictionary after the transfer; None of a mask alone."""
    about: dict[str, Any]
    """arch, classes, mean, std, theta (theta_p's fingerprint), sparsity, metrics (SA, RA...)..."""


def export_ticket(record: Any, path: str | Path) -> Path:
    """Write a ticket as one safetensors file that others can load.

    It holds m as bits (2.9 MB for a ResNet-50), theta_p's fingerprint and the record's description;
    of a transfer also its SA and RA, and the weights that m keeps. theta_p itself stays behind:
    whoever loads a mask has it.

    Example: `export_ticket("0123456789abcdef0123", "ticket.safetensors")`.

    Args:
        record: a mask record, or a transfer that kept its weights: its id, its description or the
            `records.Record`.
        path: the file to write, in a folder that exists.

    Returns:
        The path.

    Raises:
        KeyError: there is no such record.
        ValueError: one line: the record is of another kind, kept no weights, or is damaged.
    """
    from dwlt_lib.records import store

    record = record if isinstance(record, store.Record) else store.read(record)
    if record.kind not in ("mask", "transfer"):
        raise ValueError(f"record {record.id} is a {record.kind}; want a mask or a transfer")
    if record.kind == "transfer" and not record.has(WEIGHTS_FILE):
        raise ValueError(
            f"record {record.id}: its weights were not kept; want a transfer that a landscape or a "
            f"transfer attack needs, or its mask's record {' '.join(record.upstream[1:])}"
        )
    m, about = _mask_and_description(record)
    tensors = {f"mask/{name}": to_bits(layer) for name, layer in m.items()}
    if record.kind == "transfer":
        tensors |= _kept_weights(record, m)
    return tensor_files.write(path, tensors, about)


def _mask_and_description(record: Record) -> tuple[Mask, dict[str, Any]]:
    from dwlt_lib.records import store

    theta_spec = record.spec["theta"]
    data = (theta_spec if record.kind == "mask" else record.spec)["data"]
    about = {
        "format": FORMAT,
        "kind": record.kind,
        "record": record.id,
        "theta_record": record.upstream[0],
        "arch": theta_spec["arch"],
        "classes": data["classes"],
        "mean": data["mean"],
        "std": data["std"],
        "columns": record.columns,
        "metrics": record.metrics,
        "spec": record.spec,
        "code": record.made.get("code"),
    }
    if record.kind == "transfer" and len(record.upstream) == 1:  # of the dense network
        m = dense_mask(prunable(_network(about)))
        about["theta"] = fingerprint(load(store.read(record.upstream[0]).read(WEIGHTS_FILE)))
    else:
        mask_record = record if record.kind == "mask" else store.read(record.upstream[1])
        packed = mask_record.read(MASK_FILE)
        m, about["theta"] = unpack(packed), packed_header(packed)["theta"]
    return m, about | {"sparsity": sparsity(m), "kept": num_kept(m)}


def _kept_weights(record: Record, m: Mask) -> dict[str, Tensor]:
    """Of a transfer's state dictionary the entries that m keeps, and all that it does not mask."""
    state = load(record.read(WEIGHTS_FILE))
    return {
        f"weights/{name}": tensor[m[name]] if name in m else tensor
        for name, tensor in state.items()
    }


def read_mask(record_id: str) -> Mask:
    """The mask of a mask record.

    Args:
        record_id: the record's id.

    Returns:
        bool tensors by torchvision's parameter names; True keeps the weight.

    Raises:
        KeyError: there is no such record.
        ValueError: it is damaged.
    """
    from dwlt_lib.records import store

    return unpack(store.read(record_id).read(MASK_FILE))


def load_ticket(
    path: str | Path,
    theta: Mapping[str, Tensor] | str | Path | None = None,
    arch: str | None = None,
) -> nn.Module:
    """The network f(x; m * theta) of a ticket's file.

    No memory is taken because the file claims a size: its header must be that of the network that
    it describes before any of its numbers are read.

    Example: `model = load_ticket("mask.safetensors", theta="theta.safetensors")`.

    Args:
        path: a file of `export_ticket`, a folder of `dwlt share`, or "org/name" on the Hugging Face
            hub, which takes the package huggingface_hub.
        theta: theta_p, a state dictionary or a safetensors file, with the fingerprint that the
            ticket states. Left out, a transferred ticket takes its own weights, and a mask takes
            theta_p's record on this machine.
        arch: the network that it must be. It must be named where a module of yours builds it, since
            a file is not to say which code runs.

    Returns:
        The network in eval mode, for images (B,3,H,W) in [0,1].

    Raises:
        ValueError: one line: it is no ticket, or damaged, or theta_p is missing or another one.
    """
    path = file_of(path)
    ticket = read_ticket(path, arch)
    about, state = ticket.about, ticket.weights
    if state is None or theta is not None:
        theta_p = _theta_p(path, about, theta)
        state = state or theta_p
    layout = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    if layout != state_layout(about["arch"], about["classes"]):
        raise ValueError(
            f"{path}: of a {about['arch']} with {about['classes']} classes, which theta_p is not;"
            " want the ticket as it was exported"
        )
    model = _network(about)
    model.load_state_dict(state)
    apply_(model, ticket.mask)
    return model.eval()


def file_of(path: str | Path) -> str | Path:
    """The file of a shared ticket: itself, in its folder, or downloaded from the hub.

    Args:
        path: as `load_ticket` takes it.

    Returns:
        The file; what is none of these is returned as it is.

    Raises:
        ValueError: one line: it takes the package huggingface_hub, or the hub refuses.
    """
    if (Path(path) / TICKET_FILE).exists():
        return Path(path) / TICKET_FILE
    if Path(path).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
        return path
    try:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: no such file; from the Hugging Face hub it takes pip install huggingface_hub"
        ) from error
    try:
        return hf_hub_download(str(path), TICKET_FILE)
    except Exception as error:  # the hub's errors have no common root
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: {type(error).__name__}: {reason}") from error


def cifar_state(model: nn.Module) -> dict[str, Tensor]:
    """A network's state dictionary in the names that CIFAR's ResNets have elsewhere.

    They are those of the ResNet-18 that the Adversarial Pruning Benchmark (arXiv 2409.01249) loads:
    `shortcut` in place of `downsample`, `linear` in place of `fc`. It takes images that are
    normalised already: x - mean over std with the `mean` and `std` of a ticket's description.

    Example: `torch.save(cifar_state(load_ticket("ticket.safetensors")), "checkpoint.pt")`.

    Args:
        model: a resnet18_32 of `load_ticket` or `models.build`; pruned weights are 0 in it.

    Returns:
        Tensors by name, of the same shapes.

    Raises:
        ValueError: one line: another network.
    """
    state = model.state_dict()
    layout = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    classes = len(state["fc.bias"]) if "fc.bias" in state else 1
    if layout != state_layout("resnet18_32", classes):
        raise ValueError(
            f"{type(model).__name__}: want a resnet18_32, as pruning.load_ticket has it"
        )
    return {
        name.replace("downsample.", "shortcut.").replace("fc.", "linear."): tensor
        for name, tensor in state.items()
    }


def read_ticket(path: str | Path, arch: str | None = None) -> Ticket:
    """The content of a ticket's file.

    Args:
        path: a file of `export_ticket`.
        arch: the network that it must be, as in `load_ticket`.

    Returns:
        The mask, the weights if it is a transferred ticket, and the description.

    Raises:
        ValueError: one line: it is no ticket, or damaged.
    """
    tensors, about = tensor_files.read(path, FORMAT, WRITER, partial(_expected_header, arch))
    m, weights = {}, {}
    for name, (shape, dtype) in state_layout(about["arch"], about["classes"]).items():
        if f"mask/{name}" in tensors:
            m[name] = from_bits(tensors[f"mask/{name}"], shape)
        if f"weights/{name}" in tensors:
            weights[name] = tensors[f"weights/{name}"]
        if name in m and name in weights:
            kept, num_weights = weights[name], int(m[name].sum())
            if len(kept) != num_weights:
                raise ValueError(
                    f"{path}: {name} has {len(kept)} weights, its mask keeps {num_weights}; export"
                    " the ticket again"
                )
            weights[name] = torch.zeros(shape, dtype=dtype).masked_scatter_(m[name], kept)
    return Ticket(m, weights if about["kind"] == "transfer" else None, about)


def _expected_header(arch: str | None, about: Mapping[str, Any], header: Header) -> Header:
    """The header of a ticket with this description; how many weights m keeps, it says itself."""
    tensor_files.check_values(about, TICKET_CHECKS | network_checks(arch))
    masked, expected = prunable(skeleton(about["arch"], about["classes"])), {}
    for name, (shape, dtype) in network_header(about["arch"], about["classes"]).items():
        if name in masked:
            expected[f"mask/{name}"] = (-(-prod(shape) // 8),), "U8"
            stated, _ = header.get(f"weights/{name}", (shape, dtype))
            is_possible = len(stated) == 1 and stated[0] <= prod(shape)
            shape = stated if is_possible else (prod(shape),)
        if about["kind"] == "transfer":
            expected[f"weights/{name}"] = shape, dtype
    return expected


def _network(about: Mapping[str, Any]) -> Normalised:
    return build(about["arch"], about["classes"], about["mean"], about["std"])


def _theta_p(
    path: str | Path, about: Mapping[str, Any], theta: Mapping[str, Tensor] | str | Path | None
) -> Weights:
    """theta_p as given, else as recorded here; refuses another than m was drawn from."""
    if theta is None:
        theta = _recorded_theta(about["theta_record"])
    if theta is None:
        raise ValueError(
            f"{path}: a mask of theta_p {about['theta'][:12]}, whose record"
            f" {about['theta_record']} is not on this machine; give theta=, its weights or"
            " their safetensors file"
        )
    weights = dict(theta) if isinstance(theta, Mapping) else read_weights(theta, about["arch"])
    identity = fingerprint(weights)
    if identity != about["theta"]:
        raise ValueError(
            f"{path}: drawn from theta_p {about['theta'][:12]}, but the one given is"
            f" {identity[:12]}; want the very weights that it was drawn from"
        )
    return weights


def _recorded_theta(record_id: str) -> Path | None:
    """The file of theta_p's weights among the records of this machine, if it is there."""
    try:
        from dwlt_lib.records.store import read

        record = read(record_id)
    except (ImportError, KeyError):
        return None
    return record.path / WEIGHTS_FILE if record.has(WEIGHTS_FILE) else None
