"""Records made in a notebook, and what it shows meanwhile.

A bar that counts records and names the epoch under way, and the training's curve as it grows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from dwlt_lib.config.specs import Spec, record_id
from dwlt_lib.execution import make
from dwlt_lib.records import leases

# of the time, at most, that goes into drawing: before somebody's eyes, and in a batch
SHARE, IN_BATCH = 0.1, 0.005


def make_all(specs: Sequence[Spec], device: str = "cpu") -> list[str]:
    """Make the records that are missing, with a progress bar and the curve of each training.

    Args:
        specs: descriptions of records; whatever one builds on is made first.
        device: auto, cpu or cuda.

    Returns:
        The ids of all these records, in the order of `specs`.

    Raises:
        Held: in a batch, where the run has other work meanwhile: another process is making one.
    """
    from tqdm.auto import tqdm

    later = []
    with tqdm(specs, desc="records") as bar:
        show = live(bar)
        for spec in bar:
            try:
                make.make(spec, device, show, wait=False)
            except leases.Held:
                later.append(spec)
        for spec in later:
            make.make(spec, device, show, wait=not _in_batch())
    return [record_id(spec) for spec in specs]


def _in_batch() -> bool:
    """Whether this is one of a run's workers, which have the variable."""
    return "DWLT_WORKERS" in os.environ


def live(bar: Any = None) -> Callable[[dict[str, float]], None]:
    """A callback for make.make, which draws the training under way.

    The curve is one display that is drawn anew in its place, so that an executed notebook keeps the
    last state only; a training of less than a second is not drawn.

    Args:
        bar: a tqdm bar, which then says epoch, loss and accuracies.

    Returns:
        A function to call after every epoch with its row of history.
    """
    rows, handle, due = [], None, time.time() + 1
    share = IN_BATCH if _in_batch() else SHARE

    def show(row: dict[str, float]) -> None:
        nonlocal handle, due
        if rows and row["epoch"] <= rows[-1]["epoch"]:  # another training has begun
            rows.clear()
        rows.append(row)
        if bar is not None:
            shown = [name for name in ("epoch", "loss", "SA", "RA") if name in row]
            bar.set_postfix({name: f"{row[name]:.3g}" for name in shown})
        began = time.time()
        if began < due:
            return
        from IPython.display import display

        from dwlt_lib.plotting import figures

        figure = figures.training_curve(rows)
        if handle is None:
            handle = display(figure, display_id=True)
        else:
            handle.update(figure)
        due = time.time() + max(0.5, (time.time() - began) / share)

    return show
