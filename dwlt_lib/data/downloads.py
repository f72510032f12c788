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
    """What could not be had, or is not what was asked for: one line."""


def download(
    url: str, target: Path, pin: str | None = None, progress: Progress | None = None
) -> str:
    """The sha256 of `target`, fetched from `url` if it is not there; a partial file beside it is
    continued.

    pin: the sha256 that it must have (64 hexadecimal digits, or the first of them). Raises
    BadDownload, one line.
    """
    noted = _noted(target).get(target.name)
    part = target.with_name(f"{target.name}.part")
    if not target.exists():
        if not url.startswith(("https://", "http://")):
            raise BadDownload(f"{url}: want an http or https address")
        _get(url, part, target, progress)
    found = _checked(target if target.exists() else part, target, pin, noted)
    if not target.exists():
        os.replace(part, target)
        _drop(part)
    if noted is None:
        _note(target, found)
    return found


def _get(url: str, part: Path, target: Path, progress: Progress | None) -> None:
    """`part` whole, or a BadDownload that says what became of it."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, progress)
    except HTTPError as error:
        raise BadDownload(
            f"{url}: the server says {error.code} {error.reason}; get the file elsewhere and put it"
            f" at {target}"
        ) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = " ".join(
            str(getattr(error, "reason", None) or error or type(error).__name__).split()
        )
        raise BadDownload(
            f"{url}: {reason}; try again (it goes on from where it was), or get the file elsewhere"
            f" and put it at {target}"
        ) from error
    with open(part, "rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith(b"<"):
        _drop(part)
        raise BadDownload(
            f"{url}: gave a web page instead of the file; open it in a browser, and put the file at"
            f" {target}"
        )


def _checked(path: Path, target: Path, pin: str | None, noted: str | None) -> str:
    found = files.sha256(path)
    for wanted, whose in (
        (pin, "its source's hash"),
        (noted, f"noted in {target.with_name('hashes.json')}"),
    ):
        if wanted and not found.startswith(wanted):
            if path != target:
                _drop(path)
            raise BadDownload(
                f"{target}: sha256 {found}, but {wanted} is {whose}; "
                f"{'delete it and fetch again' if path == target else 'the download was deleted'}"
            )
    return found


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Appends to `part` what is missing.

    What is noted beside it keeps halves of two different files apart.
    """
    beside = part.with_name(f"{part.name}.json")
    try:
        noted = json.loads(beside.read_text(encoding="utf-8")) if part.exists() else {}
    except (FileNotFoundError, ValueError):
        noted = {}
    have = part.stat().st_size if noted else 0
    if have and have == noted["whole"]:
        return
    headers = (
        {"Range": f"bytes={have}-", **({"If-Range": noted["tag"]} if noted["tag"] else {})}
        if have
        else {}
    )
    try:
        answer = urlopen(Request(url, headers={"User-Agent": "dwlt", **headers}), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        _drop(part)  # more than the file has: not a part of it
        return _fetch(url, part, progress)
    with answer:
        going_on = answer.status == 206
        rest = f"bytes {have}-{(noted.get('whole') or 0) - 1}/{noted.get('whole')}"
        if going_on and answer.headers.get("Content-Range") != rest:
            if not have:
                raise URLError(
                    "the server answers with a part of the file where all of it was asked for"
                )
            _drop(part)
            return _fetch(url, part, progress)
        have = have if going_on else 0
        length = answer.headers.get("Content-Length")
        whole = have + int(length) if length else None
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        note = {"tag": "" if tag.startswith("W/") else tag, "whole": whole}
        beside.write_text(json.dumps(note), encoding="utf-8")
        with open(part, "ab" if going_on else "wb") as file:
            while chunk := answer.read(CHUNK):
                have += file.write(chunk)
                if progress:
                    progress(have, whole)
    if whole is not None and have != whole:
        raise URLError(f"the connection ended after {have:,} of {whole:,} bytes")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _noted(target: Path) -> dict[str, str]:
    path = target.with_name("hashes.json")
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise BadDownload(f"{path}: cannot be read ({error}); repair or delete it") from error


def _note(target: Path, found: str) -> None:
    path = target.with_name("hashes.json")
    files.write(
        path, json.dumps({**_noted(target), target.name: found}, indent=1, sort_keys=True) + "\n"
    )
