"""Jobs: cut without loss, run when what they build on is there, failures named and kept apart."""

import os
from concurrent.futures import Future
from pathlib import Path

import pytest

from dwlt_lib.config.costs import cost
from dwlt_lib.config.planning import expand, jobs, plan
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution import runner
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    return read_study(TINY)


def ids(study, some_jobs):
    return [record_id(spec) for job in some_jobs for spec in expand(study, job)]


def test_cutting_a_job_keeps_every_record_once(study):
    for job in jobs(study):
        for most in (0.0, 10.0, 1e12):
            parts = runner.cut(study, job, most)
            assert sorted(ids(study, parts)) == sorted(ids(study, [job]))
            assert len(set(ids(study, parts))) == len(ids(study, parts))


def test_a_job_is_cut_to_the_cost_asked_for_where_it_can_be(study):
    for job in jobs(study):
        for part in runner.cut(study, job, 20.0):
            single = part.kind == "prune" or max(len(part.seeds), len(part.rounds)) <= 1
            assert single or sum(map(cost, expand(study, part))) <= 20.0


def test_pending_covers_what_is_left_and_nothing_else(study):
    wanted = {record_id(spec) for some in runner.pending(study, 2).values() for spec in some}
    assert wanted == set(plan(study))


def test_only_pre_trainings_are_ready_at_first(study):
    waiting = runner.pending(study, 2)
    assert {job.kind for job, wanted in waiting.items() if runner._ready(wanted)} == {"pretrain"}


def test_inline_names_a_failure_skips_what_builds_on_it_and_makes_the_rest(
    study, monkeypatch, capsys
):
    made = []

    def make(spec, device):
        if spec.kind == "pretraining" and spec.pretraining == "FAT":
            raise FloatingPointError("the loss is nan")
        made.append(spec)
        store.write(spec, {}, [], {}, {})

    monkeypatch.setattr("dwlt_lib.execution.make.make", make)
    assert runner.run_inline(study, "cpu", None, lambda line: None) == runner.FAILED
    assert "FAT" in capsys.readouterr().err
    left = runner.left(study)
    assert left and all(
        "FAT" in record for record in map(str, (spec.model_dump() for spec in left))
    )


def test_inline_stops_at_its_deadline_and_forgets_it(study, monkeypatch):
    monkeypatch.setattr(
        "dwlt_lib.execution.make.make", lambda spec, device: store.write(spec, {}, [], {}, {})
    )
    assert runner.run_inline(study, "cpu", 1.0, lambda line: None) == runner.STOPPED
    assert len(runner.left(study)) == len(plan(study)) and "DWLT_DEADLINE" not in os.environ


def test_a_job_that_failed_is_not_said_to_be_done(study, capsys):
    class OneWorker:
        workers = 1

        def submit(self, *arguments):
            future = Future()
            future.set_result((0.5, "ValueError: no such class"))
            return future

    said = []
    assert runner.run_papermill(study, TINY, OneWorker(), "cpu", None, said.append) == runner.FAILED
    ends = [line for line in said if line.startswith("[")]
    assert ends and all("] failed pretrain" in line and "done" not in line for line in ends)
    assert capsys.readouterr().err.count("ValueError: no such class") == len(ends)
