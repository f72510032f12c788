"""A search follows from the records alone: whatever is killed, and whoever finishes first."""

import signal

import numpy as np
import pytest
import yaml
from generate import records_of
from seeds import numpy_rng
from test_interrupts import SPECK, start, temporary, until  # noqa: F401 (a fixture)

from dwlt_lib.config.planning import plan
from dwlt_lib.execution import adaptive
from dwlt_lib.execution.scheduling import missing_specs
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store


@pytest.fixture
def whole(ladders, outputs):
    """(the study with an adaptive search, the transfers of its whole grid)."""
    study = ladders.model_copy(update={"search": "adaptive"})
    records_of(study)
    return study, store.table("transfer", study=study.name)


def coordinates(choices):
    return [(c.pretraining, c.method, c.fraction, c.rounds) for c in choices]


def test_a_search_asks_step_by_step_for_what_it_would_ask_of_a_whole_grid(whole):
    study, table = whole
    final = adaptive.follow(study, table)
    assert final.is_over and all(c.outcome for c in final.choices if c.rounds)
    asked, steps = set(), 0
    while True:
        found = adaptive.follow(study, table[table["id"].isin(asked)])
        now = set(plan(found.study))
        assert now >= asked and now <= set(plan(study))
        if found.is_over:
            break
        assert now & set(table["id"]) > asked & set(table["id"])
        asked, steps = now, steps + 1
    assert found.choices == final.choices and steps > 3
    assert len(asked) < len(plan(study))
    assert 0 < adaptive.share_of_grid(final, study) < 1


@pytest.mark.parametrize("number", range(5))
def test_whatever_part_of_the_records_is_there_the_choices_are_the_same_as_far_as_they_go(
    whole, number
):
    study, table = whole
    final = adaptive.follow(study, table)
    some = table[numpy_rng(number).random(len(table)) < 0.9]
    found = adaptive.follow(study, some)
    for task in {(c.pretraining, c.fraction) for c in final.choices}:
        own, all_of_it = (
            coordinates(c for c in one.choices if (c.pretraining, c.fraction) == task)
            for one in (found, final)
        )
        assert own == all_of_it[: len(own)]


def test_all_of_a_grid_is_asked_for_at_once_and_its_ids_are_those_of_the_search(ladders, outputs):
    grid = adaptive.asked(ladders)
    assert grid.study == ladders and grid.is_over and not grid.choices
    study = ladders.model_copy(update={"search": "adaptive"})
    assert list(plan(study)) == list(plan(ladders))
    first = adaptive.asked(study)
    assert not first.is_over
    assert {block.rounds for block in first.study.grid} == {(0,)}


def test_a_study_that_searches_is_not_said_to_have_changed_until_it_has(whole):
    study, table = whole
    store.write_study(study, asked=adaptive.follow(study, table[:0]).study)
    assert not store.has_changed(study)
    assert store.missing(study.name) == 0  # all that is asked for so far is there
    assert store.has_changed(study.model_copy(update={"seed": 9}))


def test_blocks_about_other_seeds_are_asked_for_as_they_stand(ladders, outputs):
    block = ladders.grid[0]
    others = block.model_copy(update={"mask_seeds": (0, 1), "method": ("RP",), "rounds": (3,)})
    study = ladders.model_copy(update={"grid": (block, others), "search": "adaptive"})
    asked = adaptive.asked(study).study
    assert others in asked.grid


def test_predicted_shares_are_shares_and_fall_with_the_length_of_the_ladder(ladders):
    rng = np.random.default_rng(0)
    found = []
    for rounds in ((2, 5, 8), tuple(range(1, 20))):
        block = ladders.grid[0].model_copy(update={"rounds": rounds})
        shares = adaptive.predicted_shares(ladders.model_copy(update={"grid": (block,)}), rng, 5)
        assert shares == sorted(shares) and 0 < shares[0] <= shares[-1] < 1
        found.append(np.median(shares))
    assert found[1] < found[0]


def test_a_search_that_is_killed_twice_ends_with_the_choices_and_records_of_an_undisturbed_one(
    tmp_path,
    temporary,  # noqa: F811
    monkeypatch,
):
    settings = yaml.safe_load(SPECK.read_text(encoding="utf-8"))
    settings |= {"search": "adaptive", "name": "searched"}
    settings["grid"][0] |= {"rounds": [1, 2, 3], "seeds": [0, 1]}
    file = tmp_path / "searched.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ends = {}
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        executor = "inline" if name == "undisturbed" else "papermill"
        for words in ("[2/", "search:") if name == "killed" else ():
            run = start(folder, temporary, "run", file, "--workers", 2)
            until(run, words)
            run.send_signal(signal.SIGKILL)
            run.communicate()
        run = start(folder, temporary, "run", file, "--executor", executor)
        said, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
        monkeypatch.setenv("DWLT_OUTPUTS", str(folder))
        found = adaptive.asked(read_study(file))
        assert found.is_over and missing_specs(found.study) == []
        assert set(store.noted("searched")["ids"]) == set(plan(found.study))
        ends[name] = found.choices, store.results_of(plan(found.study).values())
        assert "record" in said
    assert ends["killed"] == ends["undisturbed"]
    levels = [choice.rounds for choice in ends["killed"][0]]
    assert levels[0] == 0 and len(levels) > 1
