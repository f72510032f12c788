"""A run names its failures and keeps them apart."""

import os
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution import kinds, make, notebooks, runner, scheduling
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    return read_study(TINY)


def test_inline_names_a_failure_skips_what_builds_on_it_and_makes_the_rest(
    study, monkeypatch, caplog
):
    made = []

    def make(spec, device, wait):
        if spec.kind == "pretraining" and spec.pretraining == "FAT":
            raise FloatingPointError("the loss is nan")
        made.append(spec)
        store.write(spec, {}, [], {}, {})

    monkeypatch.setattr("dwlt_lib.execution.make.make", make)
    assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.FAILED
    assert "FAT" in caplog.text
    left = scheduling.missing_specs(study)
    assert left and all(
        "FAT" in record for record in map(str, (spec.model_dump() for spec in left))
    )


def test_two_runs_of_one_study_make_each_record_once(study, monkeypatch):
    made, ended = Counter(), []

    def slowly(spec, device, progress):
        made[record_id(spec)] += 1
        time.sleep(0.01)
        return kinds.Result({}, [], {})

    monkeypatch.setattr(make, "MAKERS", defaultdict(lambda: slowly))
    run = partial(runner.run_inline, study, runner.RunSettings("cpu"))
    runs = [threading.Thread(target=lambda: ended.append(run())) for _ in range(2)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert ended == [runner.DONE] * 2 and made == dict.fromkeys(plan(study), 1)
    assert not list(store.leases_root().iterdir())


def test_inline_stops_at_its_deadline_and_forgets_it(study, monkeypatch):
    monkeypatch.setattr(
        "dwlt_lib.execution.make.make", lambda spec, device, wait: store.write(spec, {}, [], {}, {})
    )
    assert runner.run_inline(study, runner.RunSettings("cpu", deadline=1.0)) == runner.STOPPED
    assert (
        len(scheduling.missing_specs(study)) == len(plan(study))
        and "DWLT_DEADLINE" not in os.environ
    )


def test_a_job_that_failed_is_not_said_to_be_done(study, caplog):
    class OneWorker:
        workers = 1

        def submit(self, *arguments):
            future = Future()
            future.set_result(notebooks.NotebookOutcome(0.5, "ValueError: no such class"))
            return future

    said = []
    settings = runner.RunSettings("cpu", say=said.append)
    assert runner.run_notebooks(study, TINY, OneWorker(), settings) == runner.FAILED
    ends = [line for line in said if line.startswith("[")]
    assert ends and all("] failed pretrain" in line and "done" not in line for line in ends)
    assert caplog.text.count("ValueError: no such class") == len(ends)
