"""Theorems on augmentation: images stay in range, and random crops are torchvision's."""

import pytest
import torch
from seeds import torch_rng as rng
from small_files import pixels, row

from dwlt_lib.data import augmentation, batches


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
