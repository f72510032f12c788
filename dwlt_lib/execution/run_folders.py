"""Where a run writes: checked before anything starts, and rid of what killed runs left."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dwlt_lib import files
from dwlt_lib.config.planning import plan
from dwlt_lib.config.studies import Study
from dwlt_lib.records import leases, store
from dwlt_lib.training import unfinished

SHARED_MEMORY = Path("/dev/shm")
PATIENCE = 3.0  # seconds that workers may need to end


def run_folders(study: Study, figures_only: bool = False) -> list[Path]:
    """The folders that a run of the study writes to.

    Args:
        study: the study.
        figures_only: whether only figures and the report are made, no records.

    Returns:
        Their paths; they need not exist.
    """
    place = store.study_dir(study.name)
    folders = [place, place / "notebooks", place / "figures"]
    if not figures_only:
        kinds = sorted({spec.kind for spec in plan(study).values()})
        folders += [store.outputs() / "records" / name for name in (*kinds, ".partial", ".leases")]
    return folders


@contextmanager
def opened(study: Study, figures_only: bool = False, workers: bool = True) -> Iterator[None]:
    """The folders of a run can be written to in the block, and are clean however it ends.

    Before it, what dead processes left there is removed; after it, what this run and its workers
    left, which are waited for, for some seconds.

    Args:
        study: the study.
        figures_only: whether only figures and the report are made, no records.
        workers: whether processes will be started, which share memory (semaphores at least).

    Yields:
        Nothing.

    Raises:
        Unusable: one line; a place cannot be written to, or its disk is full.
    """
    try:
        for folder in run_folders(study, figures_only):
            files.check(folder)
        if workers and SHARED_MEMORY.is_dir():
            files.check(SHARED_MEMORY)
        for folder in (*files.temporary(), *run_folders(study)):
            files.collect(folder)
        unfinished.sweep(store.unfinished_root(), store.exists_id)
        leases.sweep(store.leases_root(), store.exists_id)
        leases.free_lapsed(store.leases_root())
        yield
    finally:
        late = time.monotonic() + PATIENCE
        while _scratch_is_left(run_folders(study)) and time.monotonic() < late:
            time.sleep(0.1)


def _scratch_is_left(folders: list[Path]) -> bool:
    """Removes this run's scratch files; whether there are any of workers that still end."""
    for folder in folders:
        files.collect(folder, own=True)
    return any(path for folder in folders for path in folder.glob(f"{files.MARK}*"))


def raise_if_full(error: BaseException | str) -> None:
    """End the run if a disk is full: nothing else could be made there either.

    Args:
        error: what went wrong, or its text; other errors are passed over.

    Raises:
        OSError: the error was about a full disk, which this one names.
    """
    if not files.is_full(error):
        return
    full = store.outputs()
    for place in filter(Path.is_dir, (Path(tempfile.gettempdir()), SHARED_MEMORY)):
        try:
            files.check(place)
        except files.Unusable:
            full = place
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(full))
