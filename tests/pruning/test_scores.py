"""Theorems on SNIP, GraSP and SynFlow: their definitions, by another way, on small networks."""

from itertools import pairwise

import pytest
import torch
from seeds import torch_rng
from torch import nn
from torch.nn import functional as F

from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks, scores


class Chain(nn.Module):
    """Convolutions and BatchNorm without a shortcut, whose statistics are not those of a start."""

    activation = staticmethod(F.relu)

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 5, 1)
        self.fc = nn.Linear(5, num_classes)

    def forward(self, x):
        x = self.activation(self.bn1(self.conv1(x)))
        x = self.activation(self.bn2(self.conv2(x)))
        return self.fc(self.activation(self.conv3(x)).mean((2, 3)))


@pytest.fixture
def chain():
    rng = torch_rng(3)
    model = architectures.build(f"{__name__}:Chain", 4, (0.4,) * 3, (0.3,) * 3).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.5 * torch.randn(tensor.shape, generator=rng))
    for bn in (model.bn1, model.bn2):
        bn.running_var.abs_().add_(0.1)
    return model.double()


@pytest.fixture
def batch():
    rng = torch_rng(4)
    x = torch.rand(7, 3, 6, 6, generator=rng, dtype=torch.float64)
    return x, torch.randint(4, (7,), generator=rng)


def gradients(model, x, y, temperature=1.0):
    loss = F.cross_entropy(model(x) / temperature, y)
    return torch.autograd.grad(loss, [*architectures.prunable(model).values()])


def test_snip_is_the_slope_of_the_loss_in_the_mask(chain, batch):
    x, y = batch
    weights = {name: w.detach() for name, w in architectures.prunable(chain).items()}
    m = {name: torch.ones_like(w, requires_grad=True) for name, w in weights.items()}
    masked = {name: m[name] * w for name, w in weights.items()}
    loss = F.cross_entropy(torch.func.functional_call(chain, masked, (x,)), y)
    slopes = torch.autograd.grad(loss, [*m.values()])
    found = scores.snip(chain, x, y)
    assert list(found) == list(weights)
    for score, slope in zip(found.values(), slopes, strict=True):
        torch.testing.assert_close(score, slope.abs())


def test_grasp_is_the_fall_of_the_gradients_norm_as_a_weight_goes(chain, batch):
    x, y = batch
    chain.activation = F.softplus  # without kinks, at which the norm jumps
    found, step = scores.grasp(chain, x, y), 1e-5
    scale = sum((g**2).sum().item() for g in gradients(chain, x, y, scores.GRASP_TEMPERATURE))
    for name, weight in architectures.prunable(chain).items():
        for place in ((0,) * 4, (-1,) * 4):
            value, norms = weight[place].item(), []
            for sign in (1, -1):  # along theta, which is away from a pruned weight
                with torch.no_grad():
                    weight[place] = value * (1 + sign * step)
                slopes = gradients(chain, x, y, scores.GRASP_TEMPERATURE)
                norms.append(sum((g**2).sum().item() for g in slopes))
            with torch.no_grad():
                weight[place] = value
            # d(g'g) = 2 (Hg)' d(theta)
            difference = (norms[0] - norms[1]) / (2 * step) / 2
            assert found[name][place].item() == pytest.approx(
                difference, rel=1e-4, abs=1e-7 * scale
            )


def test_scores_do_not_depend_on_the_micro_batch_and_leave_the_network_alone(
    chain, batch, monkeypatch
):
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    whole = scores.snip(chain, *batch), scores.grasp(chain, *batch)
    monkeypatch.setattr(scores, "MICRO_BATCH", 3)
    parts = scores.snip(chain, *batch), scores.grasp(chain, *batch)
    for one, other in zip(whole, parts, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name])
    scores.synflow(chain, 6, 3, 0.2)
    assert all(torch.equal(before[name], value) for name, value in chain.state_dict().items())
    assert all(weight.grad is None for weight in chain.parameters())


def test_synaptic_flow_is_conserved_every_layers_scores_sum_to_the_flow(chain):
    linear = scores._linear(chain)
    m = masks.random_prune(masks.dense_mask(chain), 0.3, torch_rng(5))
    found = scores.synaptic_flow(linear, m, 6)
    sums = [float(score.sum()) for score in found.values()]
    assert sums[0] > 0 and sums == pytest.approx([sums[0]] * 3, rel=1e-12)
    for name, score in found.items():
        assert (score >= 0).all() and (score[~m[name]] == 0).all()
    # the flow by hand: a product of absolute values, 1' W ... 1
    flow = torch.ones(1, 3, 6, 6, dtype=torch.float64)
    weights = {name: weight.abs() * m[name] for name, weight in prunable_data(chain).items()}
    for conv, bn in (("conv1", chain.bn1), ("conv2", chain.bn2), ("conv3", None)):
        stride = 2 if conv == "conv2" else 1
        padding = 0 if conv == "conv3" else 1
        flow = F.conv2d(flow, weights[f"{conv}.weight"], stride=stride, padding=padding)
        if bn is not None:
            scale = bn.weight.abs() / (bn.running_var + bn.eps).sqrt()
            flow = flow * scale.view(-1, 1, 1)
    total = (flow.mean((2, 3)) @ chain.fc.weight.abs().T).sum().item()
    assert sums[0] == pytest.approx(total, rel=1e-12)


def prunable_data(model):
    return {name: weight.detach() for name, weight in architectures.prunable(model).items()}


def test_synflow_prunes_no_layer_away_where_magnitudes_do(chain):
    with torch.no_grad():
        chain.conv2.weight.mul_(1e-3)
    m = scores.synflow(chain, 6, 12, 0.2)
    by_magnitude = scores.one_shot_pruning(
        {name: weight.abs() for name, weight in prunable_data(chain).items()}, 12, 0.2
    )
    assert masks.num_kept(m) == masks.num_kept(by_magnitude)
    assert not by_magnitude["conv2.weight"].any()
    # what is left lets something through
    found = scores.synaptic_flow(scores._linear(chain), m, 6)
    assert all(float(score.sum()) > 0 for score in found.values())


def test_scores_drop_as_many_weights_as_imp_and_nest(chain, batch):
    for found in (scores.snip(chain, *batch), scores.grasp(chain, *batch)):
        ladder = [scores.one_shot_pruning(found, rounds, 0.2) for rounds in (1, 2, 3)]
        n = masks.num_kept(masks.dense_mask(chain))
        for m in ladder:
            n -= round(0.2 * n)
            assert masks.num_kept(m) == n
        for before, after in pairwise(ladder):
            assert all((after[name] <= before[name]).all() for name in after)
        values = torch.cat([score.flatten() for score in found.values()])
        kept = torch.cat([layer.flatten() for layer in ladder[-1].values()])
        assert values[kept].min() >= values[~kept].max()


def test_a_transformer_has_scores_of_every_sort(batch):
    arch = "timm/vit_tiny_patch16_224(depth=1, embed_dim=16, img_size=8, num_heads=2, patch_size=4)"
    model = architectures.build(arch, 4, (0.4,) * 3, (0.3,) * 3).eval()
    x = torch.rand(3, 3, 8, 8, generator=torch_rng(6))
    found = [score(model, x, batch[1][:3]) for score in (scores.snip, scores.grasp)]
    for one in found:
        assert list(one) == list(architectures.prunable(model))
        assert all(score.isfinite().all() and score.any() for score in one.values())
    m = scores.synflow(model, 8, 1, 0.2)
    assert masks.sparsity(m) == pytest.approx(0.2, abs=1e-3)
