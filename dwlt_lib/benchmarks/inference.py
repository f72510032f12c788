"""Does sparsity pay at inference? A ticket run dense, masked, compacted and by sparse matrices."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from dwlt_lib.benchmarks.baselines import Variant
from dwlt_lib.models import compaction
from dwlt_lib.models.architectures import prunable
from dwlt_lib.pruning import tickets

COSTS = ("MMAC", "kB", "kB compressed")
"""What `cost` tells."""


@dataclass(frozen=True)
class InferenceCase:
    """A ticket and the networks that are compared."""

    networks: dict[str, nn.Module]
    """By the name of their row, in eval mode: the masked one first."""
    about: dict[str, Any]
    """The ticket's network, its sparsity in [0,1], SA and RA in [0,1] if it states them."""


class SparseConvolution(nn.Module):
    """A 1x1 convolution as the product of a sparse matrix with the image's places."""

    matrix: Tensor
    """Its weights (C',C), in CSR."""
    weight: Tensor
    """The weights that are not 0, the matrix's values."""

    def __init__(self, layer: nn.Conv2d) -> None:
        """Take over a layer's weights.

        Args:
            layer: 1x1, without padding or groups.
        """
        super().__init__()
        self.stride, self.bias = layer.stride, layer.bias
        csr = layer.weight.detach().flatten(1).to_sparse_csr()
        parts = csr.crow_indices().int(), csr.col_indices().int(), csr.values()
        for name, part in zip(("starts", "columns", "weight"), parts, strict=True):
            self.register_buffer(name, part)
        self.matrix = torch.sparse_csr_tensor(*parts, csr.shape, check_invariants=True)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: maps (B,C,H,W).

        Returns:
            Maps (B,C',H',W').
        """
        x = x[:, :, :: self.stride[0], :: self.stride[1]]
        places = x.movedim(1, 0)
        product = (self.matrix @ places.flatten(1)).unflatten(1, places.shape[1:]).movedim(0, 1)
        return product if self.bias is None else product + self.bias.view(-1, 1, 1)


def read_case(path: str | Path, device: torch.device) -> InferenceCase:
    """A ticket, and its network in each form.

    Args:
        path: as `pruning.load_ticket` takes it.
        device: where the networks are put.

    Returns:
        The case. Its dense network has the pruned weights drawn from a fixed seed.

    Raises:
        ValueError: one line: it is no ticket, or its network cannot be compacted.
    """
    path = tickets.file_of(path)
    about, masked = tickets.read_ticket(path).about, tickets.load_ticket(path).to(device)
    weights, dense = prunable(masked), deepcopy(masked)
    rng = torch.Generator().manual_seed(0)
    for weight in prunable(dense).values():
        noise = 0.01 * torch.randn(weight.shape, generator=rng)
        weight.data = weight.data.where(weight != 0, noise.to(device))
    networks = {"masked": masked, "dense": dense, "compacted": compaction.compact(masked)}
    if any(_is_pointwise(layer) for layer in masked.modules()):
        networks["compacted, 1x1 as sparse matrices"] = _with_sparse_matrices(networks["compacted"])
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    metrics = about.get("metrics")
    stated = metrics if isinstance(metrics, dict) else {}
    accuracies = {name: stated[name] for name in ("SA", "RA") if name in stated}
    sparsity = round(zeros / sum(weight.numel() for weight in weights.values()), 4)
    return InferenceCase(networks, {"network": about["arch"], "sparsity": sparsity, **accuracies})


def _is_pointwise(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    is_plain = type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding == (0, 0)
    return is_plain and layer.kernel_size == (1, 1)


def _with_sparse_matrices(model: nn.Module) -> nn.Module:
    model = deepcopy(model)
    for name, layer in list(model.named_modules()):
        if _is_pointwise(layer):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
                model.set_submodule(name, SparseConvolution(layer))
    return model


def inferences(on: InferenceCase, size: int, batch: int) -> Iterator[Variant]:
    """The logits of a batch of images.

    Args:
        on: the networks.
        size: side of the images in pixels.
        batch: how many images.

    Yields:
        The masked network first; the dense one computes something else at the same cost.
    """
    rng = torch.Generator().manual_seed(0)
    device = next(on.networks["masked"].parameters()).device
    x = torch.rand(batch, 3, max(1, size // 4), max(1, size // 4), generator=rng)
    x = F.interpolate(x, (size, size), mode="bilinear").to(device)  # smooth, as pictures are

    @torch.inference_mode()
    def logits(network: nn.Module) -> tuple[Tensor, float]:
        return network(x), 0.0

    for name, network in on.networks.items():
        yield Variant(name, lambda network=network: logits(network), same=name != "dense")


def cost(model: nn.Module, size: int) -> dict[str, float]:
    """What a network takes beside time.

    Args:
        model: the network, in eval mode.
        size: side of the image in pixels.

    Returns:
        By the names of COSTS. MMAC: million multiply-accumulates an image, of convolutions and
        linear layers as they are run, zeros of dense layers included. kB and kB compressed:
        thousands of bytes of its tensors in a safetensors file, as they are and by zlib.
    """
    total = 0

    def count(layer: Any, _: Any, result: Tensor) -> None:
        nonlocal total
        places = prod(result.shape[2:]) if result.dim() == 4 else prod(result.shape[1:-1])
        total += places * layer.weight.numel()

    layers = (nn.Conv2d, nn.Linear, SparseConvolution)
    hooks = [
        layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, layers)
    ]
    device = next(model.parameters()).device
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size, device=device))
    for hook in hooks:
        hook.remove()
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    content = save(state)
    numbers = total / 1e6, len(content) / 1e3, len(zlib.compress(content, 9)) / 1e3
    return {name: round(number, 3) for name, number in zip(COSTS, numbers, strict=True)}
