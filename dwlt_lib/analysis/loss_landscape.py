"""Loss landscapes after Li et al. 2018.

Filter-normalised directions, surfaces, PCA trajectories (Figs. 2, 6, A9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.evaluation.accuracy import mean_loss
from dwlt_lib.models.tensors import Mask, Weights

WHOLE = 2**27  # float64 numbers, the most of a path that is one matrix in memory
Grid = Tensor | tuple[Tensor, Tensor]


def direction(model: nn.Module, m: Mask, rng: torch.Generator) -> Weights:
    """A random direction: N(0,1), masked, each filter scaled to the norm of the weights' filter.

    Masked before it is scaled, so that no part of a filter's norm lies on pruned weights.
    One-dimensional parameters (BatchNorm, biases) get 0. rng: on the CPU. Returns {parameter name:
    (*shape,)} for every parameter.
    """
    found = {}
    for name, weight in model.named_parameters():
        weight = weight.detach()
        if weight.dim() <= 1:
            found[name] = torch.zeros_like(weight)
            continue
        d = torch.randn(weight.shape, generator=rng).to(weight)
        if name in m:
            d = d * m[name].to(d.device)
        filters = tuple(range(1, weight.dim()))
        scale = torch.linalg.vector_norm(weight, dim=filters, keepdim=True)
        norm = torch.linalg.vector_norm(d, dim=filters, keepdim=True)
        found[name] = torch.where(
            norm > 0, d * scale / norm.clamp_min(torch.finfo(d.dtype).tiny), 0
        )
    return found


@torch.no_grad()
def surface(
    model: nn.Module, m: Mask, d1: Weights, d2: Weights, x: Tensor, y: Tensor, grid: Grid
) -> Tensor:
    """Mean cross-entropy at theta + a d1 + b d2: (G1, G2) float64, a along the first axis, b along
    the second.

    x: (N,C,H,W) in [0,1], y: (N,); grid: the coordinates (G,) of both axes, or one tensor an axis.
    Pruned weights stay 0 at every point. BatchNorm keeps the mode the model is in; the weights
    (and, in train mode, the statistics) are put back.
    """
    along, across = grid if isinstance(grid, tuple) else (grid, grid)
    parameters = dict(model.named_parameters())
    home = {name: value.detach().clone() for name, value in model.state_dict().items()}
    one = {
        name: (
            m[name].to(value)
            if name in m
            else torch.ones((), dtype=value.dtype, device=value.device)
        )
        for name, value in parameters.items()
    }
    centre, first, second = (
        [where[name].to(value) * one[name] for name, value in parameters.items()]
        for where in (home, d1, d2)
    )
    held, loss = (
        list(parameters.values()),
        torch.empty(len(along), len(across), dtype=torch.float64),
    )
    for i, a in enumerate(along.tolist()):
        row = torch._foreach_add(centre, first, alpha=a)
        for j, b in enumerate(across.tolist()):
            torch._foreach_copy_(held, row)
            torch._foreach_add_(held, second, alpha=b)
            loss[i, j] = mean_loss(model, x, y)
    model.load_state_dict(home)
    return loss


@dataclass(frozen=True)
class Trajectory:
    """coords: (T,2) float64, the last row (0,0); components: two orthonormal directions; explained:
    the share of the path's variance along each; residual: (T,) each checkpoint's distance from the
    plane."""

    coords: Tensor
    components: tuple[Weights, Weights]
    explained: tuple[float, float]
    residual: Tensor


def trajectory(checkpoints: list[Weights]) -> Trajectory:
    """PCA of theta_t - theta_T over a run's checkpoints (three or more), seen from the last one.

    checkpoints: {parameter name: (*shape,)} each, in order. The differences are centred to find the
    two directions; coordinates are the projections of theta_t - theta_T, so that the run ends at
    (0, 0).
    """
    if len(checkpoints) < 3:
        raise ValueError(
            f"{len(checkpoints)} checkpoints: want at least 3 to span a plane; train for 2 epochs"
            " or more"
        )
    like = checkpoints[0]
    sizes = [part.numel() for part in like.values()]
    whole = len(checkpoints) * sum(sizes) <= WHOLE
    groups = [list(like)] if whole else [[name] for name in like]
    parts = partial(
        map, partial(_path, checkpoints), groups
    )  # called, it goes through the path a group at a time
    if whole:
        path = next(parts())
        _, singular, rows = torch.linalg.svd(path - path.mean(0), full_matrices=False)
        axes = [rows[:2]]
    else:
        singular, rows = _directions(parts)
        axes = rows.split(sizes, dim=1)
    start = sum(part[0] @ axis.T for part, axis in zip(parts(), axes, strict=True))
    sign = torch.where(start < 0, -1.0, 1.0)[:, None]  # the run starts on the positive side
    axes = [axis * sign for axis in axes]
    coords = sum(part @ axis.T for part, axis in zip(parts(), axes, strict=True))
    residual = reduce(
        torch.hypot,
        (
            torch.linalg.vector_norm(part - coords @ axis, dim=1)
            for part, axis in zip(parts(), axes, strict=True)
        ),
    )
    share = (singular**2 / (singular**2).sum().clamp_min(torch.finfo(torch.float64).tiny))[
        :2
    ].tolist()
    components = tuple(
        {
            name: part.reshape(like[name].shape).to(like[name])
            for name, part in zip(like, axis.split(sizes), strict=True)
        }
        for axis in torch.cat(axes, 1)
    )
    return Trajectory(
        coords=coords, components=components, explained=(share[0], share[1]), residual=residual
    )


def _path(checkpoints: list[Weights], names: list[str]) -> Tensor:
    """theta_t - theta_T of these parameters: (T, their entries) float64 on the CPU."""
    path = torch.stack(
        [
            torch.cat([state[name].detach().reshape(-1).double().cpu() for name in names])
            for state in checkpoints
        ]
    )
    return path - path[-1]


def _directions(parts: Callable[[], Iterator[Tensor]]) -> tuple[Tensor, Tensor]:
    """The centred path's singular values (T,) and first two right singular vectors (2, entries), by
    the eigenvectors of its T x T inner products, so that a large network's path is never in memory
    as a whole."""
    values, vectors = torch.linalg.eigh(
        sum(part @ part.T for part in (path - path.mean(0) for path in parts()))
    )
    singular, first_two = values.flip(0).clamp_min(0).sqrt(), vectors.flip(1)[:, :2].T
    first, second = torch.cat([first_two @ (path - path.mean(0)) for path in parts()], 1)
    first = F.normalize(first, dim=0)
    second = F.normalize(
        second - (first @ second) * first, dim=0
    )  # of which rounding left a little
    return singular, torch.stack([first, second])


def frame(coords: Tensor, points: int, margin: float = 0.25) -> tuple[Tensor, Tensor]:
    """The coordinates (points,) of both axes of a picture that shows a whole path, with `margin` of
    its extent around.

    (0, 0) is one of the grid's points, so that the loss there is the last checkpoint's.
    """
    axes = []
    extent = (coords.max(0).values - coords.min(0).values).max().clamp_min(1e-12) * margin
    for axis in (0, 1):
        low, high = float(coords[:, axis].min() - extent), float(coords[:, axis].max() + extent)
        step = (high - low) / (points - 1)
        below = round(-low / step)
        axes.append((torch.arange(points, dtype=torch.float64) - below) * step)
    return axes[0], axes[1]
