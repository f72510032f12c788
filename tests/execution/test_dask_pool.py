"""A study on Dask's workers: the same records, whatever dies on the way."""

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, wait

import psutil
import pytest
from conftest import FAULTS
from test_end_to_end import TINY
from test_interrupts import SPECK, start, until

from dwlt_lib.config.planning import plan
from dwlt_lib.config.sites import DaskSite
from dwlt_lib.execution import runner
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

pytest.importorskip("distributed")
STUDY = TINY if FAULTS else SPECK


@contextlib.contextmanager
def dask(command, *arguments):
    """A scheduler or a worker of Dask, in a process of its own; all of it is killed at the end."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DASK_DISTRIBUTED__WORKER__DAEMON": "false",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", command, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        kill(process.pid)
        process.wait()
        process.stderr.close()


def kill(pid):
    """Kills a process and what it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


@contextlib.contextmanager
def scheduler():
    """(its process, its address)."""
    options = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    with dask("scheduler", *options) as process:
        for line in process.stderr:
            if "Scheduler at:" in line:
                yield process, line.split()[-1]
                return
        raise AssertionError("no scheduler")


def worker(address):
    options = ("--nthreads", "1", "--host", "127.0.0.1", "--death-timeout", "60")
    return dask("worker", address, *options)


def site_file(tmp_path, address):
    path = tmp_path / "dask.yaml"
    path.write_text(f"{{engine: dask, scheduler: '{address}'}}\n", encoding="utf-8")
    return path


def results(study):
    return store.results_of(plan(study).values())


def test_two_workers_make_what_a_local_pool_makes_though_one_dies_and_then_the_scheduler(
    tmp_path, monkeypatch
):
    study, here = read_study(STUDY), tmp_path / "here"
    monkeypatch.setenv("DWLT_OUTPUTS", str(here))
    assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.DONE
    expected, there = results(study), tmp_path / "there"
    monkeypatch.setenv("DWLT_OUTPUTS", str(there))
    with scheduler() as (head, address), worker(address) as first, worker(address):
        run = start(there, tmp_path, "run", STUDY, "--site", site_file(tmp_path, address))
        until(run, "  start ")
        late = time.time() + 60
        while not list(there.rglob("records/.leases/*")) and time.time() < late:
            time.sleep(0.02)
        kill(first.pid)
        until(run, "  start transfer")
        kill(head.pid)
        _, said = run.communicate(timeout=120)
    assert run.returncode == runner.STOPPED, said
    assert said.splitlines()[-1].endswith(runner.POOL_GONE), said
    made = set(results(study))
    assert made < set(expected)
    with scheduler() as (_, address), worker(address), worker(address):
        run = start(there, tmp_path, "run", STUDY, "--site", site_file(tmp_path, address))
        _, said = run.communicate(timeout=600)
    assert run.returncode == runner.DONE, said
    assert results(study) == expected
    assert store.verify() == [] and not list(store.leases_root().iterdir())


def test_a_cluster_of_ones_own_ends_with_its_block(tmp_path, monkeypatch):
    from dwlt_lib.execution.dask_pool import DaskPool

    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    store.study_dir("one").mkdir(parents=True)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    site = DaskSite(engine="dask", cluster="LocalCluster", options=options)
    before = set(psutil.Process().children(recursive=True))
    with DaskPool(site, "one", "cpu", None) as pool:
        assert pool.workers == 2
        tasks = [pool.submit(os.getpid) for _ in range(4)]
        wait(tasks)
        assert len({task.result() for task in tasks}) == 4  # a fresh process each
        assert pool.submit(os.getcwd).result() == os.getcwd()
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [
        one for one in psutil.wait_procs(left, 10)[1] if "distributed" in str(one.cmdline())
    ]
    with pytest.raises(BrokenExecutor):
        pool.submit(os.getpid)


def test_what_cannot_be_reached_or_does_not_see_the_outputs_is_refused(tmp_path, monkeypatch):
    from dwlt_lib.execution import dask_pool
    from dwlt_lib.execution.dask_pool import DaskPool

    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    site = DaskSite(engine="dask", cluster="LocalCluster", options=options)
    with pytest.raises(ValueError, match="does not see .*; every machine has to see the same out"):
        DaskPool(site, "never_planned", "cpu", None)
    monkeypatch.setattr(dask_pool, "PATIENCE", "1s")
    site = DaskSite(engine="dask", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ValueError, match="^Dask, tcp://127.0.0.1:9: "):
        DaskPool(site, "one", "cpu", None)
