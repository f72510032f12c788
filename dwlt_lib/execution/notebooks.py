"""A notebook run under papermill in this very process, which a worker does once in its life.

An executed notebook is how records were made, for people to read.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from dwlt_lib import files
from dwlt_lib.config.planning import NOTEBOOKS, Job
from dwlt_lib.records import store

OUT_OF_TIME = "OutOfTime"
"""The error of a notebook whose training stopped at the deadline."""
HELD = "Held"
"""The error of a notebook some of whose records another process is making."""


class NotebookOutcome(NamedTuple):
    """How the run of a notebook ended."""

    seconds: float
    """How long it took."""
    error: str = ""
    """One line: the exception and where to read about it; empty if there was none."""


def run_job(study_name: str, params: Path, job: Job, device: str) -> NotebookOutcome:
    """Run the compute notebook of a job.

    Args:
        study_name: names the study's folder, where the executed notebook goes.
        params: the study's parameter file, an absolute path.
        job: its fields are the notebook's parameters.
        device: cpu or cuda.

    Returns:
        How it ended.
    """
    notebook, fields = NOTEBOOKS[job.kind]
    values = {name: getattr(job, name) for name in fields}
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    digest = hashlib.sha256(job.model_dump_json().encode()).hexdigest()[:8]
    name = f"{notebook}-{job.pretraining}-{digest}.ipynb"
    target = store.study_dir(study_name) / "notebooks" / name
    return run_notebook(notebook, {"params": str(params), **values, "device": device}, target)


def run_notebook(notebook: str, parameters: dict[str, Any], target: Path) -> NotebookOutcome:
    """Run one notebook of the checkout in this process.

    Args:
        notebook: its name, such as 11_existence.
        parameters: what papermill sets in it.
        target: where the executed notebook goes; an older one is replaced whole, or stays where
            the run stopped at its deadline, records are held elsewhere or the disk is full.

    Returns:
        How it ended.
    """
    import papermill

    from dwlt_lib.execution import engine

    started, error_line = time.time(), ""
    source = store.checkout() / "notebooks" / f"{notebook}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = files.scratch(target)
    escaped = str(scratch).replace("{", "{{").replace("}", "}}")  # papermill formats output paths
    try:
        papermill.execute_notebook(
            source,
            escaped,
            parameters,
            kernel_name="python3",
            engine_name=engine.NAME,
            cwd=str(source.parent),
            progress_bar=False,
            autosave_cell_every=0,
        )
    except papermill.PapermillExecutionError as error:
        error_line = f"{error.ename}: {error.evalue} (see {target})"
        if error.ename in (OUT_OF_TIME, HELD):
            error_line = error.ename
    except Exception as error:  # such as a full disk: it is named, and the other notebooks go on
        error_line = f"{type(error).__name__}: {error}"
    if scratch.exists():
        if error_line in (OUT_OF_TIME, HELD) or files.is_full(error_line):
            scratch.unlink()
        else:
            os.replace(scratch, target)
    return NotebookOutcome(time.time() - started, error_line)
