"""A study as one file: a zip of its records without weights, read in place and never unpacked.

The file holds study.json and, of each record, KIND/ID/record.json and its mask or arrays. Its bytes
depend on the study alone, so that the same study gives the same file.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dwlt_lib import files

RECORD = re.compile(r"(?P<kind>[a-z]+)/(?P<id>[0-9a-f]{20})/")
NAME = re.compile(r"study\.json|[a-z]+/[0-9a-f]{20}/(record\.json|(mask|arrays)\.safetensors)")
MOST_FILES = 500_000
MOST_BYTES = 2**28  # of one file in it, unpacked: a ResNet-50's mask has 2.9 MB
DATE = (1980, 1, 1, 0, 0, 0)
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)  # what zipfile raises of damaged and of unsupported files


def write(path: Path, content: Iterable[tuple[str, bytes]]) -> None:
    """Write a study's file, whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        content: the name and the bytes of each file in it, sorted here.
    """
    aside = files.scratch(path)
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in sorted(content):
                info = zipfile.ZipInfo(name, DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.create_system, info.external_attr = 3, 0o644 << 16
                archive.writestr(info, data)
        files.sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    files.sync(path.parent)


def study(path: Path) -> dict[str, Any]:
    """What the study in that file plans, as `store.study` gives it.

    Raises:
        ValueError: one line, if the file is not what `write` wrote.
    """
    try:
        found = json.loads(read(path, "study.json"))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(reason if str(path) in reason else _refusal(path, reason)) from None
    wanted = {"name": str, "params": dict, "ids": list}
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), kind) for key, kind in wanted.items()
    ):
        raise ValueError(_refusal(path, "its study.json has no name, params and ids"))
    return found


def record_names(path: Path) -> dict[str, str]:
    """The folder within the file, KIND/ID, of each record in it, by id."""
    found = [RECORD.match(name) for name in _opened(path, files.stamp(path))[1]]
    return {match["id"]: f"{match['kind']}/{match['id']}" for match in found if match}


def read(path: Path, name: str) -> bytes:
    """The bytes of one file in the study's file.

    Args:
        path: the study's file.
        name: the name within it, such as "mask/0123456789abcdef0123/record.json".
    Raises:
        FileNotFoundError: there is no file of that name in it.
        ValueError: one line, if the study's file is damaged or is none.
    """
    archive, members = _opened(path, files.stamp(path))
    if name not in members:
        raise FileNotFoundError(f"{path}: holds no {name}")
    try:
        return archive.read(members[name])
    except UNREADABLE as error:
        raise ValueError(_refusal(path, f"{name}: {error or type(error).__name__}")) from None


@cache
def _opened(
    path: Path, stamp: tuple[int, ...]
) -> tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]:
    """The open file and what is in it, of which every name and size has been checked."""
    try:
        archive = zipfile.ZipFile(files.regular(path))
        members = archive.infolist()
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(_refusal(path, reason)) from None
    if len(members) > MOST_FILES:
        raise ValueError(_refusal(path, f"{len(members):,} files in it, {MOST_FILES:,} at most"))
    found: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        shown = f"{member.filename!r:.80}"
        if not NAME.fullmatch(member.filename):
            raise ValueError(_refusal(path, f"{shown} is no file of a study"))
        if member.filename in found:
            raise ValueError(_refusal(path, f"{shown} is in it twice"))
        if member.flag_bits & 1:
            raise ValueError(_refusal(path, f"{shown} is encrypted"))
        if member.file_size > MOST_BYTES:
            reason = f"{shown} has {member.file_size:,} bytes, {MOST_BYTES:,} at most"
            raise ValueError(_refusal(path, reason))
        found[member.filename] = member
    if "study.json" not in found:
        raise ValueError(_refusal(path, "it holds no study.json"))
    return archive, found


def _refusal(path: Path, reason: str) -> str:
    return f"{path}: {reason}; want a study's file as `dwlt publish` wrote it, whole"
