"""Loss landscapes after Li et al. 2018 (paper, Figures 2, 6 and A9).

Filter-normalised random directions, the loss over a plane of weights, and the plane that a training
run's checkpoints lie in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwlt_lib.evaluation.accuracy import mean_loss
from dwlt_lib.models.tensors import Mask, Weights

MAX_PATH_ENTRIES = 2**27
"""The most float64 numbers of a path (1 GiB) that are held in memory as one matrix."""


def direction(model: nn.Module, m: Mask, rng: torch.Generator) -> Weights:
    """A random filter-normalised direction in the space of the kept weights (Li et al. 2018).

    d ~ N(0, 1), masked, then every filter f scaled: d_f <- d_f |theta_f| / |d_f|. It is masked
    before it is scaled, so that no part of a filter's norm lies on pruned weights. A filter of a
    linear layer is a row. Parameters with one number per channel (normalisation, biases, ConvNeXt's
    layer scale) get 0.

    Args:
        model: the network whose weights give the norms.
        m: its mask; parameters without a mask are not masked.
        rng: a generator on the CPU.

    Returns:
        {parameter name: a tensor of its shape} for every parameter.
    """
    normalised = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        if weight.dim() <= 1 or weight[0].numel() == 1:
            normalised[name] = torch.zeros_like(weight)
            continue
        d = torch.randn(weight.shape, generator=rng).to(weight)
        if name in m:
            d = d * m[name].to(d.device)
        all_but_filters = tuple(range(1, weight.dim()))
        weight_norm = torch.linalg.vector_norm(weight, dim=all_but_filters, keepdim=True)
        norm = torch.linalg.vector_norm(d, dim=all_but_filters, keepdim=True)
        scaled = d * weight_norm / norm.clamp_min(torch.finfo(d.dtype).tiny)
        normalised[name] = torch.where(norm > 0, scaled, 0)
    return normalised


@torch.no_grad()
def surface(  # noqa: PLR0913 - the loss is a function of all of these
    model: nn.Module,
    m: Mask,
    d1: Weights,
    d2: Weights,
    x: Tensor,
    y: Tensor,
    grid: Tensor | tuple[Tensor, Tensor],
) -> Tensor:
    """The mean cross-entropy at theta + a d1 + b d2, for a and b on a grid.

    Pruned weights stay 0 at every point. BatchNorm keeps the mode the model is in; the weights
    (and, in train mode, the statistics) are restored.

    Args:
        model: the network at theta.
        m: its mask.
        d1: the direction of a, by parameter name.
        d2: the direction of b, by parameter name.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) labels.
        grid: the coordinates (G,) of both axes, or one tensor per axis, (G1,) and (G2,).

    Returns:
        (G1, G2) float64, a along the first axis, b along the second.

    Example:
        >>> d1, d2 = direction(model, m, rng), direction(model, m, rng)
        >>> loss = surface(model, m, d1, d2, x, y, torch.linspace(-1, 1, 21))
    """
    grid_a, grid_b = grid if isinstance(grid, tuple) else (grid, grid)
    parameters = dict(model.named_parameters())
    initial_state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def masked(weights: Weights, name: str) -> Tensor:
        weight = weights[name].to(parameters[name])
        return weight * m[name].to(weight) if name in m else weight

    planes = [
        (parameter, masked(initial_state, name), masked(d1, name), masked(d2, name))
        for name, parameter in parameters.items()
    ]
    loss = torch.empty(len(grid_a), len(grid_b), dtype=torch.float64)
    for i, a in enumerate(grid_a.tolist()):
        for j, b in enumerate(grid_b.tolist()):
            for parameter, theta, u, v in planes:
                parameter.copy_(torch.add(theta, u, alpha=a).add_(v, alpha=b))
            loss[i, j] = mean_loss(model, x, y)
    model.load_state_dict(initial_state)
    return loss


@dataclass(frozen=True)
class Trajectory:
    """A training run seen in the plane of its own first two principal components."""

    coords: Tensor
    """(T, 2) float64: each checkpoint's coordinates; the last row is (0, 0)."""
    components: tuple[Weights, Weights]
    """Two orthonormal directions, by parameter name."""
    explained: tuple[float, float]
    """The share of the path's variance along each, in [0, 1]."""
    residual: Tensor
    """(T,) float64: each checkpoint's distance from the plane."""


def trajectory(checkpoints: list[Weights]) -> Trajectory:
    """PCA of theta_t - theta_T over a run's checkpoints, with the last one as the origin.

    The differences are centred to find the two directions; coordinates are the projections of
    theta_t - theta_T, so that the run ends at (0, 0).

    Args:
        checkpoints: three or more, in order, each {parameter name: tensor}.

    Returns:
        The path in its plane; it starts on the positive side of both axes.

    Raises:
        ValueError: one line, for fewer than three checkpoints.
    """
    if len(checkpoints) < 3:
        raise ValueError(
            f"{len(checkpoints)} checkpoints: want at least 3 to span a plane; train for 2 epochs"
            " or more"
        )
    shapes = checkpoints[0]
    sizes = [weight.numel() for weight in shapes.values()]
    fits_in_memory = len(checkpoints) * sum(sizes) <= MAX_PATH_ENTRIES
    groups = [list(shapes)] if fits_in_memory else [[name] for name in shapes]

    def paths() -> Iterator[Tensor]:
        return (_path(checkpoints, names) for names in groups)

    if fits_in_memory:
        path = next(paths())
        _, singular, rows = torch.linalg.svd(path - path.mean(0), full_matrices=False)
        axes = [rows[:2]]
    else:
        singular, rows = _principal_directions(paths)
        axes = list(rows.split(sizes, dim=1))
    zero = torch.zeros((), dtype=torch.float64)
    start = sum((path[0] @ axis.T for path, axis in zip(paths(), axes, strict=True)), zero)
    sign = torch.where(start < 0, -1.0, 1.0)[:, None]
    axes = [axis * sign for axis in axes]
    coords = sum((path @ axis.T for path, axis in zip(paths(), axes, strict=True)), zero)
    residuals = (
        torch.linalg.vector_norm(path - coords @ axis, dim=1)
        for path, axis in zip(paths(), axes, strict=True)
    )
    variance = singular**2
    tiny = torch.finfo(torch.float64).tiny
    first_share, second_share = (variance / variance.sum().clamp_min(tiny))[:2].tolist()
    first, second = torch.cat(axes, 1)
    return Trajectory(
        coords=coords,
        components=(_by_name(first, shapes), _by_name(second, shapes)),
        explained=(first_share, second_share),
        residual=reduce(torch.hypot, residuals),
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


def _by_name(flat: Tensor, shapes: Weights) -> Weights:
    """A vector of all entries, cut into tensors that are like those of `shapes`."""
    parts = flat.split([weight.numel() for weight in shapes.values()])
    return {
        name: part.reshape(weight.shape).to(weight)
        for part, (name, weight) in zip(parts, shapes.items(), strict=True)
    }


def _principal_directions(paths: Callable[[], Iterator[Tensor]]) -> tuple[Tensor, Tensor]:
    """The centred path's singular values (T,) and first two right singular vectors (2, entries).

    They come from the eigenvectors of the path's T x T inner products, so that a large network's
    path is never in memory as a whole. paths: gives the path, some parameters at a time.
    """

    def centred() -> Iterator[Tensor]:
        return (path - path.mean(0) for path in paths())

    zero = torch.zeros((), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(sum((path @ path.T for path in centred()), zero))
    singular = values.flip(0).clamp_min(0).sqrt()
    first_two = vectors.flip(1)[:, :2].T
    first, second = torch.cat([first_two @ path for path in centred()], 1)
    first = F.normalize(first, dim=0)
    # rounding leaves a little of the first in the second
    second = F.normalize(second - (first @ second) * first, dim=0)
    return singular, torch.stack([first, second])


def grid_around(coords: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The grid of a picture that shows a whole path and has (0, 0) as one of its points.

    So the loss there is exactly the last checkpoint's. Around the path there is room, a quarter of
    its larger extent.

    Args:
        coords: (T, 2) of a `Trajectory`.
        points: how many coordinates per axis.

    Returns:
        The coordinates of both axes, (points,) float64 each.
    """
    room = (coords.max(0).values - coords.min(0).values).max().clamp_min(1e-12) / 4
    low, high = coords.min(0).values - room, coords.max(0).values + room
    step = (high - low) / (points - 1)
    points_below_zero = (-low / step).round()
    grid = (torch.arange(points, dtype=torch.float64)[:, None] - points_below_zero) * step
    return grid[:, 0].clone(), grid[:, 1].clone()  # to be saved, each needs its own memory
