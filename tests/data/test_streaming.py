"""Theorems on streaming.

The same images as resident ones, whatever the number of processes that decode.
"""

import os

import numpy as np
import pytest
import torch
from layout_files import cub, imagenet, visda
from PIL import Image
from seeds import numpy_rng, set_global
from seeds import torch_rng as rng

from dwlt_lib.config import studies
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.data import batches, decoding, loading
from dwlt_lib.evaluation.accuracy import correct, standard_accuracy
from dwlt_lib.execution import make
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.records import store
from dwlt_lib.training import trainer


@pytest.fixture(params=[0, 2], ids=["here", "two processes"])
def loaders(request, monkeypatch):
    monkeypatch.setenv("DWLT_LOADERS", str(request.param))
    monkeypatch.setattr(decoding, "CHUNK", 2)
    return request.param


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return cub(tmp_path_factory.mktemp("cub"))


def streamed(row, split):
    found = loading.listing(row, split)
    return batches.StreamedImages(found.root, found.names, torch.from_numpy(found.labels), row)


def resident(row, split):
    return batches.Images(*loading.load(row, split), row)


# ------------------------------------------------------------------------------------------ one
# picture


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (341, 257), (256, 256), (90, 301)])
def test_a_picture_is_evaluated_as_torchvisions_resize_256_and_centercrop_224_show_it(
    tmp_path, size
):
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    noise = numpy_rng().integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(tmp_path / "a.jpg", quality=95)
    ours = batches.Images(
        decoding.decode_center_crop(str(tmp_path / "a.jpg"), 256)[None],
        torch.zeros(1),
        CATALOGUE["imagenet"],
    )
    shown, theirs = (
        (255 * ours.floats()[0]).round(),
        v2.Compose([v2.Resize(256), v2.CenterCrop(224)]),
    )
    assert torch.equal(shown, theirs(decode_image(str(tmp_path / "a.jpg"))).float())
    pil = v2.PILToTensor()(theirs(Image.open(tmp_path / "a.jpg")))
    assert (shown - pil).abs().max() <= 2  # the authors' way, which rounds between its two passes


def test_a_random_crop_is_torchvisions_for_that_seed_and_leaves_the_global_generator_alone(
    tmp_path,
):
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    noise = numpy_rng().integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((120, 90)).save(tmp_path / "a.png")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    ours = [decoding.decode_random_crop(str(tmp_path / "a.png"), 32, seed) for seed in (7, 8, 7)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    assert torch.equal(ours[0], v2.RandomResizedCrop(32)(decode_image(str(tmp_path / "a.png"))))
    assert torch.equal(ours[0], ours[2]) and not torch.equal(ours[0], ours[1])


def test_cmyk_grey_palette_and_misnamed_pictures_become_rgb(tmp_path):
    noise = Image.fromarray(numpy_rng().integers(0, 256, (40, 40, 3), dtype=np.uint8))
    noise.convert("CMYK").save(tmp_path / "cmyk.JPEG")
    noise.convert("L").save(tmp_path / "grey.JPEG")
    noise.convert("P").save(tmp_path / "palette.png")
    noise.save(tmp_path / "png.JPEG", format="PNG")  # ImageNet has one of these, and CMYK too
    for file in tmp_path.iterdir():
        assert decoding.decode_center_crop(str(file), 32).shape == (3, 32, 32), file.name
    same = torch.from_numpy(np.array(noise)).movedim(2, 0)
    assert torch.equal(decoding.decode_center_crop(str(tmp_path / "png.JPEG"), 40), same)


# ------------------------------------------------------------------------------------------ the
# same as resident


@pytest.mark.parametrize("make", [imagenet, cub, visda])
def test_streamed_images_are_the_resident_ones_bit_for_bit(tmp_path, make, loaders):
    row = make(tmp_path)
    for split in ("train", "test"):
        one, other = streamed(row, split), resident(row, split)
        assert len(one) == len(other) and torch.equal(one.y, other.y)
        assert torch.equal(one.floats(), other.floats())
        index = torch.tensor([5, 0, 3])
        assert torch.equal(one.take(index).floats(), other.take(index).floats())
        assert torch.equal(torch.cat(list(one.lazy_batches().split(4))), other.floats())
        assert torch.equal(torch.cat(list(other.lazy_batches().split(4))), other.floats())
        assert one.lazy_batches().shape == other.floats().shape


@pytest.mark.parametrize("augment", [(), ("flip",), ("crop", "flip")])
def test_training_batches_of_streamed_images_are_those_of_resident_ones(birds, loaders, augment):
    row = birds.model_copy(update={"augment": augment})
    one, other = (
        list(batches.training_batches(source(row, "train"), 4, rng(1), rng(2)))
        for source in (streamed, resident)
    )
    assert len(one) == len(other) == 2  # a lone ninth image joins the second batch
    for (x, y), (x_, y_) in zip(one, other, strict=True):
        assert torch.equal(x, x_) and torch.equal(y, y_)


def test_what_fits_and_is_not_cropped_anew_is_resident_the_rest_is_streamed(birds, monkeypatch):
    assert isinstance(batches.load_images(birds, "train"), batches.StreamedImages)
    assert isinstance(batches.load_images(birds, "test"), batches.Images)
    plain = birds.model_copy(update={"augment": ("flip",)})
    assert isinstance(batches.load_images(plain, "train"), batches.Images)
    monkeypatch.setattr(batches, "MAX_RESIDENT_BYTES", 1000)
    assert isinstance(batches.load_images(plain, "train"), batches.StreamedImages)
    assert isinstance(batches.load_images(birds, "test"), batches.StreamedImages)


def test_a_rows_resize_and_scale_are_torchvisions_resize_of_both_sides_and_scale(tmp_path, loaders):
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    row = visda(tmp_path).model_copy(
        update={"crop": 1.0, "resize": "both", "scale": (0.75, 1.33), "augment": ("resized_crop",)}
    )
    for split in ("train", "test"):
        source, squeeze = streamed(row, split), v2.Resize((28, 28))
        files = [str(source.root / os.fsdecode(name)) for name in source.names]
        wanted = torch.stack([squeeze(decode_image(file)) for file in files]).float() / 255
        assert torch.equal(source.floats(), wanted)
        assert torch.equal(resident(row, split).floats(), wanted)
    source, order = streamed(row, "train"), torch.randperm(12, generator=rng(1))
    seeds = torch.randint(2**62, (12,), generator=rng(2)).tolist()
    found = torch.cat([x for x, _ in batches.training_batches(source, 5, rng(1), rng(2))])
    for x, i, seed in zip(found, order, seeds, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            picture = decode_image(str(source.root / os.fsdecode(source.names[i])))
            wanted = v2.RandomResizedCrop(28, scale=(0.75, 1.33))(picture)
        assert torch.equal(x, wanted.float() / 255)


# ------------------------------------------------------------------------------------------ order
# and augmentation


def epoch(row, batch=4, seed=5):
    order, augment = (trainer.generator(seed, purpose, 3) for purpose in ("order", "augment"))
    return list(batches.training_batches(streamed(row, "train"), batch, order, augment))


def test_order_and_augmentation_do_not_depend_on_the_number_of_processes(birds, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK", 2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = {}
    for count in (0, 1, 2, 3):
        monkeypatch.setenv("DWLT_LOADERS", str(count))
        found[count] = epoch(birds)
    assert torch.equal(torch.get_rng_state(), state)
    for count, one in found.items():
        for (x, y), (x_, y_) in zip(one, found[0], strict=True):
            assert torch.equal(x, x_) and torch.equal(y, y_), count
            assert x.shape[1:] == (3, 28, 28) and 0 <= x.min() and x.max() <= 1 and x.std() > 0.05


def test_every_epoch_and_seed_crops_anew_and_a_repeated_one_alike(birds, monkeypatch):
    monkeypatch.setenv("DWLT_LOADERS", "0")
    one, again, other = (torch.cat([x for x, _ in epoch(birds, seed=seed)]) for seed in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)
    twins = streamed(birds, "train").take(torch.tensor([0, 0]))
    ((x, _),) = batches.training_batches(twins, 2, rng(), rng())
    assert not torch.equal(x[0], x[1])  # of one picture, each time another crop


def test_a_training_batch_is_the_pictures_own_crops_untouched(birds, loaders):
    row = birds.model_copy(update={"augment": ("resized_crop",)})
    source, order = streamed(row, "train"), torch.randperm(9, generator=rng(1))
    seeds = torch.randint(2**62, (9,), generator=rng(2))
    found = torch.cat([x for x, _ in batches.training_batches(source, 4, rng(1), rng(2))])
    for x, i, seed in zip(found, order, seeds, strict=True):
        file = source.root / os.fsdecode(source.names[i])
        assert torch.equal(
            x, decoding.decode_random_crop(str(file), row.size, int(seed)).float() / 255
        )


def test_images_and_labels_stay_together_through_every_door(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_LOADERS", "2")
    monkeypatch.setattr(decoding, "CHUNK", 1)
    for label in range(6):
        (tmp_path / "train" / f"c{label}").mkdir(parents=True)
        Image.new("RGB", (30, 30), (40 * label,) * 3).save(
            tmp_path / "train" / f"c{label}" / "1.png"
        )
    row = CATALOGUE["imagenet"].model_copy(update={"path": str(tmp_path), "classes": 6, "size": 16})
    for x, y in batches.training_batches(streamed(row, "train"), 4, rng(), rng()):
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), 40 * y)


def test_resumed_training_on_streamed_pictures_is_bit_equal(birds, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_LOADERS", "2")
    how = TrainingConfig(
        epochs=3, batch=4, lr=0.05, schedule="constant", momentum=0.9, weight_decay=5e-4
    )

    def fit(progress=None, checkpoint=None):
        set_global()
        model = architectures.build("resnet8", 3, birds.mean, birds.std)
        source = streamed(birds, "train")
        return trainer.fit(
            model,
            masks.dense_mask(architectures.prunable(model)),
            source,
            source.take(torch.arange(4)),
            how,
            0,
            checkpoint=checkpoint,
            progress=progress,
        )

    def stop(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(stop, tmp_path / "at.pt")
    monkeypatch.setenv("DWLT_LOADERS", "0")
    resumed = fit(checkpoint=tmp_path / "at.pt")
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.last[name], value) for name, value in whole.last.items())


def test_evaluation_takes_pages_in_the_place_of_a_tensor(birds, loaders):
    set_global()
    model = architectures.build("resnet8", 3, birds.mean, birds.std)
    one, other = streamed(birds, "test"), resident(birds, "test")
    assert torch.equal(
        correct(model, one.lazy_batches(), one.y), correct(model, other.floats(), other.y)
    )
    assert standard_accuracy(model, one.lazy_batches(), one.y) == standard_accuracy(
        model, other.floats(), other.y
    )


# ------------------------------------------------------------------------------------------ what
# goes wrong


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[:400]),
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text("<html>no</html>"),
    ],
    ids=["truncated", "missing", "empty", "text"],
)
def test_a_spoilt_picture_is_one_line_that_names_it(tmp_path, loaders, spoil):
    row = cub(tmp_path)
    source = streamed(row, "train")
    victim = tmp_path / "images" / os.fsdecode(source.names[4])
    spoil(victim)
    for ask in (source.floats, lambda: list(batches.training_batches(source, 4, rng(), rng()))):
        with pytest.raises(ValueError) as error:
            ask()
        assert (
            "\n" not in str(error.value)
            and victim.name in str(error.value)
            and "want" in str(error.value)
        )


def test_a_split_larger_than_the_memory_is_refused_as_a_whole(tmp_path, monkeypatch):
    import psutil

    row = imagenet(tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    with pytest.raises(ValueError, match="12 images of 32 x 32.*data.load_images"):
        loading.load(row, "train")


@pytest.mark.parametrize("asked", ["two", "-1", "1.5"])
def test_a_number_of_loaders_that_is_none_is_refused(birds, monkeypatch, asked):
    monkeypatch.setenv("DWLT_LOADERS", asked)
    with pytest.raises(ValueError, match="DWLT_LOADERS"):
        streamed(birds, "train").floats()


@pytest.mark.parametrize(
    "cores, workers, wanted", [(1, 1, 0), (8, 1, 7), (64, 1, 16), (16, 8, 1), (2, 2, 0)]
)
def test_workers_share_the_cores_for_decoding(cores, workers, wanted, monkeypatch):
    monkeypatch.delenv("DWLT_LOADERS", raising=False)
    monkeypatch.setenv("DWLT_WORKERS", str(workers))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    assert decoding.num_processes() == wanted


# ------------------------------------------------------------------------------------------ from
# end to end


@pytest.mark.parametrize("target", [cub, visda])
def test_a_ticket_of_an_imagenet_is_found_and_transferred_streaming(
    tmp_path, outputs, toy, monkeypatch, target
):
    """theta_AT and IMP-AT on train/CLASS/*.JPEG, AT on the target.

    What is made says so, and nothing was resident.
    """
    monkeypatch.setattr(batches, "MAX_RESIDENT_BYTES", 0)
    monkeypatch.setenv("DWLT_LOADERS", "1")
    rows = {
        row.name: {**row.model_dump(mode="json", exclude={"name"}), "size": 16}
        for row in (imagenet(tmp_path / "imagenet"), target(tmp_path / "target"))
    }
    name = list(rows)[1]
    grid = {
        "pretraining": ["AT"],
        "method": ["IMP-AT"],
        "dataset": [name],
        "rounds": [2],
        "seeds": [0],
    }
    study = toy(
        source="imagenet",
        data=rows,
        grid=[grid],
        landscapes=[{**grid, "images": ["clean"]}],
        transfer_attacks=[grid],
    )
    for spec in studies.plan(study).values():
        make.make(spec)
    table = store.table().query("kind == 'transfer' and rounds == 2 and regime == 'AT'")
    assert len(table) == 1 and (table["train_images"] == rows[name]["train_images"]).all()
    assert table[["SA", "RA"]].notna().all(axis=None)
    assert 0 <= store.table("mask").query("rounds == 2")["SA_source"].iloc[0] <= 1
