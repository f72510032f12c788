"""Networks and masks come out of records as they went in."""

import pytest
import torch
from made_records import one, weights

from dwlt_lib.data import batches
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution import networks
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning import packed_masks
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
