"""Theorems on IMP, OMP and RP: rewinding puts everything back (paper, section 3)."""

from itertools import pairwise

import pytest
import seeds
import torch

from dwlt_lib.analysis import mask_patterns
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.models import architectures
from dwlt_lib.pruning import imp, masks
from dwlt_lib.training.trainer import fit

HOW = TrainingConfig(
    epochs=1, batch=64, lr=0.05, schedule="constant", momentum=0.9, weight_decay=1e-4
)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def theta(net, digits):
    """theta_p: a state whose BatchNorm statistics and head have been trained."""
    model = net(seed=1)
    return fit(model, masks.dense_mask(architectures.prunable(model)), digits, None, HOW, 3).last


def retrained(digits, states):
    """Standard training under the mask, whose final states are appended to `states`."""

    def retrain(model, m):
        states.append(fit(model, m, digits, None, HOW, 5).last)

    return retrain


def imp_masks(net, theta, digits, rounds, states):
    """The masks of IMP-ST after 0, 1, 2... rounds."""
    masks_so_far = [masks.dense_mask(imp.prunable_weights(net(), theta))]
    for _ in range(rounds):
        m = imp.iterative_magnitude_pruning(
            net(), theta, masks_so_far[-1], retrained(digits, states), rounds=1, fraction=0.2
        )
        masks_so_far.append(m)
    return masks_so_far


def test_the_first_imp_round_prunes_theta_before_any_training_and_equals_omp(net, theta, digits):
    states = []
    _, m = imp_masks(net, theta, digits, 1, states)
    assert states == []
    weights = imp.prunable_weights(net(), theta)
    assert same(m, imp.one_shot_magnitude_pruning(weights, 1, 0.2))
    assert masks.sparsity(m) == pytest.approx(0.2, abs=1e-5)


def test_retraining_starts_from_theta_whole_convolutions_batchnorm_and_head(net, theta, digits):
    seen, states = [], []
    m = masks.magnitude_prune(
        imp.prunable_weights(net(), theta), masks.dense_mask(net()), fraction=0.2
    )

    def retrain(model, mask):
        seen.append(({name: value.clone() for name, value in model.state_dict().items()}, mask))
        retrained(digits, states)(model, mask)

    imp.iterative_magnitude_pruning(net(seed=8), theta, m, retrain, rounds=2, fraction=0.2)
    assert len(seen) == 2 and seen[0][1] is m
    for (start, mask), end in zip(seen, states, strict=True):
        assert same(start, theta) and not same(end, theta)
        assert {"bn1.running_var", "fc.bias", "bn1.num_batches_tracked"} <= start.keys()
        assert all((end[name][~mask[name]] == 0).all() for name in mask)


def test_an_imp_round_prunes_the_retrained_weights_not_theta(net, theta, digits):
    states = []
    _, first, second = imp_masks(net, theta, digits, 2, states)
    weights = imp.prunable_weights(net(), states[-1])
    assert same(second, masks.magnitude_prune(weights, first, 0.2))
    theta_p = imp.prunable_weights(net(), theta)
    assert not same(second, imp.one_shot_magnitude_pruning(theta_p, 2, 0.2))
    assert all((second[name] <= first[name]).all() for name in first)
    n = masks.num_kept(first)
    assert masks.num_kept(second) == n - round(0.2 * n)


def test_several_rounds_at_once_are_as_many_single_rounds(net, theta, digits):
    *_, step_by_step = imp_masks(net, theta, digits, 3, [])
    dense = masks.dense_mask(net())
    at_once = imp.iterative_magnitude_pruning(
        net(), theta, dense, retrained(digits, []), rounds=3, fraction=0.2
    )
    assert same(step_by_step, at_once)


def test_theta_itself_is_left_alone(net, theta, digits):
    was = {name: value.clone() for name, value in theta.items()}
    imp_masks(net, theta, digits, 2, [])
    assert same(theta, was)


def test_one_shot_and_random_masks_have_the_ladders_counts_and_nest(net, theta):
    weights = imp.prunable_weights(net(), theta)
    n = sum(weight.numel() for weight in weights.values())
    omp = rp = masks.dense_mask(weights)
    for k in range(1, 8):
        n -= round(0.2 * n)
        less = (
            imp.one_shot_magnitude_pruning(weights, k, 0.2),
            imp.random_pruning(weights, k, 0.2, seed=3),
        )
        assert masks.num_kept(less[0]) == masks.num_kept(less[1]) == n
        assert all(
            (less[0][name] <= omp[name]).all() and (less[1][name] <= rp[name]).all()
            for name in weights
        )
        omp, rp = less
    kept = torch.cat([weights[name][omp[name]].abs() for name in weights])
    dropped = torch.cat([weights[name][~omp[name]].abs() for name in weights])
    assert kept.min() >= dropped.max()


def test_random_masks_depend_on_their_seed_alone_and_0_is_a_seed(net, theta):
    weights = imp.prunable_weights(net(), theta)
    zero = imp.random_pruning(weights, 3, 0.2, seed=0)
    torch.manual_seed(5)
    assert same(
        zero,
        imp.random_pruning({name: -weight for name, weight in weights.items()}, 3, 0.2, seed=0),
    )
    assert not same(zero, imp.random_pruning(weights, 3, 0.2, seed=1))


def test_a_mask_covers_every_convolution_and_nothing_else(net, theta):
    assert list(imp.prunable_weights(net(), theta)) == list(architectures.prunable(net()))


def test_a_shuffled_mask_keeps_every_layers_count_and_nothing_else(net, theta):
    weights = imp.prunable_weights(net(), theta)
    m = imp.one_shot_magnitude_pruning(weights, 6, 0.2)
    found = imp.shuffled(m, 3)
    assert {name: int(layer.sum()) for name, layer in found.items()} == {
        name: int(layer.sum()) for name, layer in m.items()
    }
    assert all(found[name].shape == layer.shape for name, layer in m.items())
    assert same(found, imp.shuffled(m, 3)) and not same(found, imp.shuffled(m, 4))
    chance = mask_patterns.chance_similarity(found, m)
    num = masks.num_kept(m)  # of which a share comes back by chance; 5 standard deviations
    assert abs(mask_patterns.relative_similarity(found, m) - chance) < 5 * num**-0.5


def test_every_place_of_a_layer_is_as_likely_to_be_kept_by_shuffling():
    m = {"conv": torch.arange(12).reshape(3, 4) < 3}
    draws = 4000
    counts = sum(imp.shuffled(m, seeds.of(i))["conv"].double() for i in range(draws))
    share = counts / draws  # a quarter each, within 5 standard deviations
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / draws) ** 0.5


def test_shuffled_masks_of_one_seed_nest_as_the_masks_do(net, theta):
    weights = imp.prunable_weights(net(), theta)
    ladder = [imp.one_shot_magnitude_pruning(weights, k, 0.2) for k in (1, 2, 3)]
    shuffled = [imp.shuffled(m, 0) for m in ladder]
    for above, below in pairwise(shuffled):
        assert all(bool((above[name] >= below[name]).all()) for name in above)
