"""Figure notebooks: whether they have to be drawn again, and drawing them in workers."""

from __future__ import annotations

import hashlib
import json
import logging

from dwlt_lib import files
from dwlt_lib.execution.notebooks import run_notebook
from dwlt_lib.execution.run_folders import raise_if_full
from dwlt_lib.execution.runner import DONE, FAILED, Say, Workers, outcome_of
from dwlt_lib.records import store

log = logging.getLogger(__name__)
DRAWN_FROM = "drawn_from.sha256"
"""Beside the executed notebooks: the digest of what they were drawn from, without an error."""

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
    targets = {name: folder / f"{name}.ipynb" for name in FIGURES}
    note = folder / DRAWN_FROM
    if all(path.exists() for path in (note, *targets.values())) and note.read_bytes() == basis:
        return DONE, False
    say(f"drawing {len(FIGURES)} figure notebooks")
    status, parameters = DONE, {"study": study_name}
    futures = {
        name: pool.submit(run_notebook, name, parameters, target)
        for name, target in targets.items()
    }
    for name, future in futures.items():
        error = outcome_of(future).error
        if error:
            raise_if_full(error)
            status = FAILED
            log.error("failed: notebook %s: %s", name, error)
    if status == DONE:
        files.write(note, basis)
    return status, True


def _basis(study_name: str) -> bytes:
    """A sha256 of all that figures are drawn from: records, parameters, notebooks, library."""
    ids = sorted(store.table(study=study_name, damaged=[])["id"])
    library = [path for path in store.checkout().glob("dwlt_lib/**/*.*") if path.suffix != ".pyc"]
    sources = sorted([*store.checkout().glob("notebooks/*.ipynb"), *library])
    digest = hashlib.sha256(json.dumps([ids, store.study(study_name)["params"]]).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest().encode()
