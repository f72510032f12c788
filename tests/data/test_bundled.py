"""Theorems on the data sets in installed packages: what the catalogue says, with splits apart."""

import numpy as np
import pytest
import torch

from dwlt_lib.config import datasets
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import batches, bundled, loading

EMBEDDED = ("mnist5k", "digits")


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
