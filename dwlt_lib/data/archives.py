"""Archives, checked before they are unpacked: whole or not at all, and nothing outside the folder.

Every error is a ValueError of one line: the file, what is wrong, the remedy.
"""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from dwlt_lib import files

READ_ERRORS = (  # what tarfile raises on damaged archives
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


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


def unpack(archive: Path, folder: Path, max_files: int, max_bytes: int) -> list[Path]:
    """Unpack a tar archive (plain, gz, bz2, xz) into a folder.

    The whole archive is read through first. It is unpacked into a scratch folder and moved from
    there once it is whole; an entry that is in the folder already is not touched.

    Args:
        archive: the file.
        folder: where to unpack it; made if it does not exist.
        max_files: the most members that it may hold.
        max_bytes: the most bytes that it may unpack to.

    Returns:
        Its top-level entries in the folder.

    Raises:
        ValueError: one line, before anything is written, for links, devices, names that are
            absolute or climb (..), too many members or bytes, a truncated archive, and what is not
            an archive.
    """
    if not archive.exists():
        raise ValueError(f"{archive} is missing; get it first")
    try:
        with tarfile.open(archive) as opened:
            total, names = _inspect(archive, opened, max_files, max_bytes)
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                if (folder / name).exists():
                    raise _Refused(
                        f"{folder / name} is there already; remove it to unpack {archive.name} anew"
                    )
            if total > shutil.disk_usage(folder).free:
                raise _Refused(
                    f"{archive}: unpacks to {total:,} bytes; {folder} has less free; make room"
                )
            _extract(opened, names, folder)
    except _Refused:
        raise
    except READ_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{archive}: truncated, or no tar archive ({reason}); get it anew"
        ) from error
    return [folder / name for name in names]


def _extract(opened: tarfile.TarFile, names: list[str], folder: Path) -> None:
    """Extract into a scratch folder, and move the top-level entries from there."""
    files.collect(folder)
    scratch = files.scratch(folder / "unpacked")
    scratch.mkdir()
    try:
        # a second check; from Python 3.11.4
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(scratch)
        for name in names:
            os.replace(scratch / name, folder / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _inspect(
    archive: Path, opened: tarfile.TarFile, max_files: int, max_bytes: int
) -> tuple[int, list[str]]:
    """(the bytes that it unpacks to, its top-level names), if there is nothing to refuse."""
    total, count, names = 0, 0, {}
    for member in opened:
        name, fault = member.name, ""
        if not (member.isreg() or member.isdir()):
            fault = "a link, device or pipe"
        total, count = total + member.size, count + 1
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
        names[PurePosixPath(name).parts[0]] = None  # a dict keeps their order
    if not names:
        raise _Refused(f"{archive}: is empty; get it anew")
    return total, list(names)
