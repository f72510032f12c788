"""One file from the network: resumed where it stopped, checked by its SHA-256, in place only whole.

A hash that is known beforehand is demanded; else the first download's is recorded in hashes.json
beside the file, and demanded from then on. No study calls this: a user asks for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from dwlt_lib import files

CHUNK = 2**20  # bytes read at a time
TIMEOUT = 30  # seconds without a byte
Progress = Callable[[int, int | None], None]
"""Is called with the bytes so far, and all bytes if the server tells"""


class DownloadError(ValueError):
    """A file that could not be downloaded, or is not the one that was asked for: one line."""


def download(
    url: str, target: Path, sha256: str | None = None, progress: Progress | None = None
) -> str:
    """Bring a file to its place if it is not there, and check its SHA-256.

    Args:
        url: an http or https address.
        target: where the file belongs; a partial download beside it is continued.
        sha256: that it must have: 64 hexadecimal digits, or the first of them.
        progress: as in `Progress`.

    Returns:
        The SHA-256 of the file.

    Raises:
        DownloadError: there is no such file, no network, or the hash is another one.
    """
    recorded = _read_hashes(target)
    partial = target.with_name(f"{target.name}.part")
    if not target.exists():
        _download_partial(url, partial, target, progress)
    path = target if target.exists() else partial
    found = files.sha256(path)
    demands = (
        (sha256, "its source's hash"),
        (recorded.get(target.name), f"noted in {_hashes_path(target)}"),
    )
    for wanted, origin in demands:
        if wanted and not found.startswith(wanted):
            remedy = "delete it and fetch again"
            if path == partial:
                _delete(partial)
                remedy = "the download was deleted"
            raise DownloadError(f"{target}: sha256 {found}, but {wanted} is {origin}; {remedy}")
    if path == partial:
        os.replace(partial, target)
        _delete(partial)
    if target.name not in recorded:
        hashes = {**_read_hashes(target), target.name: found}  # others may have downloaded since
        files.write(_hashes_path(target), json.dumps(hashes, indent=1, sort_keys=True) + "\n")
    return found


def _download_partial(url: str, partial: Path, target: Path, progress: Progress | None) -> None:
    """Complete `partial`, or raise a DownloadError that says what became of it."""
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url}: want an http or https address")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        _resume(url, partial, progress)
    except (HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        if isinstance(error, HTTPError):
            reason = f"the server says {error.code} {reason}"
            if error.code == 416:  # the partial file is longer than the whole
                _delete(partial)
        raise DownloadError(
            f"{url}: {' '.join(str(reason).split())}; try again (it goes on from where it was), or"
            f" get the file elsewhere and put it at {target}"
        ) from error
    with open(partial, "rb") as file:
        start = file.read(512).lstrip()
    if start.startswith(b"<"):
        _delete(partial)
        raise DownloadError(
            f"{url}: gave a web page instead of the file; open it in a browser, and put the file at"
            f" {target}"
        )


def _resume(url: str, partial: Path, progress: Progress | None) -> None:
    """Append to `partial` what is missing, if the server can tell that its file is still the same.

    The file's size and its tag, a strong ETag or its date, are kept in a JSON file beside it.
    """
    metadata = _metadata_path(partial)
    try:
        saved = json.loads(metadata.read_text(encoding="utf-8"))
        done, size, tag = partial.stat().st_size, saved["size"], saved["tag"]
    except (FileNotFoundError, ValueError, LookupError):
        done, size, tag = 0, None, ""
    if size and done == size:
        return
    headers = {"User-Agent": "dwlt"}
    if tag and size and done < size:
        headers |= {"Range": f"bytes={done}-", "If-Range": tag}
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
        if response.status == 206:
            wanted = f"bytes {done}-{(size or 0) - 1}/{size}"
            if response.headers.get("Content-Range") != wanted:
                _delete(partial)
                raise URLError("the server sent a part of the file that was not asked for")
        else:
            done = 0
            size = int(response.headers.get("Content-Length") or 0) or None
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            tag = "" if tag.startswith("W/") else tag
            metadata.write_text(json.dumps({"size": size, "tag": tag}), encoding="utf-8")
        with open(partial, "ab" if done else "wb") as file:
            while chunk := response.read(CHUNK):
                done += file.write(chunk)
                if progress:
                    progress(done, size)
    if size and done != size:
        raise URLError(f"the connection ended after {done:,} of {size:,} bytes")


def _metadata_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _delete(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _metadata_path(partial).unlink(missing_ok=True)


def _hashes_path(target: Path) -> Path:
    return target.with_name("hashes.json")


def _read_hashes(target: Path) -> dict[str, str]:
    path = _hashes_path(target)
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DownloadError(f"{path}: cannot be read ({error}); repair or delete it") from error
