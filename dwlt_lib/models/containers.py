"""Files of torch.save: the zip format of torch 1.6 and later, and the older one; written with
pickle or dill.

Everything is read from one copy in memory, so that what was hashed is what is read; nothing in it
is run (`pickles`).
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

from dwlt_lib.models.pickles import TRAPS, UNDERSTOOD, BadCheckpoint, Stored, follow, plain

MOST_BYTES = 2**31  # the official files have 98 to 205 MB
MOST_MEMBERS = 20_000  # of a zip
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format begins

# how other files begin, in small letters, and what they are
STARTS: dict[tuple[bytes, ...], str] = {
    (b"<",): (
        "a web page, not a checkpoint (the link is dead, or asks for a confirmation in a browser)"
    ),
    (b"version https://git-lfs",): (
        "a git-lfs pointer, not the file it stands for (run git lfs pull)"
    ),
    (b"{", b"["): "a text, perhaps a server's error message",
    (b"\x1f\x8b", b"bzh", b"\xfd7zxz"): "a compressed file (unpack it first)",
}


@dataclass(frozen=True)
class Contents:
    """A checkpoint.

    Attributes:
        root: plain values, `Stored` and `Inert`.
        container: zip or legacy.
        unread: names in it that mean nothing here.
        storages: the bytes of each, by its key.
    """

    root: object
    container: str
    unread: tuple[str, ...]
    storages: Mapping[str, bytes | memoryview]

    def tensor(self, stored: Stored) -> Tensor:
        """The tensor's values, a copy of its own.

        It must lie densely in its storage, in any order of dimensions.
        """
        storage, size = stored.storage, stored.storage.dtype.itemsize
        raw = self.storages.get(storage.key, b"")
        held = min(len(raw) // size, storage.count)
        span = 1 + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
        if span != prod(stored.shape) or stored.offset + span > held:
            raise BadCheckpoint(
                f"a tensor {stored.shape} at {stored.offset} by steps {stored.stride} does not lie"
                f" in its storage of {held} numbers; the file is damaged, fetch it again"
            )
        part = bytearray(raw[stored.offset * size : (stored.offset + span) * size])
        flat = torch.frombuffer(part, dtype=storage.dtype)
        return flat.as_strided(stored.shape, stored.stride).contiguous()


def parse(data: bytes) -> Contents:
    """What a file of torch.save holds (the zip format of torch 1.6 and later, or the older one; by
    pickle or dill).

    Raises BadCheckpoint, one line: not such a file, damaged, too large, or a trap.
    """
    recognise(data[:512], len(data))
    try:
        return _zip(data) if data.startswith(b"PK") else _legacy(data)
    except BadCheckpoint:
        raise
    except Exception as error:  # all that reading a spoilt pickle or zip may raise
        raise BadCheckpoint(
            f"damaged or cut short ({plain(str(error))}); fetch it again"
        ) from error


def recognise(data: bytes, size: int) -> None:
    """Refuse what is plainly no checkpoint, by the first 512 bytes of a file of `size` bytes."""
    start = data.lstrip().lower()
    found = next((what for starts, what in STARTS.items() if start.startswith(starts)), None)
    if not data:
        found = "an empty file"
    elif data[257:262] == b"ustar":
        found = (
            "a tar archive (that format of torch ended in 2017; a .pth.tar of later years is none)"
        )
    elif data[8:9] == b"{" and int.from_bytes(data[:8], "little") < size:
        found = "a safetensors file, which needs no import"
    elif not found and not data.startswith((b"PK", b"\x80")):
        found = "no file of torch.save"
    if found:
        raise BadCheckpoint(f"{found}; want a checkpoint of torch.save")


# ----------------------------------------------------------------------------------------------
# containers


def _zip(data: bytes) -> Contents:
    archive = ZipFile(BytesIO(data))
    members = archive.infolist()
    names = {member.filename for member in members}
    if len(names) != len(members) or len(names) > MOST_MEMBERS:
        raise BadCheckpoint(f"a zip of {len(members)} members, {len(names)} names; want each once")
    if sum(member.file_size for member in members) > len(data) or any(
        member.compress_type != ZIP_STORED or member.flag_bits & 1 for member in members
    ):
        raise BadCheckpoint(
            "a zip with compressed, encrypted or overlapping members, which torch.save does not"
            " write"
        )
    roots = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise BadCheckpoint(
            f"a zip with {len(roots)} data.pkl, so not of torch.save; if it holds one, unpack it"
            " first"
        )
    root = roots[0].removesuffix("data.pkl")
    contents = {name.removeprefix(root): archive.read(name) for name in names}  # checks its CRC-32
    if contents.get("byteorder", b"little") != b"little":
        raise BadCheckpoint("written on a big-endian machine; want little-endian numbers")
    value, named, _ = follow(BytesIO(contents["data.pkl"]))
    storages = {
        name.removeprefix("data/"): raw
        for name, raw in contents.items()
        if name.startswith("data/")
    }
    return Contents(value, "zip", _unread(named), storages)


def _legacy(data: bytes) -> Contents:
    stream = BytesIO(data)
    if follow(stream)[0] != MAGIC:
        raise BadCheckpoint("a pickle, but not of torch.save; want a checkpoint of torch.save")
    version, system = follow(stream)[0], follow(stream)[0]
    little = isinstance(system, dict) and system.get("little_endian") is True
    if version != PROTOCOL or not little:
        raise BadCheckpoint(f"another format of torch.save; want {PROTOCOL}, little-endian")
    value, names, claimed = follow(stream)
    keys, more, _ = follow(stream)
    storages, at = {}, stream.tell()
    if any(type(key) is not str for key in keys):  # hashing what is nested has no bound
        raise BadCheckpoint("a key of its storages is no text; the file is damaged or a trap")
    for key in keys:
        count = claimed[key].count
        start, end = at + 8, at + 8 + count * claimed[key].dtype.itemsize
        if data[at:start] != struct.pack("<q", count) or end > len(data):
            raise BadCheckpoint(
                "damaged or cut short (a storage is not as long as it should be); fetch it again"
            )
        storages[key] = memoryview(data)[start:end]
        at = end
    return Contents(value, "legacy", _unread({**names, **more}), storages)


def _unread(names: dict[str, None]) -> tuple[str, ...]:
    for name in names:
        if TRAPS & set(name.replace(" ", ".").split(".")):
            raise BadCheckpoint(
                f"a trap: it names {name}, which other loaders would run (nothing was run here);"
                " want the file from its official source"
            )
    return tuple(sorted(set(names) - UNDERSTOOD)[:50])
