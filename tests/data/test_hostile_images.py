"""Hostile packs and picture folders.

Refused by their headers in one line, before anything of them is unpacked.
"""

import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hostile_files import BASE
from layout_files import WNIDS, imagenet, picture
from PIL import Image

from dwlt_lib.config import costs, planning, studies
from dwlt_lib.config.datasets import DataSet
from dwlt_lib.config.parameter_file import BadStudy
from dwlt_lib.data import checks, decoding, loading, npz
from dwlt_lib.execution.study_files import read_study


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400 and all(word in text for word in words), text


# ----------------------------------------------------------------------------------------------
# packs


def npy(shape, dtype="|u1", content=b"", fortran=False):
    """An .npy file whose header says so, whatever its content."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def pack(path, images=None, labels=None, how=zipfile.ZIP_STORED):
    labels = npy((6,), "<i8", np.arange(6).astype("<i8").tobytes()) if labels is None else labels
    images = npy((6, 8, 8), "|u1", bytes(384)) if images is None else images
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", labels)


def bomb(path):
    """100 MB of zeros in 100 kB."""
    pack(
        path,
        npy((100_000, 32, 32), "|u1", bytes(102_400_000)),
        npy((100_000,), "|u1", bytes(100_000)),
        zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 300_000


def lying(path):
    """The zip's directory says another length than the member has."""
    pack(path)
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\x01\x02")
    whole[at + 24 : at + 28] = struct.pack("<I", 2**31)
    path.write_bytes(whole)


def twice(path):
    pack(path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("images.npy", npy((6, 8, 8), "|u1", bytes(384)))


PACKS = {
    "a bomb": (bomb, "100-fold"),
    "a header of a petabyte": (lambda path: pack(path, npy((10**9, 1000, 1000))), "do not fill"),
    "a header larger than its bytes": (
        lambda path: pack(path, npy((7, 8, 8), "|u1", bytes(384))),
        "do not fill",
    ),
    "a header smaller than its bytes": (
        lambda path: pack(path, npy((5, 8, 8), "|u1", bytes(384))),
        "do not fill",
    ),
    "a negative side": (
        lambda path: pack(path, npy((-6, 8, -8), "|u1", bytes(384))),
        "do not fill",
    ),
    "Fortran's order, cut short": (
        lambda path: pack(path, npy((6, 8, 8), "|u1", bytes(100), True)),
        "do not fill",
    ),
    "pickled labels": (
        lambda path: pack(path, labels=npy((6,), "|O", b"cos\nsystem\n(S'true'\ntR.")),
        "pickled",
    ),
    "floats": (lambda path: pack(path, npy((6, 8, 8), "<f8", bytes(8 * 384))), "float64"),
    "a header that is code": (lambda path: pack(path, npy("__import__('os').getpid()")), "header"),
    "a header without an end": (lambda path: pack(path, npy("(" + "(" * 3000)), "header"),
    "no header": (lambda path: pack(path, b"hello"), "header"),
    "a length that lies": (lying, "2,147,483,648"),
    "an array twice": (twice, "2 arrays"),
    "another packing": (lambda path: pack(path, how=zipfile.ZIP_BZIP2), "packed"),
    "no zip": (lambda path: path.write_bytes(b"PK" * 50), "zip"),
    "a pipe": (os.mkfifo, "pipe"),
    "a folder": (lambda path: path.mkdir(), "folder"),
}


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.parametrize("what", PACKS)
def test_a_hostile_pack_is_one_line_and_never_unpacked(what, tmp_path, monkeypatch):
    spoil, word = PACKS[what]
    spoil(tmp_path / "mine.npz")
    monkeypatch.setattr(np, "load", lambda *a, **b: pytest.fail("unpacked"))
    row = DataSet(name="mine", loader="npz", classes=6, size=8, path=str(tmp_path / "mine.npz"))
    with pytest.raises(ValueError) as error:
        loading.load(row, "train")
    one_line(error, "mine.npz", word)


def test_a_good_pack_passes_stored_or_deflated_large_or_all_zeros(tmp_path):
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pack(tmp_path / "mine.npz", how=how)
        x, y = npz.load(tmp_path / "mine.npz")
        assert x.shape == (6, 8, 8) and y.tolist() == [0, 1, 2, 3, 4, 5] and y.dtype == np.int64


# ----------------------------------------------------------------------------------------------
# pictures


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
def test_a_hostile_picture_is_one_line_that_names_it(what, processes, tmp_path, monkeypatch):
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


def test_pictures_at_the_bounds_are_measured_as_they_are(tmp_path):
    for wide, high in ((8000, 8000), (1, 50), (5000, 100)):
        png(tmp_path / "a.png", wide, high)
        assert decoding.image_size(tmp_path / "a.png") == (wide, high)


# ----------------------------------------------------------------------------------------------
# counts


def study(folder, row):
    (folder / "study.yaml").write_text(
        BASE.replace("[digits]", "[mine]") + f"data: {{mine: {row}}}\n"
    )
    return folder / "study.yaml"


def folders(root, classes=4, train=6, test=2):
    for label in range(classes):
        for split, n in (("train", train), ("test", test)):
            for i in range(n):
                picture(root / split / f"class{label}" / f"{i}.png", i, (12, 12))
    return f"loader: folder, size: 8, path: {root}"


def test_folders_are_counted_and_the_forecast_goes_by_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    path = study(tmp_path, f"{{{folders(tmp_path / 'mine')}, classes: 4}}")
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


def test_packs_are_counted_by_their_headers(tmp_path):
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
    row = folders(tmp_path / "mine")
    if spoil:
        spoil(tmp_path / "mine")
    with pytest.raises(BadStudy) as error:
        read_study(study(tmp_path, f"{{{row}, {settings}}}"))
    one_line(error, "study.yaml", *words.split())
    assert not (tmp_path / "outputs").exists()


def test_a_pack_of_other_classes_is_refused_before_the_start(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.zeros((9, 8, 8), np.uint8), labels=np.arange(9) % 5)
    with pytest.raises(BadStudy) as error:
        read_study(
            study(tmp_path, f"{{loader: npz, size: 8, path: {tmp_path}/mine.npz, classes: 4}}")
        )
    one_line(error, "study.yaml:12: ", "labels 0..4", "0..3")


def test_a_class_that_links_to_itself_is_one_line(tmp_path):
    row, loop = folders(tmp_path / "mine"), tmp_path / "mine" / "train" / "class9"
    loop.symlink_to(loop)
    with pytest.raises(BadStudy) as error:
        read_study(study(tmp_path, f"{{{row}, classes: 4}}"))
    one_line(error, "study.yaml:12: ", "class9")


def test_a_split_that_is_not_there_is_not_counted(tmp_path):
    row = folders(tmp_path / "mine")
    (tmp_path / "mine" / "test").rename(tmp_path / "mine" / "elsewhere")
    found = studies.dataset(read_study(study(tmp_path, f"{{{row}, classes: 4}}")), "mine")
    assert (found.train_images, found.test_images) == (24, 10_000)
