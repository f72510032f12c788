"""What a record of each kind holds, and what it is made from."""

import numpy as np
import pandas as pd
import pytest
import torch
from made_records import Caught, one, same, weights
from safetensors.numpy import load
from safetensors.torch import load_file

from dwlt_lib.analysis import loss_landscape
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.data import batches
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution import inputs, kinds, make, networks
from dwlt_lib.models.architectures import prunable
from dwlt_lib.pruning import imp, masks
from dwlt_lib.pruning.tickets import read_mask
from dwlt_lib.records import store
from dwlt_lib.training import trainer

COLUMNS = {
    "transfer": (
        "pretraining method dataset fraction regime rounds sparsity seed theta_seed mask_seed"
        " subset_seed SA RA SA_last RA_last epoch epochs"
    ),
    "mask": "pretraining method rounds sparsity seed theta_seed kept SA_source",
    "pretraining": "pretraining dataset arch seed SA RA epoch epochs",
    "surface": "pretraining method dataset fraction regime rounds seed images loss_centre",
    "trajectory": (
        "pretraining method dataset fraction regime rounds seed images loss_centre explained_1"
        " explained_2"
    ),
    "attack": (
        "pretraining method dataset fraction regime rounds seed surrogate transfer_accuracy RA SA"
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_table_of_a_kind_is_complete(made, kind):
    table = store.table(kind, study="toy")
    wanted = ["kind", "id", "seconds", *COLUMNS[kind].split()]
    assert set(wanted) <= set(table.columns) and len(table) > 0
    holes = set(table.columns[table.isna().any()])
    assert holes <= {"SA_source"}
    for name in {"SA", "RA", "SA_last", "RA_last", "transfer_accuracy", "sparsity"} & set(table):
        assert table[name].between(0, 1).all()


def test_sparsity_is_that_of_the_mask_to_the_weight(made):
    for _, row in store.table("mask").iterrows():
        m = read_mask(row["id"])
        assert row["kept"] == masks.num_kept(m) and row["sparsity"] == masks.sparsity(m)
    transfers = store.table("transfer")
    assert (transfers.loc[transfers["rounds"] == 0, "sparsity"] == 0).all()
    assert (transfers["sparsity"] - (1 - 0.8 ** transfers["rounds"])).abs().max() < 1e-4
    table = store.table("mask")
    assert (
        table.loc[(table["method"] == "IMP-ST") & (table["rounds"] > 1), "SA_source"].notna().all()
    )
    assert table.loc[table["rounds"] == 1, "SA_source"].isna().all()


def test_history_has_a_row_an_epoch_and_the_selected_epoch_is_its_best(made):
    for spec in plan(made).values():
        if spec.kind in ("transfer", "pretraining"):
            found = store.read(spec)
            metric = "RA" if spec.recipe.attack else "SA"
            scores = [row.get(metric) for row in found.history]
            assert [row["epoch"] for row in found.history] == list(range(1, spec.recipe.epochs + 1))
            scores = [-1 if score is None else score for score in scores]
            if max(scores) >= 0 and spec.recipe.selection == "best":
                assert found.metrics["epoch"] == 1 + int(
                    np.argmax(scores)
                )  # argmax: the earlier of equals
            else:
                assert found.metrics["epoch"] == spec.recipe.epochs


def test_one_checkpoint_gives_both_metrics_the_selected_one(made):
    spec = one(made, "transfer", regime="AT", rounds=2)
    model = networks.initial_ticket(spec)
    model.load_state_dict(weights(spec))
    test = batches.load_images(spec.data, "test")
    metrics = store.read(spec).metrics
    attack, rng = spec.evaluation, trainer.generator(0, "test")
    assert metrics["SA"] == accuracy.standard_accuracy(model, test.floats(), test.y)
    assert metrics["chance"] == max(test.y.eq(c).double().mean().item() for c in test.y.unique())
    assert metrics["test_images"] == len(test)
    assert metrics["RA"] == accuracy.robust_accuracy(model, test.floats(), test.y, attack, rng)
    right, rng = store.outcomes(spec), trainer.generator(0, "test")
    assert np.array_equal(right["SA"], accuracy.correct(model, test.floats(), test.y))
    assert np.array_equal(right["RA"], accuracy.correct(model, test.floats(), test.y, attack, rng))


def test_pruned_weights_of_a_transferred_ticket_are_zero_in_every_checkpoint(made):
    spec = one(made, "transfer", regime="AT", rounds=2)
    m = read_mask(record_id(spec.mask))
    states = load_file(store.read(spec).path / "trajectory.safetensors")
    assert {key.split("/")[0] for key in states} == {
        f"{epoch:04d}" for epoch in range(spec.recipe.epochs + 1)
    }
    for key, value in [
        *states.items(),
        *((f"0/{name}", value) for name, value in weights(spec).items()),
    ]:
        name = key.split("/", 1)[1]
        if name in m:
            assert (value[~m[name]] == 0).all()


def test_weights_stay_only_where_they_are_asked_for(made):
    for spec in plan(made).values():
        if spec.kind == "transfer":
            files = set(store.read(spec).files) - {"outcomes.safetensors"}
            assert (
                files
                == {
                    "none": set(),
                    "selected": {"weights.safetensors"},
                    "trajectory": {"weights.safetensors", "trajectory.safetensors"},
                }[spec.keep]
            )


def test_every_accuracy_in_the_table_of_a_transfer_is_the_mean_of_its_bits(made):
    tables = [store.table(kind) for kind in ("transfer", "attack")]
    for _, row in pd.concat(tables).iterrows():
        record, n = store.read(row["id"]), 60
        packed = load(record.read("outcomes.safetensors"))
        names = (
            {"transfer": "transfer_accuracy"}
            if row["kind"] == "attack"
            else {name: name for name in ("SA", "RA", "SA_last", "RA_last")}
        )
        assert packed.keys() == names.keys()
        for name, metric in names.items():
            assert np.unpackbits(packed[name])[:n].mean() == row[metric]


def test_masks_on_disk_nest_and_follow_their_methods(made):
    theta = weights(one(made, "pretraining", pretraining="AT"))
    model = networks.initial_ticket(one(made, "transfer", rounds=0))
    prunable_part = imp.prunable_weights(model, theta)
    found = {
        (spec.method, spec.rounds): read_mask(record_id(spec))
        for spec in plan(made).values()
        if spec.kind == "mask"
    }
    assert {method for method, _ in found} == {"IMP-ST", "RP", "OMP"}
    for (method, rounds), m in found.items():
        if rounds > 1:
            assert all((m[name] <= found[method, rounds - 1][name]).all() for name in m)
    assert same(found["IMP-ST", 1], found["OMP", 1])
    assert same(found["OMP", 3], imp.one_shot_magnitude_pruning(prunable_part, 3, 0.2))
    assert same(found["RP", 3], imp.random_pruning(prunable_part, 3, 0.2, 0))


def test_imp_retraining_starts_from_theta_and_heeds_the_mask_seed_alone(made, monkeypatch):
    spec = one(made, "mask", method="IMP-ST", rounds=2)
    seen, before = [], read_mask(record_id(upstream(spec)[1]))
    monkeypatch.setattr(networks, "load_mask", lambda *_: before)

    def spy(model, m, train, validation, config, seed, **settings):
        assert same(m, before)
        rewound = same(model.state_dict(), weights(spec.theta))
        seen.append((rewound, seed, config.attack, validation))
        raise Caught

    monkeypatch.setattr(kinds, "fit", spy)
    monkeypatch.setattr(kinds, "_checkpoint", lambda spec: None)
    with pytest.raises(Caught):
        kinds.MAKERS[type(spec)](spec.model_copy(update={"seed": 9}), torch.device("cpu"), None)
    assert seen == [(True, 9, None, None)]


def test_a_surfaces_centre_is_the_tickets_loss_exactly(made):
    centres = []
    for images in ("clean", "attacked"):
        found = store.read(one(made, "surface", images=images))
        arrays = found.arrays()
        middle = len(arrays["grid"]) // 2
        assert arrays["loss"].shape == (7, 7) and arrays["grid"][middle] == 0
        assert np.allclose(arrays["grid"], np.linspace(-0.5, 0.5, 7))
        assert arrays["loss"][middle, middle] == found.metrics["loss_centre"]
        centres.append(found.metrics["loss_centre"])
    assert centres[1] > centres[0]


def test_a_landscapes_directions_are_two_and_follow_the_studys_seed(made):
    spec = one(made, "surface", images="clean")
    model, m = networks.initial_ticket(spec.transfer), read_mask(record_id(spec.transfer.mask))
    assert set(m) == set(prunable(model))
    d1, d2 = (
        loss_landscape.direction(model, m, trainer.generator(spec.seed, purpose))
        for purpose in ("d1", "d2")
    )
    assert not same(d1, d2)
    other = spec.model_copy(update={"seed": 1, "points": 3})
    mine, theirs = (
        kinds.MAKERS[type(spec)](s, torch.device("cpu"), None)[2]["arrays.safetensors"]
        for s in (spec.model_copy(update={"points": 3}), other)
    )
    assert mine != theirs


def test_a_trajectory_ends_at_the_origin_where_the_loss_is_the_last_checkpoints(made):
    spec = one(made, "trajectory", images="clean")
    found = store.read(spec)
    arrays = found.arrays()
    assert (
        arrays["coords"].shape == (spec.transfer.recipe.epochs + 1, 2)
        and (arrays["coords"][-1] == 0).all()
    )
    i, j = (int(np.flatnonzero(arrays[axis] == 0).item()) for axis in ("grid_x", "grid_y"))
    assert arrays["loss"][i, j] == found.metrics["loss_centre"]
    model = networks.initial_ticket(spec.transfer).eval()
    test = batches.load_images(spec.transfer.data, "test").take(torch.arange(spec.count))
    states = load_file(store.read(spec.transfer).path / "trajectory.safetensors")
    last = f"{spec.transfer.recipe.epochs:04d}/"
    model.load_state_dict({key[5:]: value for key, value in states.items() if key.startswith(last)})
    assert found.metrics["loss_centre"] == accuracy.mean_loss(model, test.floats(), test.y)
    on_attacked = store.read(one(made, "trajectory", images="attacked")).metrics["loss_centre"]
    attack, rng = spec.transfer.evaluation, trainer.generator(0, "landscape")
    moved = accuracy.attacked(
        model, test.floats(), test.y, attack, rng
    )  # attacked where the path ends
    assert on_attacked == accuracy.mean_loss(model, moved, test.y)
    assert 0 < found.metrics["explained_2"] <= found.metrics["explained_1"]
    assert found.metrics["explained_1"] + found.metrics["explained_2"] <= 1 + 1e-9


def test_a_transfer_attack_says_what_the_ticket_does_on_the_surrogates_images(made):
    spec = one(made, "attack", rounds=2)
    model = networks.initial_ticket(spec.transfer)
    model.load_state_dict(weights(spec.transfer))
    unseen = networks.initial_network(spec.surrogate, "cpu")
    unseen.load_state_dict(weights(spec.surrogate))
    test = batches.load_images(spec.transfer.data, "test")
    moved = accuracy.attacked(
        unseen,
        test.floats(),
        test.y,
        spec.transfer.evaluation,
        trainer.generator(0, "transfer attack"),
    )
    found = store.read(spec).metrics
    assert found["transfer_accuracy"] == accuracy.standard_accuracy(model, moved, test.y)
    right = store.outcomes(spec)["transfer"]
    assert np.array_equal(right, accuracy.correct(model, moved, test.y))
    assert (found["SA"], found["RA"]) == tuple(
        store.read(spec.transfer).metrics[name] for name in ("SA", "RA")
    )


def test_a_transfer_attack_keeps_images_whose_predictions_can_be_checked(made):
    spec = one(made, "attack", rounds=2)
    few = {name: torch.from_numpy(array) for name, array in store.read(spec).arrays().items()}
    test, eps = batches.load_images(spec.transfer.data, "test"), spec.transfer.evaluation.eps
    x = few["image"].float() / 255
    assert (
        torch.equal(few["label"], test.y[: len(x)])
        and (x - test.floats()[: len(x)]).abs().max() <= 0.5 / 255 + 1e-6
    )
    model = networks.initial_ticket(spec.transfer)
    model.load_state_dict(weights(spec.transfer))
    model.eval()
    assert torch.equal(few["clean"], model(test.floats()[: len(x)]).argmax(1))
    for name in ("own", "unseen"):
        moved = (test.floats()[: len(x)] + few[f"{name}_delta"].float() * eps / 127).clamp(0, 1)
        assert few[f"{name}_delta"].abs().max() == 127  # the whole budget is used somewhere
        agree = (model(moved).argmax(1) == few[name]).float().mean()
        assert agree >= 0.9, (
            f"{name}: {agree}"
        )  # a delta is kept to 1/127 of eps: an image on the border may tip


def test_bf16_eval_mode_attacks_and_ra_any_are_made_as_asked_and_recorded(
    toy, outputs, monkeypatch
):
    monkeypatch.setattr(inputs, "ENOUGH", 8)
    study = toy(precision="bf16", attack_bn="eval", evaluation_precision="bf16", ra="any")
    found = store.read(make.make(one(study, "transfer", regime="AT", rounds=0)))
    assert (
        0 <= found.metrics["RA_any"] <= found.metrics["RA"] + 0.05
    )  # RA's attack is another, in bf16 to its end
    assert found.spec["recipe"]["precision"] == found.spec["evaluation"]["precision"] == "bf16"
    assert found.spec["recipe"]["attack"]["bn"] == "eval" and found.spec["ra"] == "any"
    assert "RA_any" in store.table("transfer") and store.verify() == []
