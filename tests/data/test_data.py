"""Theorems on images.

Splits that do not touch, subsets that nest, batches that cover, augmentation in range.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from seeds import numpy_rng
from seeds import torch_rng as rng

from dwlt_lib.config import datasets
from dwlt_lib.config.datasets import CATALOGUE, DataSet
from dwlt_lib.data import augmentation, batches, bundled, loading, subsets

EMBEDDED = ("mnist5k", "digits", "tiles")


def row(**settings):
    return DataSet(**{"name": "mine", "loader": "npz", "classes": 3, "size": 8, **settings})


def write(path, **arrays):
    np.savez(path, **arrays)
    return row(path=str(path))


def pixels(n, *shape, seed=0):
    return numpy_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


# ------------------------------------------------------------------------------------------
# embedded data sets


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_images_are_what_the_catalogue_says(name, split):
    x, y = loading.load(name, split)
    card = CATALOGUE[name]
    assert len(x) == len(y) == getattr(card, f"{split}_images")
    assert x.dtype == torch.uint8 and y.dtype == torch.int64
    assert x.shape[1] == 3 and x.shape[2] == x.shape[3]
    assert y.unique().tolist() == list(range(card.classes))
    assert batches.load_images(name, split).floats().shape[-2:] == (card.size, card.size)


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


def test_the_cards_statistics_are_those_of_the_training_images():
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


# ------------------------------------------------------------------------------------------ one's
# own files


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


def test_unknown_names_and_splits_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="digit'.*mnist5k.*svhn"):
        loading.load("digit", "train")
    with pytest.raises(ValueError, match="'train' or 'test'"):
        loading.load("digits", "val")


# ------------------------------------------------------------------------------------------ subsets


LABELS = {
    "balanced": torch.arange(1000) % 10,
    "sorted": torch.arange(1000) // 100,
    "unbalanced": torch.cat([torch.full((n,), i) for i, n in enumerate((700, 200, 67, 33))]),
}


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_subsets_nest_have_exact_sizes_and_no_repetition(labels, rule):
    one, ten, all_ = (subsets.subset(labels, fraction, 0, rule) for fraction in (0.01, 0.1, 1.0))
    assert (len(one), len(ten), len(all_)) == (10, 100, 1000)
    assert set(one.tolist()) <= set(ten.tolist()) <= set(all_.tolist()) == set(range(1000))
    assert all((part.diff() > 0).all() for part in (one, ten, all_))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.37, 0.5])
def test_every_class_keeps_its_share_to_within_one(labels, fraction):
    for seed in range(3):
        counts = labels[subsets.subset(labels, fraction, seed)].bincount(
            minlength=len(labels.unique())
        )
        assert (counts - labels.bincount() * fraction).abs().max() <= 1


def test_seeds_draw_different_subsets_and_0_is_a_seed():
    labels = LABELS["balanced"]
    drawn = [tuple(subsets.subset(labels, 0.1, seed).tolist()) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3
    assert drawn[0] != tuple(range(100))


def test_a_subset_does_not_depend_on_numpys_or_torchs_global_state():
    np.random.seed(0)
    torch.manual_seed(0)
    one = subsets.subset(LABELS["sorted"], 0.1, 5)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(one, subsets.subset(LABELS["sorted"], 0.1, 5))


def test_first_n_is_the_authors_way():
    assert subsets.subset(torch.zeros(45000), 0.01, 3, "first_n").tolist() == list(range(450))
    assert len(subsets.subset(torch.zeros(999), 0.1, 0, "first_n")) == 99  # int(), not round()
    assert (
        len(subsets.subset(torch.zeros(100), 0.29, 0, "first_n")) == 29
    )  # in spite of 0.29 * 100 = 28.999...


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
def test_labels_are_a_tensor_an_array_or_a_list_alike(rule):
    labels = LABELS["unbalanced"]
    wanted = subsets.subset(labels, 0.1, 2, rule)
    for same in (labels.numpy(), labels.tolist(), labels.int(), tuple(labels.tolist())):
        assert torch.equal(subsets.subset(same, 0.1, 2, rule), wanted)


@pytest.mark.parametrize("rule", ["stratified", "first_n"])
def test_what_are_no_labels_or_no_seed_is_refused_in_a_line(rule):
    labels = LABELS["balanced"]
    for wrong, seed, said in (
        (labels.view(10, 100), 0, r"labels \(10, 100\) int64: want one class per image"),
        (torch.tensor(3), 0, "want one class per image"),
        ([], 0, "want one class per image"),
        ([[0, 1], [2]], 0, "want one class per image"),
        (None, 0, "want one class per image"),
        (["cat", "dog"], 0, "want one class per image"),
        ([0.0, float("nan")], 0, "one class per"),
        (labels, -1, "seed=-1: want an integer, 0 or more"),
        (labels, None, "seed=None"),
        (labels, 0.5, "seed=0.5"),
    ):
        with pytest.raises(ValueError, match=said) as refusal:
            subsets.subset(wrong, 0.1, seed, rule)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan"), "0.1", None])
def test_fractions_outside_0_to_1_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        subsets.subset(LABELS["sorted"], fraction, 0)
    with pytest.raises(ValueError, match="rule"):
        subsets.subset(LABELS["sorted"], 0.1, 0, "first")


# ------------------------------------------------------------------------------------------ on the
# device


def numbered(n, size=8, **settings):
    """n images, image i all of value i."""
    x = torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1).expand(n, 3, size, size).contiguous()
    return batches.Images(
        x, torch.arange(n), row(classes=max(n, 2), size=settings.pop("shown", size), **settings)
    )


@pytest.mark.parametrize(
    "n, batch, sizes",
    [(20, 8, [8, 8, 4]), (16, 8, [8, 8]), (17, 8, [8, 9]), (5, 8, [5]), (1, 8, [1]), (9, 8, [9])],
)
def test_batches_show_each_image_once_and_a_lone_last_one_joins(n, batch, sizes):
    found = list(batches.training_batches(numbered(n), batch, rng(), rng(1)))
    assert [len(y) for _, y in found] == sizes
    assert sorted(torch.cat([y for _, y in found]).tolist()) == list(range(n))
    for x, y in found:
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)  # image and label stay together


def test_the_order_depends_on_its_generator_alone():
    def order(seed, other):
        found = batches.training_batches(numbered(40, augment=("flip",)), 8, rng(seed), rng(other))
        return torch.cat([y for _, y in found]).tolist()

    assert order(0, 0) == order(0, 1) != order(1, 0)


def test_images_stay_bytes_until_they_are_used():
    held = batches.load_images("digits", "train")
    assert held.x.dtype == torch.uint8 and held.row == CATALOGUE["digits"]
    shown = held.floats()
    assert shown.dtype == torch.float32 and torch.equal(shown, held.x.float() / 255)
    part = held.take(torch.tensor([5, 3]))
    assert (
        torch.equal(part.x, held.x[[5, 3]])
        and torch.equal(part.y, held.y[[5, 3]])
        and len(part) == 2
    )


@pytest.mark.parametrize(
    "augment", [(), ("flip",), ("crop",), ("crop", "flip"), ("resized_crop", "flip")]
)
@pytest.mark.parametrize("size, crop", [(8, 1.0), (12, 1.0), (14, 0.875)])
def test_augmented_images_keep_shape_and_range(augment, size, crop):
    source = batches.Images(
        torch.from_numpy(pixels(24, 3, 8, 8)),
        torch.zeros(24, dtype=torch.int64),
        row(size=size, crop=crop, augment=augment),
    )
    ((x, _),) = batches.training_batches(source, 24, rng(), rng())
    assert x.shape == (24, 3, size, size) and x.dtype == torch.float32
    assert x.min() >= 0 and x.max() <= 1


def test_without_augmentation_training_sees_what_evaluation_sees():
    source = batches.load_images("digits", "test")
    ((x, y),) = batches.training_batches(source, 1000, rng(), rng())
    order = torch.randperm(len(source), generator=rng())
    assert torch.equal(x, source.floats()[order]) and torch.equal(y, source.y[order])


def test_a_flip_mirrors_left_and_right_for_about_half_the_images():
    picture = torch.zeros(400, 3, 8, 8, dtype=torch.uint8)
    picture[:, :, 0, 0] = 255
    source = batches.Images(picture, torch.zeros(400, dtype=torch.int64), row(augment=("flip",)))
    ((x, _),) = batches.training_batches(source, 400, rng(), rng())
    assert ((x[:, 0, 0, 0] == 1) ^ (x[:, 0, 0, 7] == 1)).all() and (x.sum((1, 2, 3)) == 3).all()
    assert 160 < (x[:, 0, 0, 7] == 1).sum() < 240


def test_a_crop_shifts_by_at_most_an_eighth_and_pads_with_black():
    picture = torch.zeros(300, 3, 16, 16, dtype=torch.uint8)
    picture[:, :, 8, 8] = 255
    source = batches.Images(
        picture, torch.zeros(300, dtype=torch.int64), row(size=16, augment=("crop",))
    )
    ((x, _),) = batches.training_batches(source, 300, rng(), rng())
    assert (x.sum((1, 2, 3)) == 3).all()
    where = x[:, 0].flatten(1).argmax(1)
    shifts = {(int(i) // 16 - 8, int(i) % 16 - 8) for i in where}
    assert shifts == {
        (a, b) for a in range(-2, 3) for b in range(-2, 3)
    }  # pad is 2; every place comes up


def test_a_larger_size_enlarges_and_a_crop_cuts_the_middle():
    ramp = torch.arange(8, dtype=torch.uint8).mul(30).expand(3, 8, 8)[None]
    large = batches.Images(ramp, torch.zeros(1, dtype=torch.int64), row(size=16)).floats()
    assert large.shape == (1, 3, 16, 16) and (large[..., 1:] >= large[..., :-1]).all()
    bright = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    bright[..., 1:15, 1:15] = 255
    cut = batches.Images(
        bright, torch.zeros(1, dtype=torch.int64), row(size=14, crop=0.875)
    ).floats()
    assert cut.shape == (1, 3, 14, 14) and (cut == 1).all()


def test_images_larger_than_shown_are_reduced_once_when_loaded(tmp_path):
    x = np.repeat(np.repeat(pixels(6, 8, 8), 4, 1), 4, 2)
    mine = write(tmp_path / "large.npz", images=x, labels=np.arange(6) % 3)
    held, _ = loading.load(mine, "train")
    assert held.shape == (6, 3, 8, 8) and held.dtype == torch.uint8
    flat = write(
        tmp_path / "flat.npz", images=np.full((6, 32, 32), 77, np.uint8), labels=np.arange(6) % 3
    )
    assert (loading.load(flat, "train")[0] == 77).all()


# ---------------------------------------------------------------------------- torchvision's crops


def drawn(n, high, wide, **scale):
    """Windows (n,4) of ours and of torchvision's RandomResizedCrop, each from a seed of its own."""
    from torchvision.transforms import RandomResizedCrop

    chances = torch.rand(n, 2 * augmentation.MAX_TRIES + 2, generator=rng(1)).double()
    whole = torch.empty(1, high, wide)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        theirs = [
            RandomResizedCrop.get_params(
                whole, list(scale.get("scale", (0.08, 1.0))), [3 / 4, 4 / 3]
            )
            for _ in range(n)
        ]
    return augmentation.random_windows(chances, high, wide, **scale), torch.tensor(theirs)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.75, 1.33)])
@pytest.mark.parametrize("high, wide", [(32, 32), (256, 256), (40, 90), (120, 100), (30, 200)])
def test_windows_are_distributed_as_torchvisions_and_lie_in_the_picture(high, wide, scale):
    def measures(at):
        top, left, h, w = at.double().T
        return {
            "area": h * w / (high * wide),
            "log aspect": (w / h).log(),
            "log aspect squared": (w / h).log() ** 2,
            "area squared": (h * w / (high * wide)) ** 2,
            "full side": ((h == high) | (w == wide)).double(),
            "top": top,
            "left": left,
            "top edge": (top == 0).double(),
            "left edge": (left == 0).double(),
            "bottom edge": (top + h == high).double(),
            "right edge": (left + w == wide).double(),
        }

    ours, theirs = drawn(5000, high, wide, scale=scale)
    top, left, h, w = ours.T
    assert (top >= 0).all() and (left >= 0).all() and (h > 0).all() and (w > 0).all()
    assert (top + h <= high).all() and (left + w <= wide).all()
    one, other = measures(ours), measures(theirs)
    for name in one:
        error = ((one[name].var() + other[name].var()) / len(ours)).sqrt()
        apart = (one[name].mean() - other[name].mean()).abs()
        assert apart <= 4 * error + 1e-12, (name, one[name].mean(), other[name].mean())


@pytest.mark.parametrize("high, wide", [(10, 300), (300, 10), (1, 40), (3, 100)])
def test_where_no_window_fits_the_middle_one_is_torchvisions(high, wide):
    ours, theirs = drawn(20, high, wide, scale=(0.5, 1.0))
    assert torch.equal(ours, theirs) and len(ours.unique(dim=0)) == 1


@pytest.mark.parametrize("size", [7, 24, 60])
@pytest.mark.parametrize("high, wide", [(32, 32), (20, 50)])
def test_a_window_is_resampled_as_torchvisions_antialiased_resize_does(high, wide, size):
    from torchvision.transforms.v2.functional import resized_crop

    x = torch.rand(12, 3, high, wide, generator=rng())
    at, _ = drawn(12, high, wide)
    at[0] = torch.tensor([0, 0, high, wide])
    at[1] = torch.tensor([high - 1, wide - 1, 1, 1])
    theirs = [
        resized_crop(image, *window, [size, size], antialias=True)
        for image, window in zip(x, at.tolist(), strict=True)
    ]
    assert torch.allclose(augmentation.crop_and_resize(x, at, size), torch.stack(theirs), atol=1e-5)


@pytest.mark.parametrize(
    "augment",
    [("flip",), ("crop", "flip"), ("resized_crop", "flip"), ("crop", "flip", "resized_crop")],
)
def test_what_happens_to_an_image_does_not_depend_on_how_images_are_batched(augment):
    source = batches.Images(
        torch.from_numpy(pixels(30, 3, 8, 8)), torch.arange(30) % 3, row(augment=augment)
    )
    whole, parts = (
        torch.cat([x for x, _ in batches.training_batches(source, batch, rng(1), rng(2))])
        for batch in (30, 7)
    )
    assert torch.allclose(whole, parts, atol=1e-6)


def test_a_scale_that_falls_is_refused():
    with pytest.raises(ValueError, match="smaller share"):
        row(scale=(0.5, 0.4))
