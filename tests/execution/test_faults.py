"""Whatever dies, fills up or turns NaN, and whenever: no result is lost, made twice or false.

The whole battery, with the counts below, is `make test-faults`; `make test` runs a part of it.
"""

import contextlib
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import BUSY, FAULTS
from test_interrupts import SPECK, left_behind, processes_end, start, until

from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution import run_folders, runner
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store
from dwlt_lib.training import trainer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
CALLS = ("rename", "replace", "fsync")  # after each of which a file is where it was not
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def study(toy):
    """The toy study, with a transfer of several epochs, whose weights are kept."""
    return toy(keep_weights=True)


@pytest.fixture(scope="module")
def expected(study, tmp_path_factory):
    """The results of an undisturbed run, by id."""
    with outputs_in(tmp_path_factory.mktemp("undisturbed")):
        assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.DONE
        return results(study)


@contextlib.contextmanager
def outputs_in(folder):
    before = os.environ.get("DWLT_OUTPUTS")
    os.environ["DWLT_OUTPUTS"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DWLT_OUTPUTS"]
        else:
            os.environ["DWLT_OUTPUTS"] = before


def results(study):
    return store.results_of(plan(study).values())


def run_once(study, folder, before=None):
    """The exit status of a run in a forked process, negative if a signal ended it.

    before: called in it first. Every epoch that is trained adds a line to FOLDER/epochs.
    """
    return finish(begin(study, folder, before))


def begin(study, folder, before=None):
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(study, folder, before), daemon=True
    )
    process.start()
    return process


def finish(process):
    process.join(120 * BUSY)
    assert process.exitcode is not None, "a run hangs"
    return process.exitcode


def _run(study, folder, before):
    folder.mkdir(exist_ok=True)
    train_epoch, epochs = trainer._train_epoch, folder.parent / f"{folder.name}.epochs"

    def noted(model, masked_parameters, optimiser, train, config, seed, epoch):
        found = train_epoch(model, masked_parameters, optimiser, train, config, seed, epoch)
        with open(epochs, "a", encoding="utf-8") as file:
            print(os.getpid(), file=file)
        return found

    trainer._train_epoch = noted
    with outputs_in(folder):
        if before is not None:
            before()
        try:
            with run_folders.opened(study, workers=False):
                status = runner.run_inline(study, runner.RunSettings("cpu"))
        except OSError:
            status = 3
        os._exit(status)


def epochs_of(folder):
    """How many epochs were trained in all runs in a folder."""
    path = folder.parent / f"{folder.name}.epochs"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def assert_whole(study, folder, expected):
    with outputs_in(folder):
        assert results(study) == expected
        assert store.verify() == []
    assert left_behind(folder) == []
    for name in (".leases", ".partial"):
        assert list((folder / "records" / name).iterdir()) == []


class Killer:
    """Kills this process before or after the n-th call of functions of os."""

    def __init__(self, n, side):
        self.n, self.side, self.calls = n, side, 0

    def __call__(self):
        for name in CALLS:
            setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, function):
        def call(*arguments, **options):
            self.calls += 1
            due = self.calls == self.n
            if due and self.side == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            found = function(*arguments, **options)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call


# ------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_kill_on_either_side_of_a_rename_or_a_sync_loses_at_most_an_epoch(
    study, expected, side, tmp_path
):
    whole = tmp_path / "whole"
    assert run_once(study, whole) == 0
    epochs, n, rng = epochs_of(whole), 0, random.Random(side)
    while True:
        n += 1 if FAULTS else rng.randint(20, 60)
        folder = tmp_path / f"{n}"
        status = run_once(study, folder, Killer(n, side))
        if status == 0:
            break  # there are no more calls
        assert status == -signal.SIGKILL
        assert run_once(study, folder) == 0
        assert_whole(study, folder, expected)
        assert epochs_of(folder) <= epochs + 1
        shutil.rmtree(folder)
    assert n > 40


def test_of_two_runs_at_once_one_is_killed_at_any_moment_and_nothing_is_made_twice(
    study, expected, tmp_path
):
    began = time.monotonic()
    assert run_once(study, tmp_path / "alone") == 0
    seconds, epochs = time.monotonic() - began, epochs_of(tmp_path / "alone")
    rng = random.Random(1)
    for number in range(100 if FAULTS else 4):
        folder = tmp_path / f"{number}"
        victim, other = begin(study, folder), begin(study, folder)
        time.sleep(rng.uniform(0, seconds))
        victim.kill()
        assert finish(other) == 0
        finish(victim)
        assert run_once(study, folder) == 0  # sweeps what the victim may have left
        assert_whole(study, folder, expected)
        assert epochs_of(folder) <= epochs + 1
        shutil.rmtree(folder)


@pytest.mark.parametrize("victim", ["driver", "worker", "both"])
def test_a_command_killed_at_any_moment_leaves_no_process_and_the_next_goes_on(victim, tmp_path):
    study, rng = read_study(SPECK), random.Random(victim)
    here, there, temporary = (tmp_path / name for name in ("here", "there", "temporary"))
    temporary.mkdir()
    with outputs_in(here):
        assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.DONE
        expected = results(study)
    kills, wanted = 0, 67 if FAULTS else 2
    while kills < wanted:
        with outputs_in(there):
            if len(results(study)) == len(expected):
                assert results(study) == expected and store.verify() == []
                shutil.rmtree(there)
        run = start(there, temporary, "run", SPECK, "--workers", 2)
        if victim == "worker":
            until(run, "  start")
        is_over = False
        while not is_over and run.poll() is None and kills < wanted:
            time.sleep(rng.uniform(0, 6 * BUSY))
            with outputs_in(there):
                is_over = len(results(study)) == len(expected)
            workers = [] if is_over or victim == "driver" else _workers_of(run.pid)
            doomed = workers if victim == "worker" else [run.pid, *workers]
            for pid in reversed(doomed):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            kills += not is_over and bool(doomed)
            if victim != "worker":
                break
        with outputs_in(there):  # after the last kill a run goes on, or says what failed
            while run.poll() is None and len(results(study)) < len(expected):
                time.sleep(0.1)
        run.kill()
        run.communicate()
        assert processes_end(there, 20 * BUSY)
    run = start(there, temporary, "run", SPECK, "--executor", "inline")
    assert run.wait(240 * BUSY) == 0, run.communicate()
    run.communicate()
    assert_whole(study, there, expected)
    assert left_behind(temporary) == []


def _workers_of(pid):
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        servers = [
            one for one in psutil.Process(pid).children() if "forkserver" in " ".join(one.cmdline())
        ]
        return [worker.pid for one in servers for worker in one.children()]
    return []


# ------------------------------------------------------------------------------------- disks


def test_a_full_disk_stops_a_run_which_goes_on_when_there_is_room(study, expected, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or not shutil.which("mount") or _mount(disk, MEBIBYTE):
        pytest.skip("no disk can be mounted here")
    try:
        assert run_once(study, tmp_path / "whole") == 0
        files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
        needed = sum(4096 * math.ceil(path.stat().st_size / 4096) + 4096 for path in files)
        sizes = random.Random(2).sample(range(needed // 50, needed), 20 if FAULTS else 3)
        full = 0
        for size in sizes:
            _mount(disk, size, "remount")
            folder = disk / "outputs"
            status = run_once(study, folder)
            assert status in (0, 1, 3)
            full += status != 0
            with outputs_in(folder):
                for id, result in results(study).items():
                    assert result == expected[id]
            _mount(disk, 4 * needed, "remount")
            assert run_once(study, folder) == 0
            assert_whole(study, folder, expected)
            shutil.rmtree(folder)
            (disk / "outputs.epochs").unlink(missing_ok=True)
        assert full > len(sizes) // 2
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def _mount(folder, size, *options):
    """Mounts a disk of that many bytes, or changes its size; not 0 if that cannot be done."""
    words = ",".join([*options, f"size={size}"])
    command = ["mount", "-t", "tmpfs", "-o", words, "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode


# --------------------------------------------------------------------------------------- NaN


def broken_step(regime, epoch):
    """A training step whose loss, or else whose weights, are NaN at one moment of a regime."""
    step, calls = trainer.step, {}

    def broken(model, masked_parameters, optimiser, x, y, attack, *rest):
        found = step(model, masked_parameters, optimiser, x, y, attack, *rest)
        key = id(model)
        calls[key] = calls.get(key, 0) + 1
        is_due = calls[key] == epoch and (attack is not None) == (regime == "AT")
        return found * math.nan if is_due else found

    return broken


def broken_weight(regime, name):
    """A training step after which one value of the network is NaN."""
    step = trainer.step

    def broken(model, masked_parameters, optimiser, x, y, attack, *rest):
        found = step(model, masked_parameters, optimiser, x, y, attack, *rest)
        if (attack is not None) == (regime == "AT"):
            for own, value in model.state_dict().items():
                if name in own:
                    value.view(-1)[0] = math.nan
        return found

    return broken


@pytest.mark.parametrize(
    "broken",
    [
        *[(broken_step, regime, at) for regime in ("ST", "AT") for at in (1, 4, 9)],
        *[
            (broken_weight, regime, name)
            for regime in ("ST", "AT")
            for name in ("fc", "running_var")
        ],
    ],
    ids=lambda broken: " ".join(map(str, broken[1:])),
)
def test_a_nan_in_a_transfer_is_an_outcome_and_never_a_verdict(toy, broken, outputs, monkeypatch):
    from dwlt_lib.analysis import double_win, noninferiority

    make_broken, *where = broken
    study = toy()
    specs = plan(study).values()
    for spec in specs:
        if spec.kind in ("pretraining", "mask"):
            make(spec)
    monkeypatch.setattr(trainer, "step", make_broken(*where))
    for spec in specs:
        make(spec)
    table = store.table("transfer", study=None)
    diverged = table[table["diverged"] == 1]
    assert set(diverged["regime"]) == {where[0]} and diverged[["SA", "RA"]].isna().all(axis=None)
    levels = noninferiority.noninferiority(table, store.outcomes_of(table))
    assert (levels["status"] == noninferiority.UNKNOWN).all()
    paper = double_win.verdict(table)
    assert paper["extreme_rounds"].isna().all()
    built_on = store.table()
    hit = set(diverged["id"])
    for spec in specs:
        if spec.kind in ("surface", "trajectory", "attack") and record_id(spec.transfer) in hit:
            assert built_on.set_index("id").loc[record_id(spec), "diverged"] == 1
    assert store.verify() == []


def make(spec):
    from dwlt_lib.execution.make import make

    return make(spec)


def test_a_nan_in_a_pretraining_is_no_record(toy, outputs, monkeypatch):
    study = toy()
    (spec,) = [one for one in plan(study).values() if one.kind == "pretraining"][:1]
    monkeypatch.setattr(trainer, "step", broken_step("AT" if spec.recipe.attack else "ST", 1))
    with pytest.raises(FloatingPointError):
        make(spec)
    assert not store.exists(spec) and not list(Path(outputs).rglob("record.json"))
