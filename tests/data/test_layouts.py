"""Theorems on layouts.

The real data sets' folders and lists are read whole and rightly, or refused in one line.
"""

import os
import shutil

import numpy as np
import pytest
import torch
from layout_files import WNIDS, cifar, cub, imagenet, picture, svhn, visda

from dwlt_lib.config.datasets import CATALOGUE, LISTED
from dwlt_lib.data import batches, checks, folders, loading

MAKERS = {"imagenet": imagenet, "cub200": cub, "visda17": visda}


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def files(found):
    return [os.fsdecode(name) for name in found.names]


# ------------------------------------------------------------------------------------------ what is
# read


def test_the_catalogue_says_what_the_data_sets_papers_say():
    assert {
        name: (row.classes, row.train_images, row.test_images)
        for name, row in CATALOGUE.items()
        if row.loader in LISTED
    } == {
        "imagenet": (1000, 1_281_167, 50_000),
        "cub200": (200, 5994, 5794),
        "visda17": (12, 152_397, 55_388),
    }
    for name in MAKERS:
        row = CATALOGUE[name]
        assert (row.size, round(row.size / row.crop)) == (224, 256) and row.augment == (
            "resized_crop",
            "flip",
        )
        assert (row.eps, row.alpha) == (8 / 255, 2 / 255) and row.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", MAKERS)
def test_every_picture_is_listed_once_with_its_label(tmp_path, name):
    row = MAKERS[name](tmp_path)
    for split in ("train", "test"):
        found = loading.listing(row, split)
        assert len(found) == getattr(row, f"{split}_images") == len(set(files(found)))
        assert all((found.root / file).is_file() for file in files(found))
        for file, label in zip(files(found), found.labels, strict=True):
            assert file.split("/")[0] == found.classes[label]
    assert not set(loading.listing(row, "train").names) & set(loading.listing(row, "test").names)


@pytest.mark.parametrize("split, folder", [("train", "train"), ("test", "val")])
def test_imagenet_is_listed_as_torchvisions_imagefolder_lists_it(tmp_path, split, folder):
    from torchvision.datasets import ImageFolder

    row = imagenet(tmp_path)
    (tmp_path / folder / ".ipynb_checkpoints").mkdir()
    (tmp_path / folder / WNIDS[0] / "notes.txt").write_text("no picture")
    for inner in ("c", "a", "d", "b"):
        picture(tmp_path / folder / WNIDS[1] / inner / "1.jpg", 0)
    found = loading.listing(row, split)
    shutil.rmtree(tmp_path / folder / ".ipynb_checkpoints")
    theirs = ImageFolder(tmp_path / folder)
    assert [
        (str(found.root / file), label)
        for file, label in zip(files(found), found.labels, strict=True)
    ] == theirs.samples
    assert list(found.classes) == theirs.classes == sorted(WNIDS)


def test_cub_splits_and_labels_follow_its_three_lists(tmp_path):
    row = cub(tmp_path)
    train, test = loading.listing(row, "train"), loading.listing(row, "test")
    assert [int(file.rsplit("_", 1)[1][:-4]) - 796000 for file in files(test)] == [
        1,
        3,
        6,
        8,
        11,
        13,
    ]
    assert (
        test.labels.tolist() == [0, 0, 1, 1, 2, 2]
        and train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    )


def test_visdas_test_split_is_its_labelled_photographs(tmp_path):
    row = visda(tmp_path)
    (tmp_path / "test" / "trunk00").mkdir(parents=True)  # the challenge's, unlabelled
    assert loading.listing(row, "test").root.name == "validation"
    assert all(file.endswith(".jpg") for file in files(loading.listing(row, "test")))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_by_torchvisions_reader_from_pickled_batches(tmp_path, monkeypatch, name):
    wholes = cifar(tmp_path, monkeypatch, name)
    for split in ("train", "test"):
        x, y = loading.load(name, split, tmp_path)
        batches = wholes[f"{split}_list"]
        assert np.array_equal(
            x.numpy(), np.concatenate([x for x, _ in batches]).reshape(-1, 3, 32, 32)
        )
        assert y.tolist() == sum((y for _, y in batches), []) and y.dtype == torch.int64


def test_svhns_ten_is_the_digit_zero(tmp_path, monkeypatch):
    wholes = svhn(tmp_path, monkeypatch)
    for split, (raw, labels) in wholes.items():
        x, y = loading.load("svhn", split, tmp_path)
        assert (
            np.array_equal(x.numpy(), raw.transpose(3, 2, 0, 1))
            and y.tolist() == (labels % 10).tolist()
        )


# ------------------------------------------------------------------------------------------ what is
# refused


@pytest.mark.parametrize(
    "name", [name for name in CATALOGUE if CATALOGUE[name].loader != "embedded"]
)
def test_what_is_not_there_is_named_with_the_command_that_brings_it(tmp_path, name):
    for ask in (
        loading.load,
        lambda name, split, root: folders.split_path(CATALOGUE[name], split, root),
    ):
        with pytest.raises(ValueError) as error:
            ask(name, "train", tmp_path)
        one_line(error, str(tmp_path), "missing", f"dwlt data fetch {name}", "DWLT_DATA")
    assert not any(tmp_path.iterdir())  # nothing is downloaded by asking


def flat_val(root):
    for wnid in WNIDS:
        for file in (root / "val" / wnid).iterdir():
            file.rename(root / "val" / file.name)
        (root / "val" / wnid).rmdir()


def edit(file, old, new):
    def change(root):
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new))

    return change


def remove(file):
    return lambda root: (
        shutil.rmtree(root / file) if (root / file).is_dir() else (root / file).unlink()
    )


WRONG = {  # data set, split, what is done to its files, what the line must say
    "a flat val": ("imagenet", "test", flat_val, ("6 images", "no class folders")),
    "no val": ("imagenet", "test", remove("val"), ("val is missing",)),
    "a class without test pictures": (
        "imagenet",
        "test",
        remove(f"val/{WNIDS[1]}"),
        ("differ", WNIDS[1]),
    ),
    "an empty class": (
        "imagenet",
        "train",
        lambda root: [file.unlink() for file in (root / "train" / WNIDS[2]).iterdir()],
        (WNIDS[2],),
    ),
    "a class too many": (
        "imagenet",
        "train",
        lambda root: picture(root / "train" / "extra" / "1.JPEG", 0),
        ("4 classes", "has 3"),
    ),
    "no list of splits": (
        "cub200",
        "train",
        remove("train_test_split.txt"),
        ("train_test_split.txt", "unpack"),
    ),
    "a list cut short": (
        "cub200",
        "test",
        edit("image_class_labels.txt", "\n15 3", ""),
        ("image 15",),
    ),
    "a line of one word": (
        "cub200",
        "train",
        edit("images.txt", "3 001", "\nthree\n3 001"),
        ("images.txt:4", "three"),
    ),
    "an id twice": (
        "cub200",
        "train",
        edit("images.txt", "\n3 001", "\n2 001"),
        ("images.txt", "twice"),
    ),
    "a label that is no class": (
        "cub200",
        "train",
        edit("image_class_labels.txt", "15 3", "15 4"),
        ("classes.txt",),
    ),
    "a label that is no number": (
        "cub200",
        "train",
        edit("image_class_labels.txt", "15 3", "15 x"),
        ("numbers",),
    ),
    "a flag of 2": (
        "cub200",
        "train",
        edit("train_test_split.txt", "15 1", "15 2"),
        ("train_test_split.txt",),
    ),
    "a missing picture": (
        "cub200",
        "train",
        remove("images/002.Laysan_Albatross"),
        ("3 of 9", "missing", "002.Laysan_Albatross"),
    ),
    "a picture elsewhere": (
        "cub200",
        "train",
        edit("images.txt", "1 001.B", "1 ../../001.B"),
        ("outside",),
    ),
    "bytes that are no text": (
        "cub200",
        "train",
        lambda root: (root / "images.txt").write_bytes(b"\xff\xfe\x00"),
        ("images.txt",),
    ),
    "no list": (
        "visda17",
        "test",
        remove("validation/image_list.txt"),
        ("image_list.txt", "missing"),
    ),
    "an unlabelled list": (
        "visda17",
        "train",
        edit("train/image_list.txt", ".png 1", ".png"),
        ("image_list.txt",),
    ),
    "a folder with two labels": (
        "visda17",
        "train",
        edit("train/image_list.txt", "_1_0__0_0.png 1", "_1_0__0_0.png 2"),
        ("image_list.txt", "one by one"),
    ),
    "an absolute name": (
        "visda17",
        "train",
        edit("train/image_list.txt", "bus/train_2_0", "/bus/train_2_0"),
        ("image_list.txt",),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_layout_is_one_line_with_its_place(tmp_path, what):
    name, split, spoil, words = WRONG[what]
    row = MAKERS[name](tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError) as error:
        batches.load_images(row, split)
    one_line(error, str(tmp_path), *words)
    found, wrong = checks.check(row)
    assert any(all(word in line for word in words) for line in wrong)


def test_a_changed_or_missing_batch_of_cifar_is_never_unpickled(tmp_path, monkeypatch):
    cifar(tmp_path, monkeypatch)
    canary = tmp_path / "canary"
    payload = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(payload)
    with pytest.raises(ValueError) as error:
        loading.load("cifar10", "train", tmp_path)
    one_line(error, "cifar-10-batches-py", "corrupted", "dwlt data fetch cifar10")
    assert not canary.exists()


def test_a_truncated_mat_file_is_one_line(tmp_path, monkeypatch):
    svhn(tmp_path, monkeypatch)
    whole = (tmp_path / "test_32x32.mat").read_bytes()
    (tmp_path / "test_32x32.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError) as error:
        loading.load("svhn", "test", tmp_path)
    one_line(error, "test_32x32.mat", "corrupted", "dwlt data fetch svhn")


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_a_truncated_npz_is_one_line(tmp_path, pack):
    from dwlt_lib.config.datasets import DataSet

    pack(tmp_path / "cut.npz", images=np.zeros((50, 8, 8), np.uint8), labels=np.arange(50) % 3)
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) * 2 // 3])
    mine = DataSet(name="mine", loader="npz", classes=3, size=8, path=str(tmp_path / "cut.npz"))
    with pytest.raises(ValueError) as error:
        loading.load(mine, "train")
    one_line(error, "cut.npz", "want")


def test_only_rows_that_list_files_have_a_listing():
    assert set(LISTED) == set(folders.LAYOUTS)


# ------------------------------------------------------------------------------------------ the
# inventory


@pytest.mark.parametrize("name", MAKERS)
def test_the_inventory_says_where_how_many_and_that_all_is_there(tmp_path, name):
    row = MAKERS[name](tmp_path)
    found, wrong = checks.check(row)
    text = "\n".join(found)
    assert (
        wrong == []
        and str(tmp_path) in text
        and f"train: {row.train_images} images, 3 classes" in text
    )


def test_the_inventory_counts_against_the_catalogue_and_opens_pictures(tmp_path):
    row = imagenet(tmp_path)
    victim = next((tmp_path / "val" / WNIDS[0]).iterdir())
    victim.write_bytes(victim.read_bytes()[:300])
    _, wrong = checks.check(row.model_copy(update={"train_images": 13}))
    assert any("12 images; the catalogue says 13" in line for line in wrong)
    assert any(victim.name in line and "not a whole image" in line for line in wrong)


def test_the_inventory_of_installed_data_sets_is_complete():
    for name in ("mnist5k", "digits", "tiles"):
        assert checks.check(CATALOGUE[name])[1] == []
