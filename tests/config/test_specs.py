"""Theorems on records' identities.

An id changes with whatever a result depends on, and with nothing else.
"""

import subprocess
import sys
from dataclasses import fields, replace

import pytest
import yaml
from conftest import TOY
from pydantic import ValidationError

from dwlt_lib.config import parameter_file, planning, specs
from dwlt_lib.config.datasets import CATALOGUE, NOT_IDENTITY
from dwlt_lib.config.recipes import PGD, TrainingConfig
from dwlt_lib.config.specs import (
    AttackSpec,
    MaskSpec,
    PretrainingSpec,
    RobustnessSpec,
    SurfaceSpec,
    TrajectorySpec,
    TransferSpec,
    record_id,
    upstream,
)

ATTACK = PGD(eps=0.1, alpha=0.02, steps=3)
RECIPE = TrainingConfig(
    epochs=4,
    batch=32,
    lr=0.1,
    schedule="steps",
    milestones=(2,),
    momentum=0.9,
    weight_decay=1e-4,
    validation="tenth",
    attack=ATTACK,
)
THETA = PretrainingSpec(
    pretraining="AT",
    arch="resnet8",
    data=CATALOGUE["mnist5k"],
    recipe=RECIPE,
    evaluation=ATTACK,
    seed=0,
)
MASK = MaskSpec(theta=THETA, method="IMP-ST", rounds=3, prune_fraction=0.2, retrain=RECIPE, seed=0)
TRANSFER = TransferSpec(
    theta=THETA,
    mask=MASK,
    data=CATALOGUE["digits"],
    fraction=0.1,
    subset_rule="stratified",
    subset_seed=0,
    regime="AT",
    recipe=RECIPE,
    evaluation=ATTACK,
    seed=0,
    keep="none",
)
SURFACE = SurfaceSpec(transfer=TRANSFER, images="clean", count=10, points=5, span=1.0, seed=0)
TRAJECTORY = TrajectorySpec(transfer=TRANSFER, images="clean", count=10, points=5)
UNSEEN = THETA.model_copy(update={"arch": "resnet20", "seed": 1000})
ATTACKED = AttackSpec(transfer=TRANSFER, surrogate=UNSEEN)
ROBUST = RobustnessSpec(transfer=TRANSFER)
ALL = (THETA, MASK, TRANSFER, SURFACE, TRAJECTORY, ATTACKED, ROBUST)

OTHER = {
    "pretraining": "STD",
    "arch": "resnet20",
    "data": CATALOGUE["svhn"],
    "seed": 1,
    "method": "IMP-AT",
    "rounds": 4,
    "prune_fraction": 0.3,
    "retrain": None,
    "mask": None,
    "fraction": 0.01,
    "subset_rule": "first_n",
    "subset_seed": 1,
    "regime": "ST",
    "keep": "selected",
    "images": "attacked",
    "count": 11,
    "points": 7,
    "span": 2.0,
    "recipe": RECIPE.model_copy(update={"lr": 0.2}),
    "evaluation": replace(ATTACK, steps=4),
    "theta": THETA.model_copy(update={"seed": 5}),
    "transfer": TRANSFER.model_copy(update={"seed": 5}),
    "surrogate": THETA,
    "ra": "any",
    "attacks": (),
    "pgd_steps": 51,
    "pgd_restarts": 11,
    "apgd_steps": 101,
    "apgd_targets": 8,
    "square_queries": 5001,
    "eps_factors": (0.0, 1.0),
    "curve_steps": (1, 2),
    "weights": "reinitialized",
}


def changed(spec, **update):
    return spec.model_copy(update=update)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.kind)
def test_an_id_changes_with_every_field(spec):
    names = set(type(spec).model_fields) - {"kind"}
    other = {**OTHER, "images": 30 if spec.kind == "mask" else OTHER["images"]}
    ids = {record_id(changed(spec, **{name: other[name]})) for name in names}
    assert len(ids) == len(names) and record_id(spec) not in ids


def test_an_id_changes_with_every_number_of_a_recipe_an_attack_and_a_data_set():
    recipe = dict(
        epochs=5,
        batch=33,
        lr=0.2,
        schedule="cosine",
        milestones=(3,),
        momentum=0.8,
        weight_decay=1e-5,
        validation="none",
        attack=None,
        precision="bf16",
        deterministic=False,
        micro_batch_size=16,
        validate_ra_from=2,
        selection="last",
        linear_probe_epochs=1,
        eps_warmup=0.5,
    )
    attack = dict(
        eps=0.2, alpha=0.03, steps=4, random_start=False, restarts=2, precision="bf16", bn="eval"
    )
    data = dict(
        name="other",
        loader="npz",
        classes=11,
        size=9,
        mean=(0.1,) * 3,
        std=(0.1,) * 3,
        eps=0.2,
        alpha=0.1,
        augment=("flip",),
        crop=0.5,
        resize="both",
        scale=(0.2, 0.9),
        distinct=True,
    )
    assert set(recipe) == set(TrainingConfig.model_fields)
    assert set(attack) == {field.name for field in fields(PGD)}
    row = CATALOGUE["mnist5k"]
    assert set(data) == set(type(row).model_fields) - NOT_IDENTITY
    ids = [record_id(changed(THETA, recipe=changed(RECIPE, **{k: v}))) for k, v in recipe.items()]
    attacks = [replace(ATTACK, **{k: v}) for k, v in attack.items()]
    ids += [record_id(changed(THETA, evaluation=attack)) for attack in attacks]
    ids += [record_id(changed(THETA, data=changed(row, **{k: v}))) for k, v in data.items()]
    assert len({record_id(THETA), *ids}) == 1 + len(ids)


def test_micro_batches_make_another_id_but_one_of_the_whole_batch_does_not():
    def of_batch_64(micro_batch_size=None):
        training = {"batch": 64, "micro_batch_size": micro_batch_size}
        text = yaml.safe_dump(
            {
                "name": "s",
                "arch": "resnet8",
                "source": "mnist5k",
                "transfer": {"AT": training},
                "grid": [
                    {
                        "pretraining": ["AT"],
                        "method": ["OMP"],
                        "dataset": ["digits"],
                        "rounds": [1],
                        "seeds": [0],
                    }
                ],
            }
        )
        study = parameter_file.parse(text, "s.yaml")
        return record_id(planning.transfer(study, "AT", "OMP", "digits", 1.0, "AT", 0, 0))

    assert of_batch_64() == of_batch_64(64) == of_batch_64(100)
    assert of_batch_64() != of_batch_64(32) != of_batch_64(16)


def test_settings_that_came_later_are_in_an_id_only_where_they_are_set(monkeypatch):
    later, hashed, real = ("linear_probe_epochs", "eps_warmup"), [], specs.json.dumps
    monkeypatch.setattr(
        specs.json, "dumps", lambda *args, **kw: hashed.append(real(*args, **kw)) or hashed[-1]
    )
    for settings in ({}, dict.fromkeys(later, 0), {later[0]: 2}, {later[1]: 0.5}):
        specs._record_id.cache_clear()
        hashed.clear()
        record_id(changed(THETA, recipe=changed(RECIPE, **settings)))
        assert {name for name in later if name in hashed[0]} == {
            k for k, v in settings.items() if v
        }


def test_a_row_that_is_not_distinct_has_the_id_that_rows_had_before(monkeypatch):
    hashed, real = [], specs.json.dumps
    monkeypatch.setattr(
        specs.json, "dumps", lambda *args, **kw: hashed.append(real(*args, **kw)) or hashed[-1]
    )
    for distinct in (False, True):
        specs._record_id.cache_clear()
        record_id(changed(THETA, data=changed(THETA.data, distinct=distinct)))
    assert ["distinct" in text for text in hashed] == [False, True]


def test_an_id_heeds_neither_the_path_nor_the_licence_nor_the_number_of_images():
    update = dict(path="/elsewhere", licence="mine", train_images=1, test_images=1)
    assert set(update) == NOT_IDENTITY - {"train_sha256", "test_sha256"}
    for name, value in update.items():
        moved = changed(THETA, data=changed(THETA.data, **{name: value}))
        assert record_id(moved) == record_id(THETA)
        assert record_id(changed(MASK, theta=moved)) == record_id(MASK)


def test_ids_change_with_the_format_of_their_kind_and_of_what_they_build_on(monkeypatch):
    was = [record_id(spec) for spec in ALL]
    specs._record_id.cache_clear()
    monkeypatch.setitem(specs.FORMAT, "mask", specs.FORMAT["mask"] + 1)
    now = [record_id(spec) for spec in ALL]
    specs._record_id.cache_clear()
    assert [a == b for a, b in zip(was, now, strict=True)] == [True] + [False] * (len(ALL) - 1)


def test_kinds_with_equal_fields_have_different_ids():
    assert len({record_id(spec) for spec in ALL}) == len(ALL)


def test_ids_are_the_same_in_another_process_and_are_20_hexadecimal_digits():
    code = (
        "from dwlt_lib.config.specs import *; from dwlt_lib.config.datasets import CATALOGUE; a ="
        " PGD(eps=0.1, alpha=0.02, steps=3); r = TrainingConfig(epochs=4, batch=32, lr=0.1,"
        " schedule='steps', milestones=(2,), momentum=0.9, weight_decay=1e-4, validation='tenth',"
        " attack=a); print(record_id(PretrainingSpec(pretraining='AT', arch='resnet8',"
        " data=CATALOGUE['mnist5k'], recipe=r, evaluation=a, seed=0)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == record_id(THETA) and len(found) == 20 and int(found, 16) >= 0


def test_ids_survive_a_trip_through_json():
    for spec in ALL:
        assert record_id(type(spec).model_validate_json(spec.model_dump_json())) == record_id(spec)


def test_upstream_names_what_a_record_builds_on():
    assert upstream(THETA) == ()
    assert upstream(MASK) == (THETA, changed(MASK, rounds=2))
    assert upstream(changed(MASK, rounds=2)) == (THETA, changed(MASK, rounds=1))
    assert upstream(changed(MASK, rounds=1)) == (THETA,)
    assert upstream(changed(MASK, method="OMP", retrain=None)) == (THETA,)
    assert upstream(TRANSFER) == (THETA, MASK) and upstream(changed(TRANSFER, mask=None)) == (
        THETA,
    )
    assert upstream(SURFACE) == upstream(TRAJECTORY) == (TRANSFER,)
    assert upstream(ATTACKED) == (TRANSFER, UNSEEN)


def test_descriptions_are_frozen_and_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError):
        RECIPE.lr = 0.2
    for wrong in (
        dict(lr="0.1"),
        dict(lr=float("nan")),
        dict(lr=0),
        dict(epochs=True),
        dict(epochs=0),
        dict(batch=1),
        dict(momentum=1.0),
        dict(learning_rate=0.1),
        dict(schedule="step"),
    ):
        with pytest.raises(ValidationError):
            TrainingConfig(**{**RECIPE.model_dump(), **wrong})


def test_columns_use_the_papers_names_and_call_rounds_0_dense():
    row = specs.columns(TRANSFER)
    assert (row["pretraining"], row["method"], row["dataset"], row["rounds"]) == (
        "AT",
        "IMP-ST",
        "digits",
        3,
    )
    dense = specs.columns(changed(TRANSFER, mask=None))
    assert (dense["method"], dense["rounds"]) == ("dense", 0) and dense.keys() == row.keys()
    assert specs.columns(MASK)["seed"] == 0 and specs.columns(SURFACE)["images"] == "clean"
    assert (
        "1000" in specs.columns(ATTACKED)["surrogate"]
        and "resnet20" in specs.columns(ATTACKED)["surrogate"]
    )
    assert "48.8 %" in specs.label(TRANSFER) and "\n" not in "".join(map(specs.label, ALL))


def test_micro_batches_are_counted_where_something_is_trained(toy):
    pretraining = {p: {**TOY["pretraining"][p], "micro_batch_size": 10} for p in TOY["pretraining"]}
    for spec in planning.plan(toy(pretraining=pretraining)).values():
        if spec.kind == "pretraining" and spec.recipe.micro_batch_size:
            assert specs.micro_batches(spec) == -(-spec.recipe.batch // 10)
        elif spec.kind in ("pretraining", "transfer"):
            assert specs.micro_batches(spec) == 1
        else:
            assert specs.micro_batches(spec) == specs.retrains(spec)
