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
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from dwlt_lib.models.pickles import TRAPS, UNDERSTOOD, BadCheckpoint, Stored, follow, plain

MOST_BYTES = 2**31  # the official files have 98 to 205 MB
MOST_MEMBERS = 20_000  # of a zip
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how the older format begins


@dataclass(frozen=True)
class Contents:
    """A checkpoint. root: plain values, `Stored` and `Inert`; unread.

    Names that mean nothing here.
    """

    root: object
    container: str  # zip or legacy
    unread: tuple[str, ...]
    storages: Mapping[str, memoryview]

    def tensor(self, stored: Stored) -> Tensor:
        """The tensor's values, a copy of its own.

        It must lie densely in its storage, in any order of dimensions.
        """
        raw, storage = self.storages.get(stored.storage.key), stored.storage
        size = torch.empty(0, dtype=storage.dtype).element_size()
        span = 1 + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
        held = 0 if raw is None else min(len(raw) // size, storage.count)
        if span != prod(stored.shape) or stored.offset + span > held:
            raise BadCheckpoint(
                f"a tensor {stored.shape} at {stored.offset} by steps {stored.stride} does not lie"
                f" in its storage of {held} numbers; the file is damaged, fetch it again"
            )
        part = bytearray(raw[stored.offset * size : (stored.offset + span) * size])
        flat = torch.frombuffer(part, dtype=storage.dtype)
        return flat.as_strided(stored.shape, stored.stride).clone(
            memory_format=torch.contiguous_format
        )


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
    except (
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        AttributeError,
        EOFError,
        BadZipFile,
        struct.error,
        RuntimeError,
        MemoryError,
    ) as error:
        raise BadCheckpoint(
            f"damaged or cut short ({plain(str(error))}); fetch it again"
        ) from error


def recognise(data: bytes, size: int) -> None:
    """Refuses what is plainly something else. data.

    The first 512 bytes of a file of `size` bytes.
    """
    start = data.lstrip().lower()
    found = None
    if not data:
        found = "an empty file"
    elif start.startswith(b"<"):
        found = (
            "a web page, not a checkpoint (the link is dead, or asks for a confirmation in a"
            " browser)"
        )
    elif start.startswith(b"version https://git-lfs"):
        found = "a git-lfs pointer, not the file it stands for (run git lfs pull)"
    elif start.startswith((b"{", b"[")):
        found = "a text, perhaps a server's error message"
    elif data[257:262] == b"ustar":
        found = (
            "a tar archive (that format of torch ended in 2017; a .pth.tar of later years is none)"
        )
    elif data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        found = "a compressed file (unpack it first)"
    elif data[8:9] == b"{" and int.from_bytes(data[:8], "little") < size:
        found = "a safetensors file, which needs no import"
    elif not data.startswith((b"PK", b"\x80")):
        found = "no file of torch.save"
    if found:
        raise BadCheckpoint(f"{found}; want a checkpoint of torch.save")


# ----------------------------------------------------------------------------------------------
# containers


def _zip(data: bytes) -> Contents:
    archive = ZipFile(BytesIO(data))
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()) or len(members) > MOST_MEMBERS:
        raise BadCheckpoint(
            f"a zip of {len(archive.infolist())} members, {len(members)} names; want each once"
        )
    if any(
        member.compress_type != ZIP_STORED
        or member.flag_bits & 1
        or member.file_size != member.compress_size
        for member in members.values()
    ) or sum(member.file_size for member in members.values()) > len(data):
        raise BadCheckpoint(
            "a zip with compressed, encrypted or overlapping members, which torch.save does not"
            " write"
        )
    if damaged := archive.testzip():
        raise BadCheckpoint(f"{plain(damaged)} in it is damaged; fetch it again")
    roots = [
        name.removesuffix("/data.pkl")
        for name in members
        if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(roots) != 1:
        raise BadCheckpoint(
            f"a zip with {len(roots)} data.pkl, so not of torch.save; if it holds one, unpack it"
            " first"
        )
    root = roots[0]
    if f"{root}/constants.pkl" in members:
        raise BadCheckpoint("a TorchScript program; want a checkpoint with a state dictionary")

    def member(name: str) -> memoryview:
        at = members[name].header_offset
        start = at + 30 + sum(struct.unpack("<HH", data[at + 26 : at + 30]))
        return memoryview(data)[start : start + members[name].file_size]

    order = f"{root}/byteorder"
    if order in members and bytes(member(order)) != b"little":
        raise BadCheckpoint("written on a big-endian machine; want little-endian numbers")
    value, names, _ = follow(BytesIO(member(f"{root}/data.pkl")))
    start = f"{root}/data/"
    storages = {
        name.removeprefix(start): member(name) for name in members if name.startswith(start)
    }
    return Contents(value, "zip", _unread(names), storages)


def _legacy(data: bytes) -> Contents:
    stream = BytesIO(data)
    if follow(stream)[0] != MAGIC:
        raise BadCheckpoint("a pickle, but not of torch.save; want a checkpoint of torch.save")
    version, system = follow(stream)[0], follow(stream)[0]
    if (
        version != PROTOCOL
        or not isinstance(system, dict)
        or system.get("little_endian") is not True
    ):
        raise BadCheckpoint(
            f"format {plain(str(version))} of torch.save; want {PROTOCOL}, little-endian"
        )
    value, names, claimed = follow(stream)
    keys, more, _ = follow(stream)
    storages, at = {}, stream.tell()
    for key in keys:
        size = claimed[key].count * torch.empty(0, dtype=claimed[key].dtype).element_size()
        if struct.unpack("<q", data[at : at + 8])[0] != claimed[key].count or at + 8 + size > len(
            data
        ):
            raise BadCheckpoint(
                "damaged or cut short (a storage is not as long as it should be); fetch it again"
            )
        storages[key] = memoryview(data)[at + 8 : at + 8 + size]
        at += 8 + size
    return Contents(value, "legacy", _unread({**names, **more}), storages)


def _unread(names: dict[str, None]) -> tuple[str, ...]:
    for name in names:
        if TRAPS & set(name.replace(" ", ".").split(".")):
            raise BadCheckpoint(
                f"a trap: it names {name}, which other loaders would run (nothing was run here);"
                " want the file from its official source"
            )
    return tuple(sorted(set(names) - UNDERSTOOD)[:50])
