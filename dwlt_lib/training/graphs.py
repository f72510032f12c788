"""On CUDA, a training step captured once as a graph and replayed.

Weights, images, noise and rate are data in buffers.

A small network's step is hundreds of launches of a few microseconds each; a replay is one. What
cannot be captured runs step by step, and says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

Work = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x, y, start) -> what a step returns: the images that were trained on, and their loss."""

Pool = tuple[int, int]
"""What torch.cuda.graph_pool_handle returns."""

log = logging.getLogger(__name__)


def captured(  # noqa: PLR0913  (what a step takes)
    work: Work,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    pool: Pool | None = None,
) -> Work | None:
    """Capture one step on batches of exactly these shapes as a graph.

    The model and the optimiser are left as they were found; both must keep their tensors while the
    graph is used, and the optimiser's rate must be a tensor.

    Args:
        work: the step.
        model: the network that it trains.
        optimiser: of the model's parameters.
        x: images of a batch, for their shape.
        y: their classes.
        start: a first delta.
        pool: memory that the graph shares with others, of which one at least is still there; what
            they return may be overwritten by its next call.

    Returns:
        The step, whose results are overwritten by its next call; None if it cannot be captured,
        which is logged.
    """
    static = tuple(value.clone() for value in (x, y, start))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    momenta = {
        parameter: state["momentum_buffer"].clone()
        for parameter, state in optimiser.state.items()
        if state.get("momentum_buffer") is not None
    }
    graph = result = None
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                work(*static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # torch names the type of a pool differently in each version
        with torch.cuda.graph(graph, pool=pool):  # pyright: ignore[reportArgumentType]
            result = work(*static)
    except RuntimeError as error:
        log.warning("training step by step, not as a CUDA graph: %s", str(error).splitlines()[0])
        graph = None
    with torch.no_grad():
        model.load_state_dict(weights)
        for parameter, state in optimiser.state.items():
            # where there was no momentum yet, zero is the same
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"].copy_(momenta.get(parameter, torch.zeros_like(parameter)))
    if graph is None or result is None:
        return None

    def replay(*values: Tensor) -> tuple[Tensor, Tensor]:
        for buffer, value in zip(static, values, strict=True):
            buffer.copy_(value)
        graph.replay()
        return result

    return replay
