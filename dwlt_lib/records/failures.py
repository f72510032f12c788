"""What failed in a study's runs, and of which kind: noted beside it until the record is there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from dwlt_lib import files
from dwlt_lib.config.specs import Spec, label, record_id
from dwlt_lib.records import store

WORKER_DIED = (
    "its worker process died (killed, or out of memory); run the same command again to resume"
)
"""The error of a job whose worker was lost."""
KINDS = {
    "FloatingPointError": "diverged",
    "OutOfMemoryError": "out of memory",
    "MemoryError": "out of memory",
    "ValueError": "bad input",
    "FileNotFoundError": "bad input",
}
"""The kind of a failure by the name of its exception; a worker's death is a lost worker."""


class Failure(NamedTuple):
    """Why a record is not there."""

    label: str
    """What the record is, in words."""
    kind: str
    """Diverged, out of memory, bad input, lost worker, or error."""
    error: str
    """One line: the exception, and the notebook to read."""
    when: str
    """ISO 8601, UTC."""

    def __str__(self) -> str:
        """The same in words."""
        return f"{self.label}: {self.kind}, {self.when}: {self.error}"


def kind_of(error: str) -> str:
    """Of which kind an error is.

    Args:
        error: the name of its exception and a message, or WORKER_DIED.

    Returns:
        One of KINDS, lost worker, or error.
    """
    if error == WORKER_DIED:
        return "lost worker"
    return KINDS.get(error.partition(":")[0].rpartition(".")[2], "error")


def note(study_name: str, specs: Iterable[Spec], error: str) -> None:
    """Note that records could not be made.

    Args:
        study_name: names the study's folder.
        specs: their descriptions.
        error: one line.
    """
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    folder = store.study_dir(study_name) / "failed"
    folder.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        failure = Failure(label(spec), kind_of(error), error, when)
        files.write(folder / f"{record_id(spec)}.json", json.dumps(failure._asdict(), indent=1))


def noted(study_name: str, missing: Iterable[str]) -> list[Failure]:
    """Why records are missing, as far as a run has tried to make them.

    Args:
        study_name: names the study's folder.
        missing: ids of records that are not there.

    Returns:
        A failure for each record whose making failed last, in the order of `missing`.
    """
    paths = {path.stem: path for path in (store.study_dir(study_name) / "failed").glob("*.json")}
    found = []
    for id in missing:
        with suppress(FileNotFoundError):  # a run tries it anew
            if id in paths:
                found.append(Failure(**json.loads(paths[id].read_bytes())))
    return found


def forget(study_name: str, specs: Iterable[Spec]) -> None:
    """Remove what is noted of records that are there now, or are tried anew.

    Args:
        study_name: names the study's folder.
        specs: their descriptions.
    """
    for spec in specs:
        path = store.study_dir(study_name) / "failed" / f"{record_id(spec)}.json"
        path.unlink(missing_ok=True)
