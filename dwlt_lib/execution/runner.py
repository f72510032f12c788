"""Running a study: jobs under papermill in worker processes, where they run, what is left, budgets,
progress.

A record on disk is the only proof that a job is done; an executed notebook is how it was made, for
people to read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from dwlt_lib import files
from dwlt_lib.config.costs import cost
from dwlt_lib.config.order import bisection, ordered, turns
from dwlt_lib.config.planning import NOTEBOOKS, Job, expand, jobs, plan
from dwlt_lib.config.specs import Spec, label, ladder, record_id, upstream
from dwlt_lib.config.studies import Study
from dwlt_lib.execution.workers import Pool
from dwlt_lib.records import store
from dwlt_lib.training import unfinished

FIGURES = (
    "00_tour",
    "11_existence",
    "12_pruning_methods",
    "13_data_limited",
    "14_landscapes",
    "15_mask_patterns",
    "16_transfer_attack",
    "17_more_tasks",
)
LONGEST = ("00_tour", "14_landscapes")  # to draw: they start first
DONE, FAILED, STOPPED = 0, 1, 75  # exit statuses; 75: stopped by the budget or a signal, resumable
# scratch of former versions, whose names say no owner
OLD = (".new-*", ".study-*", ".report-*", ".*.[0-9]*.ipynb")

DIED = "its worker process died (killed, or out of memory); run the same command again to resume"
LARGE = 1e6  # GMAC: hours of a core, tens of seconds of a fast GPU; a worker's start is nothing
LOOK = 10.0  # seconds after which a worker without work looks what has become possible
Say = Callable[[str], None]


# ----------------------------------------------------------------------------------------------
# what is left


def left(study: Study) -> list[Spec]:
    """The records that are not there yet, in the order in which they are made."""
    return [spec for spec in ordered(plan(study)) if not store.exists(spec)]


def cut(study: Study, job: Job, most: float) -> list[Job]:
    """The job in parts that cost `most` GMAC at most where it can be cut: by seeds first, then by
    rounds, of which one part gets the coarse half (both ends, the middle...) and the other what
    lies between."""
    if job.kind == "prune" or sum(map(cost, expand(study, job))) <= most:
        return [job]
    for name in ("seeds", "rounds"):
        values = getattr(job, name)
        if len(values) > 1:
            turn, half = bisection(values), (len(values) + 1) // 2
            coarse = (
                values[:half]
                if name == "seeds"
                else [value for value in values if turn[value] < half]
            )
            fine = [value for value in values if value not in coarse]
            parts = (job.model_copy(update={name: tuple(part)}) for part in (coarse, fine))
            return [small for part in parts for small in cut(study, part, most)]
    return [job]


def pending(study: Study, workers: int) -> dict[Job, list[Spec]]:
    """Jobs with something left to make, cut so that every worker gets several and none is LARGE if
    it can be cut, and what each has left."""
    todo = {record_id(spec) for spec in left(study)}
    most = min(LARGE, sum(cost(spec) for spec in left(study)) / (4 * workers))
    found = {}
    for job in jobs(study):
        if any(record_id(spec) in todo for spec in expand(study, job)):
            for part in cut(study, job, most):
                wanted = [spec for spec in expand(study, part) if record_id(spec) in todo]
                if wanted:
                    found[part] = wanted
    return found


# ----------------------------------------------------------------------------------------------
# where it writes


def folders(study: Study, of_figures: bool = False) -> list[Path]:
    """Where a run of the study writes; of_figures: where its figures and report alone do."""
    place = store.study_dir(study.name)
    kinds = [] if of_figures else sorted({spec.kind for spec in plan(study).values()})
    made = [store.outputs() / "records" / name for name in (*kinds, ".partial")] if kinds else []
    return [place, place / "notebooks", place / "figures", *made]


def prepare(study: Study, of_figures: bool = False, shared: bool = True) -> None:
    """Raises files.Unusable, before anything is started, if the study's folders cannot be written
    to; removes what dead runs left in them. shared: processes will share memory, semaphores at
    least."""
    for folder in folders(study, of_figures):
        files.check(folder)
    if shared and Path("/dev/shm").is_dir():
        files.check(Path("/dev/shm"))
    for folder in (*files.temporary(), *folders(study)):
        files.collect(folder, old=OLD if folder.is_relative_to(store.outputs()) else ())
    unfinished.sweep(store.unfinished_root(), store.exists_id)


def tidy(study: Study) -> None:
    """Removes what this run, which is over, and its workers left half made.

    These may need a moment to end.
    """
    patience = time.monotonic() + 3
    while True:
        for folder in folders(study):
            files.collect(folder, own=True)
        if time.monotonic() > patience or not any(
            any(folder.glob(f"{files.MARK}*")) for folder in folders(study)
        ):
            return
        time.sleep(0.1)


def stop_if_full(problem: BaseException | str) -> None:
    """Raises OSError with the place whose disk is full, if that was the problem.

    Nothing else could be made there.
    """
    if not files.is_full(problem):
        return
    for place in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        if place.is_dir():
            try:
                files.check(place)
            except files.Unusable:
                break
    else:
        place = store.outputs()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))


def _finished(study: Study, status: int) -> int:
    """The status, but never DONE while a record is not there."""
    missing = left(study) if status == DONE else []
    if missing:
        print(
            f"failed: {len(missing)} records are not there although nothing said why, the first"
            f" {label(missing[0])} ({record_id(missing[0])}); dwlt verify looks for what is wrong",
            file=sys.stderr,
            flush=True,
        )
    return FAILED if missing else status


# ----------------------------------------------------------------------------------------------
# inline


def run_inline(study: Study, device: str, deadline: float | None, say: Say) -> int:
    """Every missing record in this process, without workers or notebooks."""
    if deadline is not None:
        os.environ["DWLT_DEADLINE"] = str(deadline)
    try:
        return _finished(study, _inline(study, device, deadline, say))
    finally:
        os.environ.pop("DWLT_DEADLINE", None)


def _inline(study: Study, device: str, deadline: float | None, say: Say) -> int:
    from dwlt_lib.execution.make import make
    from dwlt_lib.training.trainer import OutOfTime

    todo, failed, began = left(study), {}, time.time()
    whole, done = sum(map(cost, todo)), 0.0
    for i, spec in enumerate(todo):
        if any(record_id(up) in failed for up in upstream(spec)):
            failed[record_id(spec)] = "builds on one that failed"
            continue
        if deadline is not None and time.time() > deadline:
            return STOPPED
        began_one, outcome = time.time(), "done"
        try:
            make(spec, device)
        except OutOfTime:
            return STOPPED
        except Exception as error:  # one failure must not take the rest with it
            stop_if_full(error)
            failed[record_id(spec)], outcome = f"{type(error).__name__}: {error}", "failed"
            print(f"failed: {label(spec)}: {failed[record_id(spec)]}", file=sys.stderr)
        done += cost(spec)
        say(
            f"[{i + 1}/{len(todo)} records, {_clock(time.time() - began)} gone,"
            f" {_left(began, done, whole)}] {outcome} {label(spec)}"
            f" ({time.time() - began_one:.1f} s)"
        )
    return FAILED if failed else DONE


# ----------------------------------------------------------------------------------------------
# papermill


def run_papermill(
    study: Study, params: Path, pool: Pool, device: str, deadline: float | None, say: Say
) -> int:
    """Every missing record, by compute notebooks in workers."""
    workers = pool.workers
    waiting = pending(study, workers)
    if not waiting:
        return _finished(study, DONE)
    todo = {record_id(spec): spec for spec in left(study)}
    whole, total = sum(map(cost, todo.values())), len(todo)
    say(
        f"{total} of {len(plan(study))} records to make in {len(waiting)} notebook runs on"
        f" {workers} workers"
    )
    began, failed, stopped = time.time(), {}, False
    running: dict[Future, Job] = {}
    urgent = _urgency(study, waiting)
    while waiting or running:
        ready = sorted((job for job, wanted in waiting.items() if _ready(wanted)), key=urgent.get)
        out_of_time = deadline is not None and time.time() > deadline
        while ready and len(running) < workers and not (stopped or out_of_time):
            job = ready.pop(0)
            waiting.pop(job)
            running[pool.submit(_compute, study.name, params, job, device)] = job
            say(f"  start {_job_label(job, study)}")
        if not running:
            break
        idle = waiting and len(running) < workers and not (stopped or out_of_time)
        finished, _ = wait(running, timeout=LOOK if idle else None, return_when=FIRST_COMPLETED)
        for future in finished:
            job = running.pop(future)
            seconds, problem = _outcome(future)
            missing, outcome = (
                [spec for spec in expand(study, job) if not store.exists(spec)],
                "done",
            )
            if problem == "OutOfTime":
                stopped, outcome = True, "stop"
            elif missing or problem:
                stop_if_full(problem)
                failed[job], outcome = (
                    problem or f"its notebook ended without {label(missing[0])}",
                    "failed",
                )
                print(
                    f"failed: {_job_label(job, study)}: {failed[job]}", file=sys.stderr, flush=True
                )
            done = sum(cost(spec) for spec in todo.values() if store.exists(spec))
            there = sum(map(store.exists, todo.values()))
            say(
                f"[{there}/{total} records, {_clock(time.time() - began)} gone,"
                f" {_left(began, done, whole)}] {outcome} {_job_label(job, study)}"
                f" ({seconds:.0f} s)"
            )
    blocked = 0 if stopped else len(waiting)
    if failed:
        if blocked:
            print(
                f"not started: {blocked} notebook runs that build on a failed one", file=sys.stderr
            )
        return FAILED
    return STOPPED if waiting or stopped else _finished(study, DONE)


def run_figures(study: str, pool: Pool, say: Say) -> tuple[int, bool]:
    """Figure notebooks over what is there now: the exit status, and whether any had to be drawn.

    Those whose records and code have not changed are left alone.
    """
    folder, basis, stale = (
        store.study_dir(study) / "notebooks",
        _basis(study),
        stale_figures(study),
    )
    if not stale:
        return DONE, False
    say(f"drawing {len(stale)} figure notebooks")
    status = DONE
    running = {
        pool.submit(_execute, name, {"study": study}, folder / f"{name}.ipynb", basis): name
        for name in sorted(stale, key=lambda name: name not in LONGEST)
    }
    for future, name in running.items():
        _, problem = _outcome(future)
        if problem:
            stop_if_full(problem)
            status = FAILED
            print(f"failed: notebook {name}: {problem}", file=sys.stderr, flush=True)
    return status, True


def stale_figures(study: str) -> list[str]:
    """Figure notebooks whose records or code have changed since they were drawn."""
    folder, basis = store.study_dir(study) / "notebooks", _basis(study)
    return [
        name
        for name in FIGURES
        if _stamp(folder / f"{name}.ipynb") != basis
        and (store.checkout() / "notebooks" / f"{name}.ipynb").exists()
    ]


def _basis(study: str) -> str:
    """What figure notebooks are drawn from.

    The records that are there, the notebooks, the library.
    """
    there = sorted(store.table(study=study, damaged=[])["id"])
    sources = sorted(
        [*store.checkout().glob("notebooks/*.ipynb"), *store.checkout().glob("dwlt_lib/**/*.py")]
    )
    digest = hashlib.sha256(json.dumps([there, store.study(study)["params"]]).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stamp(path: Path) -> str | None:
    try:
        return json.loads(path.read_bytes())["metadata"]["dwlt_basis"]
    except (OSError, ValueError, KeyError):
        return None


def _ready(wanted: Iterable[Spec]) -> bool:
    own = {record_id(spec) for spec in wanted}
    return all(store.exists(up) or record_id(up) in own for spec in wanted for up in upstream(spec))


def _urgency(study: Study, waiting: dict[Job, list[Spec]]) -> dict[Job, tuple]:
    """The least goes first: what others wait for (pre-trainings, then ladders), then coarse figures
    before finer ones, then the costliest."""
    turn, first = turns(plan(study)), {"pretrain": 0, "prune": 1}
    return {
        job: (first.get(job.kind, 2), min(map(turn, wanted)), -sum(map(cost, wanted)))
        for job, wanted in waiting.items()
    }


def _job_label(job: Job, study: Study) -> str:
    parts = [job.kind.replace("_", " "), job.pretraining]
    if job.kind == "pretrain":
        return " ".join(parts) + (f", unseen robust model on {job.dataset}" if job.dataset else "")
    parts.append("dense" if job.rounds == (0,) else job.method)
    if job.kind != "prune":
        parts.append(f"on {job.dataset} {100 * job.fraction:g} % {job.regime}")
    percents = [f"{100 * ladder(rounds, study.prune_fraction):.1f}" for rounds in job.rounds]
    parts.append(
        f"at {percents[0]}-{percents[-1]} %" if len(percents) > 1 else f"at {percents[0]} %"
    )
    return " ".join(parts) + (f", seeds {' '.join(map(str, job.seeds))}" if job.seeds else "")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _left(began: float, done: float, whole: float) -> str:
    if done <= 0 or time.time() - began < 5:
        return "time left not known yet"
    return f"about {_clock((time.time() - began) * (whole - done) / done)} left"


# ----------------------------------------------------------------------------------------------
# workers


def _compute(study: str, params: Path, job: Job, device: str) -> tuple[float, str]:
    notebook, fields = NOTEBOOKS[job.kind]
    values = {
        name: list(value) if isinstance(value := getattr(job, name), tuple) else value
        for name in fields
    }
    tag = hashlib.sha256(job.model_dump_json().encode()).hexdigest()[:8]
    target = store.study_dir(study) / "notebooks" / f"{notebook}-{job.pretraining}-{tag}.ipynb"
    return _execute(notebook, {"params": str(params), **values, "device": device}, target, "")


def _execute(notebook: str, parameters: dict, target: Path, basis: str) -> tuple[float, str]:
    """Run one notebook in this process; (seconds, problem or "").

    The executed notebook replaces an older one whole.
    """
    import papermill

    from dwlt_lib.execution import engine

    began, problem = time.time(), ""
    source = store.checkout() / "notebooks" / f"{notebook}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = files.scratch(target)
    braces = str(scratch).replace("{", "{{").replace("}", "}}")  # papermill formats output paths
    try:
        papermill.execute_notebook(
            source,
            braces,
            parameters,
            kernel_name="python3",
            engine_name=engine.NAME,
            cwd=str(source.parent),
            progress_bar=False,
            autosave_cell_every=0,
        )
    except papermill.exceptions.PapermillExecutionError as error:
        problem = (
            "OutOfTime"
            if error.ename == "OutOfTime"
            else f"{error.ename}: {error.evalue} (see {target})"
        )
    except Exception as error:  # a disk that is full: named, and the rest goes on
        problem = f"{type(error).__name__}: {error}"
    try:
        if problem != "OutOfTime" and scratch.exists() and not files.is_full(problem):
            content = json.loads(scratch.read_bytes())
            content["metadata"]["dwlt_basis"] = "" if problem else basis
            files.write(target, json.dumps(content, indent=1))
    finally:
        scratch.unlink(missing_ok=True)
    return time.time() - began, problem


def _outcome(future: Future) -> tuple[float, str]:
    try:
        return future.result()
    except BrokenProcessPool:
        return 0.0, DIED
    except Exception as error:
        return 0.0, f"{type(error).__name__}: {error}"
