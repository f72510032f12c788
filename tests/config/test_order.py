"""Theorems on the order of making.

Upstream first, one seed before the next, ends and middles before the rest.
"""

from itertools import pairwise

import pytest

from dwlt_lib.config import order
from dwlt_lib.config.costs import cost
from dwlt_lib.config.order import bisection
from dwlt_lib.config.planning import jobs, plan
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.execution import runner
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store
from dwlt_lib.training.trainer import OutOfTime

PAPER = store.checkout() / "params" / "paper" / "fig3.yaml"


@pytest.fixture
def ladders(toy):
    grid = [
        {
            "pretraining": ["STD", "AT"],
            "method": ["IMP-ST", "RP"],
            "dataset": ["stripes"],
            "seeds": [0, 3, 5],
            "rounds": list(range(1, 9)),
        }
    ]
    return toy(grid=grid)


@pytest.mark.parametrize("values", [[], [7], [3, 6], [0, 3, 6, 10, 14], range(20), range(61)])
def test_bisection_takes_both_ends_then_ever_finer_middles(values):
    turn = bisection(values)
    assert sorted(turn) == sorted(values) and sorted(turn.values()) == list(range(len(values)))
    by_turn, row = sorted(turn, key=turn.get), sorted(values)
    for halvings in range(1, 7):
        if 2**halvings < len(row):
            there = sorted(row.index(value) for value in by_turn[: 2**halvings + 1])
            assert there[0] == 0 and there[-1] == len(row) - 1
            assert max(b - a for a, b in pairwise(there)) <= -(-len(row) // 2 ** (halvings - 1))
    if len(values) == 20:
        assert by_turn[:5] == [0, 19, 9, 4, 14]


def test_everything_planned_is_made_once_after_what_it_builds_on(ladders):
    made, seen = order.ordered(plan(ladders)), set()
    assert sorted(map(record_id, made)) == sorted(plan(ladders))
    for spec in made:
        assert {record_id(up) for up in upstream(spec)} <= seen
        seen.add(record_id(spec))


def test_one_seed_of_every_curve_comes_before_the_next_and_coarse_rounds_before_fine_ones(ladders):
    turn = order.turns(plan(ladders))
    shown = [turn(spec) for spec in order.ordered(plan(ladders)) if spec.kind == "transfer"]
    assert shown == sorted(shown) and len(set(shown)) == 3 * 9
    assert {
        turn(spec) for spec in plan(ladders).values() if spec.kind in ("mask", "pretraining")
    } == {order.LAST}
    surfaces = [
        turn(spec) == turn(spec.transfer)
        for spec in plan(ladders).values()
        if spec.kind == "surface"
    ]
    assert surfaces and all(surfaces)


def test_a_job_is_cut_into_a_coarse_part_and_what_lies_between(ladders):
    job = next(job for job in jobs(ladders) if job.kind == "transfer" and len(job.rounds) > 4)
    one = job.model_copy(update={"seeds": (0,)})
    coarse, fine = runner.cut(ladders, one, runner_half(ladders, one))
    assert {one.rounds[0], one.rounds[-1]} <= set(coarse.rounds)
    assert sorted(coarse.rounds + fine.rounds) == list(one.rounds)
    assert max(b - a for a, b in pairwise(coarse.rounds)) == 2  # every other


def runner_half(study, job):
    """A little more than half of the job's cost."""
    return 0.6 * sum(map(cost, runner.expand(study, job)))


def test_a_large_job_is_cut_to_single_records_and_a_small_study_is_cut_by_its_workers_alone(
    outputs, monkeypatch
):
    tour = read_study(store.checkout() / "params" / "tour.yaml")
    as_it_is = list(runner.pending(tour, 2))
    monkeypatch.setattr(runner, "LARGE", float("inf"))
    assert as_it_is == list(runner.pending(tour, 2))
    monkeypatch.setattr(runner, "LARGE", 0.0)
    parts = [job for job in runner.pending(tour, 2) if job.kind not in ("pretrain", "prune")]
    assert all(len(job.rounds) == len(job.seeds) == 1 for job in parts)


def test_what_others_wait_for_is_urgent_then_what_is_coarse_then_what_is_dear(
    ladders, outputs, monkeypatch
):
    monkeypatch.setattr(runner, "LARGE", 0.0)
    waiting = runner.pending(ladders, 2)
    first = sorted(waiting, key=runner._urgency(ladders, waiting).get)
    kinds = [job.kind for job in first]
    ends = kinds.count("pretrain"), kinds.count("pretrain") + kinds.count("prune")
    assert set(kinds[: ends[0]]) == {"pretrain"} and set(kinds[ends[0] : ends[1]]) == {"prune"}
    shown = [(job.seeds[0], bisection(range(9))[job.rounds[0]]) for job in first[ends[1] :]]
    assert shown == sorted(shown)


def test_a_budget_leaves_a_coarse_figure_of_the_papers_size(outputs, monkeypatch):
    study, left = read_study(PAPER), 250

    def make(spec, device):
        nonlocal left
        if left == 0:
            raise OutOfTime
        left -= 1
        store.write(spec, {}, [], {}, {})

    monkeypatch.setattr("dwlt_lib.execution.make.make", make)
    monkeypatch.setattr("os.fsync", lambda file: None)
    assert runner.run_inline(study, "cpu", None, lambda line: None) == runner.STOPPED
    curves = {}
    for spec in plan(study).values():
        if spec.kind == "transfer" and store.exists(spec):
            key = (spec.theta.pretraining, spec.data.name, spec.regime)
            method = spec.mask.method if spec.mask else "dense"
            curves.setdefault((*key, method), set()).add(
                (spec.mask.rounds if spec.mask else 0, spec.seed)
            )
    sparse = {key: have for key, have in curves.items() if key[3] != "dense"}
    assert len(sparse) == 4 * 3 * 2 and all(
        have >= {(19, 0), (9, 0), (4, 0), (14, 0)} for have in sparse.values()
    )
    assert len(curves) - len(sparse) == 3 * 3 * 2
