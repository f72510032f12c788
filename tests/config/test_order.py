"""Theorems on the order of making.

Upstream first, one seed before the next, ends and middles before the rest.
"""

from itertools import pairwise

import pytest

from dwlt_lib.config import order
from dwlt_lib.config.order import bisection
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.execution import runner
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store
from dwlt_lib.training.trainer import OutOfTime

PAPER = store.checkout() / "params" / "paper" / "fig3.yaml"


@pytest.mark.parametrize("values", [[], [7], [3, 6], [0, 3, 6, 10, 14], range(20), range(61)])
def test_bisection_takes_both_ends_then_ever_finer_middles(values):
    rank = bisection(values)
    assert sorted(rank) == sorted(values) and sorted(rank.values()) == list(range(len(values)))
    by_rank, row = sorted(rank, key=rank.get), sorted(values)
    for halvings in range(1, 7):
        if 2**halvings < len(row):
            there = sorted(row.index(value) for value in by_rank[: 2**halvings + 1])
            assert there[0] == 0 and there[-1] == len(row) - 1
            assert max(b - a for a, b in pairwise(there)) <= -(-len(row) // 2 ** (halvings - 1))
    if len(values) == 20:
        assert by_rank[:5] == [0, 19, 9, 4, 14]


def test_everything_planned_is_made_once_after_what_it_builds_on(ladders):
    made, seen = order.ordered(plan(ladders)), set()
    assert sorted(map(record_id, made)) == sorted(plan(ladders))
    for spec in made:
        assert {record_id(up) for up in upstream(spec)} <= seen
        seen.add(record_id(spec))


def test_one_seed_of_every_curve_comes_before_the_next_and_coarse_rounds_before_fine_ones(ladders):
    rank = order.coarse_to_fine_rank(plan(ladders))
    shown = [rank(spec) for spec in order.ordered(plan(ladders)) if spec.kind == "transfer"]
    assert shown == sorted(shown) and len(set(shown)) == 3 * 9
    assert {
        rank(spec) for spec in plan(ladders).values() if spec.kind in ("mask", "pretraining")
    } == {order.LAST}
    surfaces = [
        rank(spec) == rank(spec.transfer)
        for spec in plan(ladders).values()
        if spec.kind == "surface"
    ]
    assert surfaces and all(surfaces)


def test_a_budget_leaves_a_coarse_figure_of_the_papers_size(outputs, monkeypatch):
    study, left = read_study(PAPER), 250

    def make(spec, device, wait):
        nonlocal left
        if left == 0:
            raise OutOfTime
        left -= 1
        store.write(spec, {}, [], {}, {})

    monkeypatch.setattr("dwlt_lib.execution.make.make", make)
    monkeypatch.setattr("os.fsync", lambda file: None)
    assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.STOPPED
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


def test_base_seeds_of_theta_mask_and_subset_come_before_all_others(toy):
    curve = {"pretraining": ["AT"], "dataset": ["stripes"], "regime": ["AT"], "rounds": [1, 2]}
    study = toy(
        mask_seed=1,  # OMP's masks have seed 0, and are base all the same
        landscapes=[],
        transfer_attacks=[],
        grid=[
            {**curve, "method": ["RP"], "theta_seeds": [0, 1], "mask_seeds": [1, 2], "seeds": [0]},
            {**curve, "method": ["OMP"], "seeds": [0, 1], "dense_seeds": [0, 1, 2]},
        ],
    )
    rank = order.coarse_to_fine_rank(plan(study))
    tickets = [spec for spec in order.ordered(plan(study)) if spec.kind == "transfer"]
    others = [spec.theta.seed > 0 or bool(spec.mask and spec.mask.seed > 1) for spec in tickets]
    assert others == sorted(others) and 0 < sum(others) < len(others)
    assert [rank(spec)[0] > 0 for spec in tickets] == others
