"""Theorems on tickets: IMP, OMP and RP; rewinding puts everything back (paper, section 3)."""

import pytest
import torch

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


def test_the_first_imp_round_prunes_theta_before_any_training_and_equals_omp(
    net, theta, digits, monkeypatch
):
    monkeypatch.setattr(imp, "fit", None)
    m, found = imp.imp_round(net(), theta, None, 0.2, HOW, digits, 0)
    assert found is None
    assert same(m, imp.one_shot(imp.prunable_weights(net(), theta), 1, 0.2))
    assert masks.sparsity(m) == pytest.approx(0.2, abs=1e-5)


def test_retraining_starts_from_theta_whole_convolutions_batchnorm_and_head(
    net, theta, digits, monkeypatch
):
    seen = []

    def spy(model, m, train, validation, how, seed, **settings):
        seen.append(
            (
                {name: value.clone() for name, value in model.state_dict().items()},
                m,
                validation,
                seed,
            )
        )
        return fit(model, m, train, validation, how, seed, **settings)

    monkeypatch.setattr(imp, "fit", spy)
    model = net(seed=8)  # as a network would be after another round: nothing of it may stay
    m, _ = imp.imp_round(model, theta, None, 0.2, HOW, digits, 5)
    for _ in range(2):
        before = m
        m, found = imp.imp_round(model, theta, before, 0.2, HOW, digits, 5)
        state, mask, validation, seed = seen.pop()
        assert (
            same(state, theta)
            and {"bn1.running_var", "fc.bias", "bn1.num_batches_tracked"} <= state.keys()
        )
        assert mask is before and validation is None and seed == 5
        assert not same(found.last, theta)


def test_an_imp_round_prunes_the_retrained_weights_not_theta(net, theta, digits):
    first, _ = imp.imp_round(net(), theta, None, 0.2, HOW, digits, 0)
    second, found = imp.imp_round(net(), theta, first, 0.2, HOW, digits, 0)
    assert same(second, masks.magnitude_prune(imp.prunable_weights(net(), found.last), first, 0.2))
    assert not same(second, imp.one_shot(imp.prunable_weights(net(), theta), 2, 0.2))
    assert all((second[name] <= first[name]).all() for name in first)
    n = masks.kept(first)
    assert masks.kept(second) == n - round(0.2 * n)


def test_theta_itself_is_left_alone(net, theta, digits):
    was = {name: value.clone() for name, value in theta.items()}
    m, _ = imp.imp_round(net(), theta, None, 0.2, HOW, digits, 0)
    imp.imp_round(net(), theta, m, 0.2, HOW, digits, 0)
    assert same(theta, was)


def test_one_shot_and_random_masks_have_the_ladders_counts_and_nest(net, theta):
    weights = imp.prunable_weights(net(), theta)
    n = sum(weight.numel() for weight in weights.values())
    omp = rp = masks.dense_mask(weights)
    for k in range(1, 8):
        n -= round(0.2 * n)
        less = imp.one_shot(weights, k, 0.2), imp.at_random(weights, k, 0.2, seed=3)
        assert masks.kept(less[0]) == masks.kept(less[1]) == n
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
    zero = imp.at_random(weights, 3, 0.2, seed=0)
    torch.manual_seed(5)
    assert same(
        zero, imp.at_random({name: -weight for name, weight in weights.items()}, 3, 0.2, seed=0)
    )
    assert not same(zero, imp.at_random(weights, 3, 0.2, seed=1))


def test_a_mask_covers_every_convolution_and_nothing_else(net, theta):
    assert list(imp.prunable_weights(net(), theta)) == list(architectures.prunable(net()))
