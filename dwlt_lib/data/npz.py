"""npz files of images and labels: their headers are checked before anything is unpacked.

No torch. Every error is a ValueError of one line: the file, what is wrong, what is wanted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from dwlt_lib import files

ARRAYS = ("images", "labels", "groups")
MAX_RATIO = 100  # of unpacked to packed bytes; no images compress so well
SMALL = 2**26  # bytes up to which the ratio does not matter
WANT = (
    "want an .npz with images uint8 (N,S,S) or (N,S,S,3), labels, integers (N,), and, if any,"
    " groups, integers (N,)"
)


def load(path: Path, names: Sequence[str] = ARRAYS) -> dict[str, np.ndarray]:
    """The arrays of a file, after a check of the headers of all.

    Args:
        path: the npz file.
        names: of the arrays that are wanted; the others are not unpacked.

    Returns:
        Of these names: images, uint8 (N,S,S) or (N,S,S,3); labels, int64 (N,); groups, int64 (N,),
        only if the file has them.

    Raises:
        ValueError: one line, for another file, other arrays, sizes that contradict the file's, and
            what does not unpack.
    """
    files.regular(path)
    try:
        with ZipFile(path) as archive:
            _check_headers(archive)
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in names if name in arrays}
    except Exception as error:  # damaged files fail in many ways
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{path}: {reason}; {WANT}") from error
    return {
        name: array if name == "images" else array.astype(np.int64) for name, array in found.items()
    }


def sha256(path: Path) -> str:
    """The SHA-256 of images, labels and groups in hexadecimal, the same however they are packed.

    Args:
        path: the npz file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: as `load`.
    """
    arrays, digest = load(path), hashlib.sha256()
    for name in ("images", "labels"):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{array.dtype} {array.shape};".encode())
        digest.update(array.data)
    if "groups" in arrays:
        digest.update(b"groups;" + arrays["groups"].tobytes())
    return digest.hexdigest()


def _check_headers(archive: ZipFile) -> None:
    """Refuse other arrays than are wanted, and more bytes than images can have; nothing is read."""
    shape, dtype = _read_header(archive, "images")
    is_square = len(shape) in (3, 4) and shape[1] == shape[2] and shape[3:] in ((), (3,))
    if dtype != np.uint8 or not is_square or prod(shape) == 0:
        raise ValueError(f"images {dtype} {shape}")
    for name in ARRAYS[1:] if "groups.npy" in archive.namelist() else ("labels",):
        numbers, dtype = _read_header(archive, name)
        if numbers != shape[:1] or dtype.kind not in "iu":
            raise ValueError(f"{name} {dtype} {numbers} of images {shape}")


def _read_header(archive: ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, which must fill its part of the file."""
    members = [member for member in archive.infolist() if member.filename == f"{name}.npy"]
    if len(members) != 1:
        raise ValueError(f"holds {len(members)} arrays named {name}")
    member = members[0]
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} are packed in a way that numpy does not write")
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
            shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
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
    return shape, dtype
