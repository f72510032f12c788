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
from dwlt_lib.models import architectures
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


@pytest.fixture
def shown(monkeypatch):
    """What the controls display."""
    found = []
    monkeypatch.setattr(interactive, "display", found.append)
    return found


def test_sliders_show_what_becomes_of_each_network_at_the_value_they_are_moved_to(small, shown):
    networks = experiments.networks(small)
    slider = interactive.attack_slider(small, networks).children[0]
    shown.clear()
    slider.index = 0  # no attack
    x, y = experiments.source_images(small)
    for p, line in zip(networks, shown[::2], strict=True):
        read = networks[p](x[:16]).argmax(1)
        classes = " ".join(map(str, read.tolist()))
        assert line.data == f"theta_{p}: {(read == y[:16]).sum()} of 16 right; reads {classes}"
    eps = experiments.studies.dataset(small, small.source).eps
    slider = interactive.pruning_slider(small, networks).children[0]
    for index, rounds in ((0, 0), (3, 3)):
        slider.index = 5
        shown.clear()
        slider.index = index
        for p, network in networks.items():
            pruned = experiments.pruned_copy(network, rounds, small.prune_fraction)
            wanted = experiments.accuracies(pruned, x, y, eps)
            assert shown[0].loc[f"theta_{p}"].tolist() == [round(value, 3) for value in wanted]
        assert shown[1].axes  # the histogram


def test_pressing_transfer_makes_that_tickets_record_once_and_adds_a_row(small, shown):
    form = interactive.transfer_form(small)
    form.children[0].index = 3
    for pressed in (1, 2):
        form.manual_button.click()
        curve, rows = shown[-2:]
        assert curve.axes and rows["sparsity"].tolist() == ["48.8 %"] * pressed
        found = store.table("transfer")
        assert len(found) == 1, "the second press finds the first one's record"
        assert rows["SA"].tolist() == [round(found["SA"][0], 3)] * pressed
    assert list(found["method"]) == ["OMP"] and list(found["rounds"]) == [3]
    assert list(found["regime"]) == ["ST"] and not form.manual_button.disabled


def test_a_press_that_fails_says_why_and_can_be_repeated(small, shown, monkeypatch):
    def refuse(*_):
        raise ValueError("<no room>")

    form = interactive.transfer_form(small)
    monkeypatch.setattr(make, "make", refuse)
    form.manual_button.click()
    assert shown[-1].data == "&lt;no room&gt;" and not form.manual_button.disabled


def test_the_pruning_ladder_is_the_papers_up_to_one_weight(small):
    network = experiments.networks(small)["STD"]
    prunable = sum(weight.numel() for weight in architectures.prunable(network).values())
    table = experiments.pruning_ladder(network, 5, small.prune_fraction)
    assert list(table["rounds"]) == list(range(6)) and table["kept"][0] == prunable
    gap = (table["sparsity"] - table["1 - 0.8^rounds"]).abs()
    assert (gap * prunable < 5).all()  # each round rounds to a whole weight


def test_the_stronger_the_adversary_the_lower_the_curve(small):
    table = experiments.robustness(small, experiments.networks(small))
    assert (
        list(table["eps"].unique()) == experiments.eps_values(small)[::2]
        and table["RA"].between(0, 1).all()
    )
    assert json.dumps(experiments.eps_values(small)) == json.dumps(
        sorted(experiments.eps_values(small))
    )
