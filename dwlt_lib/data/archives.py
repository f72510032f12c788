"""Archives, checked and unpacked with suspicion: whole or not at all, and nothing outside.

Every error is a ValueError of one line: the file, what is wrong, the remedy.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from dwlt_lib.files import collect, scratch, sha256

BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def check(path: Path, digest: str) -> None:
    """ValueError unless the file's SHA-256 is `digest`."""
    found = sha256(path)
    if found != digest:
        raise ValueError(f"{path}: sha256 is {found}; want {digest}; remove it and get it anew")


def unpack(archive: Path, into: Path, files: int, size: int) -> list[Path]:
    """A tar (plain, gz, bz2, xz) or zip archive's content, in `into`; returns its top-level entries
    there.

    The whole archive is read through first: links, devices, names that are absolute or climb (..),
    more than `files` members or `size` bytes, and a truncated archive are refused before anything
    is written. It is unpacked beside its place and moved there when it is whole; an entry that is
    there already is not touched.
    """
    try:
        with _opened(archive) as (opened, members):
            total, tops = _inspect(archive, members, files, size), {}
            into.mkdir(parents=True, exist_ok=True)
            for name, *_ in _members(opened):
                tops[PurePosixPath(name).parts[0]] = None
            there = next((into / top for top in tops if (into / top).exists()), None)
            if there is not None:
                raise _Refused(f"{there} is there already; remove it to unpack {archive.name} anew")
            if total > shutil.disk_usage(into).free:
                raise _Refused(
                    f"{archive}: unpacks to {total:,} bytes; {into} has less free; make room"
                )
            collect(into)
            aside = scratch(into / "unpacked")
            aside.mkdir()
            try:
                second = isinstance(opened, tarfile.TarFile) and hasattr(
                    tarfile, "data_filter"
                )  # Python 3.11.4
                opened.extractall(aside, **({"filter": "data"} if second else {}))
                for top in tops:
                    os.replace(aside / top, into / top)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except _Refused:
        raise
    except BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{archive}: truncated, or no tar or zip archive ({reason}); get it anew"
        ) from error
    return [into / top for top in tops]


class _Refused(ValueError):
    """Said already in one line."""


Member = tuple[
    str, int, str
]  # its name, its size in bytes, what is wrong with its kind ("" for a file or folder)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[tarfile.TarFile | zipfile.ZipFile, Iterator[Member]]]:
    if not archive.exists():
        raise _Refused(f"{archive} is missing; get it first")
    with (
        zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive)
    ) as opened:
        yield opened, _members(opened)


def _members(opened: tarfile.TarFile | zipfile.ZipFile) -> Iterator[Member]:
    if isinstance(opened, tarfile.TarFile):
        for member in opened:
            link = "a link" if member.issym() or member.islnk() else "a device or pipe"
            yield member.name, member.size, "" if member.isreg() or member.isdir() else link
    else:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            odd = {stat.S_IFREG: "", stat.S_IFDIR: "", 0: "", stat.S_IFLNK: "a link"}.get(
                kind, "a device or pipe"
            )
            yield info.filename, info.file_size, "encrypted" if info.flag_bits & 1 else odd


def _inspect(archive: Path, members: Iterator[Member], files: int, size: int) -> int:
    """The bytes that it unpacks to, if there is nothing to refuse."""
    total = count = 0
    for name, length, odd in members:
        count, total = count + 1, total + length
        path, windows = PurePosixPath(name), PureWindowsPath(name)
        if not odd and (
            path.is_absolute()
            or windows.drive
            or windows.root
            or ".." in {*path.parts, *windows.parts}
            or not path.parts
            or not name.isprintable()
        ):
            odd = "a name outside the archive's own folder"
        if odd:
            raise _Refused(
                f"{archive}: holds {name[:60]!r}, {odd}; nothing was unpacked; get the archive from"
                " its own source"
            )
        if count > files or total > size:
            raise _Refused(
                f"{archive}: holds more than {files:,} files or {size:,} bytes; nothing was"
                " unpacked; get the archive from its own source"
            )
    if count == 0:
        raise _Refused(f"{archive}: is empty; get it anew")
    return total
