"""Running a study: its missing records are made, in this process or by notebooks in workers.

Failures are named and kept apart: what does not build on them is made all the same.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from dwlt_lib.config.planning import Job, plan
from dwlt_lib.config.specs import Spec, label, micro_batches, record_id, upstream
from dwlt_lib.config.studies import Study
from dwlt_lib.execution.costs import cost
from dwlt_lib.execution.live import Progress, Say, Show
from dwlt_lib.execution.notebooks import HELD, OUT_OF_TIME, NotebookOutcome, run_job
from dwlt_lib.execution.run_folders import raise_if_full
from dwlt_lib.execution.scheduling import (
    is_waiting,
    job_priorities,
    missing_specs,
    pending_jobs,
    startable,
    still_missing,
)
from dwlt_lib.records import failures, leases, store
from dwlt_lib.records.failures import WORKER_DIED

log = logging.getLogger(__name__)

DONE, FAILED, STOPPED = 0, 1, 75
"""Exit statuses; 75: stopped by the budget or a signal, and can be resumed."""
POOL_GONE = "what starts the workers has gone; the same command goes on from here"
RETRIES = 2
"""How often a job whose worker died is started again."""
POLL = 0.5  # seconds after which a worker without work looks for jobs that have become ready

P = ParamSpec("P")
T = TypeVar("T")


class Workers(Protocol):
    """An executor that says how many tasks it runs at a time: `workers.Pool`, Dask's, ..."""

    @property
    def workers(self) -> int:
        """How many tasks run at a time, at least 1."""
        ...

    def submit(self, task: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a task run; its future is cancelled if what starts the workers goes.

        Args:
            task: a function that can be pickled.
            *args: what it is called with.
            **kwargs: what it is called with.

        Returns:
            The future of what it returns.

        Raises:
            BrokenExecutor: what starts the workers has gone.
        """
        ...


@dataclass(frozen=True)
class RunSettings:
    """How a study is run."""

    device: str
    """The type of device, cpu or cuda."""
    deadline: float | None = None
    """When to stop, in seconds since 1970; None: never."""
    say: Say = log.info
    """Called with a line whenever a record or a job ends."""
    show: Show | None = None
    """Called twice a second with what is at work; None: nobody looks."""

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.time() > self.deadline


def run_inline(study: Study, settings: RunSettings) -> int:
    """Make every missing record in this process, without workers or notebooks.

    Args:
        study: the study.
        settings: how to run it.

    Returns:
        DONE, FAILED or STOPPED.

    Raises:
        OSError: a disk is full.
    """
    return _checked(study, make_all(missing_specs(study), settings, study.name))


def lead(missing: Sequence[Spec], settings: RunSettings) -> None:
    """Meet the other ranks of torchrun, which compute micro-batches for this one, rank 0.

    Args:
        missing: the records that are to be made.
        settings: how to run it.

    Raises:
        ValueError: there are more ranks than GPUs; one line.
    """
    from dwlt_lib.training import ranks

    ranks.join(settings.device)
    if alone := sum(micro_batches(spec) < 2 for spec in missing):
        settings.say(
            f"{alone} of {len(missing)} records to make have no training in micro-batches:"
            " rank 0 makes them alone"
        )


def dismiss() -> None:
    """Let the other ranks of torchrun, if there are any, end: rank 0 has no more work."""
    from dwlt_lib.training import ranks

    ranks.dismiss()


def follow(device: str) -> int:
    """Compute micro-batches for rank 0, which trains, until it has made its records.

    A signal ends this process at once, since it keeps nothing.

    Args:
        device: auto, cpu or cuda.

    Returns:
        DONE; STOPPED where rank 0 has died. What became of the study is rank 0's exit status.

    Raises:
        ValueError: there are more ranks than GPUs, or no such device; one line.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    from dwlt_lib.execution.devices import resolve_device
    from dwlt_lib.training import ranks
    from dwlt_lib.training.trainer import configure_backend

    own = ranks.join(resolve_device(device).type)
    configure_backend(own)
    return DONE if ranks.follow(own) else STOPPED


def run_notebooks(study: Study, params: Path, pool: Workers, settings: RunSettings) -> int:
    """Make every missing record by compute notebooks, each in a worker of its own.

    Other runs of the study, here or on machines that see the same folder, share the work: a record
    that one of them is making is left to it, and waited for.

    Args:
        study: the study.
        params: its parameter file, an absolute path.
        pool: the workers.
        settings: how to run it.

    Returns:
        DONE, FAILED or STOPPED.

    Raises:
        OSError: a disk is full.
    """
    pending = pending_jobs(study, pool.workers)
    priorities = job_priorities(study, pending)
    wanted, started = missing_specs(study), time.time()
    if pending:
        settings.say(
            f"{len(wanted)} of {len(plan(study))} records to make in {len(pending)} notebook runs"
            f" on {pool.workers} workers"
        )
    running: dict[Future[NotebookOutcome], tuple[Job, list[Spec]]] = {}
    deaths: Counter[Job] = Counter()
    failed: list[str] = []
    stopped = False
    while pending or running:
        over = stopped or settings.is_over
        free = 0 if over else pool.workers - len(running)
        leases.free_lapsed(store.leases_root())
        held = leases.holders(store.leases_root())
        pending = still_missing(pending)
        for job in sorted(startable(pending, held), key=priorities.__getitem__)[:free]:
            try:
                future = pool.submit(run_job, study.name, params, job, settings.device)
            except BrokenExecutor:
                log.error(POOL_GONE)
                stopped = over = True
                break
            running[future] = job, pending.pop(job)
            failures.forget(study.name, running[future][1])
            settings.say(f"  start {_labels(running[future][1])}")
        if not running:
            if over or not is_waiting(pending, held):
                break  # nothing can be started, now or later
            time.sleep(POLL)
        if settings.show is not None:
            jobs = [specs for _, specs in running.values()]
            settings.show(_state(wanted, started, jobs, held)._replace(failed=failed))
        look = settings.show is not None or (pending and len(running) < pool.workers and not over)
        ended, _ = wait(running, timeout=POLL if look else None, return_when=FIRST_COMPLETED)
        for future in ended:
            (job, specs), outcome = running.pop(future), outcome_of(future)
            lost = [spec for spec in specs if not store.exists(spec)]
            ending = "done"
            if outcome.error in (OUT_OF_TIME, POOL_GONE):
                if outcome.error == POOL_GONE and not stopped:
                    log.error(POOL_GONE)
                stopped, ending = True, "stop"
            elif outcome.error == WORKER_DIED and lost and deaths[job] < RETRIES:
                deaths[job] += 1
                pending[job], ending = lost, "retry (its worker died)"
            elif outcome.error == HELD:
                pending[job], ending = lost, "pause, another run makes a part of"
            elif outcome.error or lost:
                raise_if_full(outcome.error)
                error = outcome.error or f"its notebook ended without {label(lost[0])}"
                failed.append(f"{_labels(specs)}: {error}")
                ending = "failed"
                log.error("failed: %s", failed[-1])
                failures.note(study.name, lost, error)
            made = [spec for spec in wanted if store.exists(spec)]
            progress = _progress(made, wanted, started)
            settings.say(f"[{progress}] {ending} {_labels(specs)} ({outcome.seconds:.0f} s)")
    if failed:
        if pending and not (stopped or settings.is_over):
            log.error("not started: %d notebook runs that build on a failed one", len(pending))
        return FAILED
    return STOPPED if pending or stopped else _checked(study, DONE)


def outcome_of(future: Future[NotebookOutcome]) -> NotebookOutcome:
    """The outcome of a notebook run that has ended, also where its worker died.

    Args:
        future: of `notebooks.run_notebook`, submitted to a pool.

    Returns:
        How it ended; a dead worker or an exception is its error.
    """
    try:
        return future.result()
    except BrokenProcessPool:
        return NotebookOutcome(0.0, WORKER_DIED)
    except CancelledError:
        return NotebookOutcome(0.0, POOL_GONE)
    except Exception as error:
        return NotebookOutcome(0.0, f"{type(error).__name__}: {error}")


def make_all(missing: Sequence[Spec], settings: RunSettings, study_name: str) -> int:
    """Make these records in this process.

    Args:
        missing: descriptions, each after those it builds on.
        settings: how to run it.
        study_name: names the study's folder, where failures are noted.

    Returns:
        DONE, FAILED or STOPPED.

    Raises:
        OSError: a disk is full.
    """
    if settings.deadline is not None:
        os.environ["DWLT_DEADLINE"] = str(settings.deadline)
    try:
        return _make_all(missing, settings, study_name)
    finally:
        os.environ.pop("DWLT_DEADLINE", None)


def _make_all(missing: Sequence[Spec], settings: RunSettings, study_name: str) -> int:
    from dwlt_lib.execution.make import make
    from dwlt_lib.training.ranks import RankLost
    from dwlt_lib.training.trainer import OutOfTime

    started, tried = time.time(), []
    failed: set[str] = set()
    later: list[Spec] = []  # what other runs are making, to be waited for at the end
    for number, spec in enumerate(chain(missing, later)):
        if any(record_id(up) in failed for up in upstream(spec)):
            failed.add(record_id(spec))
            continue
        if settings.is_over:
            return STOPPED
        began, ending = time.time(), "done"
        failures.forget(study_name, [spec])
        try:
            make(spec, settings.device, wait=number >= len(missing))
        except leases.Held:
            later.append(spec)
            continue
        except OutOfTime:
            return STOPPED
        except RankLost as error:
            log.error("stopped: %s: %s", label(spec), error)
            return STOPPED
        except Exception as error:  # one failure must not take the rest with it
            raise_if_full(error)
            failed.add(record_id(spec))
            ending, line = "failed", f"{type(error).__name__}: {error}"
            log.error("failed: %s: %s", label(spec), line)
            failures.note(study_name, [spec], line)
        tried.append(spec)
        progress, seconds = _progress(tried, missing, started), time.time() - began
        settings.say(f"[{progress}] {ending} {label(spec)} ({seconds:.1f} s)")
    return FAILED if failed else DONE


def _checked(study: Study, status: int) -> int:
    """The status, but FAILED in place of DONE while a record is not there."""
    missing = missing_specs(study) if status == DONE else []
    if not missing:
        return status
    log.error(
        "failed: %d records are not there although nothing said why, the first %s (%s); dwlt"
        " verify looks for what is wrong",
        len(missing),
        label(missing[0]),
        record_id(missing[0]),
    )
    return FAILED


def _labels(specs: Sequence[Spec]) -> str:
    """What a job makes: its first record, and how many more."""
    more = f" and {len(specs) - 1} more" if len(specs) > 1 else ""
    return f"{label(specs[0])}{more}"


def _state(
    wanted: Sequence[Spec],
    started: float,
    jobs: Sequence[Sequence[Spec]],
    held: Mapping[str, leases.Holder],
) -> Progress:
    """What is at work, for the display of a terminal."""
    made, running = [spec for spec in wanted if store.exists(spec)], []
    for specs in jobs:
        current = next((spec for spec in specs if record_id(spec) in held), None)
        if current is None:
            running.append((_labels(specs), "starting"))
        else:
            holder = held[record_id(current)]
            running.append((label(current), holder.note or f"since {holder.since[11:19]} UTC"))
    total = sum(map(cost, wanted))
    share = sum(map(cost, made)) / total if total else 0.0
    clock = _progress(made, wanted, started).partition(", ")[2]
    return Progress(len(made), len(wanted), share, clock, running)


def _progress(done: Sequence[Spec], wanted: Sequence[Spec], started: float) -> str:
    """Records, time gone and time left, which follows from what records cost."""
    seconds, gmac, total = time.time() - started, sum(map(cost, done)), sum(map(cost, wanted))
    left = "time left not known yet"
    if gmac > 0 and seconds >= 5:
        left = f"about {_clock(seconds * (total / gmac - 1))} left"
    return f"{len(done)}/{len(wanted)} records, {_clock(seconds)} gone, {left}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
