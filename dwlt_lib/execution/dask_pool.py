"""A pool of Dask's workers, on this machine or on others that see the same folders.

Each of them keeps a pool of its own (workers.py), so that a notebook runs in a fresh process there,
too. Records are written by those processes into the shared outputs; only how a notebook ended comes
back.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import dask.config
from distributed import Client, Worker, WorkerPlugin, get_worker

from dwlt_lib.config.sites import DaskSite
from dwlt_lib.execution import devices, workers
from dwlt_lib.records import store

P = ParamSpec("P")
T = TypeVar("T")
PLUGIN = "dwlt"
CLUSTERS = {
    "LocalCluster": "distributed",
    "SSHCluster": "distributed",
    "KubeCluster": "dask_kubernetes.operator",
}
"""The module of each class of clusters."""
DAEMON = "distributed.worker.daemon"
PATIENCE = "10s"
"""How long a scheduler may be silent before it counts as gone."""


class WorkerPool(WorkerPlugin):
    """What each worker of Dask is given, also one that joins later: a pool of fresh processes.

    Args:
        folder: the study's folder, which the worker has to see.
        environment: variables of this process that the worker takes over where it has none.
        device: cpu or cuda.
        deadline: when trainings are to stop, in seconds since 1970; None: never.
    """

    name = PLUGIN

    def __init__(
        self, folder: Path, environment: dict[str, str], device: str, deadline: float | None
    ) -> None:
        """Keep what the worker needs; nothing is started."""
        self.folder, self.environment = folder, environment
        self.device, self.deadline = device, deadline

    def setup(self, worker: Worker) -> None:
        """Set the worker's pool up.

        Args:
            worker: Dask's worker in this process.

        Raises:
            ValueError: it does not see the study's folder, or may not start processes; one line.
        """
        if multiprocessing.current_process().daemon:
            raise ValueError(
                f"Dask worker {worker.address} may not start processes; start it with"
                " DASK_DISTRIBUTED__WORKER__DAEMON=false in its environment"
            )
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)
        if not self.folder.is_dir():
            raise ValueError(
                f"Dask worker {worker.address} does not see {self.folder}; every machine has to"
                " see the same outputs"
            )
        gpus = devices.visible_gpus() if self.device == "cuda" else []
        log = self.folder / "workers.log"
        self.pool = workers.Pool(worker.state.nthreads, self.deadline, log, gpus)
        workers.start_server()

    def teardown(self, worker: Worker) -> None:
        """End what the pool still does.

        Args:
            worker: Dask's worker in this process.
        """
        workers.end_processes()


class DaskPool(Executor):
    """The workers of a Dask cluster, in a `with` block.

    A task whose worker dies is given to another by Dask; how often, Dask's configuration says
    (distributed.scheduler.allowed-failures). Futures of a scheduler that has gone are cancelled.

    Args:
        site: which cluster; one of its own ends with the block.
        study_name: names the study's folder.
        device: cpu or cuda.
        deadline: when trainings are to stop, in seconds since 1970; None: never.

    Raises:
        ValueError: there is no such cluster, or a worker of it cannot be used; one line.
    """

    def __init__(
        self, site: DaskSite, study_name: str, device: str, deadline: float | None
    ) -> None:
        """Start or reach the cluster and prepare its workers."""
        for name in ("distributed", "distributed.client"):  # the run says itself what has died
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._closing, self._threads = ExitStack(), 1
        try:
            self._closing.enter_context(
                dask.config.set({DAEMON: False, "distributed.comm.timeouts.connect": PATIENCE})
            )
            place: Any = site.scheduler
            if site.cluster is not None:
                module = importlib.import_module(CLUSTERS[site.cluster])
                place = self._closing.enter_context(getattr(module, site.cluster)(**site.options))
            self.client = self._closing.enter_context(Client(place))
            environment = {"DWLT_OUTPUTS": str(store.outputs())}
            if "DWLT_DATA" in os.environ:
                environment["DWLT_DATA"] = os.environ["DWLT_DATA"]
            folder = store.study_dir(study_name)
            self.client.register_plugin(WorkerPool(folder, environment, device, deadline))
            resources = {"GPU": 1} if device == "cuda" else None
            self._executor = self.client.get_executor(pure=False, resources=resources)
        except BaseException as error:
            self._closing.close()
            if isinstance(error, Exception):
                where = site.scheduler or site.cluster
                raise ValueError(f"Dask, {where}: {type(error).__name__}: {error}") from error
            raise

    @property
    def workers(self) -> int:
        """How many notebooks run at a time, at least 1; workers may join and leave."""
        with suppress(OSError):  # the scheduler does not answer
            threads = cast(dict[str, int], self.client.nthreads())
            self._threads = sum(threads.values()) or 1
        return self._threads

    @property
    def dashboard(self) -> str:
        """The address of the cluster's dashboard."""
        return self.client.dashboard_link or "none"

    def submit(self, task: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker run a task in a fresh process.

        Args:
            task: a function that can be pickled.
            *args: what it is called with.
            **kwargs: what it is called with.

        Returns:
            The future of what it returns; it is cancelled if the scheduler goes.

        Raises:
            BrokenExecutor: the scheduler has gone.
        """
        if self.client.status != "running":
            raise BrokenExecutor("Dask's scheduler has gone")
        return self._executor.submit(_in_fresh_process, task, *args, **kwargs)

    def __exit__(self, *error: object) -> None:
        """Leave the cluster, and end it if it is this run's own."""
        self._closing.close()


def _in_fresh_process(task: Callable[..., T], *args: object, **kwargs: object) -> T:
    """In a worker of Dask."""
    plugin = cast(WorkerPool, get_worker().plugins[PLUGIN])
    return plugin.pool.submit(task, *args, **kwargs).result()
