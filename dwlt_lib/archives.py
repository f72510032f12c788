"""Archives, downloaded and unpacked with suspicion: resumable, hashed, whole or not at all, nothing outside.

Every error is a ValueError of one line: the file, what is wrong, the remedy.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath, PureWindowsPath

BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, OSError,
          NotImplementedError, RuntimeError, ValueError)
BLOCK = 2**20


def sha256(path: Path) -> str:
    """Of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, digest: str) -> None:
    """ValueError unless the file's SHA-256 is `digest`."""
    found = sha256(path)
    if found != digest:
        raise ValueError(f"{path}: sha256 is {found}; want {digest}; remove it and get it anew")


# ---------------------------------------------------------------------------------------------- download


def download(url: str, path: Path, digest: str | None = None, say: Callable[[str], None] = print) -> str:
    """Fetch `url` to `path`, whole or not at all; returns its SHA-256.

    An interrupted download stays as path.part and is continued (HTTP Range). digest: the SHA-256 it must have. A page
    of HTML in the place of a file is refused. A file that is there already is only checked.
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url}: want an http or https address")
    if path.exists():
        if digest is not None:
            check(path, digest)
        return sha256(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{part}: another process is fetching it; wait for it to end") from error
        try:
            _fetch(url, file, say)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if file.tell() == 0:
                part.unlink()
            raise ValueError(f"{url}: {reason}; {file.tell():,} bytes are kept, the same command goes on from there; "
                             f"or bring the file to {path} yourself") from error
        file.flush()
        os.fsync(file.fileno())
    with part.open("rb") as file:
        head = file.read(512)
    found = sha256(part)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        part.unlink()
        raise ValueError(f"{url}: a page of HTML, not the file; open the address in a browser and bring the file to "
                         f"{path}")
    if digest is not None and found != digest:
        part.unlink()
        raise ValueError(f"{url}: sha256 is {found}; want {digest}; not kept; fetch it again, or bring the file to "
                         f"{path} from elsewhere")
    os.replace(part, path)
    return found


def _fetch(url: str, file, say: Callable[[str], None]) -> None:
    """Append to `file` what it lacks of `url`; OSError if it stays short."""
    have = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing lies beyond what is there
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return
        file.seek(0)
        file.truncate()
        return _fetch(url, file, say)
    with answer:
        begins = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if begins != str(have):  # the server sends it from the start
            file.seek(0)
            file.truncate()
        length = answer.headers.get("Content-Length")
        whole = file.tell() + int(length) if length else None
        say(f"{url}: {'size unknown' if whole is None else f'{whole:,} bytes'}"
            + (f", going on from {file.tell():,}" if file.tell() else ""))
        while block := answer.read(BLOCK):
            file.write(block)
        if whole is not None and file.tell() != whole:
            raise OSError(f"the connection ended at {file.tell():,} of {whole:,} bytes")


# ---------------------------------------------------------------------------------------------- unpack


def unpack(archive: Path, into: Path, files: int, size: int) -> list[Path]:
    """A tar (plain, gz, bz2, xz) or zip archive's content, in `into`; returns its top-level entries there.

    The whole archive is read through first: links, devices, names that are absolute or climb (..), more than `files`
    members or `size` bytes, and a truncated archive are refused before anything is written. It is unpacked beside its
    place and moved there when it is whole; an entry that is there already is not touched.
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
                raise _Refused(f"{archive}: unpacks to {total:,} bytes; {into} has less free; make room")
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=into) as scratch:
                second = isinstance(opened, tarfile.TarFile) and hasattr(tarfile, "data_filter")  # Python 3.11.4
                opened.extractall(scratch, **({"filter": "data"} if second else {}))
                for top in tops:
                    os.replace(Path(scratch) / top, into / top)
    except _Refused:
        raise
    except BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{archive}: truncated, or no tar or zip archive ({reason}); get it anew") from error
    return [into / top for top in tops]


class _Refused(ValueError):
    """Said already in one line."""


Member = tuple[str, int, str]  # its name, its size in bytes, what is wrong with its kind ("" for a file or folder)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[tarfile.TarFile | zipfile.ZipFile, Iterator[Member]]]:
    if not archive.exists():
        raise _Refused(f"{archive} is missing; get it first")
    with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as opened:
        yield opened, _members(opened)


def _members(opened: tarfile.TarFile | zipfile.ZipFile) -> Iterator[Member]:
    if isinstance(opened, tarfile.TarFile):
        for member in opened:
            link = "a link" if member.issym() or member.islnk() else "a device or pipe"
            yield member.name, member.size, "" if member.isreg() or member.isdir() else link
    else:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            odd = {stat.S_IFREG: "", stat.S_IFDIR: "", 0: "", stat.S_IFLNK: "a link"}.get(kind, "a device or pipe")
            yield info.filename, info.file_size, "encrypted" if info.flag_bits & 1 else odd


def _inspect(archive: Path, members: Iterator[Member], files: int, size: int) -> int:
    """The bytes that it unpacks to, if there is nothing to refuse."""
    total = count = 0
    for name, length, odd in members:
        count, total = count + 1, total + length
        path, windows = PurePosixPath(name), PureWindowsPath(name)
        if not odd and (path.is_absolute() or windows.drive or windows.root or ".." in {*path.parts, *windows.parts}
                        or not path.parts or not name.isprintable()):
            odd = "a name outside the archive's own folder"
        if odd:
            raise _Refused(f"{archive}: holds {name[:60]!r}, {odd}; nothing was unpacked; get the archive from its own "
                           "source")
        if count > files or total > size:
            raise _Refused(f"{archive}: holds more than {files:,} files or {size:,} bytes; nothing was unpacked; get "
                           "the archive from its own source")
    if count == 0:
        raise _Refused(f"{archive}: is empty; get it anew")
    return total
