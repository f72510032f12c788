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
from contextlib import suppress
from functools import cache
from pathlib import Path

MARK = ".dwlt-"  # every scratch name starts so
TRIAL = 2**18  # bytes that there must be room for where files are to be made
# bytes of a private folder's path: a socket's, with 65 more, has a limit of 108 on Linux
SHORT = 42
WEEK = 7 * 86_400  # seconds
# how a full disk, or a quota that is used up, is said: by the system, and by torch.save, which only
# counts
FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "os error 28", "unexpected pos")


class Unusable(ValueError):
    """A place where files cannot be made, in one line: what it is, what is wrong, the remedy."""


def owner() -> str:
    """This process, as scratch names say it.

    Returns:
        HOST-PID-START. HOST is six hexadecimal digits of this host since it was started and of its
        container; START is when the process was started, in the system's own ticks, which no
        setting of the clock moves.
    """
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
    """A new name for a file while it is being written.

    Args:
        path: where the finished file will be.

    Returns:
        A path beside it, of this process's own, never given twice.
    """
    return path.with_name(f"{MARK}{owner()}-{secrets.token_hex(4)}-{path.name}")


def regular(path: str | Path) -> Path:
    """Refuse what is no file before it is opened.

    Reading a pipe, a socket or a device may wait for ever, or never end.

    Args:
        path: what a user named.

    Returns:
        The same path, of a file or of a link to one.

    Raises:
        ValueError: one line: nothing is there, or it is something else.
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
    """What changes when a file does.

    Args:
        path: an existing file.

    Returns:
        Its inode number, its size in bytes and its two times, of content and of inode, in ns.
    """
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sha256(path: str | Path) -> str:
    """The SHA-256 of a whole file, read a part at a time.

    Args:
        path: the file, of any size.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: one line, if it is no file (`regular`).
    """
    with open(regular(path), "rb") as file:  # a trajectory of a large network has gigabytes
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, data: bytes | str) -> Path:
    """Write a file whole, on the disk, or leave what was there before.

    Args:
        path: the file, in a folder that exists.
        data: its content; text is written as UTF-8.

    Returns:
        The path.

    Raises:
        OSError: it cannot be written; the error names it.
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
    """Wait until a file or folder is on the disk.

    Args:
        path: what was written to.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_dead(owner: str) -> bool:
    """Whether a process ran on this host and runs no more.

    Args:
        owner: as `owner` names it.

    Returns:
        False for processes of other hosts, of which nobody can tell, and for other text.
    """
    host, _, rest = owner.partition("-")
    pid, _, start = rest.partition("-")
    if host != _host() or not (pid.isdigit() and re.fullmatch("[0-9a-f]+", start)):
        return False
    return _start(int(pid)) != int(start, 16)


def is_abandoned(path: Path) -> bool:
    """Whether a scratch file or folder belongs to nobody.

    Args:
        path: of any file or folder.

    Returns:
        True if its process was one of this host that is gone, or if it is of another host (or of
        this one before it was started anew) and was not written to for a week; False for names that
        are not scratch names.
    """
    if not path.name.startswith(MARK):
        return False
    found = "-".join(path.name.removeprefix(MARK).split("-")[:3])
    return is_dead(found) or (not found.startswith(_host()) and is_old(path))


def collect(folder: Path, own: bool = False) -> list[Path]:
    """Remove the scratch files that dead processes left directly in a folder.

    Args:
        folder: it need not exist.
        own: whether what this process left goes, too.

    Returns:
        The paths of what was to be removed.
    """
    prefix = f"{MARK}{owner()}-"
    left = [
        path
        for path in sorted(folder.glob(f"{MARK}*"))
        if is_abandoned(path) or (own and path.name.startswith(prefix))
    ]
    for path in left:
        remove(path)
    return left


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, as far as that can be done.

    Args:
        path: what need not be there, or may be another user's.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def is_old(path: Path) -> bool:
    """Whether nobody has written to a file or folder for a week.

    Args:
        path: the file or folder.

    Returns:
        False if it is not there.
    """
    try:
        return time.time() - path.lstat().st_mtime > WEEK
    except OSError:
        return False


# --------------------------------------------------------------------- places that can be used


def check(folder: Path) -> None:
    """Refuse a folder in which no files can be made.

    The folder is made, and in it a file is filled, renamed and removed again.

    Args:
        folder: where files will be made; it stays if they can be.

    Raises:
        Unusable: one line: no rights, no space, or no folder; what was made for it is removed.
    """
    made: list[Path] = []
    try:
        for path in (folder, *folder.parents):
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{path} is no folder")
            if not path.exists():
                made.append(path)
        folder.mkdir(parents=True, exist_ok=True)
        trial = scratch(folder / (64 * "0"))  # as long as a record's
        write(trial, secrets.token_bytes(TRIAL)).unlink()
    except OSError as error:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        if is_full(error):
            raise Unusable(no_space(folder)) from error
        raise Unusable(
            f"{folder}: cannot be written to ({error.strerror}); want a folder in which "
            "files can be made"
        ) from error


def is_full(problem: BaseException | str) -> bool:
    """Whether an error is that of a full disk, or of a quota that is used up.

    Args:
        problem: an exception, whose causes are looked at, too, or the text of one.

    Returns:
        False for every other error.
    """
    texts, cause = [str(problem)], problem
    while isinstance(cause, BaseException):
        cause = cause.__cause__ or cause.__context__
        texts.append(str(cause))
    return any(words in text for text in texts for words in FULL)


def no_space(path: str | Path) -> str:
    """What a user reads about a full disk.

    Args:
        path: of something on that disk.

    Returns:
        One line.
    """
    return f"No space left on the disk of {path}; free some and run the same command again"


def temporary() -> list[Path]:
    """Folders for short-lived files that this machine may have.

    Returns:
        Their paths, the preferred first; whether they can be used is not checked.
    """
    found = []
    with suppress(OSError):  # none that Python could use
        found.append(tempfile.gettempdir())
    found += [os.environ.get("XDG_RUNTIME_DIR"), "/tmp"]
    return [Path(place) for place in dict.fromkeys(found) if place]


def private() -> Path:
    """Make a folder for sockets and what lies with them, open to this user only.

    It has a scratch name, and stands where its path is short enough, in TMPDIR or else elsewhere.

    Returns:
        Its path, of at most `SHORT` bytes.

    Raises:
        Unusable: no temporary folder can be used.
    """
    places = temporary()
    for place in places:
        for number in range(16):
            folder = place / f"{MARK}{owner()}-{number:x}"
            if len(os.fsencode(folder)) <= SHORT:
                with suppress(OSError):
                    folder.mkdir(mode=0o700)
                    return folder
    raise Unusable(
        f"{', '.join(map(str, places))}: no folder can be made there, or its path is too "
        "long for a socket; want a TMPDIR that is short and can be written to"
    )
