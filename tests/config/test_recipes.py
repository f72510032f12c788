"""Theorems on attacks and training configurations: one class each, and no setting written twice."""

from dataclasses import replace

import pytest
from pydantic import ValidationError
from test_specs import RECIPE, THETA, changed

from dwlt_lib import attacks
from dwlt_lib.config import recipes
from dwlt_lib.config.recipes import PGD, TrainingConfig, TrainingOverrides
from dwlt_lib.config.specs import PretrainingSpec, record_id


def test_the_attack_that_studies_describe_is_the_one_that_attacks_take():
    assert attacks.PGD is PGD
    assert PGD(0.1, 0.02, 3) == PGD(0.1, 0.02, 3, random_start=True, restarts=1)


@pytest.mark.parametrize("wrong", [dict(eps=8), dict(alpha=-1), dict(steps=-1), dict(bn="batch")])
def test_a_bad_attack_is_refused_in_one_line(wrong):
    with pytest.raises(ValueError) as refused:
        PGD(**{"eps": 0.1, "alpha": 0.02, "steps": 3, **wrong})
    assert "want" in str(refused.value) and "\n" not in str(refused.value)


def test_the_number_of_attack_steps_tells_the_regime():
    regimes = [
        changed(RECIPE, attack=attack).regime
        for attack in (None, PGD(0.1, 0.1, 1), PGD(0.1, 0.1, 2))
    ]
    assert regimes == ["ST", "FAT", "AT"]


def test_overrides_have_the_fields_of_a_configuration_with_its_limits_and_its_words():
    whole, part = TrainingConfig.model_fields, TrainingOverrides.model_fields
    assert set(whole) - set(part) == {"attack", "precision", "deterministic"}
    assert set(part) - set(whole) == {"steps", "eps", "alpha"}
    for name in set(whole) & set(part):
        assert part[name].description == whole[name].description and part[name].default is None
    assert TrainingOverrides().model_dump(exclude_none=True) == {}
    for wrong in (dict(lr=0.0), dict(batch=1), dict(schedule="step"), dict(alpha=0.0), dict(lr_=1)):
        with pytest.raises(ValidationError):
            TrainingOverrides(**wrong)


def test_eps_and_alpha_grow_in_step_from_0_over_their_share_of_the_epochs():
    attack = PGD(0.2, 0.04, 3, bn="eval")
    for epochs, warmup, shares in (
        (4, 0.5, [0, 0.5, 1, 1]),
        (10, 0.25, [0, 0.4, 0.8, *7 * [1]]),
        (3, 0.0, [1, 1, 1]),
    ):
        how = changed(RECIPE, attack=attack, epochs=epochs, eps_warmup=warmup)
        faced = [how.attack_at(epoch) for epoch in range(epochs)]
        assert [one.eps for one in faced] == pytest.approx([0.2 * share for share in shares])
        assert [one.alpha for one in faced] == pytest.approx([0.04 * share for share in shares])
        assert {replace(one, eps=0.2, alpha=0.04) for one in faced} == {attack}
        assert faced[-1] == how.attack_at(-1) == attack  # of the head alone
    assert changed(RECIPE, attack=None, eps_warmup=0.5).attack_at(0) is None


def test_descriptions_of_older_records_are_read_and_keep_their_ids():
    spec = changed(THETA, recipe=changed(RECIPE, micro_batch_size=16))
    older = spec.model_dump_json().replace("micro_batch_size", "at_once")
    assert PretrainingSpec.model_validate_json(older) == spec
    assert record_id(PretrainingSpec.model_validate_json(older)) == record_id(spec)


def test_every_setting_of_training_says_what_it_is():
    for model in (recipes.TrainingConfig, recipes.TrainingOverrides):
        assert all(field.description for field in model.model_fields.values())
