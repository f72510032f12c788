"""Files of torch.save: the zip format of torch 1.6 and later, and the older one.

They may be written with pickle or dill. Everything is read from one copy in memory, so that what
was hashed is what is read; nothing in it is run (`pickles`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from math import prod
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from dwlt_lib.models.messages import printable
from dwlt_lib.models.pickles import CheckpointError, StoredTensor, read_pickle

MAX_BYTES = 2**31
"""Of a checkpoint; the official files have 98 to 205 MB."""
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format begins

OTHER_FILES = (
    (0, b"<", "a web page (the link is dead, or asks for a confirmation in a browser)"),
    (0, b"version https://git-lfs", "a git-lfs pointer, not its file (run git lfs pull)"),
    (0, b"{", "a text, perhaps a server's error message"),
    (0, b"\x1f\x8b", "a compressed file (unpack it first)"),
    (8, b"{", "a safetensors file, which needs no import"),
    (257, b"ustar", "a tar archive (that format of torch ended in 2017)"),
)
"""What other files have at some place, and what they are."""


@dataclass(frozen=True)
class TorchFile:
    """What a file of torch.save holds."""

    value: object
    """Plain values, `StoredTensor` and `InertObject`."""
    storages: Mapping[str, bytes | memoryview]
    """Numbers by key."""

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The values of one of its tensors, as a copy.

        Args:
            stored: describes the tensor, which must fill its part of the storage without gaps, in
                any order of dimensions.

        Returns:
            A contiguous tensor of that shape.

        Raises:
            CheckpointError: the tensor has gaps, or reaches beyond its storage.
        """
        storage, size = stored.storage, stored.storage.dtype.itemsize
        data = self.storages.get(storage.key, b"")
        available = min(len(data) // size, storage.count)
        span = 1 + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
        if span != prod(stored.shape) or stored.offset + span > available:
            raise CheckpointError(
                f"a tensor {stored.shape} at {stored.offset} by steps {stored.stride} does not lie"
                f" in its storage of {available} numbers; the file is damaged, fetch it again"
            )
        numbers = bytearray(data[stored.offset * size : (stored.offset + span) * size])
        flat = torch.frombuffer(numbers, dtype=storage.dtype)
        return flat.as_strided(stored.shape, stored.stride).contiguous()


def read_torch_file(data: bytes) -> TorchFile:
    """What a file of torch.save holds; nothing in it is run.

    Args:
        data: the whole file.

    Returns:
        Its values, with tensors still unread (`TorchFile.tensor` reads one).

    Raises:
        CheckpointError: one line: it is no such file, damaged, too large, or attacks its loader.
    """
    try:
        return _read_zip(data) if data.startswith(b"PK") else _read_legacy(data)
    except CheckpointError:
        raise
    except Exception as error:  # all that reading a damaged pickle or zip may raise
        raise CheckpointError(
            f"damaged or cut short ({printable(str(error))}); fetch it again"
        ) from error


def check_start(start: bytes) -> None:
    """Refuse a file that is plainly no checkpoint before it is read whole.

    Args:
        start: its first 512 bytes.

    Raises:
        CheckpointError: one line that says what the file is.
    """
    if start.startswith((b"PK", b"\x80")):
        return
    found = "no file of torch.save" if start else "an empty file"
    for place, text, what in OTHER_FILES:
        if start[place:].lstrip().startswith(text):
            found = what
    raise CheckpointError(f"{found}; want a checkpoint of torch.save")


def _read_zip(data: bytes) -> TorchFile:
    archive = ZipFile(BytesIO(data))
    members = archive.infolist()
    if sum(member.file_size for member in members) > len(data) or any(
        member.compress_type != ZIP_STORED or member.flag_bits & 1 for member in members
    ):
        raise CheckpointError(
            "a zip with compressed, encrypted or overlapping members, which torch.save does not"
            " write"
        )
    names = {member.filename for member in members}
    roots = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise CheckpointError(
            f"a zip with {len(roots)} data.pkl, so not of torch.save; if it holds one, unpack it"
            " first"
        )
    root = roots[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise CheckpointError("written on a big-endian machine; want little-endian numbers")
    content, prefix = read_pickle(BytesIO(archive.read(roots[0]))), f"{root}data/"
    # reading a member checks its CRC-32
    storages = {
        name.removeprefix(prefix): archive.read(name) for name in names if name.startswith(prefix)
    }
    return TorchFile(content.value, storages)


def _read_legacy(data: bytes) -> TorchFile:
    stream = BytesIO(data)
    if read_pickle(stream).value != LEGACY_MAGIC:
        raise CheckpointError("a pickle, but not of torch.save; want a checkpoint of torch.save")
    version, machine = read_pickle(stream).value, read_pickle(stream).value
    is_little_endian = isinstance(machine, dict) and machine.get("little_endian") is True
    if version != LEGACY_PROTOCOL or not is_little_endian:
        raise CheckpointError(
            f"another format of torch.save; want {LEGACY_PROTOCOL}, little-endian"
        )
    content, keys = read_pickle(stream), read_pickle(stream)
    storages, position = {}, stream.tell()
    for key in keys.value:
        if type(key) is not str:  # hashing a nested value could take unbounded time
            raise CheckpointError("a key of its storages is no text; the file is damaged or a trap")
        storage = content.storages[key]
        start = position + 8
        end = start + storage.count * storage.dtype.itemsize
        if data[position:start] != struct.pack("<q", storage.count) or end > len(data):
            raise CheckpointError(
                "damaged or cut short (a storage is not as long as it should be); fetch it again"
            )
        storages[key] = memoryview(data)[start:end]
        position = end
    return TorchFile(content.value, storages)
