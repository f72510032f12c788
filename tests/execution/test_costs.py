"""Theorems on cost.

Forward passes counted by hand, validation included, and what sets a speed told apart.
"""

from dataclasses import replace

import pytest
from test_specs import ATTACK, ATTACKED, MASK, RECIPE, SURFACE, THETA, TRANSFER, changed

from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.execution.costs import Work, cost, split, work


def test_cost_counts_forward_passes():
    forward = 0.0125 * (8 / 32) ** 2  # a ResNet-8 at 8x8, GMAC
    source, row = CATALOGUE["mnist5k"], CATALOGUE["digits"]
    sa, ra = 1, 1 + 2 * 3
    trained, held, test = (
        0.9 * source.train_images,
        0.1 * source.train_images,
        2 * source.test_images * (sa + ra),
    )
    judged = sum(RECIPE.evaluates_robustly_at(epoch) for epoch in (1, 2, 3, 4))
    assert cost(THETA) == pytest.approx(
        (4 * (trained * (3 + 2 * 3) + held * sa) + judged * held * ra + test) * forward
    )
    plain = changed(THETA, recipe=changed(RECIPE, attack=None))
    assert cost(plain) == pytest.approx((4 * (trained * 3 + held * sa) + test) * forward)
    assert cost(changed(MASK, rounds=1)) == 0
    assert cost(MASK) == pytest.approx(
        (4 * trained * 9 + source.test_images) * forward
    )  # by retraining alone
    assert cost(SURFACE) == pytest.approx(25 * 10 * forward)
    attacked = changed(SURFACE, images="attacked")
    assert cost(attacked) - cost(SURFACE) == pytest.approx(10 * 2 * 3 * forward)
    assert cost(ATTACKED) == pytest.approx(row.test_images * (forward + 2 * 3 * 0.041 / 16))
    budget = 0.1 * row.train_images  # 13 validation images are too few: all train
    assert cost(TRANSFER) == pytest.approx(
        (4 * budget * 9 + 2 * row.test_images * (sa + ra)) * forward
    )
    unselected = changed(TRANSFER, recipe=changed(TRANSFER.recipe, selection="last"))
    assert cost(TRANSFER) - cost(unselected) == pytest.approx(row.test_images * (sa + ra) * forward)


@pytest.mark.parametrize("fraction, share", [(1.0, 0.10), (0.1, 0.53), (0.01, 0.92)])
def test_validation_weighs_the_more_the_fewer_the_images(fraction, share):
    """5,000 images by PGD-20 in 55 of 100 epochs, against PGD-10 training on a fraction of
    CIFAR-10's other 45,000.
    """
    how = changed(RECIPE, epochs=100, validation="held_5000", attack=replace(ATTACK, steps=10))
    ticket = changed(
        TRANSFER,
        data=CATALOGUE["cifar10"],
        fraction=fraction,
        recipe=how,
        evaluation=replace(ATTACK, steps=20),
    )
    found = work(changed(ticket, data=changed(ticket.data, test_images=1)))
    batch = min(how.batch, round(45_000 * fraction))
    training = found[Work("at", "resnet8", 32, "fp32", "train", batch)]
    assert split(ticket.data, how, fraction) == (45_000 * fraction, 5000)
    assert 1 - training / sum(found.values()) == pytest.approx(share, abs=0.01)


def test_work_is_told_apart_by_what_sets_its_speed():
    fast = replace(ATTACK, precision="bf16", bn="eval")
    ticket = changed(
        TRANSFER,
        recipe=changed(RECIPE, precision="bf16", attack=fast),
        evaluation=replace(ATTACK, precision="bf16"),
    )
    assert set(work(ticket)) == {
        Work("at", "resnet8", 8, "bf16", "eval", 32),
        Work("pgd20", "resnet8", 8, "bf16"),
        Work("surface", "resnet8", 8),
    }
    standard = changed(RECIPE, attack=None, batch=64, micro_batch_size=16)
    assert Work("st", "resnet8", 8, batch=16) in work(changed(ticket, recipe=standard))
    assert cost(changed(TRANSFER, ra="any")) > cost(TRANSFER)


def test_validation_is_counted_from_the_epoch_a_recipe_names_and_on_the_images_it_names():
    forward = 0.0125  # a ResNet-8 at 32x32, GMAC
    how = changed(RECIPE, epochs=100, validation="held_5000")
    ticket = changed(TRANSFER, data=CATALOGUE["cifar10"], fraction=1.0, recipe=how)
    for start in (1, 46, 100):
        later = changed(ticket, recipe=changed(how, validate_ra_from=start))
        more = (101 - start) - 55  # validations of RA that the default does not have
        assert cost(later) - cost(ticket) == pytest.approx(more * 5000 * 7 * forward, abs=1e-3)
    ours = changed(how, validation="test")
    assert split(ticket.data, ours, 0.5) == (25_000, 10_000)


def test_an_epoch_of_the_head_alone_costs_its_attack_and_a_forward_pass():
    forward, images = 0.0125 * (8 / 32) ** 2, 0.1 * CATALOGUE["digits"].train_images
    for attack, passes in ((ATTACK, 1 + 2 * 3), (None, 1)):
        how = changed(RECIPE, attack=attack)
        probed = changed(TRANSFER, recipe=changed(how, linear_probe_epochs=5))
        more = cost(probed) - cost(changed(TRANSFER, recipe=how))
        assert more == pytest.approx(5 * images * passes * forward)
    warmed = changed(TRANSFER, recipe=changed(RECIPE, eps_warmup=0.5))
    assert work(warmed) == work(TRANSFER)


def test_restarts_cost_their_attacks_and_the_scores_that_tell_them_apart():
    score = (1, 1 + 2 * 3)  # forward passes of a score alone and under the attack of three steps
    forward, row = 0.0125 * (8 / 32) ** 2, CATALOGUE["digits"]

    def tested(restarts):
        again = changed(TRANSFER, evaluation=replace(TRANSFER.evaluation, restarts=restarts))
        return cost(again) / (2 * row.test_images * forward)

    assert TRANSFER.evaluation.steps == 3 and score[1] == 7
    assert tested(3) - tested(1) == pytest.approx(2 * 2 * 3 + 3)  # two attacks more, three scores
