"""Theorems on batches: they cover a split once, and streamed images are the resident ones."""

import pytest
import torch
from layout_files import cub, imagenet, visda
from PIL import Image
from seeds import set_global
from seeds import torch_rng as rng
from small_files import resident, row, streamed

from dwlt_lib.config import planning
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.config.recipes import TrainingConfig
from dwlt_lib.data import batches, decoding, folders
from dwlt_lib.evaluation.accuracy import correct, standard_accuracy
from dwlt_lib.execution import make
from dwlt_lib.models import architectures
from dwlt_lib.pruning import masks
from dwlt_lib.records import store
from dwlt_lib.training import trainer


@pytest.fixture(params=[0, 2], ids=["here", "two processes"])
def loaders(request, monkeypatch):
    """How many processes decode, two images at a time."""
    monkeypatch.setenv("DWLT_LOADERS", str(request.param))
    monkeypatch.setattr(decoding, "CHUNK", 2)
    return request.param


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A small CUB-200."""
    return cub(tmp_path_factory.mktemp("cub"))


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


def test_without_augmentation_training_sees_what_evaluation_sees():
    source = batches.load_images("digits", "test")
    ((x, y),) = batches.training_batches(source, 1000, rng(), rng())
    order = torch.randperm(len(source), generator=rng())
    assert torch.equal(x, source.floats()[order]) and torch.equal(y, source.y[order])


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
    assert isinstance(batches.load_images(birds, "train").x, folders.Listing)
    assert isinstance(batches.load_images(birds, "test"), batches.Images)
    plain = birds.model_copy(update={"augment": ("flip",)})
    assert isinstance(batches.load_images(plain, "train"), batches.Images)
    monkeypatch.setattr(batches, "MAX_RESIDENT_BYTES", 1000)
    assert isinstance(batches.load_images(plain, "train").x, folders.Listing)
    assert isinstance(batches.load_images(birds, "test").x, folders.Listing)


def test_a_rows_resize_and_scale_are_torchvisions_resize_of_both_sides_and_scale(tmp_path, loaders):
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    row = visda(tmp_path).model_copy(
        update={"crop": 1.0, "resize": "both", "scale": (0.75, 1.33), "augment": ("resized_crop",)}
    )
    for split in ("train", "test"):
        source, squeeze = streamed(row, split), v2.Resize((28, 28))
        files = [str(source.x.file(i)) for i in range(len(source))]
        wanted = torch.stack([squeeze(decode_image(file)) for file in files]).float() / 255
        assert torch.equal(source.floats(), wanted)
        assert torch.equal(resident(row, split).floats(), wanted)
    source, order = streamed(row, "train"), torch.randperm(12, generator=rng(1))
    seeds = torch.randint(2**62, (12,), generator=rng(2)).tolist()
    found = torch.cat([x for x, _ in batches.training_batches(source, 5, rng(1), rng(2))])
    for x, i, seed in zip(found, order, seeds, strict=True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            picture = decode_image(str(source.x.file(int(i))))
            wanted = v2.RandomResizedCrop(28, scale=(0.75, 1.33))(picture)
        assert torch.equal(x, wanted.float() / 255)


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


def test_a_training_batch_is_the_images_own_crops_untouched(birds, loaders):
    row = birds.model_copy(update={"augment": ("resized_crop",)})
    source, order = streamed(row, "train"), torch.randperm(9, generator=rng(1))
    seeds = torch.randint(2**62, (9,), generator=rng(2))
    found = torch.cat([x for x, _ in batches.training_batches(source, 4, rng(1), rng(2))])
    for x, i, seed in zip(found, order, seeds, strict=True):
        file = source.x.file(int(i))
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


def test_resumed_training_on_streamed_images_is_bit_equal(birds, tmp_path, monkeypatch):
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


def test_evaluation_takes_lazy_batches_in_the_place_of_a_tensor(birds, loaders):
    set_global()
    model = architectures.build("resnet8", 3, birds.mean, birds.std)
    one, other = streamed(birds, "test"), resident(birds, "test")
    assert torch.equal(
        correct(model, one.lazy_batches(), one.y), correct(model, other.floats(), other.y)
    )
    assert standard_accuracy(model, one.lazy_batches(), one.y) == standard_accuracy(
        model, other.floats(), other.y
    )


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
def test_a_spoilt_image_is_one_line_that_names_it(tmp_path, loaders, spoil):
    row = cub(tmp_path)
    source = streamed(row, "train")
    victim = source.x.file(4)
    spoil(victim)
    for ask in (source.floats, lambda: list(batches.training_batches(source, 4, rng(), rng()))):
        with pytest.raises(ValueError) as error:
            ask()
        assert (
            "\n" not in str(error.value)
            and victim.name in str(error.value)
            and "want" in str(error.value)
        )


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
    for spec in planning.plan(study).values():
        make.make(spec)
    table = store.table().query("kind == 'transfer' and rounds == 2 and regime == 'AT'")
    assert len(table) == 1 and (table["train_images"] == rows[name]["train_images"]).all()
    assert table[["SA", "RA"]].notna().all(axis=None)
    assert 0 <= store.table("mask").query("rounds == 2")["SA_source"].iloc[0] <= 1
