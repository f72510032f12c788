"""A study as one file: a zip of its records without weights, read in place and never unpacked.

The file holds study.json and, of each record, KIND/ID/record.json and its mask, arrays or
outcomes. Its bytes depend on the study alone, so that the same study gives the same file. A file
may come from anyone: its list of contents is checked before anything in it is read, and no more of
a content is unpacked than that list declares.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dwlt_lib import files

RECORD = re.compile(r"(?P<kind>[a-z]+)/(?P<id>[0-9a-f]{20})/record\.json")
PUBLISHED = ("mask.safetensors", "arrays.safetensors", "outcomes.safetensors")
"""The files of a record that a study is published with; weights and trajectories stay behind."""
NAME = re.compile(
    rf"study\.json|[a-z]+/[0-9a-f]{{20}}/({'|'.join(map(re.escape, ('record.json', *PUBLISHED)))})"
)
MOST_FILES = 500_000
MOST_BYTES = 2**28
"""Of one content, unpacked: a ResNet-50's mask has 2.9 MB."""
MOST_JSON_BYTES = 2**24
"""Of one record.json or study.json."""
MOST_BYTES_IN_ALL = 2**35
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
)
"""What zipfile raises of damaged and of unsupported files."""


@dataclass(frozen=True)
class ZipFolder:
    """A record's place inside a study's file (a `record.Location`).

    Attributes:
        file: the study's file.
        kind: the record's kind.
        id: the record's id.
    """

    file: Path
    kind: str
    id: str

    @property
    def path(self) -> Path:
        """FILE.zip/KIND/ID, for messages; no such folder exists on the disk."""
        return self.file / self.kind / self.id

    @property
    def remedy(self) -> str:
        """What to do when something there is damaged."""
        return f"bring {self.file} again, or publish it anew"

    def stamp(self) -> tuple[int, ...]:
        """What changes when the study's file does.

        Returns:
            `files.stamp` of the study's file.

        Raises:
            OSError: the file is not there.
        """
        return files.stamp(self.file)

    def read(self, name: str) -> bytes:
        """The content of one file of the record.

        Args:
            name: of the file, such as "mask.safetensors".

        Returns:
            Its bytes, not yet compared with their digest.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: one line, if the study's file is damaged.
        """
        return read(self.file, f"{self.kind}/{self.id}/{name}")

    def size(self, name: str) -> int | None:
        """The size of one file of the record.

        Args:
            name: of the file.

        Returns:
            Bytes, unpacked; None if it is not there.
        """
        _, contents = _open(self.file, files.stamp(self.file))
        content = contents.get(f"{self.kind}/{self.id}/{name}")
        return None if content is None else content.file_size


def write(path: Path, content: Iterable[tuple[str, bytes]]) -> None:
    """Write a study's file, whole or not at all.

    Names are sorted, dates and permissions are fixed, and there is one compression level: the same
    content gives the same bytes (with one version of zlib).

    Args:
        path: the file; one that is there is replaced.
        content: the name and the bytes of each file in it, in any order.
    """
    scratch = files.scratch(path)
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, data in sorted(content):
                info = zipfile.ZipInfo(name, DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.create_system, info.external_attr = 3, 0o644 << 16
                archive.writestr(info, data)
        files.sync(scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    files.sync(path.parent)


def study(path: Path) -> dict[str, Any]:
    """What the study in that file plans, as `store.study` gives it.

    Args:
        path: the study's file.

    Returns:
        name, params (its resolved parameters) and ids (of all records that it plans).

    Raises:
        ValueError: one line, if the file is not what `write` wrote.
    """
    return _study(path, files.stamp(files.regular(path)))


@lru_cache(maxsize=16)
def _study(path: Path, stamp: tuple[int, ...]) -> dict[str, Any]:
    data = read(path, "study.json")
    try:
        return parse_study(data)
    except ValueError as error:
        raise ValueError(_refusal(path, f"study.json: {error}")) from None


def parse_study(data: bytes) -> dict[str, Any]:
    """The content of a study.json.

    Args:
        data: its bytes.

    Returns:
        Name, params, ids, and file if it was noted on this disk.

    Raises:
        ValueError: one line, if it is damaged.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    wanted = {"name": str, "params": dict, "ids": list}
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), kind) for key, kind in wanted.items()
    ):
        raise ValueError("it is not what records.write_study wrote")
    if not all(isinstance(id, str) for id in found["ids"]):
        raise ValueError("it is not what records.write_study wrote: ids that are no text")
    return found


def locations(path: Path) -> dict[str, ZipFolder]:
    """Where each record lies in a study's file.

    Args:
        path: the study's file.

    Returns:
        A location by the record's id.

    Raises:
        ValueError: one line, if the file is damaged or is none.
    """
    return _locations(path, files.stamp(files.regular(path)))


@lru_cache(maxsize=16)
def _locations(path: Path, stamp: tuple[int, ...]) -> dict[str, ZipFolder]:
    matches = [RECORD.fullmatch(name) for name in _open(path, stamp)[1]]
    return {match["id"]: ZipFolder(path, match["kind"], match["id"]) for match in matches if match}


def read(path: Path, name: str) -> bytes:
    """The bytes of one file in the study's file.

    Args:
        path: the study's file.
        name: the name within it, such as "mask/0123456789abcdef0123/record.json".

    Returns:
        The bytes, as many as the file's list of contents declares.

    Raises:
        FileNotFoundError: there is no file of that name in it.
        ValueError: one line, if the study's file is damaged or is none.
    """
    archive, contents = _open(path, files.stamp(files.regular(path)))
    if name not in contents:
        raise FileNotFoundError(2, f"{path.name} holds no {name}", str(path / name))
    size = contents[name].file_size
    try:
        with archive.open(contents[name]) as content:
            # ZipFile.read would unpack all that the compressed bytes hold, whatever is declared
            data = content.read(size + 1)
    except UNREADABLE as error:
        raise ValueError(_refusal(path, f"{name}: {_reason(error)}")) from None
    if len(data) != size:
        raise ValueError(_refusal(path, f"{name}: {len(data):,} bytes, not {size:,}"))
    return data


@lru_cache(maxsize=16)
def _open(
    path: Path, stamp: tuple[int, ...]
) -> tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]:
    """The open file and what is in it, of which every name and size has been checked."""
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise ValueError(_refusal(path, _reason(error))) from None
    contents = archive.infolist()
    if problem := _problem(contents):
        raise ValueError(_refusal(path, problem))
    return archive, {content.filename: content for content in contents}


def _problem(contents: list[zipfile.ZipInfo]) -> str | None:
    """Why a list of contents is not that of a study's file, if it is not; nothing is read."""
    if len(contents) > MOST_FILES:
        return f"{len(contents):,} files in it, {MOST_FILES:,} at most"
    size = sum(content.file_size for content in contents)
    if size > MOST_BYTES_IN_ALL:
        return f"it unpacks to {size:,} bytes, {MOST_BYTES_IN_ALL:,} at most"
    names = set()
    for content in contents:
        name = content.orig_filename  # zipfile cuts `filename` at a NUL
        shown = f"{name!r:.80}"
        most = MOST_JSON_BYTES if name.endswith(".json") else MOST_BYTES
        if not NAME.fullmatch(name):
            return f"{shown} is no file of a study"
        if name in names:
            return f"{shown} is in it twice"
        if content.flag_bits & 1:
            return f"{shown} is encrypted"
        if content.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"{shown} is compressed by another method than deflate"
        if content.file_size > most:
            return f"{shown} has {content.file_size:,} bytes, {most:,} at most"
        names.add(name)
    return None if "study.json" in names else "it holds no study.json"


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _refusal(path: Path, reason: str) -> str:
    return f"{path}: {reason}; want a study's file as `dwlt publish` wrote it, whole"
