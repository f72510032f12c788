"""Files that appear whole or not at all, and the scratch files that a killed process leaves.

Whatever is being written has a scratch name that says whose it is (host, process, its start):
nobody takes another's for their own, and what a dead process left can be told from what a living
one is writing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

MARK = ".dwlt-"  # every scratch name starts so
TRIAL = 2**18  # bytes that there must be room for where files are to be made
SHORT = (
    42  # bytes of a private folder's path: a socket's, with 65 more, has a limit of 108 on Linux
)
DAY, WEEK = 86_400, 7 * 86_400  # seconds
# how a full disk, or a quota that is used up, is said: by the system, and by torch.save, which only
# counts
FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "os error 28", "unexpected pos")


class Unusable(ValueError):
    """A place where files cannot be made, in one line: what it is, what is wrong, the remedy."""


def owner() -> str:
    """This process, as scratch names say it: HOST-PID-START. HOST: of this host since it was
    started, and of its container; START: when the process was, in the system's own ticks, which no
    setting of the clock moves."""
    return f"{_host()}-{os.getpid()}-{_start(os.getpid()):x}"


@cache
def _host() -> str:
    parts = [platform.node()]
    with suppress(OSError):  # of Linux
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8"),
            os.readlink("/proc/self/ns/pid"),
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:6]


def _start(pid: int) -> int | None:
    """When that process was started.

    None if it is not there, or has ended and is not yet buried.
    """
    try:
        words = (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()
        )
        return None if words[0] in "ZX" else int(words[19])
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return None
    import psutil  # not Linux

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except psutil.NoSuchProcess:
        return None


def scratch(path: Path) -> Path:
    """A new name beside `path` for writing it: this process's own, never given twice."""
    return path.with_name(f"{MARK}{owner()}-{secrets.token_hex(4)}-{path.name}")


def regular(path: str | Path) -> Path:
    """`path`, if it is a file or a link to one; asked before a file of the user's is opened.

    Raises ValueError, one line: nothing there, a folder, or something whose reading may wait for
    ever or never end (a pipe, a socket, a device).
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"{path!r:.80}: is a {type(path).__name__}; want the path of a file")
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a path that no system takes
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{str(path)!r}: cannot be read ({reason}); want a file") from error
    if stat.S_ISREG(mode):
        return Path(path)
    what = "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "socket or device"
    raise ValueError(f"{str(path)!r}: is a {what}; want a file")


def stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does: its number, size and times."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sha256(path: str | Path) -> str:
    """Of a whole file, in hexadecimal; of anything but a file a ValueError (`regular`)."""
    with open(regular(path), "rb") as file:  # a trajectory of a large network has gigabytes
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, data: bytes | str) -> Path:
    """`path` holds all of `data` (text as UTF-8), on the disk, or what it held before.

    An OSError names it.
    """
    aside = scratch(path)
    try:
        with open(aside, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    return path


def sync(path: Path) -> None:
    """What was written to the file or folder `path` is on the disk when this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_dead(owner: str) -> bool:
    """Whether this was an `owner` on this host that runs no more; of other hosts nobody can tell.

    False.
    """
    host, _, rest = owner.partition("-")
    pid, _, start = rest.partition("-")
    if host != _host() or not (pid.isdigit() and re.fullmatch("[0-9a-f]+", start)):
        return False
    return _start(int(pid)) != int(start, 16)


def is_abandoned(path: Path) -> bool:
    """Whether this is a scratch file or folder of a process of this host that is there no more, or
    of another host (or of this one before it was started anew), not written to for a week."""
    if not path.name.startswith(MARK):
        return False
    found = "-".join(path.name.removeprefix(MARK).split("-")[:3])
    return is_dead(found) or (not found.startswith(_host()) and is_old(path))


def collect(folder: Path, own: bool = False, old: Sequence[str] = ()) -> list[Path]:
    """Removes what dead processes of this host left directly in `folder`; returns what that was.

    own: what this process left, too. old: patterns of scratch names that say no owner (of former
    versions); these go a day after they were last written.
    """
    prefix = f"{MARK}{owner()}-"
    left = [
        path
        for path in sorted(folder.glob(f"{MARK}*"))
        if is_abandoned(path) or (own and path.name.startswith(prefix))
    ]
    left += [path for pattern in old for path in sorted(folder.glob(pattern)) if _age(path) > DAY]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # another user's, in a folder that all share
                path.unlink()
    return left


def is_old(path: Path) -> bool:
    """Whether nobody has written to it for a week."""
    return _age(path) > WEEK


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


# --------------------------------------------------------------------- places that can be used


def check(folder: Path) -> None:
    """Makes `folder`, and in it a file that is filled, renamed and removed again.

    Raises Unusable if that cannot be done; folders that were made for it are then removed.
    """
    made: list[Path] = []
    trials = [scratch(folder / (64 * "0")) for _ in range(2)]  # as long as a record's
    try:
        for path in [*reversed(folder.parents), folder]:
            if path.is_dir():
                continue
            try:
                path.mkdir()
                made.append(path)
            except FileExistsError as error:
                if not path.is_dir():  # else another process was faster
                    raise NotADirectoryError(errno.ENOTDIR, f"{path} is no folder") from error
        with open(trials[0], "wb") as file:
            file.write(secrets.token_bytes(TRIAL))
            file.flush()
            os.fsync(file.fileno())
        os.replace(*trials)
        trials[1].unlink()
    except OSError as error:
        for path in trials:
            with suppress(OSError):
                path.unlink()
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()
        if is_full(error):
            raise Unusable(no_space(folder)) from error
        raise Unusable(
            f"{folder}: cannot be written to ({error.strerror}); want a folder in which "
            "files can be made"
        ) from error


def is_full(problem: BaseException | str) -> bool:
    """Whether this error, or one that it comes from, or the text of one, is that of a full disk."""
    while isinstance(problem, BaseException):
        if any(words in str(problem) for words in FULL):
            return True
        problem = problem.__cause__ or problem.__context__
    return problem is not None and any(words in problem for words in FULL)


def no_space(path: str | Path) -> str:
    """The line about a full disk."""
    return f"No space left on the disk of {path}; free some and run the same command again"


def temporary() -> list[Path]:
    """Folders for short-lived files that this machine may have, the preferred first."""
    found = []
    with suppress(OSError):  # none that Python could use
        found.append(tempfile.gettempdir())
    found += [os.environ.get("XDG_RUNTIME_DIR"), "/tmp" if os.name == "posix" else None]
    return [Path(place) for place in dict.fromkeys(found) if place]


def private() -> Path:
    """A new folder, open to this user only, for sockets and what lies with them.

    It has a scratch name, and stands where its path is short enough: in TMPDIR, or else elsewhere.
    Raises Unusable if no temporary folder can be used.
    """
    places = temporary()
    for place in places:
        for number in range(16):
            folder = place / f"{MARK}{owner()}-{number:x}"
            if os.name != "posix" or len(os.fsencode(folder)) <= SHORT:
                with suppress(OSError):
                    folder.mkdir(mode=0o700)
                    return folder
    raise Unusable(
        f"{', '.join(map(str, places))}: no folder can be made there, or its path is too "
        "long for a socket; want a TMPDIR that is short and can be written to"
    )
