"""The tour opens whatever is there, says so, and its sliders show what they are set to."""

import json
from pathlib import Path

import pytest
import torch

from dwlt_lib.config import studies
from dwlt_lib.execution import make
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store
from dwlt_lib.tour import experiments, interactive

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def small(outputs):
    """The tiny study, planned here, with theta_STD and theta_AT untrained but at hand."""
    study = read_study(TINY)
    store.write_study(study)
    for spec in (studies.theta(study, p) for p in ("STD", "AT")):
        files = {"weights.safetensors": make.save(make._cpu(make._fresh(spec, "cpu").state_dict()))}
        store.write(spec, {"SA": 0.1, "RA": 0.0}, [], files, {})
    return study


def test_with_nothing_there_the_tour_says_so_and_plays_with_its_own_study(outputs, monkeypatch):
    monkeypatch.setattr(store, "_references", list)  # those that come with the checkout
    found = experiments.opened("tour")
    assert "No study has run here" in found.note and "dwlt run params/tour.yaml" in found.note
    assert found.table.empty and found.live.name == found.name == "tour"


def test_on_a_fresh_clone_the_reference_stands_in_and_nothing_is_taken_for_its_weights(
    outputs, request
):
    outputs.mkdir()
    (outputs / "reference").symlink_to(request.config.rootpath / "outputs" / "reference")
    found = experiments.opened("tour")
    assert (
        "'tour' has not run here" in found.note
        and found.name == "tour_full"
        and len(found.table) > 100
    )
    assert found.live.name == "tour"  # the reference has no weights


def test_a_study_that_ran_in_part_says_how_much_is_missing(small):
    found = experiments.opened("tiny")
    assert (
        found.live == small
        and "missing" in found.note
        and "dwlt run params/tiny.yaml" in found.note
    )


def test_a_study_without_transfers_is_opened_too(outputs, toy):
    study = toy(
        grid=[],
        landscapes=[],
        transfer_attacks=[],
        masks=[{"pretraining": ["AT"], "method": ["RP"], "rounds": [2]}],
    )
    store.write_study(study)
    assert experiments.opened(study.name).live.name == "tour"


def test_what_the_tour_makes_is_planned_by_its_study(small):
    planned = studies.plan(small)
    assert all(make.record_id(spec) in planned for spec in experiments.transfers(small))
    before = sorted(map(str, store.outputs().rglob("record.json")))
    assert list(experiments.networks(small)) == ["STD", "AT"]
    assert sorted(map(str, store.outputs().rglob("record.json"))) == before


def test_a_pruned_copy_leaves_the_network_whole(small):
    network = experiments.networks(small)["AT"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    zeros = sum(int((weight == 0).sum()) for weight in experiments.pruned(network, 6).parameters())
    whole = sum(int((weight == 0).sum()) for weight in network.parameters())
    assert zeros > whole + 1000
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_sliders_show_the_value_they_are_moved_to(small):
    networks = experiments.networks(small)
    for box in (interactive.adversary(small, networks), interactive.pruning(small, networks)):
        slider, parts = box.children[0], box.children[1:]
        before = [part.value for part in parts]
        slider.index = len(slider.options) - 1
        assert all(
            part.value != was
            for part, was in zip(parts, before, strict=True)
            if "theta" not in str(was)
        )
        assert [part.value for part in parts] != before


def test_pressing_transfer_trains_and_adds_a_row_and_keeps_no_record(small):
    before = len(list(store.outputs().rglob("record.json")))
    slider, controls, text, picture = interactive.transfer(small).children
    slider.index = 3
    controls.children[1].click()
    assert (
        "48.8 %" in text.value
        and picture.value[:4] == b"\x89PNG"
        and not controls.children[1].disabled
    )
    assert len(list(store.outputs().rglob("record.json"))) == before


def test_names_out_of_records_are_escaped():
    import pandas as pd

    row = {
        "pretraining": "<script>alert(1)</script>",
        "method": "IMP-ST",
        "dataset": "digits",
        "fraction": 1.0,
        "regime": "ST",
        "rounds": 0,
        "seed": 0,
        "SA": 0.5,
        "RA": 0.1,
        "id": "0",
    }
    assert "<script>" not in interactive.results(pd.DataFrame([row])).children[1].value


def test_the_stronger_the_adversary_the_lower_the_curve(small):
    table = experiments.fall(small, experiments.networks(small))
    assert (
        list(table["eps"].unique()) == experiments.strengths(small)[::2]
        and table["RA"].between(0, 1).all()
    )
    assert json.dumps(experiments.strengths(small)) == json.dumps(
        sorted(experiments.strengths(small))
    )
    assert experiments.falling(table).axes
