"""Worker processes: a fresh one for every task, forked from a server that has made all imports.

A worker computes with one thread. It ends with its task, or when the process that asked for it
ends, however that ends. A notebook runs in the worker itself (engine.py), so that nothing is left
of it when the worker has gone.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize, get_temp_dir
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar, cast

import psutil

from dwlt_lib import files
from dwlt_lib.execution import devices
from dwlt_lib.records import store

P = ParamSpec("P")
T = TypeVar("T")
INLINE = "module://matplotlib_inline.backend_inline"
QUIET = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": INLINE,
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    # tensors in large pages: a training step gains 4 % on Linux
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
RUN = "DWLT_RUN"  # environment: the process with which the server ends
# Apple's libraries do not survive a fork
METHOD = "spawn" if sys.platform == "darwin" else "forkserver"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]  # what ends a command


# ---------------------------------------------------------------------------- in the run


class Pool(Executor):
    """So many tasks at a time, each in a process of its own.

    A process that dies takes its own task alone with it, whose future raises BrokenProcessPool.
    An error in a `with` block ends all tasks. Nothing is started before the first one.

    Args:
        workers: how many tasks at a time.
        deadline: when trainings are to stop, in seconds since 1970; None: never.
        log: the file to which what workers say on stdout and stderr is added.
        gpus: of `devices.visible_gpus`; a task sees one of them, and while there are enough no
            other task sees the same.
    """

    def __init__(
        self, workers: int, deadline: float | None, log: Path, gpus: Sequence[str] = ()
    ) -> None:
        """Set the pool up; no process is started."""
        skip_iris()
        self.workers, self.log = workers, str(log)
        self.environment = {
            **os.environ,
            **QUIET,
            "DWLT_OUTPUTS": str(store.outputs()),
            "DWLT_WORKERS": str(workers),
            "DWLT_DEADLINE": "" if deadline is None else str(deadline),
        }
        self.turns: SimpleQueue[dict[str, str]] = SimpleQueue()
        for worker in range(workers):
            self.turns.put({"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]} if gpus else {})
        self.threads = ThreadPoolExecutor(workers, initializer=_hear_nothing)
        self.asked: list[Future] = []

    def submit(self, task: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker run a task; the first call starts the server of workers.

        Args:
            task: a function that can be pickled.
            *args: what it is called with.
            **kwargs: what it is called with.

        Returns:
            The future of what it returns.
        """
        start_server()
        future = self.threads.submit(self._run, task, *args, **kwargs)
        self.asked.append(future)
        return future

    def _run(self, task: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        turn = self.turns.get()
        try:
            environment = {**self.environment, **turn}
            context = multiprocessing.get_context(METHOD)
            with ProcessPoolExecutor(1, context, _begin, (self.log, environment)) as one:
                return one.submit(task, *args, **kwargs).result()
        except (EOFError, ConnectionError) as error:  # it, or the server, ended before it began
            raise BrokenProcessPool(str(error)) from error
        finally:
            self.turns.put(turn)

    def __exit__(self, *error: object) -> None:
        """Wait for all tasks, or end them if there was an error."""
        if error[0] is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)
            while not all(task.done() for task in self.asked):
                end_processes()
                time.sleep(0.02)
        self.threads.shutdown()


def local_pool(
    study_name: str,
    workers: int | None = None,
    device: str = "cpu",
    deadline: float | None = None,
) -> Pool:
    """A pool on this machine, which logs to the study's workers.log.

    Args:
        study_name: names the study's folder.
        workers: how many tasks at a time; None: one per GPU on cuda, one per core on cpu.
        device: cpu or cuda.
        deadline: when trainings are to stop, in seconds since 1970; None: never.

    Returns:
        The pool; no process is started yet.
    """
    gpus = devices.visible_gpus() if device == "cuda" else []
    log = store.study_dir(study_name) / "workers.log"
    return Pool(workers or len(gpus) or usable_cores(), deadline, log, gpus)


def usable_cores() -> int:
    """How many cores this process may use.

    Returns:
        At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_server() -> None:
    """Starts the server, which is at its imports for some seconds while the caller goes on.

    Nothing happens if it runs, or where there is none: there every worker makes its own imports.
    """
    resource_tracker.ensure_running()  # first: it lets this process hear signals again
    if METHOD == "forkserver":
        _private_folder()
        environment = {**QUIET, RUN: str(os.getpid())}
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        # the server never hears what a terminal says to this process and those that it started
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            forkserver.set_forkserver_preload(["dwlt_lib.execution.preload"])
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@cache
def _private_folder() -> None:
    """The server's socket will be in a private folder whose path is short enough."""
    folder, before = files.private(), tempfile.tempdir
    tempfile.tempdir = str(folder)
    get_temp_dir()
    tempfile.tempdir = before
    # after the folder in it, which get_temp_dir removes at -100
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-101)


def _hear_nothing() -> None:
    """Processes that this thread starts do not hear what a terminal says to this one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_processes() -> None:
    """Kill the server, if there is one, its workers, and all that they started."""
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if f"multiprocessing.{METHOD}" in " ".join(process.cmdline()):
                for one in [process, *process.children(recursive=True)]:
                    one.kill()


def skip_iris() -> None:
    """Notebooks are checked by jsonschema, which would first compile a grammar of IRIs, for 2 s.

    None has any.
    """
    sys.modules.setdefault("rfc3987_syntax", cast(Any, None))


# -------------------------------------------------------------------------- in a worker


def _begin(log: str, environment: dict[str, str]) -> None:
    """What a worker does first; what it says on stdout and stderr is added to the file `log`."""
    run = cast(BaseProcess, multiprocessing.parent_process())
    threading.Thread(target=_end_with, args=(run,), daemon=True).start()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    # what a notebook starts is forked from here, as everywhere, and not by the server
    multiprocessing.set_start_method(None, force=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # the run decides of the others


def _end_with(run: BaseProcess) -> None:
    run.join()
    os._exit(1)
