"""Jobs are split without loss, ready when what they build on is there, coarse figures first."""

from itertools import pairwise
from pathlib import Path

import pytest

from dwlt_lib.config.order import bisection
from dwlt_lib.config.planning import expand, jobs, plan
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.execution import scheduling
from dwlt_lib.execution.costs import cost
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
            parts = scheduling.split_job(study, job, most)
            assert sorted(ids(study, parts)) == sorted(ids(study, [job]))
            assert len(set(ids(study, parts))) == len(ids(study, parts))


def test_a_job_is_cut_to_the_cost_asked_for_where_it_can_be(study):
    for job in jobs(study):
        for part in scheduling.split_job(study, job, 20.0):
            single = part.kind == "prune" or max(len(part.seeds), len(part.rounds)) <= 1
            assert single or sum(map(cost, expand(study, part))) <= 20.0


def test_pending_covers_what_is_left_and_nothing_else(study):
    wanted = {
        record_id(spec) for some in scheduling.pending_jobs(study, 2).values() for spec in some
    }
    assert wanted == set(plan(study))


def test_only_pre_trainings_are_ready_at_first(study):
    waiting = scheduling.pending_jobs(study, 2)
    assert {job.kind for job, wanted in waiting.items() if scheduling.is_ready(wanted)} == {
        "pretrain"
    }


def test_a_job_is_cut_into_a_coarse_part_and_what_lies_between(ladders):
    job = next(job for job in jobs(ladders) if job.kind == "transfer" and len(job.rounds) > 4)
    one = job.model_copy(update={"seeds": (0,)})
    coarse, fine = scheduling.split_job(ladders, one, half_of(ladders, one))
    assert {one.rounds[0], one.rounds[-1]} <= set(coarse.rounds)
    assert sorted(coarse.rounds + fine.rounds) == list(one.rounds)
    assert max(b - a for a, b in pairwise(coarse.rounds)) == 2  # every other


def half_of(study, job):
    """A little more than half of the job's cost."""
    return 0.6 * sum(map(cost, expand(study, job)))


def test_a_large_job_is_cut_to_single_records_and_a_small_study_is_cut_by_its_workers_alone(
    outputs, monkeypatch
):
    tour = read_study(store.checkout() / "params" / "tour.yaml")
    as_it_is = list(scheduling.pending_jobs(tour, 2))
    monkeypatch.setattr(scheduling, "MAX_COST", float("inf"))
    assert as_it_is == list(scheduling.pending_jobs(tour, 2))
    monkeypatch.setattr(scheduling, "MAX_COST", 0.0)
    parts = [
        job for job in scheduling.pending_jobs(tour, 2) if job.kind not in ("pretrain", "prune")
    ]
    assert all(len(job.rounds) == len(job.seeds) == 1 for job in parts)


def test_what_others_wait_for_is_urgent_then_what_is_coarse_then_what_is_dear(
    ladders, outputs, monkeypatch
):
    monkeypatch.setattr(scheduling, "MAX_COST", 0.0)
    waiting = scheduling.pending_jobs(ladders, 2)
    first = sorted(waiting, key=scheduling.job_priorities(ladders, waiting).get)
    kinds = [job.kind for job in first]
    ends = kinds.count("pretrain"), kinds.count("pretrain") + kinds.count("prune")
    assert set(kinds[: ends[0]]) == {"pretrain"} and set(kinds[ends[0] : ends[1]]) == {"prune"}
    shown = [(job.seeds[0], bisection(range(9))[job.rounds[0]]) for job in first[ends[1] :]]
    assert shown == sorted(shown)


def test_a_run_leaves_to_others_what_they_make_and_what_builds_on_it(ladders, outputs):
    pending = scheduling.pending_jobs(ladders, 2)
    everything = scheduling.startable(pending, {})
    assert everything == [job for job, specs in pending.items() if scheduling.is_ready(specs)]
    assert not scheduling.is_waiting(pending, {})
    held = {record_id(specs[0]): "another host" for specs in pending.values()}
    for job in scheduling.startable(pending, held):
        assert not all(scheduling.is_held(spec, held) for spec in pending[job])
    theta = next(specs[0] for specs in pending.values() if specs[0].kind == "pretraining")
    held = {record_id(theta): "another host"}
    assert scheduling.is_waiting(pending, held)
    free = scheduling.startable(pending, held)
    assert free == [job for job in everything if theta not in pending[job]]
    built_on_it = [spec for specs in pending.values() for spec in specs if theta in upstream(spec)]
    assert built_on_it and all(scheduling.is_held(spec, held) for spec in built_on_it)


def test_what_others_have_made_is_no_longer_pending(study):
    pending = scheduling.pending_jobs(study, 2)
    job, (first, *rest) = next(iter(pending.items()))
    store.write(first, {}, [], {}, {})
    left = scheduling.still_missing(pending)
    assert left.get(job, []) == rest and len(left) >= len(pending) - 1
