"""npz files of images and labels: their headers are checked before anything is unpacked.

No torch. Every error is a ValueError of one line: the file, what is wrong, what is wanted.
"""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile
from zlib import error as ZlibError

import numpy as np

from dwlt_lib import files

MAX_BYTES = 2**35  # of the images, unpacked
MAX_RATIO = 100  # of unpacked to packed bytes; no images compress so well
SMALL = 2**26  # bytes up to which the ratio does not matter
WANT = (
    "want an .npz with images uint8 (N,S,S) or (N,S,S,3), labels, integers (N,), and, if any,"
    " groups, integers (N,)"
)
READ_ERRORS = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
    EOFError,
    BadZipFile,
    ZlibError,
    RuntimeError,
)


class Header(NamedTuple):
    """What the header of an array in an npz file states."""

    shape: tuple[int, ...]
    """Of the array"""
    dtype: np.dtype
    """Of the array"""
    is_fortran: bool
    """Whether the first index varies fastest"""
    size: int
    """Bytes of the header, before the numbers"""


def read_headers(path: Path) -> tuple[Header, Header, Header | None]:
    """The headers of the arrays, after a check that all are as wanted and within bounds.

    Args:
        path: the npz file.

    Returns:
        (of images, of labels, of groups or None).

    Raises:
        ValueError: one line, for another file, other arrays, or sizes that contradict the file's.
    """
    files.regular(path)
    try:
        with ZipFile(path) as archive:
            x, y = _read_header(archive, "images"), _read_header(archive, "labels")
            groups = None
            if "groups.npy" in archive.namelist():
                groups = _read_header(archive, "groups")
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error
    shape = x.shape
    is_square = len(shape) in (3, 4) and shape[1] == shape[2] and shape[3:] in ((), (3,))
    are_images = x.dtype == np.uint8 and is_square and prod(shape) > 0
    if not are_images or y.shape != shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"{path}: images {x.dtype} {shape}, labels {y.dtype} {y.shape}; {WANT}")
    if groups and (groups.shape != y.shape or groups.dtype.kind not in "iu"):
        raise ValueError(f"{path}: groups {groups.dtype} {groups.shape}; {WANT}")
    return x, y, groups


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, after a check of their headers.

    Args:
        path: the npz file.

    Returns:
        Images, uint8 (N,S,S) or (N,S,S,3), and labels, int64 (N,).

    Raises:
        ValueError: as `read_headers`, and for what does not unpack.
    """
    read_headers(path)
    return _read_array(path, "images"), load_labels(path)


def load_labels(path: Path) -> np.ndarray:
    """The labels alone; the images are not unpacked.

    Args:
        path: the npz file.

    Returns:
        int64 (N,).

    Raises:
        ValueError: as `load`.
    """
    read_headers(path)
    return _read_array(path, "labels").astype(np.int64)


def load_groups(path: Path) -> np.ndarray | None:
    """The groups alone.

    Args:
        path: the npz file.

    Returns:
        int64 (N,); None if the file has none.

    Raises:
        ValueError: as `load`.
    """
    if read_headers(path)[2] is None:
        return None
    return _read_array(path, "groups").astype(np.int64)


def sha256(path: Path) -> str:
    """The SHA-256 of images, labels and groups in hexadecimal, the same however they are packed.

    Images are read a part at a time.

    Args:
        path: the npz file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: as `load`.
    """
    x, _, _ = read_headers(path)
    labels, groups = load_labels(path), load_groups(path)
    digest = hashlib.sha256(f"{x.dtype} {x.shape};".encode())
    try:
        with ZipFile(path) as archive, archive.open("images.npy") as file:
            if x.is_fortran:
                digest.update(_read_array(path, "images").tobytes())
            else:
                file.read(x.size)
                while chunk := file.read(2**20):
                    digest.update(chunk)
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error
    digest.update(f"{labels.dtype} {labels.shape};".encode())
    digest.update(labels.tobytes())
    if groups is not None:
        digest.update(b"groups;" + groups.tobytes())
    return digest.hexdigest()


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return ValueError(f"{path}: {reason}; {WANT}")


def _read_array(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _read_header(archive: ZipFile, name: str) -> Header:
    members = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if len(members) != 1:
        raise ValueError(f"holds {len(members)} arrays named {name}")
    member = members[0]
    if member.flag_bits & 1 or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} are encrypted, or packed in a way that numpy does not write")
    if member.file_size > MAX_BYTES:
        raise ValueError(f"{name} unpack to {member.file_size:,} bytes, more than {MAX_BYTES:,}")
    if member.file_size > max(SMALL, MAX_RATIO * member.compress_size):
        raise ValueError(
            f"{name} unpack from {member.compress_size:,} to {member.file_size:,} bytes, more than "
            f"{MAX_RATIO}-fold"
        )
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with archive.open(member) as file:
        try:
            shape, is_fortran, dtype = readers[np.lib.format.read_magic(file)](file)
        except Exception as error:  # Python's tokenizer and parser fail in many ways
            raise ValueError(
                f"{name} begin with no header of numpy's (format 1.0 or 2.0)"
            ) from error
        size = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} are pickled objects, which are not opened")
    if any(side < 0 for side in shape) or size + prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(
            f"{name} of shape {str(shape)[:60]} and {str(dtype)[:20]} do not fill their "
            f"{member.file_size:,} bytes"
        )
    return Header(shape, dtype, is_fortran, size)
