"""Figure notebooks: which have to be drawn again, and drawing them in workers."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from dwlt_lib import files
from dwlt_lib.execution.notebooks import run_notebook
from dwlt_lib.execution.run_folders import raise_if_full
from dwlt_lib.execution.runner import DONE, FAILED, Say, outcome_of
from dwlt_lib.execution.workers import Pool
from dwlt_lib.records import store

log = logging.getLogger(__name__)
DRAWN = "drawn_from.json"
"""Beside the executed notebooks: the basis that each of the figures was drawn from."""

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
    targets = {name: folder / f"{name}.ipynb" for name in FIGURES}
    drawn = _drawn_from(folder)
    stale = [
        name for name, target in targets.items() if drawn.get(name) != basis or not target.exists()
    ]
    if not stale:
        return DONE, False
    say(f"drawing {len(stale)} figure notebooks")
    parameters, status = {"study": study_name}, DONE
    futures = {name: pool.submit(run_notebook, name, parameters, targets[name]) for name in stale}
    for name, future in futures.items():
        error = outcome_of(future).error
        if error:
            raise_if_full(error)
            status = FAILED
            log.error("failed: notebook %s: %s", name, error)
        drawn[name] = "" if error else basis
        files.write(folder / DRAWN, json.dumps(drawn, indent=1))
    return status, True


def _drawn_from(folder: Path) -> dict[str, str]:
    """The basis of each figure notebook in the folder; nothing where that cannot be read."""
    try:
        return dict(json.loads((folder / DRAWN).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


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
