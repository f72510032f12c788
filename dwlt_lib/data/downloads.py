"""Files from the network and out of archives: checked, in place only whole.

No study calls this: a user asks for it.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from dwlt_lib import files

CHUNK = 2**20  # bytes read at a time
TIMEOUT = 30  # seconds without a byte
Progress = Callable[[int, int | None], None]
"""Is called with the bytes so far, and all bytes if the server tells"""


def download(
    url: str, target: Path, sha256: str | None = None, progress: Progress | None = None
) -> str:
    """Bring a file to its place if it is not there, and check its SHA-256.

    Args:
        url: its address.
        target: where the file belongs.
        sha256: that it must have, 64 hexadecimal digits; None where nobody has stated it.
        progress: as in `Progress`.

    Returns:
        The SHA-256 of the file.

    Raises:
        ValueError: one line: there is no such file, no network, or the hash is another one.
    """
    if target.exists():
        return check_sha256(target, sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.collect(target.parent)
    scratch = files.scratch(target)
    try:
        _receive(url, scratch, progress)
        found = check_sha256(scratch, sha256)
        os.replace(scratch, target)
    except (HTTPException, OSError, ValueError) as error:
        raise ValueError(
            f"{url}: {' '.join(str(error).split())}; try again, or get the file elsewhere and put"
            f" it at {target}"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)
    return found


def check_sha256(path: Path, sha256: str | None) -> str:
    """Refuse a file that is not the one that was published.

    Args:
        path: the file.
        sha256: that it must have, 64 hexadecimal digits; None takes any.

    Returns:
        The SHA-256 of the file.

    Raises:
        ValueError: one line, if its SHA-256 is another.
    """
    found = files.sha256(path)
    if sha256 and found != sha256:
        raise ValueError(f"{path}: sha256 is {found}; want {sha256}; remove it and get it anew")
    return found


def _receive(url: str, path: Path, progress: Progress | None) -> None:
    request = Request(url, headers={"User-Agent": "dwlt"})
    with urlopen(request, timeout=TIMEOUT) as response, open(path, "wb") as file:
        if response.headers.get_content_type() == "text/html":
            raise ValueError("gave a web page instead of the file; open it in a browser")
        done, size = 0, int(response.headers.get("Content-Length") or 0) or None
        while chunk := response.read(CHUNK):
            done += file.write(chunk)
            if progress:
                progress(done, size)
    if size and done != size:
        raise ValueError(f"the connection ended after {done:,} of {size:,} bytes")


def unpack(archive: Path, folder: Path, product: str) -> Path:
    """Unpack one entry of a tar (plain, gz, bz2, xz) or zip archive into a folder.

    It is unpacked into a scratch folder, and the entry is moved from there once it is whole; what
    is in the folder already is not touched. The standard library's filters keep all inside the
    scratch folder: a tar with a link, device or name that leads out of it is refused, a zip's names
    are stripped of what does (PEP 706, `zipfile.ZipFile.extract`).

    Args:
        archive: the file.
        folder: where to unpack it; made if it does not exist.
        product: the folder or file in the archive that is wanted, as in "GTSRB/Training".

    Returns:
        `product` in the folder.

    Raises:
        ValueError: one line: it is no whole archive, holds no `product` or what has no place in
            one, or unpacks to more than the disk has room for.
    """
    wanted = folder / product
    if wanted.exists():
        raise ValueError(f"{wanted} is there already; remove it to unpack {archive.name} anew")
    folder.mkdir(parents=True, exist_ok=True)
    files.collect(folder)
    scratch = files.scratch(folder / "unpacked")
    try:
        _extract(archive, scratch)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / product, wanted)
    except Exception as error:  # damaged archives fail in many ways
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"{archive}: {product} cannot be unpacked from it ({reason}); nothing was; get it anew"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return wanted


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            _check_room(sum(member.file_size for member in opened.infolist()), folder.parent)
            opened.extractall(folder)
    else:
        with tarfile.open(archive) as opened:
            _check_room(sum(member.size for member in opened), folder.parent)
            opened.extractall(folder, filter="data")


def _check_room(size: int, folder: Path) -> None:
    """Refuse more bytes than are free where a folder is, which bounds what an archive claims."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"it unpacks to {size:,} bytes, {free:,} are free")
