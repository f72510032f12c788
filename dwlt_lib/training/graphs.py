"""On CUDA, a training step captured once as a graph and replayed: weights, images, noise and rate
are data in buffers.

A small network's step is hundreds of launches of a few microseconds each; a replay is one. What
cannot be captured runs step by step, and says so once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

Work = Callable[
    [Tensor, Tensor, Tensor], tuple[Tensor, ...]
]  # (x, y, start) -> what a step returns
Pool = tuple[int, int]  # of torch.cuda.graph_pool_handle


def captured(
    work: Work,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    pool: Pool | None = None,
) -> Work | None:
    """`work`, one step on batches of exactly these shapes, as a graph; None if it cannot be
    captured.

    The model and the optimiser are left as they were found; both must keep their tensors while the
    graph is used, and the optimiser's rate must be a tensor. What it returns is overwritten by the
    next call. pool: memory that it shares with other graphs, of which one at least is still there;
    what they return may be overwritten by its next call, too.
    """
    static = tuple(value.clone() for value in (x, y, start))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    momenta = {
        parameter: state["momentum_buffer"].clone()
        for parameter, state in optimiser.state.items()
        if state.get("momentum_buffer") is not None
    }
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work(*static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            found = work(*static)
    except RuntimeError as error:
        print(
            f"training step by step, not as a CUDA graph: {str(error).splitlines()[0]}",
            file=sys.stderr,
            flush=True,
        )
        graph = None
    with torch.no_grad():
        model.load_state_dict(weights)
        for parameter, state in optimiser.state.items():
            if (
                state.get("momentum_buffer") is not None
            ):  # where there was none yet, zero is the same
                state["momentum_buffer"].copy_(momenta.get(parameter, torch.zeros_like(parameter)))
    if graph is None:
        return None

    def replay(*values: Tensor) -> tuple[Tensor, ...]:
        for buffer, value in zip(static, values, strict=True):
            buffer.copy_(value)
        graph.replay()
        return found

    return replay
