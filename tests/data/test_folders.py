"""Theorems on layouts of image folders: read whole and right, or refused in one line."""

import os
import shutil

import numpy as np
import pytest
import torch
from hostile_files import BASE
from layout_files import WNIDS, cub, gtsrb, imagenet, picture, tiny_imagenet, visda
from small_files import MAKERS, one_line, streamed

from dwlt_lib.config import planning, studies
from dwlt_lib.config.datasets import CATALOGUE, LISTED
from dwlt_lib.config.parameter_file import BadStudy
from dwlt_lib.data import batches, checks, folders, loading
from dwlt_lib.execution import costs
from dwlt_lib.execution.study_files import read_study


def files(found):
    return [os.fsdecode(name) for name in found.names]


def test_the_catalogue_says_what_the_data_sets_papers_say():
    assert {
        name: (row.classes, row.train_images, row.test_images)
        for name, row in CATALOGUE.items()
        if row.loader in LISTED
    } == {
        "imagenet": (1000, 1_281_167, 50_000),
        "tiny_imagenet": (200, 100_000, 10_000),
        "gtsrb": (43, 26_640, 12_630),
        "cub200": (200, 5994, 5794),
        "visda17": (12, 152_397, 55_388),
    }
    for name in ("imagenet", "cub200", "visda17"):
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
            assert "/" not in file or file.split("/")[0] == found.classes[label]
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


@pytest.mark.parametrize("split", ["train", "test"])
def test_gtsrb_is_listed_as_torchvision_lists_it(tmp_path, split):
    from torchvision.datasets import GTSRB

    found = loading.listing(gtsrb(tmp_path / "gtsrb"), split)
    paths = [str(found.root / file) for file in files(found)]
    assert list(zip(paths, found.labels, strict=True)) == GTSRB(tmp_path, split)._samples
    assert found.classes == ("00000", "00001", "00002")


def test_gtsrbs_groups_are_tracks(tmp_path):
    row = gtsrb(tmp_path, tracks=2, frames=3)
    assert loading.groups(row, "train").tolist() == [i // 3 for i in range(18)]
    assert loading.groups(row, "test") is None
    some = batches.load_images(row, "train").take(torch.tensor([17, 0, 4]))
    assert some.groups.tolist() == [5, 0, 1]
    assert streamed(row, "train").take(torch.tensor([17, 4])).groups.tolist() == [5, 1]


def test_tiny_imagenets_test_split_is_its_annotated_validation(tmp_path):
    row = tiny_imagenet(tmp_path)
    train, test = loading.listing(row, "train"), loading.listing(row, "test")
    assert files(train)[0] == f"{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG"
    assert files(test) == [f"val_{i}.JPEG" for i in range(6)]
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2] and test.classes == train.classes
    small = row.model_copy(update={"size": 32})  # as a study may ask for
    assert loading.load(row, "test")[0].shape == (6, 3, 64, 64)
    assert loading.load(small, "test")[0].shape == (6, 3, 32, 32)


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
    "a flat val": ("imagenet", "test", flat_val, ("no class folders",)),
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
    "a class without training pictures": (
        "tiny_imagenet",
        "test",
        edit("val/val_annotations.txt", f"val_4.JPEG\t{WNIDS[1]}", "val_4.JPEG\tn00000001"),
        ("val_4.JPEG", "n00000001", "unpack"),
    ),
    "an annotation cut short": (
        "tiny_imagenet",
        "test",
        edit("val/val_annotations.txt", f"val_5.JPEG\t{WNIDS[2]}\t0\t32\t44\t62", "val_5.JPEG"),
        ("val_5.JPEG", "want 6 words"),
    ),
    "no annotations": (
        "tiny_imagenet",
        "test",
        remove("val/val_annotations.txt"),
        ("val_annotations.txt is missing",),
    ),
    "a missing sign": (
        "gtsrb",
        "test",
        remove("GTSRB/Final_Test/Images/00003.ppm"),
        ("1 of 6", "00003.ppm"),
    ),
    "a sign of no class": (
        "gtsrb",
        "test",
        edit("GT-final_test.csv", "49;2\n00", "49;9\n00"),
        ("00000.ppm", "'00009'"),
    ),
    "no training signs": (
        "gtsrb",
        "test",
        remove("GTSRB/Training"),
        ("Training", "mend the folder"),
    ),
    "no list of splits": (
        "cub200",
        "train",
        remove("train_test_split.txt"),
        ("train_test_split.txt", "want a file"),
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
        ("images.txt", "three"),
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
        ("classes.txt", "'x'"),
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


def test_only_rows_that_list_files_have_a_listing():
    assert set(LISTED) == set(folders.LAYOUTS)


def study(folder, row):
    (folder / "study.yaml").write_text(
        BASE.replace("[digits]", "[mine]") + f"data: {{mine: {row}}}\n"
    )
    return folder / "study.yaml"


def class_folders(root, classes=4, train=6, test=2):
    for label in range(classes):
        for split, n in (("train", train), ("test", test)):
            for i in range(n):
                picture(root / split / f"class{label}" / f"{i}.png", i, (12, 12))
    return f"loader: folder, size: 8, path: {root}"


def test_folders_are_counted_and_the_forecast_goes_by_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    path = study(tmp_path, f"{{{class_folders(tmp_path / 'mine')}, classes: 4}}")
    found = read_study(path)
    row = studies.dataset(found, "mine")
    assert (row.train_images, row.test_images) == (24, 8)
    stated = read_study(
        study(
            tmp_path,
            f"{{loader: folder, size: 8, path: {tmp_path / 'mine'}, classes: 4, "
            "train_images: 24, test_images: 8}",
        )
    )
    assert stated == found
    there = planning.plan(found)
    away = read_study(study(tmp_path, "{loader: folder, size: 8, path: /nowhere, classes: 4}"))
    assert len(there) == len(planning.plan(away))
    here, far = (
        sum(costs.cost(spec) for spec in plan.values() if spec.kind == "transfer")
        for plan in (there, planning.plan(away))
    )
    assert 0 < 100 * here < far


def test_npz_files_are_counted_by_their_headers(tmp_path):
    for split, n in (("train", 9), ("test", 3)):
        np.savez(
            tmp_path / f"mine_{split}.npz",
            images=np.zeros((n, 8, 8), np.uint8),
            labels=np.arange(n) % 3,
        )
    path = study(
        tmp_path, f"{{loader: npz, size: 8, path: '{tmp_path}/mine_{{split}}.npz', classes: 3}}"
    )
    row = studies.dataset(read_study(path), "mine")
    assert (row.train_images, row.test_images) == (9, 3)


def test_data_sets_of_the_catalogue_are_counted_where_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    imagenet(tmp_path / "imagenet")
    (tmp_path / "a.yaml").write_text(
        BASE.replace("[digits]", "[imagenet]") + "data: {imagenet: {classes: 3}}\n"
    )
    row = studies.dataset(read_study(tmp_path / "a.yaml"), "imagenet")
    assert (row.train_images, row.test_images) == (12, 6)


def empty(root):
    for file in (root / "train" / "class1").iterdir():
        file.unlink()


MISMATCH = {  # what is done to four classes of 6 and 2 pictures, the row's settings, words
    "five classes": (None, "classes: 5", "4 classes has 5"),
    "three classes": (None, "classes: 3", "4 classes has 3"),
    "an empty class": (empty, "classes: 4", "class1 no images"),
    "a class without test pictures": (
        lambda root: (root / "test" / "class2").rename(root / "test" / "klass2"),
        "classes: 4",
        "differ class2",
    ),
    "another number than is stated": (
        None,
        "classes: 4, train_images: 240",
        "train_images=240: 24 are there",
    ),
    "another number of test images": (
        None,
        "classes: 4, test_images: 9",
        "test_images=9: 8 are there",
    ),
    "too few to hold out": (
        None,
        "classes: 4}}\ntransfer: {ST: {validation: held_5000",
        "held_5000 24 tenth",
    ),
}


@pytest.mark.parametrize("what", MISMATCH)
def test_what_does_not_fit_the_folders_is_refused_before_the_start(what, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    spoil, settings, words = MISMATCH[what]
    row = class_folders(tmp_path / "mine")
    if spoil:
        spoil(tmp_path / "mine")
    with pytest.raises(BadStudy) as error:
        read_study(study(tmp_path, f"{{{row}, {settings}}}"))
    one_line(error, "study.yaml", *words.split())
    assert not (tmp_path / "outputs").exists()


def test_an_npz_file_of_other_classes_is_refused_before_the_start(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((9, 8, 8), np.uint8), labels=np.arange(9) % 5)
    with pytest.raises(BadStudy) as error:
        read_study(
            study(tmp_path, f"{{loader: npz, size: 8, path: {tmp_path}/mine.npz, classes: 4}}")
        )
    one_line(error, "study.yaml:12: ", "labels 0..4", "0..3")


def test_a_class_that_links_to_itself_is_one_line(tmp_path):
    row, loop = class_folders(tmp_path / "mine"), tmp_path / "mine" / "train" / "class9"
    loop.symlink_to(loop)
    with pytest.raises(BadStudy) as error:
        read_study(study(tmp_path, f"{{{row}, classes: 4}}"))
    one_line(error, "study.yaml:12: ", "class9")


def test_a_split_that_is_not_there_is_not_counted(tmp_path):
    row = class_folders(tmp_path / "mine")
    (tmp_path / "mine" / "test").rename(tmp_path / "mine" / "elsewhere")
    found = studies.dataset(read_study(study(tmp_path, f"{{{row}, classes: 4}}")), "mine")
    assert (found.train_images, found.test_images) == (24, 10_000)
