"""Archives, checked before they are unpacked: whole or not at all, and nothing outside the folder.

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

from dwlt_lib import files

READ_ERRORS = (  # what tarfile and zipfile raise on damaged archives
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
    """An archive that is refused; the line is complete as it is."""


def check_sha256(path: Path, sha256: str) -> None:
    """Refuse a file that is not the one that was published.

    Args:
        path: the file.
        sha256: that it must have, 64 hexadecimal digits.

    Raises:
        ValueError: one line, if its SHA-256 is another.
    """
    found = files.sha256(path)
    if found != sha256:
        raise ValueError(f"{path}: sha256 is {found}; want {sha256}; remove it and get it anew")


def unpack(archive: Path, folder: Path, product: str, max_files: int, max_bytes: int) -> Path:
    """Unpack one entry of a tar (plain, gz, bz2, xz) or zip archive into a folder.

    The whole archive is read through first. It is unpacked into a scratch folder, and the entry is
    moved from there once it is whole; what is in the folder already is not touched.

    Args:
        archive: the file.
        folder: where to unpack it; made if it does not exist.
        product: the folder or file in the archive that is wanted, as in "GTSRB/Training".
        max_files: the most members that it may hold.
        max_bytes: the most bytes that it may unpack to.

    Returns:
        `product` in the folder.

    Raises:
        ValueError: one line, before anything is written, for links, devices, names that are
            absolute or climb (..), too many members or bytes, an archive without `product`, a
            truncated one, and what is none.
    """
    if not archive.exists():
        raise ValueError(f"{archive} is missing; get it first")
    try:
        reader = zipfile.ZipFile if zipfile.is_zipfile(archive) else tarfile.open
        with reader(archive) as opened:
            total = _inspect(archive, opened, product, max_files, max_bytes)
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / product).exists():
                raise _Refused(
                    f"{folder / product} is there already; remove it to unpack {archive.name} anew"
                )
            if total > shutil.disk_usage(folder).free:
                raise _Refused(
                    f"{archive}: unpacks to {total:,} bytes; {folder} has less free; make room"
                )
            _extract(opened, product, folder)
    except _Refused:
        raise
    except READ_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{archive}: truncated, or no tar or zip archive ({reason}); get it anew"
        ) from error
    return folder / product


def _extract(opened: Archive, product: str, folder: Path) -> None:
    """Extract into a scratch folder, and move the product from there."""
    files.collect(folder)
    scratch = files.scratch(folder / "unpacked")
    scratch.mkdir()
    try:
        if isinstance(opened, tarfile.TarFile):  # a second check; from Python 3.11.4
            opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(scratch)
        (folder / product).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / product, folder / product)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _inspect(archive: Path, opened: Archive, product: str, max_files: int, max_bytes: int) -> int:
    """The bytes that it unpacks to, if there is nothing to refuse."""
    total, count, has_product = 0, 0, False
    for name, size, is_plain in _members(opened):
        fault = "" if is_plain else "a link, device or pipe"
        total, count = total + size, count + 1
        path = PureWindowsPath(name)  # which takes / and \ for separators, on every system
        if not path.parts or path.anchor or ".." in path.parts or not name.isprintable():
            fault = "a name outside the archive's own folder"
        if count > max_files or total > max_bytes:
            fault = f"one of more than {max_files:,} files or {max_bytes:,} bytes"
        if fault:
            raise _Refused(
                f"{archive}: {name[:60]!r} is {fault}; nothing was unpacked; get the archive from"
                " its own source"
            )
        has_product = has_product or PurePosixPath(name).is_relative_to(product)
    if not has_product:
        raise _Refused(f"{archive}: holds no {product}; get it anew")
    return total


def _members(opened: Archive) -> Iterator[tuple[str, int, bool]]:
    """(name, bytes unpacked, whether it is a file or a folder) of each member."""
    if isinstance(opened, tarfile.TarFile):
        for member in opened:
            yield member.name, member.size, member.isreg() or member.isdir()
        return
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where no Unix packed it
        yield info.filename, info.file_size, kind in (0, stat.S_IFREG, stat.S_IFDIR)
