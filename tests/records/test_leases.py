"""One process makes a record: leases are exclusive, end with their holders, compare no clocks."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dwlt_lib.records import leases
from dwlt_lib.records.leases import Held, LostLease, acquire, holder

ID = "0123456789abcdef0123"
FAULTS = os.environ.get("DWLT_FAULTS") == "full"  # not conftest's, which loads torch
PROCESSES, ROUNDS = (64, 100) if FAULTS else (8, 25)


@pytest.fixture
def root(tmp_path):
    return tmp_path / ".leases"


@pytest.fixture
def impatient(monkeypatch):
    """Leases lapse after a twentieth of a second, and nobody gives a sign of life."""
    monkeypatch.setattr(leases, "LIFETIME", 0.05)
    monkeypatch.setattr(leases, "HEARTBEAT", 3600.0)


def wait_until_free(root):
    while holder(root, ID) is not None:
        time.sleep(0.01)


def contend(root, barrier, won):
    for number in range(ROUNDS):
        barrier.wait()
        try:
            lease = acquire(root, f"{number:020x}")
        except Held:
            barrier.wait()
        else:
            with won.get_lock():
                won[number] += 1
            barrier.wait()  # held until all have tried
            with lease:
                pass


def test_of_many_processes_one_has_the_lease(root):
    context = multiprocessing.get_context("spawn")
    barrier, won = context.Barrier(PROCESSES), context.Array("i", ROUNDS)
    contenders = [
        context.Process(target=contend, args=(root, barrier, won)) for _ in range(PROCESSES)
    ]
    for one in contenders:
        one.start()
    for one in contenders:
        one.join()
    assert list(won) == [1] * ROUNDS and not list(root.iterdir())


def test_a_lease_that_is_held_is_refused_in_a_line_that_says_by_whom(root):
    with acquire(root, ID) as lease:
        lease.note = "epoch 3"
        lease._heartbeat()
        with pytest.raises(Held, match=rf"{ID}: .* \(process {os.getpid()}\) since .*, epoch 3 is"):
            acquire(root, ID)
        assert list(leases.holders(root)) == [ID]
    assert holder(root, ID) is None and not list(root.iterdir())


def test_a_failure_gives_the_lease_up_at_once_and_keeps_its_number(root):
    with pytest.raises(ZeroDivisionError), acquire(root, ID) as first:
        1 / 0  # noqa: B018
    assert holder(root, ID) is None
    with acquire(root, ID) as second:
        assert second.number > first.number


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_made", [False, True])
def test_a_holder_that_was_silent_for_too_long_writes_nothing(root, is_made):
    for _ in range(100 if FAULTS else 20):
        paused = acquire(root, ID)
        wait_until_free(root)
        other = acquire(root, ID)
        if is_made:  # and its leases are removed
            other.renew()
            other.__exit__(None, None, None)
        with pytest.raises(LostLease, match=ID):
            paused.renew()
        assert is_made or (root / f"{ID}.2").exists()  # the other one's stays
        leases.remove(root, ID)


def test_a_lease_is_renewed_while_it_is_held(root):
    with acquire(root, ID) as lease:
        lease.renew()
        lease.renew()
        with pytest.raises(Held):
            acquire(root, ID)
    assert not list(root.iterdir())


def test_signs_of_life_keep_a_lease(root, monkeypatch):
    monkeypatch.setattr(leases, "LIFETIME", 0.5)
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    with acquire(root, ID):
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert holder(root, ID) is not None
            time.sleep(0.05)


def test_no_clocks_are_compared(root, monkeypatch):
    with acquire(root, ID):
        (path,) = root.iterdir()
        for hours in (-1, 1):
            shifted = time.time() + 3600 * hours
            os.utime(path, (shifted, shifted))
            assert holder(root, ID) is not None
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert holder(root, ID) is not None


def hold_for_ever(root, holds):
    acquire(root, ID)
    holds.set()
    threading.Event().wait()


def test_the_lease_of_a_killed_process_is_free_at_once(root):
    context = multiprocessing.get_context("spawn")
    holds = context.Event()
    process = context.Process(target=hold_for_ever, args=(root, holds))
    process.start()
    holds.wait()
    assert holder(root, ID).pid == process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with acquire(root, ID) as lease:
        assert lease.number == 2


@pytest.mark.usefixtures("impatient")
def test_a_run_frees_for_its_workers_what_has_lapsed(root):
    acquire(root, ID)
    wait_until_free(root)
    leases.free_lapsed(root)
    leases._seen.clear()  # as a worker, which has not seen for how long the other was silent
    with acquire(root, ID) as lease:
        assert lease.number == 3


def test_leases_on_records_that_are_there_are_swept(root):
    for id in (ID, ID[::-1]):
        acquire(root, id)
    leases.sweep(root, lambda id: id == ID)
    assert list(leases.holders(root)) == [ID[::-1]]


def test_without_leases_there_are_no_holders(root: Path):
    assert leases.holders(root) == {}
    leases.free_lapsed(root)
    leases.sweep(root, bool)
