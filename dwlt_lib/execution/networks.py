"""Networks, weights and masks out of records, each checked against what it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dwlt_lib.config.specs import ImportedSpec, MaskSpec, PretrainingSpec, TransferSpec
from dwlt_lib.models.architectures import Normalised, build, new_head, prunable
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning.masks import Mask, dense_mask
from dwlt_lib.pruning.packed_masks import packed_header, unpack
from dwlt_lib.records import store
from dwlt_lib.training.trainer import State, generator


def load_network(record: store.Record, device: torch.device | str = "cpu") -> Normalised:
    """The trained network that a record holds, in eval mode, with its normalisation inside.

    Args:
        record: of a pre-training (theta_p or an unseen robust model), or of a transfer that kept
            its weights.
        device: where the network goes.

    Returns:
        The network; it takes images (B,3,H,W) in [0,1] and returns logits (B, classes).

    Raises:
        ValueError: the record holds no weights, or its file changed since it was written.

    Example:
        >>> model = load_network(store.read(make(spec)))  # doctest: +SKIP
    """
    spec = record.spec
    arch = spec["theta"]["arch"] if record.kind == "transfer" else spec["arch"]
    weights = load_file(record.file("weights.safetensors"))
    row = spec["data"]
    with _seeded(0, "initialisation"):  # drawn here, and overwritten at once
        model = build(arch, row["classes"], row["mean"], row["std"])
    model.load_state_dict(weights)
    return model.to(device).eval()


def initial_network(spec: PretrainingSpec, device: torch.device | str = "cpu") -> nn.Module:
    """The network of a pre-training before its first step, drawn on the CPU from the spec's seed.

    Args:
        spec: the pre-training.
        device: where the network goes.

    Returns:
        The network, in train mode.
    """
    with _seeded(spec.seed, "initialisation"):
        return build(spec.arch, spec.data.classes, spec.data.mean, spec.data.std).to(device)


def initial_ticket(spec: TransferSpec, device: torch.device | str = "cpu") -> nn.Module:
    """The network of a transfer before its first step: theta_p under a new head (section 3).

    Of IMP-ST-reinit it is a new initialisation instead. The mask is not yet applied; `ticket_mask`
    reads it.

    Args:
        spec: the transfer, whose theta_p is a record already.
        device: where the network goes.

    Returns:
        The network, in train mode, with the downstream data's normalisation and a head for its
        classes, drawn from the spec's seed.
    """
    if spec.weights == "reinitialized":
        # a stream of its own: theta_p may have begun from the initialisation of the same seed
        with _seeded(spec.seed, "reinitialisation"):
            row = spec.data
            model = build(spec.theta.arch, row.classes, row.mean, row.std)
    else:
        model = load_network(store.read(spec.theta), device).train()
    with _seeded(spec.seed, "head"):
        model.cpu()
        new_head(model, spec.data.classes)
    model.set_normalisation(spec.data.mean, spec.data.std)
    return model.to(device)


def ticket_mask(spec: TransferSpec, model: nn.Module) -> Mask:
    """The mask m of a ticket, on the device of its network; all ones for the dense network.

    Args:
        spec: the transfer, whose mask is a record already.
        model: the ticket's network.

    Returns:
        Mask by the names of the prunable weights, bool, in their shapes.

    Raises:
        ValueError: the mask was drawn from another theta_p than the one of its record.
    """
    if spec.mask is None:
        m = dense_mask(prunable(model))
    else:
        m = load_mask(spec.mask, load_weights(spec.mask.theta))
    device = next(model.parameters()).device
    return {name: part.to(device) for name, part in m.items()}


def load_weights(
    spec: PretrainingSpec | ImportedSpec | MaskSpec | TransferSpec,
    device: torch.device | str = "cpu",
) -> State:
    """The state dictionary that the record of this spec holds.

    Args:
        spec: the record, made already.
        device: where the tensors go.

    Returns:
        All weights and buffers by name.

    Raises:
        ValueError: the record holds no weights, or its file changed since it was written.
    """
    return load_file(store.read(spec).file("weights.safetensors"), device=str(device))


def load_mask(spec: MaskSpec, theta: State) -> Mask:
    """The mask m that the record of this spec holds.

    Args:
        spec: the mask, made already.
        theta: the state dictionary of the theta_p that m must have been drawn from.

    Returns:
        Mask by the names of the prunable weights, bool, in their shapes, on the CPU.

    Raises:
        ValueError: m was drawn from another theta_p.
    """
    record = store.read(spec)
    data = record.read("mask.safetensors")
    drawn_from, current = packed_header(data)["theta"], fingerprint(theta)
    if drawn_from != current:
        raise ValueError(
            f"{record.path}: drawn from theta_p {drawn_from[:12]}, but the one there is"
            f" {current[:12]}; delete it and run the study again"
        )
    return unpack(data)


def cpu_state(state: State) -> dict[str, Tensor]:
    """A state dictionary as it is written to files.

    Args:
        state: tensors by name, on any device.

    Returns:
        The same values on the CPU, contiguous, without gradients.
    """
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


@contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """Torch's global generator is seeded for one purpose, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(seed, purpose).get_state())
        yield
