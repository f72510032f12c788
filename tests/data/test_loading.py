"""Theorems on loading: each reader gives the images of its files, or one line."""

import numpy as np
import pytest
import torch
from layout_files import cifar, fashion_mnist, gtsrb, imagenet, svhn
from PIL import Image
from small_files import one_line, pixels, row, write

from dwlt_lib.config import datasets
from dwlt_lib.config.datasets import CATALOGUE, DataSet
from dwlt_lib.data import batches, checks, fingerprints, folders, loading


def test_npz_files_are_read_grey_or_coloured_each_split_from_its_own(tmp_path):
    grey, colour = pixels(9, 8, 8), pixels(6, 8, 8, 3)
    np.savez(tmp_path / "p_train.npz", images=grey, labels=np.arange(9) % 3)
    np.savez(tmp_path / "p_test.npz", images=colour, labels=np.arange(6, dtype=np.uint8) % 3)
    mine = row(path=str(tmp_path / "p_{split}.npz"))
    x, y = loading.load(mine, "train")
    assert x.shape == (9, 3, 8, 8) and all(np.array_equal(x[:, c].numpy(), grey) for c in range(3))
    assert y.tolist() == [0, 1, 2] * 3 and y.dtype == torch.int64
    x, y = loading.load(mine, "test")
    assert np.array_equal(x.numpy(), colour.transpose(0, 3, 1, 2)) and y.dtype == torch.int64


def test_relative_paths_lie_beneath_dwlt_data(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    np.savez(tmp_path / "beneath.npz", images=pixels(4, 8, 8), labels=np.zeros(4, int))
    assert datasets.data_root() == tmp_path
    assert len(loading.load(row(path="beneath.npz"), "train")[0]) == 4
    (tmp_path / "elsewhere").mkdir()
    np.savez(
        tmp_path / "elsewhere" / "beneath.npz", images=pixels(6, 8, 8), labels=np.zeros(6, int)
    )
    monkeypatch.setenv("DWLT_DATA", str(tmp_path / "elsewhere"))
    assert len(loading.load(row(path="beneath.npz"), "train")[0]) == 6


def bad_npz():
    x, y = pixels(6, 8, 8), np.arange(6) % 3
    return {
        "no labels": dict(images=x),
        "floats": dict(images=x / 255.0, labels=y),
        "too few labels": dict(images=x, labels=y[:5]),
        "label beyond classes": dict(images=x, labels=y + 1),
        "negative label": dict(images=x, labels=y - 1),
        "flat images": dict(images=x.reshape(6, 64), labels=y),
        "channels first": dict(images=pixels(6, 3, 8, 8), labels=y),
        "four channels": dict(images=pixels(6, 8, 8, 4), labels=y),
        "column of labels": dict(images=x, labels=y[:, None]),
        "labels with a fraction": dict(images=x, labels=y + 0.5),
        "words": dict(images=x, labels=np.array(["a"] * 6)),
        "objects": dict(images=x, labels=np.array([0, 1, 2, None, 1, 2], dtype=object)),
        "empty": dict(images=x[:0], labels=y[:0]),
        "oblong": dict(images=pixels(6, 8, 12), labels=y),
    }


@pytest.mark.parametrize("what", bad_npz())
def test_a_bad_npz_is_one_clear_error_that_names_the_file(tmp_path, what):
    mine = write(tmp_path / "bad.npz", **bad_npz()[what])
    with pytest.raises(ValueError, match="mine|bad.npz") as error:
        loading.load(mine, "train")
    assert "want" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_npz_or_missing_is_one_clear_error(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    for name in ("text.npz", "nowhere.npz"):
        with pytest.raises(ValueError, match=name) as error:
            loading.load(row(path=str(tmp_path / name)), "train")
        assert "\n" not in str(error.value)
    (tmp_path / "empty" / "train").mkdir(parents=True)
    for name in ("nowhere", "empty"):
        with pytest.raises(ValueError, match=name):
            loading.load(row(loader="folder", path=str(tmp_path / name)), "train")


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_a_truncated_npz_is_one_line(tmp_path, pack):

    pack(tmp_path / "cut.npz", images=np.zeros((50, 8, 8), np.uint8), labels=np.arange(50) % 3)
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) * 2 // 3])
    mine = DataSet(name="mine", loader="npz", classes=3, size=8, path=str(tmp_path / "cut.npz"))
    with pytest.raises(ValueError) as error:
        loading.load(mine, "train")
    one_line(error, "cut.npz", "want")


def test_folders_are_read_by_class_cut_square_in_the_middle(tmp_path):
    for split, n in (("train", 3), ("test", 1)):
        for label, name in enumerate(("ant", "bee", "cow")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                picture = np.zeros((40, 80, 3), np.uint8)
                picture[:, 15:65] = (
                    100 * label
                )  # the middle square, and what its edges are averaged with
                picture[:, :15] = picture[:, 65:] = 255
                Image.fromarray(picture).save(tmp_path / split / name / f"{i}.png")
    mine = row(loader="folder", path=str(tmp_path))
    x, y = loading.load(mine, "train")
    assert (
        x.shape == (9, 3, 8, 8)
        and x.dtype == torch.uint8
        and y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    )
    assert all((image == 100 * label).all() for image, label in zip(x, y, strict=True))
    assert len(loading.load(mine, "test")[0]) == 3


def test_images_larger_than_shown_are_reduced_once_when_loaded(tmp_path):
    x = np.repeat(np.repeat(pixels(6, 8, 8), 4, 1), 4, 2)
    mine = write(tmp_path / "large.npz", images=x, labels=np.arange(6) % 3)
    held, _ = loading.load(mine, "train")
    assert held.shape == (6, 3, 8, 8) and held.dtype == torch.uint8
    flat = write(
        tmp_path / "flat.npz", images=np.full((6, 32, 32), 77, np.uint8), labels=np.arange(6) % 3
    )
    assert (loading.load(flat, "train")[0] == 77).all()


def test_unknown_names_and_splits_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="digit'.*mnist5k.*svhn"):
        loading.load("digit", "train")
    with pytest.raises(ValueError, match="'train' or 'test'"):
        loading.load("digits", "val")


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


def test_fashion_mnist_is_grey_made_rgb_and_a_changed_file_is_refused(tmp_path, monkeypatch):
    for split, (raw, labels) in fashion_mnist(tmp_path, monkeypatch).items():
        x, y = loading.load("fashion_mnist", split, tmp_path)
        assert all(np.array_equal(x[:, channel].numpy(), raw) for channel in range(3))
        assert y.tolist() == labels.tolist() and y.dtype == torch.int64
    file = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1])
    loading._load.cache_clear()
    with pytest.raises(ValueError) as error:
        loading.load("fashion_mnist", "test", tmp_path)
    one_line(error, file.name, "corrupted", "dwlt data fetch fashion_mnist")


def test_signs_are_whole_and_squeezed_to_a_square(tmp_path):
    from torchvision.transforms.v2 import functional

    row = gtsrb(tmp_path)
    x, _ = loading.load(row, "train")
    with Image.open(loading.listing(row, "train").file(2)) as image:
        whole = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert whole.shape == (3, 27, 27) and len(x) == 18
    assert torch.equal(x[2], functional.resize(whole, [32, 32], antialias=True))


def test_a_ppm_cut_short_is_one_line(tmp_path):
    row = gtsrb(tmp_path)
    file = loading.listing(row, "test").file(1)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError) as error:
        loading.load(row, "test")
    one_line(error, file.name, "PPM", "bring another")


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


def test_a_split_larger_than_the_memory_is_refused_as_a_whole(tmp_path, monkeypatch):
    import psutil

    row = imagenet(tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(ValueError, match="12 images of 32 x 32.*data.load_images"):
        loading.load(row, "train")


def test_groups_of_an_npz_file_are_read_and_a_part_of_its_fingerprint(tmp_path):
    arrays = {"images": pixels(6, 8, 8), "labels": np.arange(6) % 3}
    mine = write(tmp_path / "mine.npz", **arrays)
    assert loading.groups(mine, "train") is None
    prints = [fingerprints.fingerprint(mine, "train")]
    for groups in ([4, 4, 1, 1, 4, 2], [4, 4, 1, 1, 4, 4]):
        write(tmp_path / "mine.npz", **arrays, groups=np.array(groups, dtype=np.uint16))
        loading._load.cache_clear()
        assert batches.load_images(mine, "train").groups.tolist() == groups
        prints.append(fingerprints.fingerprint(mine, "train"))
    assert len(set(prints)) == 3
    for wrong in (np.arange(5), np.ones(6), np.array(["a"] * 6)):
        write(tmp_path / "mine.npz", **arrays, groups=wrong)
        loading._load.cache_clear()
        with pytest.raises(ValueError) as error:
            batches.load_images(mine, "train")
        one_line(error, "mine.npz", "groups", "want")


def twins(tmp_path):
    """Ten training images in two groups, of which 3 and 8 are test images, too."""
    x = pixels(14, 8, 8, 3)
    test = np.concatenate([x[10:], x[[8, 3]]])
    np.savez(
        tmp_path / "train.npz", images=x[:10], labels=np.arange(10) % 3, groups=np.arange(10) // 5
    )
    np.savez(tmp_path / "test.npz", images=test, labels=np.arange(6) % 3)
    return x, row(path=str(tmp_path / "{split}.npz"), train_images=10, test_images=6)


def test_a_distinct_row_leaves_out_training_images_that_are_test_images(tmp_path):
    x, mine = twins(tmp_path)
    distinct = mine.model_copy(update={"distinct": True})
    kept = [0, 1, 2, 4, 5, 6, 7, 9]
    images = batches.load_images(distinct, "train")
    assert np.array_equal(images.x.numpy(), x[kept].transpose(0, 3, 1, 2))
    assert images.y.tolist() == [i % 3 for i in kept]
    assert images.groups.tolist() == [i // 5 for i in kept]
    assert len(loading.load(mine, "train")[0]) == 10 and len(loading.load(distinct, "test")[0]) == 6
    found, wrong = checks.check(distinct)
    assert wrong == [] and "10 images" in found[2] and "2 of them left out" in found[2]


def test_what_a_distinct_row_trains_on_depends_on_the_test_images(tmp_path):
    x, mine = twins(tmp_path)
    rows = [mine, mine.model_copy(update={"distinct": True})]
    was = [fingerprints.fingerprint(row, "train") for row in rows]
    np.savez(tmp_path / "test.npz", images=x[10:], labels=np.arange(4) % 3)
    now = [fingerprints.fingerprint(row, "train") for row in rows]
    assert was[0] == now[0] and len({*was, *now}) == 3
    (tmp_path / "test.npz").unlink()
    assert fingerprints.fingerprint(rows[1], "train") is None


def test_a_distinct_row_without_a_training_image_of_its_own_is_refused(tmp_path):
    mine = write(tmp_path / "same.npz", images=pixels(6, 8, 8), labels=np.arange(6) % 3)
    with pytest.raises(ValueError) as error:
        loading.load(mine.model_copy(update={"distinct": True}), "train")
    one_line(error, "mine", "every training image", "bring")


def test_picture_files_are_distinct_by_their_bytes(tmp_path):
    signs = gtsrb(tmp_path).model_copy(update={"distinct": True})
    train, test = loading.listing(signs, "train"), loading.listing(signs, "test")
    test.file(2).write_bytes(train.file(4).read_bytes())
    loading._listing.cache_clear()
    left = loading.listing(signs, "train")
    assert left.names.tolist() == [n for i, n in enumerate(train.names) if i != 4]
    assert left.groups.tolist() == [i // 3 for i in range(18) if i != 4]
