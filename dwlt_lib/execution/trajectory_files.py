"""A training's states, from before its first epoch to after its last, as one file.

Each state is written once, as its epoch ends, beside the training's checkpoint; its file's name
holds the epoch and the sha256 of its content.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from safetensors.torch import load_file, save, save_file

from dwlt_lib import files
from dwlt_lib.execution.networks import cpu_state
from dwlt_lib.training.trainer import State


def save_state(folder: Path, epoch: int, state: State) -> None:
    """Write the state after `epoch` to the folder of an unfinished training.

    Args:
        folder: of the unfinished training.
        epoch: from 0, the state before training.
        state: the network's state dictionary.
    """
    data = save(cpu_state(state))
    for path in folder.glob(f"state-{epoch:04d}-*"):  # of an epoch that is repeated after a kill
        path.unlink()
    files.write(folder / f"state-{epoch:04d}-{hashlib.sha256(data).hexdigest()}", data)


def join_states(folder: Path, epochs: int) -> Path:
    """Join the states 0 to `epochs` into one safetensors file, with keys EPOCH/NAME.

    Args:
        folder: where `save_state` wrote them.
        epochs: the number of epochs trained.

    Returns:
        The file, in the same folder.

    Raises:
        ValueError: a state is missing or changed since it was written; the folder is removed, so
            that the next attempt trains anew.
    """
    states, paths = {}, []
    for epoch in range(epochs + 1):
        paths = sorted(folder.glob(f"state-{epoch:04d}-*"))
        if len(paths) != 1 or not paths[0].name.endswith(files.sha256(paths[0])):
            shutil.rmtree(folder)
            raise ValueError(
                f"{folder}: the state after epoch {epoch} is missing or changed since it was"
                " written; run the same command again, which trains this ticket anew"
            )
        states |= {f"{epoch:04d}/{name}": value for name, value in load_file(paths[0]).items()}
    joined = folder / "trajectory"
    save_file(states, joined)
    shutil.copymode(paths[0], joined)  # safetensors does not heed the umask
    return joined


def load_states(path: Path) -> list[State]:
    """The states in a file of `join_states`, in the order of epochs.

    Args:
        path: the file, which is mapped into memory and read as it is needed.

    Returns:
        One state dictionary per epoch, the first from before training.
    """
    joined = load_file(path)
    states: list[State] = [{} for _ in {key.split("/")[0] for key in joined}]
    for key, value in joined.items():
        epoch, name = key.split("/", 1)
        states[int(epoch)][name] = value
    return states
