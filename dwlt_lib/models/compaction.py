"""Smaller networks that compute the same: channels that pruning has killed are removed.

A channel is removed where no convolution or linear layer that reads it can tell: its weights there
are 0, or the channel is a constant, which moves into the reader's bias. A convolution that pads
with zeros sees the border of a constant, so there only the constant 0 goes.
"""

from __future__ import annotations

import operator
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

_ELEMENTWISE = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout, F.relu, F.gelu, F.silu, torch.relu, "relu"),
    *(operator.add, operator.iadd, operator.mul, torch.add, torch.mul),
}
_POOLING = {nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, F.adaptive_avg_pool2d}
"""They leave a constant map as it is."""
_FLATTEN = {nn.Flatten, torch.flatten, "flatten"}


@dataclass(frozen=True)
class _Channels:
    """What is known of the C channels of a tensor in the network."""

    values: Tensor
    """(1,C,1,1): the constant that a channel is for every image and place, NaN where it varies.

    Operations run on it as they run in the network, so that what works in place does so here."""
    maps: bool
    """Whether the tensor is (B,C,H,W); else it is (...,C), or maps flattened to (B,C*H*W)."""
    number: int
    """Of the tensor; `_Flow.streams` says which stream it is in."""


@dataclass(frozen=True)
class _Reader:
    """A convolution or linear layer: it reads some channels and writes others."""

    layer: nn.Conv2d | nn.Linear
    source: _Channels | None
    """None: it reads what is not followed, all of which stays."""
    written: _Channels
    weight: Tensor
    """(C written, C read, weights of a kernel)."""
    varies: Tensor
    """(C read,): no bias can stand for the channel."""
    constants: Tensor
    """(C written, C read): what the bias gets in place of a channel."""

    def narrow(self, write: Tensor, read: Tensor | None) -> None:
        """Take away the layer's channels but those that it is to write and to read, bool (C,)."""
        weight = self.weight
        bias = torch.zeros_like(weight[:, 0, 0]) if self.layer.bias is None else self.layer.bias
        if read is not None:
            bias = bias + self.constants[:, ~read].sum(1)
            weight = weight[:, read]
        weight, bias = weight[write], bias[write]
        if isinstance(self.layer, nn.Conv2d):
            self.layer.out_channels, self.layer.in_channels = weight.shape[:2]
            weight = weight.unflatten(2, self.layer.kernel_size)
            weight = weight.contiguous(memory_format=torch.channels_last)
        else:
            weight = weight.flatten(1)
            self.layer.out_features, self.layer.in_features = weight.shape
        self.layer.weight = nn.Parameter(weight)
        if self.layer.bias is not None or bias.any():
            self.layer.bias = nn.Parameter(bias)


class _Flow(fx.Interpreter):
    """Follows the channels of a network from its images to its outputs, operation by operation."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self.uses = Counter(
            str(node.target) if node.op == "call_module" else str(node.target).rpartition(".")[0]
            for node in graph.nodes
            if node.op in ("call_module", "get_attr")
        )
        self.streams: list[int] = []
        """Of each followed tensor: those of one stream, such as the summands of a residual sum,
        keep the same channels."""
        self.readers: list[_Reader] = []
        self.norms: list[tuple[Any, _Channels]] = []
        self.whole: list[_Channels] = []
        """What is read by an operation that is not understood: it stays whole."""
        self.run()

    def run_node(self, n: fx.Node) -> _Channels | None:
        """The channels that an operation gives; None where it is not understood."""
        inputs = [self.env[each] for each in n.all_input_nodes]
        followed = [each for each in inputs if each is not None]
        found = self._follow(n, followed, len(followed) == len(inputs))
        if found is None:
            self.whole += followed
            for each in followed:
                each.values.fill_(torch.nan)  # it may have worked in place
        return found

    def _channels(self, values: Tensor, maps: bool, like: _Channels | None = None) -> _Channels:
        """Of another tensor, of that one's stream or of its own."""
        number = len(self.streams)
        self.streams.append(number if like is None else self.streams[like.number])
        return _Channels(values, maps, number)

    def _follow(
        self, node: fx.Node, inputs: list[_Channels], all_of_them: bool
    ) -> _Channels | None:
        operation: Any = node.target
        if node.op == "call_module":
            operation = self.submodules[str(node.target)]
            if self.uses[str(node.target)] > 1 and operation.state_dict():  # shared
                return None
        kind = type(operation) if node.op == "call_module" else operation
        if kind is nn.Linear or (kind is nn.Conv2d and operation.groups == 1):
            return self._read(operation, inputs[0] if inputs else None)
        if not inputs or not all_of_them:
            return None
        first = inputs[0]
        if kind is nn.BatchNorm2d and first.maps and operation.running_mean is not None:
            found = self._channels(operation(first.values), True, first)
            self.norms.append((operation, found))
            return found
        if kind in _POOLING and first.maps:
            return self._channels(first.values.clone(), True, first)
        if kind in _FLATTEN and first.maps and self._flattens_channels(node, operation):
            return self._channels(first.values, False, first)
        alike = all(
            each.maps == first.maps and each.values.shape == first.values.shape for each in inputs
        )
        if kind in _ELEMENTWISE and alike:
            return self._elementwise(node, operation, inputs)
        return None

    @staticmethod
    def _flattens_channels(node: fx.Node, operation: Any) -> bool:
        """Whether (B,C,H,W) becomes (B,C*H*W)."""
        if isinstance(operation, nn.Flatten):
            return (operation.start_dim, operation.end_dim) == (1, -1)
        return (node.args[1:], node.kwargs) in (((1,), {}), ((), {"start_dim": 1}))

    def _elementwise(self, node: fx.Node, operation: Any, inputs: list[_Channels]) -> _Channels:
        merged = {self.streams[each.number] for each in inputs}
        self.streams = [min(merged) if each in merged else each for each in self.streams]
        arguments, options = map_arg((node.args, node.kwargs), lambda each: self.env[each].values)
        if node.op == "call_method":
            values = getattr(arguments[0], operation)(*arguments[1:], **options)
        else:
            values = operation(*arguments, **options)
        return self._channels(values, inputs[0].maps, inputs[0])

    def _read(self, layer: nn.Conv2d | nn.Linear, source: _Channels | None) -> _Channels:
        maps = isinstance(layer, nn.Conv2d)
        weight = layer.weight.flatten(2) if maps else layer.weight.unsqueeze(2)
        if source is not None:
            num_channels = source.values.numel()
            if source.maps != maps or weight.shape[1] % num_channels:
                self.whole.append(source)
                source = None
            elif not maps:  # maybe of flattened maps
                weight = layer.weight.unflatten(1, (num_channels, -1))
        values = weight.new_full((weight.shape[1],), torch.nan)
        if source is not None:
            values = source.values.flatten().clone()
        varies = values.isnan()
        if maps and layer.padding_mode == "zeros" and layer.padding not in ((0, 0), "valid"):
            varies |= values != 0
        constants = weight.sum(2) * values.where(~varies, 0)
        written = constants.sum(1)
        if layer.bias is not None:
            written = written + layer.bias
        written = written.where(~((weight != 0).any(2) & varies).any(1), torch.nan)
        found = self._channels(written.view(1, -1, 1, 1), maps)
        self.readers.append(_Reader(layer, source, found, weight, varies, constants))
        return found

    def kept(self) -> dict[int, Tensor]:
        """Of each stream the channels that an output depends on, bool (C,)."""
        kept = {
            self.streams[each.written.number]: torch.zeros_like(each.constants[:, 0]).bool()
            for each in self.readers
        }
        for each in self.whole:
            kept[self.streams[each.number]][:] = True
        grows = True
        while grows:
            grows = False
            for reader in self.readers:
                if reader.source is None:
                    continue
                write, sources = (
                    kept[self.streams[each.number]] for each in (reader.written, reader.source)
                )
                more = (reader.weight[write] != 0).any(2).any(0) & reader.varies & ~sources
                sources |= more
                grows |= bool(more.any())
        for channels in kept.values():
            channels[0] |= not channels.any()  # no layer without channels
        return kept


@torch.no_grad()
def compact(model: nn.Module) -> nn.Module:
    """The same function by a smaller network: channels that are wholly dead are removed.

    A channel is dead if no output depends on it but through a constant that a bias can take. In a
    residual stream it must be dead for all that read the stream. What follows an operation that is
    not understood here (a grouped convolution, a concatenation, attention) stays as it is.

    Example: `compact(pruning.load_ticket("ticket.safetensors"))`.

    Args:
        model: a network that torch.fx can trace, with 0 where it is pruned; it is not changed.

    Returns:
        A copy in eval mode, with the same layers, some of them narrower or with a bias; its outputs
        differ by rounding alone.

    Raises:
        ValueError: one line: torch.fx cannot trace it.
    """
    smaller = deepcopy(model).eval()
    try:
        graph = fx.Tracer().trace(smaller)
    except Exception as error:  # the network's own code runs, which may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{type(model).__name__}: torch.fx cannot trace it ({reason}); want a network whose"
            " operations do not depend on the images' values or shapes"
        ) from error
    flow = _Flow(smaller, graph)
    kept = flow.kept()
    for reader in flow.readers:
        read = None if reader.source is None else kept[flow.streams[reader.source.number]]
        reader.narrow(kept[flow.streams[reader.written.number]], read)
    for norm, channels in flow.norms:
        stay = kept[flow.streams[channels.number]]
        norm.num_features = int(stay.sum())
        if norm.affine:
            norm.weight, norm.bias = nn.Parameter(norm.weight[stay]), nn.Parameter(norm.bias[stay])
        norm.running_mean, norm.running_var = norm.running_mean[stay], norm.running_var[stay]
    return smaller
