"""Leases: who is making a record now, so that any number of runs on any machines share the work.

outputs/records/.leases/ID.N is the N-th lease on a record. It is created exclusively, which one of
several processes can do, and its holder writes to it every few seconds. Another may lease the
record, as number N + 1, once lease N was given up, its process is known to be dead, or nothing was
written to it for `LIFETIME` seconds as the other one's own clock counts them: no two clocks are
compared. The number is a fencing token: before a holder writes the record it takes the next one,
which fails where it was paused for so long that another has it. When the record is there, its
leases are removed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from dwlt_lib import files

LIFETIME = 120.0
"""Seconds without a sign of life after which a lease has lapsed."""
HEARTBEAT = 10.0
"""Seconds between two signs of life."""
RELEASED = '{"released": true}'
"""What a lease holds that was given up before the record was there."""

_seen: dict[Path, tuple[bytes, float]] = {}
"""What this process last read of others' leases, and since when on its own clock it has not
changed."""


class Held(RuntimeError):
    """Another process is making the record: one line that says who."""


class LostLease(RuntimeError):
    """This process was silent for so long that another one may be making the record: one line."""


class Holder(NamedTuple):
    """Who makes a record."""

    host: str
    """The name of its machine."""
    pid: int
    """Its process there."""
    since: str
    """When it began, by its own clock: ISO 8601, UTC."""
    note: str
    """How far it is, such as "epoch 3"."""

    def __str__(self) -> str:
        """The same in words."""
        note = f", {self.note}" if self.note else ""
        return f"{self.host} (process {self.pid}) since {self.since}{note}"


class Lease(AbstractContextManager):
    """A lease that this process holds; in a `with` block it is given up at the end.

    A thread writes to its file every `HEARTBEAT` seconds.

    Args:
        root: outputs/records/.leases.
        id: of the record.
        number: the fencing token, at least 1.
    """

    def __init__(self, root: Path, id: str, number: int) -> None:
        """Write the first sign of life and start the thread; the file exists and is empty."""
        self.root, self.id, self.number, self.note = root, id, number, ""
        self._path = _path(root, id, number)
        self._since, self._ended = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", threading.Event()
        self._heartbeat()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Take the next number, which no other process can take then, before a record is written.

        Raises:
            LostLease: another process has taken it, or has made the record; one line.
        """
        silent = LostLease(
            f"record {self.id}: this process gave no sign of life for {LIFETIME:.0f} s, and"
            " another one has taken the record over; this one writes nothing"
        )
        if not _create(self.root, self.id, self.number + 1):
            raise silent
        former, self._path = self._path, _path(self.root, self.id, self.number + 1)
        self.number += 1
        if not former.exists():  # the record was made, and its leases removed
            self._path.unlink(missing_ok=True)
            raise silent
        self._heartbeat()

    def __enter__(self) -> Lease:
        """The lease itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lease up: the record is there, and its leases go, or others may try at once."""
        self._ended.set()
        self._thread.join()
        if error is None:
            remove(self.root, self.id)
        else:
            self._write(RELEASED)

    def _live(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            self._heartbeat()

    def _heartbeat(self) -> None:
        holder = Holder(platform.node(), os.getpid(), self._since, self.note)
        self._write(
            json.dumps({"owner": files.owner(), "nonce": secrets.token_hex(4), **holder._asdict()})
        )

    def _write(self, content: str) -> None:
        # in place: where the file was removed, none appears; an error is as silence, which ends
        with suppress(OSError), open(self._path, "r+b") as file:
            file.write(content.encode())
            file.truncate()


def acquire(root: Path, id: str) -> Lease:
    """Lease a record for this process.

    Args:
        root: outputs/records/.leases.
        id: of the record, or another name without a dot.

    Returns:
        The lease. Whether the record has come to be there meanwhile is to be looked at now.

    Raises:
        Held: another process holds it, or was faster; one line.
        OSError: no file can be made there.
    """
    root.mkdir(parents=True, exist_ok=True)
    number = _last(root, id)
    other = holder(root, id)
    if other is not None:
        raise Held(f"record {id}: {other} is making it")
    if not _create(root, id, number + 1):
        raise Held(f"record {id}: another process has just begun to make it")
    return Lease(root, id, number + 1)


def holder(root: Path, id: str) -> Holder | None:
    """Who makes a record.

    A lease of another machine, or of a process that is paused, is believed until this process has
    called this function for `LIFETIME` seconds without a change.

    Args:
        root: outputs/records/.leases.
        id: of the record.

    Returns:
        None if nobody does, or whoever did has died or lapsed.
    """
    number = _last(root, id)
    if number == 0:
        return None
    path = _path(root, id, number)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if path not in _seen or _seen[path][0] != content:
        _seen[path] = (content, time.monotonic())
    try:
        found = json.loads(content)
    except ValueError:  # it is being written
        found = {}
    silent = time.monotonic() - _seen[path][1]
    if "released" in found or files.is_dead(str(found.get("owner"))) or silent > LIFETIME:
        return None
    return Holder(*(found.get(name, "") for name in Holder._fields))


def holders(root: Path) -> dict[str, Holder]:
    """Who makes which records.

    Args:
        root: outputs/records/.leases; it need not exist.

    Returns:
        By the record's id, as `holder` has them.
    """
    found = {id: holder(root, id) for id in _ids(root)}
    return {id: one for id, one in found.items() if one is not None}


def free_lapsed(root: Path) -> None:
    """Give up, in their place, the leases of those that are dead or lapsed.

    A run calls this for its workers, each of which lives too shortly to see that another is silent.

    Args:
        root: outputs/records/.leases; it need not exist.
    """
    for id in _ids(root):
        number = _last(root, id)
        path = _path(root, id, number)
        if number and holder(root, id) is None and not _is_released(path):
            with suppress(FileNotFoundError):  # the record has just been made
                if _create(root, id, number + 1):
                    _path(root, id, number + 1).write_text(RELEASED, encoding="utf-8")


def sweep(root: Path, is_there: Callable[[str], bool]) -> None:
    """Remove leases on records that are there, whose holders did not come to it.

    Args:
        root: outputs/records/.leases; it need not exist.
        is_there: tells by its id whether a record is there.
    """
    for id in _ids(root):
        if is_there(id):
            remove(root, id)


def remove(root: Path, id: str) -> None:
    """Remove the leases on a record that is there.

    Args:
        root: outputs/records/.leases.
        id: of the record.
    """
    for number in _numbers(root, id):
        _path(root, id, number).unlink(missing_ok=True)


def _path(root: Path, id: str, number: int) -> Path:
    return root / f"{id}.{number}"


def _ids(root: Path) -> list[str]:
    return sorted({path.name.partition(".")[0] for path in root.glob("*.*")})


def _is_released(path: Path) -> bool:
    with suppress(OSError):
        return path.read_text(encoding="utf-8") == RELEASED
    return True


def _create(root: Path, id: str, number: int) -> bool:
    """Create the file of a lease, empty; False if another process did."""
    try:
        _path(root, id, number).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _numbers(root: Path, id: str) -> list[int]:
    names = (path.name.rpartition(".")[2] for path in root.glob(f"{id}.*"))
    return sorted(int(number) for number in names if re.fullmatch("[1-9][0-9]*", number))


def _last(root: Path, id: str) -> int:
    """The highest lease's number, 0 if there is none."""
    return max(_numbers(root, id), default=0)
