"""Theorems on npz files: hostile ones are refused by their headers, before anything is unpacked."""

import os
import struct
import zipfile

import numpy as np
import pytest
from small_files import one_line

from dwlt_lib.config.datasets import DataSet
from dwlt_lib.data import loading, npz


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
def test_a_hostile_npz_file_is_one_line_and_never_unpacked(what, tmp_path, monkeypatch):
    spoil, word = PACKS[what]
    spoil(tmp_path / "mine.npz")
    monkeypatch.setattr(np, "load", lambda *a, **b: pytest.fail("unpacked"))
    row = DataSet(name="mine", loader="npz", classes=6, size=8, path=str(tmp_path / "mine.npz"))
    with pytest.raises(ValueError) as error:
        loading.load(row, "train")
    one_line(error, "mine.npz", word)


def test_a_good_npz_file_passes_stored_or_deflated_large_or_all_zeros(tmp_path):
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pack(tmp_path / "mine.npz", how=how)
        x, y = npz.load(tmp_path / "mine.npz").values()
        assert x.shape == (6, 8, 8) and y.tolist() == [0, 1, 2, 3, 4, 5] and y.dtype == np.int64
