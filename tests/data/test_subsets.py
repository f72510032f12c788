"""Theorems on subsets: they nest, have exact sizes and keep the shares of the classes."""

import numpy as np
import pytest
import torch
from seeds import numpy_rng

from dwlt_lib.data import subsets

LABELS = {
    "balanced": torch.arange(1000) % 10,
    "sorted": torch.arange(1000) // 100,
    "unbalanced": torch.cat([torch.full((n,), i) for i, n in enumerate((700, 200, 67, 33))]),
}


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_subsets_nest_have_exact_sizes_and_no_repetition(labels, rule):
    one, ten, all_ = (subsets.subset(labels, fraction, 0, rule) for fraction in (0.01, 0.1, 1.0))
    assert (len(one), len(ten), len(all_)) == (10, 100, 1000)
    assert set(one.tolist()) <= set(ten.tolist()) <= set(all_.tolist()) == set(range(1000))
    assert all((part.diff() > 0).all() for part in (one, ten, all_))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.37, 0.5])
def test_every_class_keeps_its_share_to_within_one(labels, fraction):
    for seed in range(3):
        counts = labels[subsets.subset(labels, fraction, seed)].bincount(
            minlength=len(labels.unique())
        )
        assert (counts - labels.bincount() * fraction).abs().max() <= 1


def test_seeds_draw_different_subsets_and_0_is_a_seed():
    labels = LABELS["balanced"]
    drawn = [tuple(subsets.subset(labels, 0.1, seed).tolist()) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3
    assert drawn[0] != tuple(range(100))


def test_a_subset_does_not_depend_on_numpys_or_torchs_global_state():
    np.random.seed(0)
    torch.manual_seed(0)
    one = subsets.subset(LABELS["sorted"], 0.1, 5)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(one, subsets.subset(LABELS["sorted"], 0.1, 5))


def test_first_n_is_the_authors_way():
    assert subsets.subset(torch.zeros(45000), 0.01, 3, "first_n").tolist() == list(range(450))
    assert len(subsets.subset(torch.zeros(999), 0.1, 0, "first_n")) == 99  # int(), not round()
    assert (
        len(subsets.subset(torch.zeros(100), 0.29, 0, "first_n")) == 29
    )  # in spite of 0.29 * 100 = 28.999...


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
def test_labels_are_a_tensor_an_array_or_a_list_alike(rule):
    labels = LABELS["unbalanced"]
    wanted = subsets.subset(labels, 0.1, 2, rule)
    for same in (labels.numpy(), labels.tolist(), labels.int(), tuple(labels.tolist())):
        assert torch.equal(subsets.subset(same, 0.1, 2, rule), wanted)


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
def test_what_are_no_labels_or_no_seed_is_refused_in_a_line(rule):
    labels = LABELS["balanced"]
    for wrong, seed, said in (
        (labels.view(10, 100), 0, r"labels \(10, 100\) int64: want one class per image"),
        (torch.tensor(3), 0, "want one class per image"),
        ([], 0, "want one class per image"),
        ([[0, 1], [2]], 0, "want one class per image"),
        (None, 0, "want one class per image"),
        (["cat", "dog"], 0, "want one class per image"),
        ([0.0, float("nan")], 0, "one class per"),
        (labels, -1, "seed=-1: want an integer, 0 or more"),
        (labels, None, "seed=None"),
        (labels, 0.5, "seed=0.5"),
    ):
        with pytest.raises(ValueError, match=said) as refusal:
            subsets.subset(wrong, 0.1, seed, rule)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan"), "0.1", None])
def test_fractions_outside_0_to_1_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        subsets.subset(LABELS["sorted"], fraction, 0)
    with pytest.raises(ValueError, match="rule"):
        subsets.subset(LABELS["sorted"], 0.1, 0, "first")


def test_without_groups_a_subset_is_what_it_always_was():
    assert subsets.subset(LABELS["unbalanced"], 0.02, 0).tolist() == [
        *(9, 34, 148, 205, 227, 249, 279, 325, 373, 421),
        *(496, 510, 612, 617, 766, 774, 834, 852, 962, 973),
    ]


def grouped():
    """500 images of 2 classes in 40 groups of 5 to 20, mixed."""
    rng = numpy_rng(0)
    groups = np.repeat(np.arange(40), rng.permutation(np.resize([5, 10, 15, 20], 40)))
    rng.shuffle(groups)
    return torch.from_numpy(groups % 2), groups


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
def test_groups_are_taken_whole_and_as_few_as_hold_the_fraction(rule):
    labels, groups = grouped()
    before = set()
    for fraction in (0.01, 0.1, 0.5, 1.0):
        chosen = subsets.subset(labels, fraction, 3, rule, groups).numpy()
        inside = set(groups[chosen].tolist())
        assert not inside & set(np.delete(groups, chosen).tolist()) and before <= inside
        sizes = np.bincount(groups)[list(inside)]
        assert sizes.sum() == len(chosen) >= fraction * len(labels) > len(chosen) - 20
        before = inside


def test_classes_keep_their_share_of_groups_to_within_one():
    labels, groups = grouped()
    chosen = subsets.subset(labels, 0.3, 1, groups=groups).numpy()
    even, odd = (len({g for g in groups[chosen] if g % 2 == parity}) for parity in (0, 1))
    assert abs(even - odd) <= 1 and even > 1


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
def test_a_group_an_image_is_no_groups_and_the_names_of_groups_mean_nothing(rule):
    labels = LABELS["unbalanced"]
    alone = torch.arange(1000).flip(0) * 7 - 50
    wanted = subsets.subset(labels, 0.1, 2, rule)
    assert torch.equal(subsets.subset(labels, 0.1, 2, rule, alone), wanted)
    labels, groups = grouped()
    renamed = np.random.permutation(1000)[groups]
    assert torch.equal(
        subsets.subset(labels, 0.1, 2, rule, groups), subsets.subset(labels, 0.1, 2, rule, renamed)
    )
    with pytest.raises(ValueError, match="groups .499,.: want one group per image"):
        subsets.subset(labels, 0.1, 2, rule, groups[1:])
