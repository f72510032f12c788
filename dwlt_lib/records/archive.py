"""Where records lie: in folders, or in a study's file, a zip without weights that is read in place.

A folder and a place in such a file are both a `Location`, and nothing else in the library needs to
tell one from the other.

A study's file holds study.json and, of each record, KIND/ID/record.json and its mask, arrays or
outcomes. Its bytes depend on the study alone, so that the same study gives the same file. A file
may come from anyone: its list of contents is checked before anything in it is read, and no more of
a content is unpacked than that list declares.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dwlt_lib import files

PUBLISHED = ("mask.safetensors", "arrays.safetensors", "outcomes.safetensors")
"""The files of a record that a study is published with; weights and trajectories stay behind."""
NAME = re.compile(
    r"study\.json|(?P<kind>[a-z]+)/(?P<id>[0-9a-f]{20})/"
    r"((?P<record>record\.json)|(mask|arrays|outcomes)\.safetensors)"
)
MOST_BYTES = 2**28
"""Of one content, unpacked: a ResNet-50's mask has 2.9 MB."""
DATE = (1980, 1, 1, 0, 0, 0)


class Plan(BaseModel, strict=True):
    """What a study.json says."""

    name: str
    """Of the study."""
    file: str | None = None
    """The parameter file, if it was noted on this disk."""
    params: dict[str, Any]
    """The study's resolved parameters."""
    ids: list[str]
    """Of all records that it plans."""


@dataclass(frozen=True)
class Location:
    """Where a record's files lie, and how they are read.

    Attributes:
        root: outputs/records, or a study's file.
        kind: the kind of record that belongs there.
        id: the id of the record that belongs there.
        published: whether `root` is a study's file.
    """

    root: Path
    kind: str
    id: str
    published: bool = False

    @property
    def path(self) -> Path:
        """ROOT/KIND/ID; of a record in a study's file no such folder exists on the disk."""
        return self.root / self.kind / self.id

    @property
    def remedy(self) -> str:
        """What to do when something there is damaged."""
        if self.published:
            return f"bring {self.root} again, or publish it anew"
        return f"delete {self.path} and run its study again"

    def stamp(self) -> tuple[int, ...]:
        """What changes when record.json does.

        Returns:
            `files.stamp` of record.json, or of the study's file.

        Raises:
            OSError: it is not there.
        """
        return files.stamp(self.root if self.published else self.path / "record.json")

    def read(self, name: str) -> bytes:
        """The content of one file, not yet compared with its digest.

        Args:
            name: of the file, such as "mask.safetensors".

        Returns:
            Its bytes.

        Raises:
            OSError: there is no such file.
            ValueError: it lies in a study's file that is damaged there.
        """
        if self.published:
            return read(self.root, f"{self.kind}/{self.id}/{name}")
        return (self.path / name).read_bytes()

    def size(self, name: str) -> int | None:
        """The size of one file.

        Args:
            name: of the file.

        Returns:
            Bytes; None if it is not there.
        """
        if self.published:
            content = opened(self.root).contents.get(f"{self.kind}/{self.id}/{name}")
            return content.file_size if content else None
        path = self.path / name
        return path.stat().st_size if path.exists() else None


@dataclass(frozen=True)
class StudyFile:
    """An open study's file, of whose contents every name and size has been checked."""

    archive: zipfile.ZipFile
    """Open for reading."""
    contents: Mapping[str, zipfile.ZipInfo]
    """By name, such as "mask/0123456789abcdef0123/record.json"."""
    study: dict[str, Any]
    """What the study plans, as `store.study` gives it."""
    records: dict[str, Location]
    """Where each record in it lies, by its id."""


def write(path: Path, content: Iterable[tuple[str, bytes]]) -> None:
    """Write a study's file, whole or not at all.

    Names are sorted, dates and permissions are fixed, and there is one compression level: the same
    content gives the same bytes (with one version of zlib).

    Args:
        path: the file; one that is there is replaced.
        content: the name and the bytes of each file in it, in any order.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, unpacked in sorted(content):
            info = zipfile.ZipInfo(name, DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, unpacked)
    files.write(path, data.getvalue())


def parse_study(data: bytes) -> dict[str, Any]:
    """The content of a study.json.

    Args:
        data: its bytes.

    Returns:
        The entries of a `Plan`.

    Raises:
        ValueError: one line, if it is damaged.
    """
    try:
        return Plan.model_validate_json(data).model_dump()
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"study.json is not what records.write_study wrote: {reason}") from None


def opened(path: Path) -> StudyFile:
    """A study's file, opened anew only when it has changed.

    Args:
        path: the study's file.

    Returns:
        What is in it.

    Raises:
        ValueError: one line, if it is not what `write` wrote.
    """
    return _opened(path, files.stamp(files.regular(path)))


@lru_cache(maxsize=16)
def _opened(path: Path, stamp: tuple[int, ...]) -> StudyFile:
    try:
        archive = zipfile.ZipFile(path)
        contents = archive.infolist()
        _check(contents)
        study = parse_study(_unpack(archive, archive.getinfo("study.json")))
    except Exception as error:  # zipfile raises many of damaged and of unsupported files
        raise _refusal(path, error) from None
    matches = [NAME.fullmatch(content.filename) for content in contents]
    places = [
        Location(path, match["kind"], match["id"], published=True)
        for match in matches
        if match and match["record"]
    ]
    by_name = {content.filename: content for content in contents}
    return StudyFile(archive, by_name, study, {place.id: place for place in places})


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
    file = opened(path)
    if name not in file.contents:
        raise FileNotFoundError(2, f"{path.name} holds no {name}", str(path / name))
    try:
        return _unpack(file.archive, file.contents[name])
    except Exception as error:
        raise _refusal(path, error) from None


def _unpack(archive: zipfile.ZipFile, content: zipfile.ZipInfo) -> bytes:
    with archive.open(content) as file:
        # ZipFile.read would unpack all that the compressed bytes hold, whatever is declared
        data = file.read(content.file_size + 1)
    if len(data) != content.file_size:
        raise ValueError(f"{content.filename}: {len(data):,} bytes, not {content.file_size:,}")
    return data


def _check(contents: list[zipfile.ZipInfo]) -> None:
    """Refuse a list of contents that is not that of a study's file; nothing is read."""
    names = set()
    for content in contents:
        name = content.orig_filename  # zipfile cuts `filename` at a NUL
        shown = f"{name!r:.80}"
        if not NAME.fullmatch(name):
            raise ValueError(f"{shown} is no file of a study")
        if name in names:
            raise ValueError(f"{shown} is in it twice")
        if content.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{shown} is compressed by another method than deflate")
        if content.file_size > MOST_BYTES:
            raise ValueError(f"{shown} has {content.file_size:,} bytes, {MOST_BYTES:,} at most")
        names.add(name)


def _refusal(path: Path, error: Exception) -> ValueError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ValueError(f"{path}: {reason}; want a study's file as `dwlt publish` wrote it, whole")
