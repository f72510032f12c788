"""Trainings under way: what a process leaves after every epoch, and how another takes it up.

outputs/records/.partial/ID.OWNER/ is one process's own: nobody else writes or deletes there while
it may be alive. What a dead process left is taken over, what one on another host left, or a living
one, is copied.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwlt_lib import files

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"


def folder(root: Path, id: str) -> Path:
    """This process's folder for a training, with the newest of what others left of it.

    Args:
        root: outputs/records/.partial.
        id: of the record whose training it is.

    Returns:
        The folder, which is there.
    """
    own = root / f"{id}.{files.owner()}"
    if own.exists():
        return own
    root.mkdir(parents=True, exist_ok=True)
    for other in sorted(root.glob(f"{id}.*/{CHECKPOINT}"), key=_age):
        if _taken(other.parent, own):
            break
    own.mkdir(exist_ok=True)
    return own


def _age(checkpoint: Path) -> float:
    try:
        return -checkpoint.stat().st_mtime
    except OSError:  # its owner has just finished
        return 0.0


def _taken(other: Path, own: Path) -> bool:
    try:
        if files.is_dead(other.name.partition(".")[2]):
            os.rename(other, own)  # of several who try, one succeeds
        else:
            aside = files.scratch(own)
            aside.mkdir()
            # the checkpoint first: states beside it may be newer, never older
            for path in (other / CHECKPOINT, *other.glob("state-*")):
                shutil.copyfile(path, aside / path.name)
            os.rename(aside, own)
    except OSError:
        return False
    return True


def remove(root: Path, id: str) -> None:
    """Remove what is left of a training whose record is there: one's own, and dead processes'.

    Args:
        root: outputs/records/.partial.
        id: of the record.
    """
    for path in root.glob(f"{id}.*"):
        owner = path.name.partition(".")[2]
        if owner == files.owner() or files.is_dead(owner):
            shutil.rmtree(path, ignore_errors=True)


def sweep(root: Path, is_there: Callable[[str], bool]) -> None:
    """Remove what dead processes left of trainings whose record is there, and of copies.

    Args:
        root: outputs/records/.partial.
        is_there: tells by its id whether a record is there.
    """
    files.collect(root)
    for path in root.glob("*.*"):
        id, _, owner = path.name.partition(".")
        if id and is_there(id) and (files.is_dead(owner) or files.is_old(path)):
            shutil.rmtree(path, ignore_errors=True)


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, whole on the disk.

    Args:
        state: what `load` gives back.
        path: the file: the sha256 of what follows, then torch's own format.
    """
    import torch

    data = io.BytesIO()
    torch.save(state, data)
    content = data.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, hashlib.sha256(content).digest() + content)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What `save` wrote; a damaged file is named in the log and set aside.

    Args:
        path: of the training state.
        device: where its tensors go.

    Returns:
        The state; None if there is none, or if it was damaged.
    """
    import torch

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(data[32:]).digest() == data[:32]:
        return torch.load(io.BytesIO(data[32:]), map_location=device, weights_only=True)
    aside = path.with_name(f"damaged-{path.name}")
    os.replace(path, aside)
    log.warning(
        "%s: changed since it was written; set aside as %s, this training starts anew",
        path,
        aside.name,
    )
    return None
