"""Theorems on decoding: images are torchvision's, and hostile files are one line."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from layout_files import WNIDS, cub, imagenet, picture
from PIL import Image
from seeds import numpy_rng
from small_files import one_line, streamed

from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import batches, checks, decoding, loading


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (341, 257), (256, 256), (90, 301)])
def test_an_image_is_evaluated_as_torchvisions_resize_256_and_centercrop_224_show_it(
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


def test_cmyk_grey_palette_and_misnamed_images_become_rgb(tmp_path):
    noise = Image.fromarray(numpy_rng().integers(0, 256, (40, 40, 3), dtype=np.uint8))
    noise.convert("CMYK").save(tmp_path / "cmyk.JPEG")
    noise.convert("L").save(tmp_path / "grey.JPEG")
    noise.convert("P").save(tmp_path / "palette.png")
    noise.save(tmp_path / "png.JPEG", format="PNG")  # ImageNet has one of these, and CMYK too
    for file in tmp_path.iterdir():
        assert decoding.decode_center_crop(str(file), 32).shape == (3, 32, 32), file.name
    same = torch.from_numpy(np.array(noise)).movedim(2, 0)
    assert torch.equal(decoding.decode_center_crop(str(tmp_path / "png.JPEG"), 40), same)


@pytest.mark.parametrize("asked", ["two", "-1", "1.5"])
def test_a_number_of_loaders_that_is_none_is_refused(tmp_path, monkeypatch, asked):
    monkeypatch.setenv("DWLT_LOADERS", asked)
    with pytest.raises(ValueError, match="DWLT_LOADERS"):
        streamed(cub(tmp_path), "train").floats()


@pytest.mark.parametrize(
    "cores, workers, wanted", [(1, 1, 0), (8, 1, 7), (64, 1, 16), (16, 8, 1), (2, 2, 0)]
)
def test_workers_share_the_cores_for_decoding(cores, workers, wanted, monkeypatch):
    monkeypatch.delenv("DWLT_LOADERS", raising=False)
    monkeypatch.setenv("DWLT_WORKERS", str(workers))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    assert decoding.num_processes() == wanted


def png(path, wide, high):
    """A PNG whose header says so; its rows are zeros, as far as a few kB go."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def cut_short(path):
    picture(path.with_suffix(".jpg"), 0)
    path.write_bytes(path.with_suffix(".jpg").read_bytes()[:400])
    path.with_suffix(".jpg").unlink()


def gif(path):
    whole = io.BytesIO()
    Image.new("RGB", (9, 9)).save(whole, "GIF")
    path.write_bytes(whole.getvalue())


PICTURES = {
    "a bomb": (lambda path: png(path, 60_000, 60_000), "want"),
    "65 megapixels": (lambda path: png(path, 8125, 8000), "8,125 x 8,000 64,000,000"),
    "100 megapixels": (lambda path: png(path, 10_000, 10_000), "10,000 x 10,000"),
    "a thread": (lambda path: png(path, 2, 1_000_000), "2 x 1,000,000 50 times"),
    "a JPEG cut short": (cut_short, "whole"),
    "text": (lambda path: path.write_text("hello"), "whole JPEG"),
    "nothing": (lambda path: path.write_bytes(b""), "whole JPEG"),
    "another format": (gif, "whole JPEG"),
    "a pipe": (os.mkfifo, "pipe"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "device"),
}


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize("what", PICTURES)
def test_a_hostile_image_is_one_line_that_names_it(what, processes, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_LOADERS", processes)
    monkeypatch.setattr(decoding, "CHUNK", 1)
    spoil, words = PICTURES[what]
    row = imagenet(tmp_path)
    victim = tmp_path / "train" / WNIDS[1] / "x.png"
    spoil(victim)
    with pytest.raises(ValueError) as error:
        loading.load(row, "train")
    one_line(error, "x.png", *words.split())
    assert any("x.png" in line and "\n" not in line for line in checks.check(row)[1])


def test_images_at_the_bounds_are_taken_and_larger_ones_are_not():
    for wide, high in ((8000, 8000), (1, 50), (5000, 100)):
        decoding.check_size(wide, high)
        with pytest.raises(ValueError):
            decoding.check_size(wide, 51 * max(wide, high))
