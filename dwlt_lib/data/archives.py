"""Archives, checked before they are unpacked: whole or not at all, and nothing outside.

Every error is a ValueError of one line: the file, what is wrong, the remedy.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from dwlt_lib.files import collect, scratch, sha256

# what tarfile and zipfile raise on damaged archives
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)
Archive = tarfile.TarFile | zipfile.ZipFile


class _Refused(ValueError):
    """Said already in one line."""


def check(path: Path, digest: str) -> None:
    """ValueError unless the file's SHA-256 is `digest`."""
    found = sha256(path)
    if found != digest:
        raise ValueError(f"{path}: sha256 is {found}; want {digest}; remove it and get it anew")


def unpack(archive: Path, into: Path, files: int, size: int) -> list[Path]:
    """Unpack a tar (plain, gz, bz2, xz) or zip archive into the folder `into`.

    The whole archive is read through first. It is unpacked beside its place and moved there when
    it is whole; an entry that is there already is not touched.

    Args:
        archive: the file.
        into: the folder, which is made if it is not there.
        files: the most members that it may hold.
        size: the most bytes that it may unpack to.
    Returns:
        Its top-level entries in `into`.
    Raises:
        ValueError: before anything is written, for links, devices, names that are absolute or climb
            (..), too many members or bytes, a truncated archive, and what is no archive.
    """
    if not archive.exists():
        raise ValueError(f"{archive} is missing; get it first")
    try:
        is_zip = zipfile.is_zipfile(archive)
        with zipfile.ZipFile(archive) if is_zip else tarfile.open(archive) as opened:
            total, tops = _inspect(archive, opened, files, size)
            into.mkdir(parents=True, exist_ok=True)
            for top in tops:
                if (into / top).exists():
                    raise _Refused(
                        f"{into / top} is there already; remove it to unpack {archive.name} anew"
                    )
            if total > shutil.disk_usage(into).free:
                raise _Refused(
                    f"{archive}: unpacks to {total:,} bytes; {into} has less free; make room"
                )
            collect(into)
            aside = scratch(into / "unpacked")
            aside.mkdir()
            try:
                if isinstance(opened, tarfile.TarFile):  # a second check; from Python 3.11.4
                    opened.extraction_filter = getattr(tarfile, "data_filter", None)
                opened.extractall(aside)
                for top in tops:
                    os.replace(aside / top, into / top)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except _Refused:
        raise
    except BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{archive}: truncated, or no tar or zip archive ({reason}); get it anew"
        ) from error
    return [into / top for top in tops]


def _inspect(archive: Path, opened: Archive, files: int, size: int) -> tuple[int, list[str]]:
    """(the bytes that it unpacks to, its top-level names), if there is nothing to refuse."""
    total, count, tops = 0, 0, {}
    for name, length, wrong in _members(opened):
        total, count = total + length, count + 1
        path = PureWindowsPath(name)  # which takes / and \ for separators, on every system
        if not path.parts or path.anchor or ".." in path.parts or not name.isprintable():
            wrong = "a name outside the archive's own folder"
        if count > files or total > size:
            wrong = f"one of more than {files:,} files or {size:,} bytes"
        if wrong:
            raise _Refused(
                f"{archive}: {name[:60]!r} is {wrong}; nothing was unpacked; get the"
                " archive from its own source"
            )
        tops[PurePosixPath(name).parts[0]] = None
    if not tops:
        raise _Refused(f"{archive}: is empty; get it anew")
    return total, list(tops)


def _members(opened: Archive) -> Iterator[tuple[str, int, str]]:
    """(name, bytes, what is wrong with its kind) of every member."""
    if isinstance(opened, tarfile.TarFile):
        for member in opened:
            good = member.isreg() or member.isdir()
            yield member.name, member.size, "" if good else "a link, device or pipe"
    else:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            good = kind in (0, stat.S_IFREG, stat.S_IFDIR) and not info.flag_bits & 1
            yield info.filename, info.file_size, "" if good else "a link, a device or encrypted"
