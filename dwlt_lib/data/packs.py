"""npz packs of images: their headers, read and checked before anything of them is unpacked. No
torch.

Every error is a ValueError of one line: the file, what is wrong, what is wanted.
"""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile
from zlib import error as BadStream

import numpy as np

from dwlt_lib import files

MOST_BYTES = 2**35  # of a pack's images, unpacked
SMALL, MOST_FOLD = (
    2**26,
    100,
)  # beyond so many bytes, what unpacks to more than so many times itself is no images
WANT = "want an .npz with images uint8 (N,S,S) or (N,S,S,3) and labels, integers (N,)"
BROKEN = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    BadZipFile,
    BadStream,
    RuntimeError,
)


class Header(NamedTuple):
    """What a member of a pack says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    begin: int  # bytes before the numbers


def headers(path: Path) -> tuple[Header, Header]:
    """Of images and labels.

    Both are as wanted, as long as their zip members are, and within the bounds.
    """
    files.regular(path)
    try:
        with ZipFile(path) as archive:
            x, y = _header(archive, "images"), _header(archive, "labels")
    except BROKEN as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{path}: {reason}; {WANT}") from error
    shape = x.shape
    square = len(shape) in (3, 4) and shape[1] == shape[2] and shape[3:] in ((), (3,))
    if (
        x.dtype != np.uint8
        or not square
        or prod(shape) == 0
        or y.shape != shape[:1]
        or y.dtype.kind not in "iu"
    ):
        raise ValueError(f"{path}: images {x.dtype} {shape}, labels {y.dtype} {y.shape}; {WANT}")
    return x, y


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N,S,S) or (N,S,S,3) and labels int64 (N,), checked by their headers first."""
    headers(path)
    return _array(path, "images"), labels(path)


def labels(path: Path) -> np.ndarray:
    """The labels alone, int64 (N,)."""
    headers(path)
    return _array(path, "labels").astype(np.int64)


def digest(path: Path) -> str:
    """The sha256 of images and labels, however they are packed.

    Images are read a part at a time.
    """
    x, _ = headers(path)
    y = labels(path)
    found = hashlib.sha256(f"{x.dtype} {x.shape};".encode())
    try:
        with ZipFile(path) as archive, archive.open("images.npy") as file:
            if x.fortran:
                found.update(np.ascontiguousarray(_array(path, "images")))
            else:
                file.read(x.begin)
                while part := file.read(2**20):
                    found.update(part)
    except BROKEN as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())[:160]}; {WANT}") from error
    found.update(f"{y.dtype} {y.shape};".encode())
    found.update(y)
    return found.hexdigest()


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as packed:
            return packed[name]
    except BROKEN as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())[:160]}; {WANT}") from error


def _header(archive: ZipFile, name: str) -> Header:
    members = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if len(members) != 1:
        raise ValueError(f"holds {len(members)} arrays named {name}")
    member = members[0]
    if member.flag_bits & 1 or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} are encrypted, or packed in a way that numpy does not write")
    if member.file_size > MOST_BYTES:
        raise ValueError(f"{name} unpack to {member.file_size:,} bytes, more than {MOST_BYTES:,}")
    if member.file_size > max(SMALL, MOST_FOLD * member.compress_size):
        raise ValueError(
            f"{name} unpack from {member.compress_size:,} to {member.file_size:,} bytes, more than "
            f"{MOST_FOLD}-fold"
        )
    with archive.open(member) as file:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        try:
            shape, fortran, dtype = read[np.lib.format.read_magic(file)](file)
        except Exception as error:  # a tokenizer and a parser of Python's fail in many ways
            raise ValueError(
                f"{name} begin with no header of numpy's (format 1.0 or 2.0)"
            ) from error
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} are pickled objects, which are not opened")
    if any(side < 0 for side in shape) or begin + prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(
            f"{name} of shape {str(shape)[:60]} and {str(dtype)[:20]} do not fill their "
            f"{member.file_size:,} bytes"
        )
    return Header(shape, dtype, fortran, begin)
