"""One file from the network: resumed where it stopped, checked by its hash, and in its place only
when it is whole.

A hash known beforehand (a pin) is demanded; else the first download's is noted in hashes.json
beside the file, and demanded from then on. Nothing here is called by a study: a user asks for it.
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

CHUNK = 2**20
TIMEOUT = 30  # seconds without a byte
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server says so


class BadDownload(ValueError):
    """A file that could not be downloaded, or is not the one asked for: one line."""


def download(
    url: str, target: Path, pin: str | None = None, progress: Progress | None = None
) -> str:
    """Bring the file of `url` to `target` if it is not there, and check its hash.

    Args:
        url: an http or https address.
        target: where the file shall lie; a partial file beside it is continued.
        pin: the sha256 that it must have (64 hexadecimal digits, or the first of them).
        progress: called with the bytes so far and the bytes in all.
    Returns:
        The sha256 of `target`.
    Raises:
        BadDownload: no such file, no network, or another hash.
    """
    noted = _noted(target).get(target.name)
    part = target.with_name(f"{target.name}.part")
    if not target.exists():
        _get(url, part, target, progress)
    path = target if target.exists() else part
    found = files.sha256(path)
    for wanted, whose in (
        (pin, "its source's hash"),
        (noted, f"noted in {target.with_name('hashes.json')}"),
    ):
        if wanted and not found.startswith(wanted):
            remedy = "delete it and fetch again"
            if path == part:
                _drop(part)
                remedy = "the download was deleted"
            raise BadDownload(f"{target}: sha256 {found}, but {wanted} is {whose}; {remedy}")
    if path == part:
        os.replace(part, target)
        _drop(part)
    if noted is None:
        hashes = {**_noted(target), target.name: found}
        files.write(
            target.with_name("hashes.json"), json.dumps(hashes, indent=1, sort_keys=True) + "\n"
        )
    return found


def _get(url: str, part: Path, target: Path, progress: Progress | None) -> None:
    """`part` whole, or a BadDownload that says what became of it."""
    if not url.startswith(("https://", "http://")):
        raise BadDownload(f"{url}: want an http or https address")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, progress)
    except (HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        if isinstance(error, HTTPError):
            reason = f"the server says {error.code} {reason}"
            if error.code == 416:  # the part is longer than the file
                _drop(part)
        raise BadDownload(
            f"{url}: {' '.join(str(reason).split())}; try again (it goes on from where it was), or"
            f" get the file elsewhere and put it at {target}"
        ) from error
    with open(part, "rb") as file:
        start = file.read(512).lstrip()
    if start.startswith(b"<"):
        _drop(part)
        raise BadDownload(
            f"{url}: gave a web page instead of the file; open it in a browser, and put the file at"
            f" {target}"
        )


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Append to `part` what is missing, if the server can tell that its file is still the same.

    The note beside `part` has the file's size, and its tag: a strong ETag or its date.
    """
    beside = part.with_name(f"{part.name}.json")
    try:
        note = json.loads(beside.read_text(encoding="utf-8"))
        have, size, tag = part.stat().st_size, note["size"], note["tag"]
    except (FileNotFoundError, ValueError, LookupError):
        have, size, tag = 0, None, ""
    if size and have == size:
        return
    headers = {"User-Agent": "dwlt"}
    if tag and size and have < size:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status == 206:
            if answer.headers.get("Content-Range") != f"bytes {have}-{(size or 0) - 1}/{size}":
                _drop(part)
                raise URLError("the server sent a part of the file that was not asked for")
        else:
            have = 0
            size = int(answer.headers.get("Content-Length") or 0) or None
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            tag = "" if tag.startswith("W/") else tag
            beside.write_text(json.dumps({"size": size, "tag": tag}), encoding="utf-8")
        with open(part, "ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
                have += file.write(chunk)
                if progress:
                    progress(have, size)
    if size and have != size:
        raise URLError(f"the connection ended after {have:,} of {size:,} bytes")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _noted(target: Path) -> dict[str, str]:
    path = target.with_name("hashes.json")
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise BadDownload(f"{path}: cannot be read ({error}); repair or delete it") from error
