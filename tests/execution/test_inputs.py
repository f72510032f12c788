"""Images are looked at before a start, and a budget's are drawn from a seed of their own."""

import pytest
import torch
from hostile_files import BASE
from made_records import caught_fit, one
from PIL import Image

from dwlt_lib.config.planning import plan
from dwlt_lib.data import batches
from dwlt_lib.execution import inputs
from dwlt_lib.execution.study_files import read_study


def test_subsets_follow_their_own_seed_not_that_of_training(made, monkeypatch):
    spec = one(made, "transfer", fraction=0.5, rounds=3).model_copy(update={"mask": None})
    pictures = {}
    for subset_seed in (0, 1):
        for seed in (0, 1):
            found = caught_fit(
                monkeypatch, spec.model_copy(update={"seed": seed, "subset_seed": subset_seed})
            )
            pictures[subset_seed, seed] = (
                found["train"].x,
                found["validation"].x,
                found["state"]["fc.weight"],
            )
    for subset_seed in (0, 1):
        a, b = pictures[subset_seed, 0], pictures[subset_seed, 1]
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[2], b[2])
    assert not torch.equal(pictures[0, 0][0], pictures[1, 0][0])
    assert torch.equal(pictures[0, 0][2], pictures[1, 0][2])


def test_validation_comes_out_of_the_budget_and_never_overlaps_training(made, monkeypatch):
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    found = caught_fit(monkeypatch, spec)
    train, held = (
        {image.numpy().tobytes() for image in found[part].x} for part in ("train", "validation")
    )
    assert (len(train), len(held)) == (81, 9) and not train & held  # 90 images, a tenth of them
    assert found["validation"].y.bincount().tolist() == [3, 3, 3]
    assert found["eval_attack"] is None  # ST is selected by SA
    monkeypatch.setattr(inputs, "ENOUGH", 10)
    found = caught_fit(monkeypatch, spec)
    assert found["validation"] is None and len(found["train"]) == 90


def test_the_authors_hold_out_the_last_5000_and_take_the_fraction_of_the_rest(made, monkeypatch):
    x = (torch.arange(6000) % 251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    everything = batches.Images(x, torch.arange(6000) % 3, spec.data)
    monkeypatch.setattr(inputs, "load_images", lambda row, split, device="cpu": everything)
    recipe = spec.recipe.model_copy(update={"validation": "held_5000"})
    budget = inputs.Budget(spec.data, 0.1, "first_n")
    train, held = inputs.split_budget(budget, recipe, "cpu")
    assert torch.equal(train.x, x[:100]) and torch.equal(held.x, x[1000:])
    monkeypatch.setattr(
        inputs, "load_images", lambda row, split, device="cpu": everything.take(torch.arange(5000))
    )
    with pytest.raises(ValueError, match="tenth"):
        inputs.split_budget(budget, recipe, "cpu")


def test_validation_on_the_test_images_leaves_the_whole_budget_to_training(made):
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    recipe = spec.recipe.model_copy(update={"validation": "test"})
    budget = inputs.Budget(spec.data, 0.5, "first_n")
    train, held = inputs.split_budget(budget, recipe, "cpu")
    test = batches.load_images(spec.data, "test")
    assert len(train) == 90 and torch.equal(held.x, test.x) and torch.equal(held.y, test.y)


@pytest.mark.parametrize("validation", ["tenth", "held_5000"])
def test_training_and_validation_share_no_group(made, monkeypatch, validation):
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    groups = torch.arange(6000) * 7 // 300  # of 42 or 43 images; the last 5000 begin within one
    x = torch.zeros(6000, 3, 8, 8, dtype=torch.uint8)
    everything = batches.Images(x, groups % 3, spec.data, groups)
    monkeypatch.setattr(inputs, "load_images", lambda row, split, device="cpu": everything)
    recipe = spec.recipe.model_copy(update={"validation": validation})
    for fraction in (0.1, 1.0):
        train, held = inputs.split_budget(inputs.Budget(spec.data, fraction), recipe, "cpu")
        assert not set(train.groups.tolist()) & set(held.groups.tolist())
        assert (train.y == train.groups % 3).all() and len(train) and len(held) >= 60
    if validation == "held_5000":
        assert 1000 - 43 < len(train) < 1000 and len(held) == 5000


def test_one_group_alone_is_trained_on(made, monkeypatch):
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    y = torch.arange(300) % 3
    everything = batches.Images(torch.zeros(300, 3, 8, 8, dtype=torch.uint8), y, spec.data, y * 0)
    monkeypatch.setattr(inputs, "load_images", lambda row, split, device="cpu": everything)
    train, held = inputs.split_budget(inputs.Budget(spec.data), spec.recipe, "cpu")
    assert len(train) == 300 and held is None


def test_a_damaged_or_missing_picture_is_said_with_its_line_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(3):
                picture = Image.effect_noise((40, 30), 50).convert("RGB")
                picture.save(tmp_path / "pets" / part / name / f"{i}.jpg")
    file = tmp_path / "study.yaml"
    file.write_text(
        BASE.replace("[digits]", "[pets]") + "transfer: {ST: {batch: 2}, AT: {batch: 2}}\n"
        "data:\n  pets: {loader: folder, path: pets, classes: 2, size: 8}\n"
    )

    def check():
        return inputs.check_inputs(plan(read_study(file)).values(), "cpu", file)

    assert check() == "cpu"
    damaged = tmp_path / "pets/test/dog/1.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"study\.yaml:14: .*dog/1\.jpg: (?i:.*truncated).* another$"
    ):
        check()
    monkeypatch.setattr(inputs, "MAX_CHECKED_BYTES", 100)  # no more than these are looked at
    assert check() == "cpu"
    (tmp_path / "pets").rename(tmp_path / "birds")
    with pytest.raises(ValueError, match=r"study\.yaml:14: .*pets/train is missing; set its path"):
        check()
