"""Files that appear whole or not at all, and the scratch files that a killed process leaves.

Whatever is being written has a scratch name that says whose it is (host, process, its start): nobody takes another's
for their own, and what a dead process left can be told from what a living one is writing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
import stat
from functools import cache
from pathlib import Path

MARK = ".dwlt-"  # every scratch name starts so


def owner() -> str:
    """This process, as scratch names say it: HOST-PID-START, START in seconds since 1970."""
    return _owner(os.getpid())


@cache
def _owner(pid: int) -> str:
    import psutil  # here, so that a ticket can be loaded where only torch and safetensors are

    return f"{_host()}-{pid}-{int(psutil.Process(pid).create_time())}"


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


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


def write(path: Path, data: bytes | str) -> Path:
    """`path` holds all of `data` (text as UTF-8), on the disk, or what it held before."""
    aside = scratch(path)
    try:
        with open(aside, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
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
    """Whether this was an `owner` on this host that runs no more; of other hosts nobody can tell: False."""
    import psutil

    host, _, rest = owner.partition("-")
    pid, _, start = rest.partition("-")
    if host != _host() or not (pid.isdigit() and start.isdigit()):
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - int(start)) > 2
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # it is there, and not ours to look at
        return False


def is_abandoned(path: Path) -> bool:
    """Whether this is a scratch file or folder of a process of this host that is there no more."""
    name = path.name
    return name.startswith(MARK) and is_dead("-".join(name.removeprefix(MARK).split("-")[:3]))


def collect(folder: Path) -> list[Path]:
    """Removes what dead processes of this host left directly in `folder`; returns what that was."""
    left = [path for path in sorted(folder.glob(f"{MARK}*")) if is_abandoned(path)]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return left
