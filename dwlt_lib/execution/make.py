"""make(spec): from the description of a record to the record, the only path that makes one."""

from __future__ import annotations

import logging
import math
import os
import platform
import subprocess
import sys
import time
from functools import cache

import torch

from dwlt_lib import __version__
from dwlt_lib.config.specs import Spec, TransferSpec, label, record_id, upstream
from dwlt_lib.execution import inputs
from dwlt_lib.execution.costs import cost
from dwlt_lib.execution.devices import resolve_device
from dwlt_lib.execution.kinds import MAKERS, Progress, Result
from dwlt_lib.records import leases, store
from dwlt_lib.training import unfinished
from dwlt_lib.training.trainer import OutOfTime, configure_backend

log = logging.getLogger(__name__)
DIVERGED = "diverged"
"""The metric, 1, of a record whose training, or that of a ticket it builds on, diverged."""


def make(
    spec: Spec,
    device: str | torch.device = "cpu",
    progress: Progress = None,
    wait: bool = True,
) -> str:
    """Make a record, and first every record that it builds on, unless they are there already.

    Of several processes that make the same record, one does, by its lease; the others wait.

    When training would pass the time in the environment's DWLT_DEADLINE (seconds since 1970), it
    stops after an epoch; its checkpoint stays, and the next call continues from it.

    Args:
        spec: the description of the record.
        device: auto, cpu or cuda, or a torch device.
        progress: called after every epoch of training with its row of history.
        wait: whether to wait for a record that another process is making.

    Returns:
        The record's id, for `records.read`.

    Raises:
        OutOfTime: the deadline would pass within the next epoch, or passes while waiting.
        Held: another process is making the record, or one that it builds on, and `wait` is False.
        LostLease: this process was paused, and another one has taken over.
        FloatingPointError: a loss, a weight or a metric is not finite. A transfer that diverges so
            is an outcome: its record has no accuracy, but the metric diverged, and so has what
            builds on it.
        ValueError: images or weights are missing or not those that were planned with, or a record
            that this one builds on was made anew meanwhile.

    Example:
        >>> study = read_study("params/tour.yaml")  # doctest: +SKIP
        >>> [make(spec) for spec in plan(study).values()]  # doctest: +SKIP
    """
    if store.exists(spec):
        return record_id(spec)
    for needed in upstream(spec):
        make(needed, device, progress, wait)
    device = resolve_device(device) if isinstance(device, str) else device
    said = False
    while not store.exists(spec):
        try:
            with leases.acquire(store.leases_root(), record_id(spec)) as lease:
                if not store.exists(spec):  # nobody was faster
                    _make(spec, device, progress, lease)
        except leases.Held as error:
            if not wait:
                raise
            if not said:
                log.info("%s: %s; waiting for it", label(spec), error)
            said = True
            if time.time() > float(os.environ.get("DWLT_DEADLINE") or math.inf):
                raise OutOfTime from error
            time.sleep(0.5)
    return record_id(spec)


def _make(spec: Spec, device: torch.device, progress: Progress, lease: leases.Lease) -> None:
    """Make one record on what is there already."""

    def show(row: dict[str, float]) -> None:
        nonlocal epoch_began
        now = time.monotonic()
        lease.note = f"epoch {row['epoch']:.0f}, the last in {now - epoch_began:.0f} s"
        epoch_began = now
        if progress is not None:
            progress(row)

    configure_backend(device)
    started, built_on = time.time(), store.results_of(upstream(spec))
    epoch_began = time.monotonic()
    result = _result(spec, device, show)
    inputs.check_unchanged(spec)  # while the record was made, either
    if store.results_of(upstream(spec)) != built_on:
        raise ValueError(
            f"{label(spec)}: what it builds on was made anew meanwhile; run the same command again"
        )
    provenance = {
        "seconds": round(time.time() - started, 3),
        "gmac": cost(spec),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **_environment(device),
    }
    store.write(spec, result.metrics, result.history, result.files, provenance, built_on, lease)
    unfinished.remove(store.unfinished_root(), record_id(spec))


def _result(spec: Spec, device: torch.device, progress: Progress) -> Result:
    if any(store.read(up).metrics.get(DIVERGED) for up in upstream(spec)):
        return Result({DIVERGED: 1.0}, [], {})
    try:
        result = MAKERS[type(spec)](spec, device, progress)
        for name, value in result.metrics.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value}: want a finite number")
        return result
    except FloatingPointError as error:
        if not isinstance(spec, TransferSpec):
            raise
        log.warning("%s diverged: %s", label(spec), error)
        return Result({DIVERGED: 1.0}, [], {})


@cache
def _environment(device: torch.device) -> dict[str, object]:
    """Code, versions, device and host: no result should depend on them, but a reader asks."""
    try:
        commit = subprocess.run(
            ["git", "-C", store.checkout(), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except FileNotFoundError:  # no git, as in a slim container
        commit = ""
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {
        "code": f"{__version__} {commit}".strip(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "host": platform.node(),
    }
