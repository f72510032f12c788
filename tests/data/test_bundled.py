"""Theorems on the data sets in installed packages: what the catalogue says, with splits apart."""

import numpy as np
import pytest
import torch
from PIL import Image

from dwlt_lib.config import datasets
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import batches, bundled, loading

EMBEDDED = ("mnist5k", "digits", "tiles")


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_images_are_what_the_catalogue_says(name, split):
    x, y = loading.load(name, split)
    catalogued = CATALOGUE[name]
    assert len(x) == len(y) == getattr(catalogued, f"{split}_images")
    assert x.dtype == torch.uint8 and y.dtype == torch.int64
    assert x.shape[1] == 3 and x.shape[2] == x.shape[3]
    assert y.unique().tolist() == list(range(catalogued.classes))
    assert batches.load_images(name, split).floats().shape[-2:] == (
        catalogued.size,
        catalogued.size,
    )


def test_classes_are_counted_as_in_the_sources():
    assert loading.load("mnist5k", "train")[1].bincount().tolist() == [400] * 10
    assert loading.load("mnist5k", "test")[1].bincount().tolist() == [100] * 10
    both = (
        loading.load("digits", "train")[1].bincount() + loading.load("digits", "test")[1].bincount()
    )
    assert both.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert loading.load("tiles", "train")[1].bincount().max() == 128
    assert loading.load("tiles", "test")[1].bincount().max() == 40


def test_digits_and_labels_belong_together():
    from sklearn.datasets import load_digits

    raw = load_digits()
    known = {
        image.astype(np.uint8).tobytes(): label
        for image, label in zip(raw.images, raw.target, strict=True)
    }
    for split in ("train", "test"):
        x, y = loading.load("digits", split)
        assert x.max() == 255 and x.min() == 0
        back = (x[:, 0].float() * 16 / 255).round().to(torch.uint8).numpy()
        assert all(
            known[image.tobytes()] == label for image, label in zip(back, y.tolist(), strict=True)
        )


def test_digits_for_testing_come_after_all_for_training_in_the_file_and_so_from_other_writers():
    from sklearn.datasets import load_digits

    labels = np.concatenate([bundled.EMBEDDED["digits"](split)[1] for split in ("train", "test")])
    assert labels.tolist() == load_digits().target.tolist()


@pytest.mark.parametrize("name", ["mnist5k", "digits"])
def test_no_image_is_in_both_train_and_test(name):
    train, test = (
        {image.tobytes() for image in bundled.EMBEDDED[name](split)[0]}
        for split in ("train", "test")
    )
    assert len(train) == len(loading.load(name, "train")[0]) and not train & test


def test_test_tiles_lie_in_other_columns_of_a_picture_than_train_tiles():
    from importlib.util import find_spec
    from pathlib import Path

    found = {split: bundled.EMBEDDED["tiles"](split) for split in ("train", "test")}
    for label, name in enumerate(bundled.PHOTOGRAPHS):
        package, _, inside = name.partition("/")
        file = Path(find_spec(package).origin).parent / inside
        picture = np.asarray(Image.open(file).convert("RGB"))
        columns = {"train": set(), "test": set()}
        for split, (x, y) in found.items():
            wanted = {tile.tobytes() for tile in x[y == label]}
            places = {
                (r, c): picture[r : r + 32, c : c + 32].tobytes()
                for r in range(0, picture.shape[0] - 31, 32)
                for c in range(0, picture.shape[1] - 31, 32)
            }
            columns[split] = {c for (r, c), tile in places.items() if tile in wanted}
            assert wanted <= set(
                places.values()
            )  # tiles are cut on a grid, so that they never overlap
        assert columns["test"] and not columns["train"] & columns["test"]
        middle = [(c + 16) / picture.shape[1] for c in columns["test"]]
        assert min(middle) > 0.4 and max(middle) < 0.8


def test_the_catalogues_statistics_are_those_of_the_training_images():
    for name in EMBEDDED:
        x = batches.load_images(name, "train").floats()
        assert torch.allclose(x.mean((0, 2, 3)), torch.tensor(CATALOGUE[name].mean), atol=0.01), (
            name
        )
        assert torch.allclose(x.std((0, 2, 3)), torch.tensor(CATALOGUE[name].std), atol=0.02), name


def test_digits_are_never_mirrored_and_no_flip_where_left_and_right_mean_something():
    assert (
        "flip"
        not in CATALOGUE["digits"].augment
        + CATALOGUE["mnist5k"].augment
        + CATALOGUE["svhn"].augment
    )
    assert "flip" in CATALOGUE["cifar10"].augment
    with pytest.raises(TypeError):
        datasets.CATALOGUE["digits"].augment[0] = "flip"
