"""Figure notebooks: whether they have to be drawn again, and drawing them in workers.

Runs of one study that end together share them as they share records, by leases.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path

from dwlt_lib import files
from dwlt_lib.execution.live import Say
from dwlt_lib.execution.notebooks import HELD, NotebookOutcome, run_notebook
from dwlt_lib.execution.run_folders import raise_if_full
from dwlt_lib.execution.runner import DONE, FAILED, POLL, Workers, outcome_of
from dwlt_lib.records import leases, store

log = logging.getLogger(__name__)

LEASES = ".leases"  # a folder beside the executed notebooks
FIGURES = (
    "00_tour",
    "14_landscapes",
    "11_existence",
    "12_pruning_methods",
    "13_data_limited",
    "15_mask_patterns",
    "16_transfer_attack",
    "17_more_tasks",
    "18_claims",
)
"""The figure notebooks, the slowest first."""


def run_figures(study_name: str, pool: Workers, say: Say) -> tuple[int, bool]:
    """Draw the figure notebooks over what is there now, if records or code have changed.

    Args:
        study_name: the study, which has been planned here.
        pool: the workers.
        say: prints a line about the progress.

    Returns:
        The exit status, and whether the notebooks had to be drawn.

    Raises:
        OSError: a disk is full.
    """
    folder, basis = store.study_dir(study_name) / "notebooks", _basis(study_name)
    leases.sweep(folder / LEASES, lambda name: _is_drawn(folder, name, basis))
    left = [name for name in FIGURES if not _is_drawn(folder, name, basis)]
    if not left:
        return DONE, False
    say(f"drawing {len(left)} figure notebooks")
    status = DONE
    while left:
        futures = {name: pool.submit(_draw, study_name, name, basis) for name in left}
        errors = {name: outcome_of(future).error for name, future in futures.items()}
        for name, error in errors.items():
            if error and error != HELD:
                raise_if_full(error)
                status = FAILED
                log.error("failed: notebook %s: %s", name, error)
        if held := [name for name, error in errors.items() if error == HELD]:
            time.sleep(POLL)
        left = held
    return status, True


def _draw(study_name: str, name: str, basis: bytes) -> NotebookOutcome:
    """Draw one figure notebook, unless another run has drawn it, or is drawing it (HELD)."""
    folder = store.study_dir(study_name) / "notebooks"
    try:
        with leases.acquire(folder / LEASES, name):
            if _is_drawn(folder, name, basis):
                return NotebookOutcome(0.0)
            outcome = run_notebook(name, {"study": study_name}, folder / f"{name}.ipynb")
            if not outcome.error:
                files.write(_note(folder, name), basis)
            return outcome
    except leases.Held:
        return NotebookOutcome(0.0, HELD)


def _is_drawn(folder: Path, name: str, basis: bytes) -> bool:
    note = _note(folder, name)
    return (folder / f"{name}.ipynb").exists() and note.exists() and note.read_bytes() == basis


def _note(folder: Path, name: str) -> Path:
    """Beside an executed notebook: the digest of what it was drawn from, without an error."""
    return folder / f"{name}.sha256"


def _basis(study_name: str) -> bytes:
    """A sha256 of all that figures are drawn from: records, parameters, notebooks, library."""
    ids = sorted(store.table(study=study_name, damaged=[])["id"])
    library = [path for path in store.checkout().glob("dwlt_lib/**/*.*") if path.suffix != ".pyc"]
    sources = sorted([*store.checkout().glob("notebooks/*.ipynb"), *library])
    digest = hashlib.sha256(json.dumps([ids, store.study(study_name)["params"]]).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest().encode()
