"""The tour opens whatever is there, says so, and its sliders show what they are set to."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from dwlt_lib.config import planning
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution import make, networks
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store
from dwlt_lib.tour import experiments, interactive

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def small(outputs):
    """The tiny study, planned here, with theta_STD and theta_AT untrained but at hand."""
    study = read_study(TINY)
    store.write_study(study)
    for spec in (planning.theta(study, p) for p in ("STD", "AT")):
        weights = save(networks.cpu_state(networks.initial_network(spec).state_dict()))
        files = {"weights.safetensors": weights}
        store.write(spec, {"SA": 0.1, "RA": 0.0}, [], files, {})
    return study


def test_with_nothing_there_the_tour_says_so_and_plays_with_its_own_study(outputs, monkeypatch):
    monkeypatch.setattr(store, "reference_files", list)  # those that come with the checkout
    found = experiments.open_study("tour")
    assert "No study has run here" in found.note and "dwlt run params/tour.yaml" in found.note
    assert found.table.empty and found.demo.name == found.name == "tour"


def test_on_a_fresh_clone_the_reference_stands_in_and_nothing_is_taken_for_its_weights(
    outputs, request
):
    outputs.mkdir()
    (outputs / "reference").symlink_to(request.config.rootpath / "outputs" / "reference")
    found = experiments.open_study("tour")
    assert (
        "'tour' has not run here" in found.note
        and found.name == "tour_full"
        and len(found.table) > 100
    )
    assert found.demo.name == "tour"  # the reference has no weights


def test_a_study_that_ran_in_part_says_how_much_is_missing(small):
    found = experiments.open_study("tiny")
    assert (
        found.demo == small
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
    assert experiments.open_study(study.name).demo.name == "tour"


def test_what_the_tour_makes_is_planned_by_its_study(small):
    planned = planning.plan(small)
    assert all(record_id(spec) in planned for spec in experiments.example_transfers(small))
    before = sorted(map(str, store.outputs().rglob("record.json")))
    assert list(experiments.networks(small)) == ["STD", "AT"]
    assert sorted(map(str, store.outputs().rglob("record.json"))) == before


def test_a_pruned_copy_leaves_the_network_whole(small):
    network = experiments.networks(small)["AT"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pruned = experiments.pruned_copy(network, 6, small.prune_fraction)
    zeros = sum(int((weight == 0).sum()) for weight in pruned.parameters())
    whole = sum(int((weight == 0).sum()) for weight in network.parameters())
    assert zeros > whole + 1000
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_sliders_show_the_value_they_are_moved_to(small):
    networks = experiments.networks(small)
    for box in (
        interactive.attack_slider(small, networks),
        interactive.pruning_slider(small, networks),
    ):
        slider, parts = box.children[0], box.children[1:]
        before = [part.value for part in parts]
        slider.index = len(slider.options) - 1
        assert all(
            part.value != was
            for part, was in zip(parts, before, strict=True)
            if "theta" not in str(was)
        )
        assert [part.value for part in parts] != before


def test_pressing_transfer_makes_that_tickets_record_once_and_adds_a_row(small):
    form = interactive.TransferForm(small)
    form.slider.index = 3
    for pressed in (1, 2):
        form.button.click()
        assert form.text.value.count("48.8 %") == pressed and not form.button.disabled
        assert form.picture.value[:4] == b"\x89PNG"
        found = store.table("transfer")
        assert len(found) == 1, "the second press finds the first one's record"
    assert list(found["method"]) == ["OMP"] and list(found["rounds"]) == [3]
    assert form.rows[0][:4] == form.rows[1][:4] == ("48.8 %", "ST", found["SA"][0], found["RA"][0])


def test_a_press_that_fails_says_why_and_can_be_repeated(small, monkeypatch):
    def refuse(*_):
        raise ValueError("<no room>")

    form = interactive.TransferForm(small)
    monkeypatch.setattr(make, "make", refuse)
    form.button.click()
    assert "&lt;no room&gt;" in form.text.value and not form.button.disabled


def test_the_pruning_ladder_is_the_papers_up_to_one_weight(small):
    network = experiments.networks(small)["STD"]
    (counts,) = experiments.weight_counts({"STD": network}).to_dict("records")
    table = experiments.pruning_ladder(network, 5, small.prune_fraction)
    assert list(table["rounds"]) == list(range(6)) and table["kept"][0] == counts["prunable"]
    assert counts["prunable"] < counts["weights"]
    gap = (table["sparsity"] - table["1 - 0.8^rounds"]).abs()
    assert (gap * counts["prunable"] < 5).all()  # each round rounds to a whole weight


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
    assert "<script>" not in interactive.results_slider(pd.DataFrame([row])).children[1].value


def test_the_stronger_the_adversary_the_lower_the_curve(small):
    table = experiments.robustness(small, experiments.networks(small))
    assert (
        list(table["eps"].unique()) == experiments.eps_values(small)[::2]
        and table["RA"].between(0, 1).all()
    )
    assert json.dumps(experiments.eps_values(small)) == json.dumps(
        sorted(experiments.eps_values(small))
    )
    assert experiments.plot_robustness(table).axes
