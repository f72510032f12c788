"""Images are part of what a record is: other images, other records."""

import os
import shutil
from itertools import product

import numpy as np
import pytest
import torch
import yaml
from layout_files import cub, picture

from dwlt_lib.config import planning
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.parameter_file import BadStudy
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.data import fingerprints, loading
from dwlt_lib.execution import make
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store


def npz(path, seed=0, compressed=False, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "images": rng.integers(0, 256, (30, 8, 8), dtype=np.uint8),
        "labels": np.arange(30) % 3,
        **changes,
    }
    (np.savez_compressed if compressed else np.savez)(path, **arrays)


def row(tmp_path, **changes):
    return CATALOGUE["digits"].model_copy(
        update={
            "name": "mine",
            "loader": "npz",
            "classes": 3,
            "path": str(tmp_path / "mine_{split}.npz"),
            **changes,
        }
    )


def folder(root):
    """train/CLASS/*.jpg and test/CLASS/*.jpg, two classes of two pictures each, and their row."""
    for number, (split, label, i) in enumerate(product(("train", "test"), ("cat", "dog"), (0, 1))):
        picture(root / split / label / f"{i}.jpg", number)
    return CATALOGUE["digits"].model_copy(
        update={"name": "mine", "loader": "folder", "classes": 2, "path": str(root)}
    )


def write_file(path, **changes):
    """A parameter file on generated images, read."""
    text = {
        "name": "own",
        "arch": "resnet8",
        "source": "mine",
        "data": {
            "mine": {
                "loader": "npz",
                "classes": 3,
                "size": 8,
                "path": str(path.parent / "mine_{split}.npz"),
            }
        },
        "pretraining": {"AT": {"epochs": 1, "milestones": [], "schedule": "constant"}},
        "transfer": {"ST": {"epochs": 1, "milestones": [], "schedule": "constant"}},
        "grid": [
            {
                "pretraining": ["AT"],
                "method": ["OMP"],
                "dataset": ["mine"],
                "rounds": [1],
                "regime": ["ST"],
                "seeds": [0],
            }
        ],
        **changes,
    }
    path.write_text(yaml.safe_dump(text))
    return path


def ids(path):
    return set(plan(read_study(path)))


@pytest.mark.parametrize("what", ["a pixel", "a label", "the type of the labels"])
def test_other_arrays_have_another_fingerprint(tmp_path, what):
    npz(tmp_path / "mine_train.npz")
    with np.load(tmp_path / "mine_train.npz") as packed:
        x, y = packed["images"].copy(), packed["labels"].copy()
    was = fingerprints.fingerprint(row(tmp_path), "train")
    if what == "a pixel":
        x[3, 4, 5] ^= 1
    elif what == "a label":
        y[7] = (y[7] + 1) % 3
    np.savez(
        tmp_path / "mine_train.npz", images=x, labels=y.astype(np.int32) if "type" in what else y
    )
    now = fingerprints.fingerprint(row(tmp_path), "train")
    assert (now == was) == ("type" in what)  # labels are read as int64, whatever they are packed as


def test_the_same_arrays_have_the_same_fingerprint_wherever_and_however_they_are_packed(tmp_path):
    (tmp_path / "b").mkdir()
    npz(tmp_path / "mine_test.npz")
    npz(tmp_path / "b" / "mine_test.npz", compressed=True)
    assert fingerprints.fingerprint(row(tmp_path), "test") == fingerprints.fingerprint(
        row(tmp_path / "b"), "test"
    )


def test_what_is_not_there_has_none_and_what_cannot_be_read_is_refused_in_one_line(tmp_path):
    assert fingerprints.fingerprint(row(tmp_path), "train") is None
    (tmp_path / "mine_train.npz").write_bytes(b"not an npz")
    with pytest.raises(ValueError, match="mine_train.npz") as refusal:
        fingerprints.fingerprint(row(tmp_path), "train")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_order_of_an_arrays_numbers_in_its_file_is_none_of_its_own(tmp_path, order):
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "mine_train.npz", images=np.asarray(x, order=order), labels=np.arange(30) % 3
    )
    found = fingerprints.fingerprint(row(tmp_path), "train")
    np.savez(tmp_path / "mine_train.npz", images=x, labels=np.arange(30) % 3)
    assert fingerprints.fingerprint(row(tmp_path), "train") == found


@pytest.mark.parametrize(
    "what", ["a device", "a pipe", "a pipe among pictures", "a pipe as a list"]
)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, what):
    if what == "a device":
        hostile = CATALOGUE["svhn"].model_copy(update={"path": "/dev/zero"})
    elif what == "a pipe":
        (tmp_path / "cifar").mkdir()
        for i in range(1, 6):
            os.mkfifo(tmp_path / "cifar" / f"data_batch_{i}")
        hostile = CATALOGUE["cifar10"].model_copy(update={"path": str(tmp_path / "cifar")})
    elif what == "a pipe among pictures":
        hostile = folder(tmp_path / "mine")
        os.mkfifo(tmp_path / "mine" / "train" / "cat" / "2.png")
    else:
        hostile = cub(tmp_path / "cub")
        (tmp_path / "cub" / "images.txt").unlink()
        os.mkfifo(tmp_path / "cub" / "images.txt")
    with pytest.raises(ValueError, match="want a file") as refusal:
        fingerprints.fingerprint(hostile, "train", tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("change", ["content", "name", "class", "one more"])
def test_other_picture_files_have_another_fingerprint(tmp_path, change):
    mine = folder(tmp_path / "mine")
    was = [fingerprints.fingerprint(mine, split, tmp_path) for split in ("train", "test")]
    file = sorted((tmp_path / "mine" / "train").rglob("*.*"))[0]
    if change == "content":
        size, pixels = file.stat().st_size, bytearray(file.read_bytes())
        pixels[size // 2] ^= 1
        file.write_bytes(pixels)
    elif change == "name":
        file.rename(file.with_name(f"a-{file.name}"))
    elif change == "class":
        (tmp_path / "mine" / "train").rename(tmp_path / "was")
        shutil.copytree(tmp_path / "was", tmp_path / "mine" / "train")
        for split in ("train", "test"):
            first = sorted((tmp_path / "mine" / split).iterdir())[0]
            first.rename(first.with_name("aaa"))
    else:
        shutil.copyfile(file, file.with_name(f"more-{file.name}"))
    now = [fingerprints.fingerprint(mine, split, tmp_path) for split in ("train", "test")]
    assert now[0] != was[0] and (now[1] != was[1]) == (change == "class")


def test_a_large_split_is_told_by_names_sizes_and_some_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "MAX_WHOLE_BYTES", 100)
    monkeypatch.setattr(fingerprints, "NUM_SAMPLED", 2)
    mine = folder(tmp_path / "mine")
    was = fingerprints.fingerprint(mine, "train", tmp_path)
    last = sorted((tmp_path / "mine" / "train").rglob("*.*"))[-1]
    last.write_bytes(last.read_bytes()[:-1] + b"\0")
    assert fingerprints.fingerprint(mine, "train", tmp_path) != was


def test_a_layout_of_lists_has_a_fingerprint_a_split(tmp_path):
    mine = cub(tmp_path / "CUB_200_2011")
    found = {fingerprints.fingerprint(mine, split, tmp_path) for split in ("train", "test")}
    assert len(found) == 2 and None not in found


@pytest.mark.parametrize("name", ["mnist5k", "digits"])
def test_embedded_images_have_fingerprints_without_being_loaded(name, monkeypatch):
    monkeypatch.setattr("dwlt_lib.data.bundled.EMBEDDED", {})
    assert (
        len({fingerprints.fingerprint(CATALOGUE[name], split) for split in ("train", "test")}) == 2
    )


def test_records_of_other_images_are_other_records(tmp_path, outputs):
    for split, seed in (("train", 0), ("test", 1)):
        npz(tmp_path / f"mine_{split}.npz", seed)
    file = write_file(tmp_path / "own.yaml")
    was = ids(file)
    npz(tmp_path / "mine_test.npz", seed=2)
    assert not ids(file) & was  # all of this study's records are tested, or build on what is


def test_a_mask_that_is_not_retrained_heeds_no_images_but_those_of_its_theta(tmp_path):
    npz(tmp_path / "mine_train.npz")
    npz(tmp_path / "mine_test.npz", 1)
    study = read_study(write_file(tmp_path / "own.yaml"))
    m = planning.mask(study, "AT", "OMP", 1)
    other = study.model_copy(
        update={"data": {"mine": study.data["mine"].model_copy(update={"test_sha256": 64 * "1"})}}
    )
    changed = planning.mask(other, "AT", "OMP", 1)
    assert record_id(changed.theta) != record_id(m.theta)
    assert record_id(changed.model_copy(update={"theta": m.theta})) == record_id(m)


def test_the_source_is_looked_at_only_where_something_is_trained_on_it(toy):
    block = {"pretraining": ["AT"], "dataset": ["stripes"], "rounds": [3], "seeds": [0]}
    more = dict(weights={"AT": "at.safetensors"}, landscapes=[], transfer_attacks=[])
    one_shot = toy(grid=[{**block, "method": ["OMP", "RP"]}], **more)
    assert [r.name for r in one_shot.rows()] == ["stripes"]
    assert [r.name for r in toy(grid=[{**block, "method": ["IMP-ST"]}], **more).rows()] == [
        "blobs",
        "stripes",
    ]
    assert [r.name for r in toy().rows()] == ["blobs", "stripes"]


def test_while_images_are_absent_ids_are_provisional_and_said_to_be(tmp_path, outputs):
    file = write_file(tmp_path / "own.yaml")
    study = read_study(file)
    assert len(fingerprints.unresolved(study)) == 2
    provisional = set(plan(study))
    npz(tmp_path / "mine_train.npz")
    npz(tmp_path / "mine_test.npz", 1)
    study = read_study(file)
    assert fingerprints.unresolved(study) == [] and not set(plan(study)) & provisional


def test_images_that_went_away_keep_the_ids_that_were_noted(tmp_path, outputs):
    npz(tmp_path / "mine_train.npz")
    npz(tmp_path / "mine_test.npz", 1)
    file = write_file(tmp_path / "own.yaml")
    study = read_study(file)
    store.write_study(study, file)
    (tmp_path / "mine_train.npz").unlink()
    assert list(plan(read_study(file))) == list(plan(study))


def test_a_study_may_demand_its_images(tmp_path, outputs):
    npz(tmp_path / "mine_train.npz")
    npz(tmp_path / "mine_test.npz", 1)
    mine = {"loader": "npz", "classes": 3, "size": 8, "path": str(tmp_path / "mine_{split}.npz")}
    right = fingerprints.fingerprint(row(tmp_path), "train")
    write_file(tmp_path / "own.yaml", data={"mine": {**mine, "train_sha256": right}})
    read_study(tmp_path / "own.yaml")
    write_file(tmp_path / "own.yaml", data={"mine": {**mine, "train_sha256": 64 * "a"}})
    with pytest.raises(BadStudy, match="train_sha256") as refusal:
        read_study(tmp_path / "own.yaml")
    assert "\n" not in str(refusal.value) and right in str(refusal.value)


def test_images_that_change_under_a_run_make_no_record(tmp_path, outputs):
    npz(tmp_path / "mine_train.npz")
    npz(tmp_path / "mine_test.npz", 1)
    study = read_study(write_file(tmp_path / "own.yaml"))
    spec = planning.theta(study, "AT")
    npz(tmp_path / "mine_test.npz", 2)
    with pytest.raises(ValueError, match="changed since the study was read"):
        make.make(spec)
    npz(tmp_path / "mine_test.npz", 1)

    def swapped(row):
        npz(tmp_path / "mine_train.npz", 3)

    with pytest.raises(ValueError, match="changed since the study was read"):
        make.make(spec, progress=swapped)
    assert not store.exists(spec)


def test_a_description_of_images_that_nobody_looked_at_makes_no_record(toy, outputs):
    study = toy()
    bare = {name: r.model_copy(update={"train_sha256": None}) for name, r in study.data.items()}
    with pytest.raises(ValueError, match="records.read_study"):
        make.make(planning.theta(study.model_copy(update={"data": bare}), "AT"))


def test_images_are_loaded_again_when_their_fingerprint_changed(tmp_path):
    npz(tmp_path / "mine_train.npz", 0)
    mine = row(tmp_path)
    first, _ = loading.load(
        mine.model_copy(update={"train_sha256": fingerprints.fingerprint(mine, "train")}), "train"
    )
    npz(tmp_path / "mine_train.npz", 1)
    second, _ = loading.load(
        mine.model_copy(update={"train_sha256": fingerprints.fingerprint(mine, "train")}), "train"
    )
    assert not torch.equal(first, second)


# ------------------------------------------------------------------------------------------ names
# of studies


def test_two_files_with_one_name_and_other_parameters_are_refused(tmp_path, outputs):
    for split, seed in (("train", 0), ("test", 1)):
        npz(tmp_path / f"mine_{split}.npz", seed)
    a, b = write_file(tmp_path / "a.yaml"), write_file(tmp_path / "b.yaml", seed=7)
    store.write_study(read_study(a), a)
    with pytest.raises(BadStudy, match="b.yaml:.*name=own.*a.yaml") as refusal:
        read_study(b)
    assert "\n" not in str(refusal.value)
    write_file(tmp_path / "b.yaml")
    assert read_study(b) == read_study(a)  # a copy is the same study


def test_a_study_may_change_in_its_own_file_or_move(tmp_path, outputs):
    for split, seed in (("train", 0), ("test", 1)):
        npz(tmp_path / f"mine_{split}.npz", seed)
    file = write_file(tmp_path / "a.yaml")
    store.write_study(read_study(file), file)
    assert not store.has_changed(read_study(file))
    write_file(file, seed=7)
    assert store.has_changed(read_study(file))
    moved = file.rename(tmp_path / "b.yaml")
    assert read_study(moved).seed == 7
