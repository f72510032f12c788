"""Theorems on landscapes.

Filter norms, pruned coordinates, centres, and the plane of a path (Li et al. 2018).
"""

import pytest
import torch
import torch.nn.functional as F
from seeds import torch_rng as rng

from dwlt_lib.analysis import loss_landscape
from dwlt_lib.evaluation import accuracy
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks


@pytest.fixture
def ticket(net):
    """A masked network in eval mode, its mask, and images."""
    model = net(classes=3)
    theta = {name: weight.detach() for name, weight in architectures.prunable(model).items()}
    m = masks.magnitude_prune(theta, masks.dense_mask(theta), 0.7)
    m["conv1.weight"][4] = False  # a filter that is pruned whole
    masks.apply_(model, m)
    return (
        model.eval(),
        m,
        torch.rand(20, 3, 8, 8, generator=rng(1)),
        torch.randint(0, 3, (20,), generator=rng(2)),
    )


def test_each_filter_of_a_direction_is_as_long_as_the_weights_filter(ticket):
    model, m, *_ = ticket
    d = loss_landscape.direction(model, m, rng())
    assert d.keys() == dict(model.named_parameters()).keys()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            assert torch.allclose(
                d[name].flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1), rtol=1e-4
            ), name
    assert (d["conv1.weight"][4] == 0).all() and d["fc.weight"].abs().max() > 0


def test_a_direction_is_zero_on_pruned_weights_and_one_dimensional_tensors_and_nowhere_else(ticket):
    model, m, *_ = ticket
    d = loss_landscape.direction(model, m, rng())
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            assert (d[name] == 0).all()
        elif name in m:
            assert torch.equal(d[name] != 0, m[name])


def test_directions_follow_their_generator_and_are_nearly_perpendicular(ticket):
    model, m, *_ = ticket
    one, same, other = (loss_landscape.direction(model, m, rng(seed)) for seed in (0, 0, 1))
    flat = [torch.cat([d[name].flatten() for name in sorted(d)]) for d in (one, same, other)]
    assert torch.equal(flat[0], flat[1])
    assert F.cosine_similarity(flat[0], flat[2], dim=0).abs() < 0.1


def test_the_surface_is_the_loss_at_every_point_by_hand_and_at_the_centre_exactly(ticket):
    model, m, x, y = ticket
    d1, d2 = loss_landscape.direction(model, m, rng(0)), loss_landscape.direction(model, m, rng(1))
    centre = accuracy.mean_loss(model, x, y)
    grid = torch.tensor([-0.5, 0.0, 0.25])
    loss = loss_landscape.surface(model, m, d1, d2, x, y, (grid, grid[:2]))
    assert loss.shape == (3, 2) and loss.dtype == torch.float64 and loss[1, 1] == centre
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for i, a in enumerate(grid):  # a along the first axis, b along the second
        for j, b in enumerate(grid[:2]):
            model.load_state_dict({**state, **{n: state[n] + a * d1[n] + b * d2[n] for n in d1}})
            assert loss[i, j] == pytest.approx(accuracy.mean_loss(model, x, y), rel=1e-5)
    model.load_state_dict(state)
    assert torch.equal(loss_landscape.surface(model, m, d1, d2, x, y, grid)[:, :2], loss)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_weights_buffers_and_mode_are_put_back(ticket, mode):
    model, m, x, y = ticket
    getattr(model, mode)()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    d = loss_landscape.direction(model, m, rng())
    loss_landscape.surface(model, m, d, d, x, y, torch.tensor([-1.0, 1.0]))
    assert model.training == (mode == "train")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_pruned_weights_stay_zero_at_every_point_whatever_the_direction(ticket, monkeypatch):
    model, m, x, y = ticket
    seen = []
    monkeypatch.setattr(
        loss_landscape,
        "mean_loss",
        lambda net, *_: (
            seen.append(
                [
                    bool((weight[~m[name]] == 0).all()) and bool((weight[m[name]] != 0).any())
                    for name, weight in architectures.prunable(net).items()
                ]
            )
            or 0.0
        ),
    )
    everywhere = {name: torch.ones_like(weight) for name, weight in model.named_parameters()}
    loss_landscape.surface(model, m, everywhere, everywhere, x, y, torch.tensor([-1.0, 0.5, 1.0]))
    assert len(seen) == 9 and all(all(layers) for layers in seen)


def path(coords, seed=0, noise=0.0):
    """Checkpoints in a random plane of a 40-dimensional space, and that plane's two directions."""
    axes = torch.linalg.qr(torch.randn(40, 2, generator=rng(seed), dtype=torch.float64)).Q.T
    points = torch.as_tensor(coords, dtype=torch.float64) @ axes + 3
    points = points + noise * torch.randn(
        points.shape, generator=rng(seed + 1), dtype=torch.float64
    )
    return [{"a": p[:28].reshape(7, 4), "b": p[28:]} for p in points], points


SPIRAL = [(4.0, 0.0), (3.0, 2.0), (1.0, 2.0), (0.5, 1.0), (0.2, 0.1), (0.0, 0.0)]


def test_a_path_in_a_plane_is_seen_whole_and_ends_at_the_origin():
    states, points = path(SPIRAL)
    found = loss_landscape.trajectory(states)
    assert found.coords.shape == (6, 2) and (found.coords[-1] == 0).all()
    assert found.residual.abs().max() < 1e-9
    assert sum(found.explained) == pytest.approx(1) and found.explained[0] > found.explained[1] > 0
    assert torch.allclose(
        torch.cdist(found.coords, found.coords), torch.cdist(points, points), atol=1e-5
    )


def test_components_are_orthonormal_and_coordinates_are_projections_onto_them():
    states, points = path(SPIRAL, noise=0.3)
    found = loss_landscape.trajectory(states)
    flat = torch.stack([torch.cat([c["a"].flatten(), c["b"].flatten()]) for c in found.components])
    assert flat.shape == (2, 40) and found.components[0]["a"].shape == (7, 4)
    assert torch.allclose(flat @ flat.T, torch.eye(2, dtype=flat.dtype), atol=1e-6)
    away = points - points[-1]
    assert torch.allclose(found.coords, away @ flat.T, atol=1e-6)
    off = (away - found.coords @ flat).norm(dim=1)
    assert torch.allclose(found.residual, off, atol=1e-6) and found.residual[:-1].min() > 0.1
    assert found.residual[-1] == pytest.approx(0, abs=1e-9)


def test_explained_shares_are_those_of_the_centred_path():
    states, points = path(SPIRAL, noise=0.3)
    found = loss_landscape.trajectory(states)
    values = torch.linalg.svdvals(points - points.mean(0)) ** 2
    assert found.explained == pytest.approx((values / values.sum())[:2].tolist())
    assert 0.5 < sum(found.explained) < 1


@pytest.mark.parametrize("noise", [0.0, 1e-6, 0.3])
def test_a_path_too_large_for_one_matrix_gives_the_same_plane(monkeypatch, noise):
    states, _ = path(SPIRAL, noise=noise)
    one = loss_landscape.trajectory(states)
    monkeypatch.setattr(loss_landscape, "MAX_PATH_ENTRIES", 0)
    many = loss_landscape.trajectory(states)
    assert torch.allclose(one.coords, many.coords, atol=1e-9) and one.explained == pytest.approx(
        many.explained
    )
    assert torch.allclose(one.residual, many.residual, atol=1e-7)
    for a, b in zip(one.components, many.components, strict=True):
        assert all(torch.allclose(a[name], b[name], atol=1e-9) for name in a)
    still = loss_landscape.trajectory(path([(1, 1)] * 4)[0])
    assert (still.coords == 0).all() and still.explained == (0, 0)


def test_a_path_that_stands_still_or_is_too_short_is_no_division_by_zero():
    found = loss_landscape.trajectory(path([(1, 1)] * 4)[0])
    assert (found.coords == 0).all() and found.explained == (0, 0)
    with pytest.raises(ValueError, match="checkpoints"):
        loss_landscape.trajectory(path([(1, 1), (0, 0)])[0])


def test_walking_a_component_by_its_coordinate_returns_to_the_checkpoint():
    states, points = path(SPIRAL)
    found = loss_landscape.trajectory(states)
    for state, (a, b) in zip(states, found.coords.tolist(), strict=True):
        for name in state:
            back = states[-1][name] + a * found.components[0][name] + b * found.components[1][name]
            assert torch.allclose(back, state[name], atol=1e-6)


@pytest.mark.parametrize("points", [5, 7, 15, 16, 51])
@pytest.mark.parametrize(
    "coords",
    [
        SPIRAL,
        [(-2.0, 5.0), (-7.0, 5.5), (0.0, 0.0)],
        [(3.0, 0.0), (1.0, 0.0), (0.0, 0.0)],
        [(1e-3, 2e3), (-3e-3, 1e3), (0.0, 0.0)],
    ],
)
def test_the_frame_shows_the_whole_path_and_has_the_end_as_a_point(coords, points):
    coords = torch.tensor(coords, dtype=torch.float64)
    for axis, grid in enumerate(loss_landscape.grid_around(coords, points)):
        assert len(grid) == points and (grid == 0).sum() == 1
        assert (grid.diff() > 0).all() and grid.diff().std() < 1e-9 * grid.diff().mean() + 1e-12
        assert grid[0] < coords[:, axis].min() and grid[-1] > coords[:, axis].max()
