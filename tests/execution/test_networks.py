"""Networks and masks come out of records as they went in."""

import shutil

import pytest
import torch
from made_records import one, same, weights

from dwlt_lib.config import planning
from dwlt_lib.config.specs import record_id
from dwlt_lib.data import batches
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution import make, networks
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning import imp, packed_masks
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import store


def test_the_network_of_a_record_scores_what_the_record_says(made):
    drawn = torch.get_rng_state()
    for spec in (
        one(made, "pretraining", pretraining="AT"),
        one(made, "transfer", regime="AT", rounds=2),
    ):
        record, test = store.read(spec), batches.load_images(spec.data, "test")
        model = networks.load_network(record)
        assert not model.training
        assert record.metrics["SA"] == accuracy.standard_accuracy(model, test.floats(), test.y)
    assert torch.equal(torch.get_rng_state(), drawn)
    with pytest.raises(ValueError, match="holds no such file"):
        networks.load_network(store.read(one(made, "transfer", method="RP", rounds=3)))


def test_a_mask_names_the_theta_it_was_drawn_from(made):
    spec = one(made, "mask", method="RP")
    header = packed_masks.packed_header((store.read(spec).path / "mask.safetensors").read_bytes())
    assert header["theta"] == fingerprint(weights(spec.theta))


def test_a_ticket_starts_from_theta_with_a_fresh_head_and_the_downstream_normalisation(
    made, monkeypatch
):
    spec = one(made, "transfer", regime="AT", rounds=2)
    row = spec.data.model_copy(update={"mean": (0.1, 0.2, 0.3), "classes": 4})
    theta = weights(spec.theta)
    model = networks.initial_ticket(spec.model_copy(update={"data": row}))
    state = model.state_dict()
    assert all(torch.equal(state[name], theta[name]) for name in theta if not name.startswith("fc"))
    assert state["fc.weight"].shape == (4, 64) and model.mean.flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )
    heads = [
        networks.initial_ticket(spec.model_copy(update={"seed": seed})).fc.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert all(weight.requires_grad for weight in model.parameters())


def control(made, method):
    """The control of the toy study's ticket, whose records are the study's where it shares any."""
    ticket = one(made, "transfer", regime="AT", method="IMP-ST", rounds=2)
    found = planning.transfer(made, "AT", method, "stripes", 1.0, "AT", 2, 0)
    return ticket, found


def test_a_reinitialised_ticket_has_the_mask_of_imp_and_new_weights_of_its_seed(made):
    ticket, reinit = control(made, "IMP-ST-reinit")
    model = networks.initial_ticket(reinit)
    state, theta = model.state_dict(), weights(ticket.theta)
    m = networks.ticket_mask(reinit, model)
    assert same(m, networks.ticket_mask(ticket, model))
    again = networks.initial_ticket(reinit).state_dict()
    other = networks.initial_ticket(reinit.model_copy(update={"seed": 1})).state_dict()
    untrained = networks.initial_network(ticket.theta).state_dict()  # of the same seed, 0
    head = networks.initial_ticket(ticket).state_dict()["fc.weight"]
    assert same(state, again) and torch.equal(state["fc.weight"], head)
    for name in m:
        assert state[name].shape == theta[name].shape
        for known in (theta, untrained, other):
            assert not torch.equal(state[name], known[name])
    statistics = [value for name, value in state.items() if name.endswith("running_mean")]
    assert statistics and not any(value.any() for value in statistics)


def test_a_transplanted_mask_is_of_the_next_theta_and_goes_on_this_one(made, tmp_path, monkeypatch):
    ticket, transplant = control(made, "IMP-ST-transplant")
    shutil.copytree(store.outputs(), tmp_path / "outputs")
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    make.make(transplant.mask)
    model = networks.initial_ticket(transplant)
    assert same(model.state_dict(), networks.initial_ticket(ticket).state_dict())
    m = networks.ticket_mask(transplant, model)
    assert same(m, read_mask(record_id(transplant.mask)))
    assert not same(m, networks.ticket_mask(ticket, model))
    theta = weights(transplant.mask.theta)
    assert not same(theta, weights(ticket.theta))
    header = packed_masks.packed_header(store.read(transplant.mask).read("mask.safetensors"))
    assert header["theta"] == fingerprint(theta)
    with pytest.raises(ValueError, match="drawn from theta_p"):  # it is no mask of this theta_p
        networks.load_mask(transplant.mask, weights(ticket.theta))


def test_a_shuffled_mask_is_that_of_imp_in_other_places(made, tmp_path, monkeypatch):
    ticket, shuffled = control(made, "IMP-ST-shuffled")
    shutil.copytree(store.outputs(), tmp_path / "outputs")
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    record = store.read(make.make(shuffled.mask))
    expected = imp.shuffled(read_mask(record_id(ticket.mask)), made.mask_seed)
    assert same(read_mask(record.id), expected) and record.history == []
    assert record.columns["method"] == "IMP-ST-shuffled"
