"""Figure notebooks: which have to be drawn again, and drawing them in workers."""

from __future__ import annotations

import hashlib
import json
import logging

from dwlt_lib.execution.notebooks import noted_basis, run_notebook
from dwlt_lib.execution.run_folders import raise_if_full
from dwlt_lib.execution.runner import DONE, FAILED, Say, outcome_of
from dwlt_lib.execution.workers import Pool
from dwlt_lib.records import store

log = logging.getLogger(__name__)

FIGURES = (
    "00_tour",
    "11_existence",
    "12_pruning_methods",
    "13_data_limited",
    "14_landscapes",
    "15_mask_patterns",
    "16_transfer_attack",
    "17_more_tasks",
    "18_claims",
)
SLOWEST = ("00_tour", "14_landscapes")  # they start first


def run_figures(study_name: str, pool: Pool, say: Say) -> tuple[int, bool]:
    """Draw the figure notebooks whose records or code have changed, over what is there now.

    Args:
        study_name: the study, which has been planned here.
        pool: the workers.
        say: prints a line about the progress.

    Returns:
        The exit status, and whether any notebook had to be drawn.

    Raises:
        OSError: a disk is full.
    """
    folder, basis = store.study_dir(study_name) / "notebooks", _basis(study_name)
    stale = stale_figures(study_name)
    if not stale:
        return DONE, False
    say(f"drawing {len(stale)} figure notebooks")
    status, parameters = DONE, {"study": study_name}
    futures = {
        name: pool.submit(run_notebook, name, parameters, folder / f"{name}.ipynb", basis)
        for name in sorted(stale, key=lambda name: name not in SLOWEST)
    }
    for name, future in futures.items():
        error = outcome_of(future).error
        if error:
            raise_if_full(error)
            status = FAILED
            log.error("failed: notebook %s: %s", name, error)
    return status, True


def stale_figures(study_name: str) -> list[str]:
    """The figure notebooks whose records or code have changed since they were drawn.

    Args:
        study_name: the study, which has been planned here.

    Returns:
        Their names, in order.
    """
    folder, basis = store.study_dir(study_name) / "notebooks", _basis(study_name)
    return [
        name
        for name in FIGURES
        if noted_basis(folder / f"{name}.ipynb") != basis
        and (store.checkout() / "notebooks" / f"{name}.ipynb").exists()
    ]


def _basis(study_name: str) -> str:
    """A sha256 of all that figures are drawn from: records, parameters, notebooks, library."""
    ids = sorted(store.table(study=study_name, damaged=[])["id"])
    sources = sorted(
        [*store.checkout().glob("notebooks/*.ipynb"), *store.checkout().glob("dwlt_lib/**/*.py")]
    )
    digest = hashlib.sha256(json.dumps([ids, store.study(study_name)["params"]]).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()
