"""Theorems on making records.

Once, with what they build on, each from the seeds that are its own.
"""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import dwlt_lib
from dwlt_lib.analysis import loss_landscape
from dwlt_lib.config import studies
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.config.studies import plan
from dwlt_lib.data import batches
from dwlt_lib.evaluation import accuracy
from dwlt_lib.execution import make
from dwlt_lib.models.architectures import prunable
from dwlt_lib.models.tensors import fingerprint
from dwlt_lib.pruning import imp, masks
from dwlt_lib.pruning.ticket_files import mask_of
from dwlt_lib.records import store
from dwlt_lib.training import trainer


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """The whole toy study, made once; returns it with validation on 18 images."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("made")
    patch.setenv("DWLT_OUTPUTS", str(folder))
    patch.setattr(make, "ENOUGH", 8)
    study = toy()
    store.write_study(study)
    for spec in reversed(
        plan(study).values()
    ):  # last things first: what they build on is made by itself
        make.make(spec)
    yield study
    patch.undo()


def one(study, kind, **columns):
    from dwlt_lib.config.specs import columns as columns_of

    found = [
        spec
        for spec in plan(study).values()
        if spec.kind == kind
        and all(columns_of(spec)[name] == value for name, value in columns.items())
    ]
    assert found
    return found[0]


def weights(spec):
    return load_file(store.read(spec).path / "weights.safetensors")


def under_way(spec):
    return list(store.unfinished_root().glob(f"{record_id(spec)}.*"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def ticket_spec(toy):
    return studies.transfer(toy(), "AT", "OMP", "stripes", 1.0, "AT", 2, 0)


# ------------------------------------------------------------------------------------------ the
# whole study


def test_every_planned_record_is_there_and_sound(made):
    assert store.missing("toy") == 0 and store.verify() == []
    assert len(store.table(study="toy")) == len(store.table()) == len(plan(made))


def test_making_twice_makes_nothing(made, monkeypatch):
    stamps = {path: path.stat().st_mtime_ns for path in store.outputs().glob("records/*/*/*")}
    monkeypatch.setattr(make, "_KINDS", {})
    for id, spec in plan(made).items():
        assert make.make(spec) == id
    assert stamps == {
        path: path.stat().st_mtime_ns for path in store.outputs().glob("records/*/*/*")
    }


def test_no_checkpoint_stays_behind(made):
    assert not list((store.outputs() / "records" / ".partial").glob("*"))


COLUMNS = {
    "transfer": (
        "pretraining method dataset fraction regime rounds sparsity seed mask_seed subset_seed SA"
        " RA SA_last RA_last epoch epochs"
    ),
    "mask": "pretraining method rounds sparsity seed kept SA_source",
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
        m = mask_of(row["id"])
        assert row["kept"] == masks.kept(m) and row["sparsity"] == masks.sparsity(m)
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
    model = make.ticket(spec)
    model.load_state_dict(weights(spec))
    test = batches.load_images(spec.data, "test")
    metrics = store.read(spec).metrics
    attack, rng = spec.evaluation, trainer.generator(0, "test")
    assert metrics["SA"] == accuracy.standard_accuracy(model, test.floats(), test.y)
    assert metrics["chance"] == max(test.y.eq(c).double().mean().item() for c in test.y.unique())
    assert metrics["test_images"] == len(test)
    assert metrics["RA"] == accuracy.robust_accuracy(model, test.floats(), test.y, attack, rng)


def test_pruned_weights_of_a_transferred_ticket_are_zero_in_every_checkpoint(made):
    spec = one(made, "transfer", regime="AT", rounds=2)
    m = mask_of(record_id(spec.mask))
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
            files = set(store.read(spec).files)
            assert (
                files
                == {
                    "none": set(),
                    "selected": {"weights.safetensors"},
                    "trajectory": {"weights.safetensors", "trajectory.safetensors"},
                }[spec.keep]
            )


def test_the_network_of_a_record_scores_what_the_record_says(made):
    drawn = torch.get_rng_state()
    for spec in (
        one(made, "pretraining", pretraining="AT"),
        one(made, "transfer", regime="AT", rounds=2),
    ):
        record, test = store.read(spec), batches.load_images(spec.data, "test")
        model = make.network(record)
        assert not model.training
        assert record.metrics["SA"] == accuracy.standard_accuracy(model, test.floats(), test.y)
    assert torch.equal(torch.get_rng_state(), drawn)
    with pytest.raises(ValueError, match="holds no such file"):
        make.network(store.read(one(made, "transfer", method="RP", rounds=3)))


def test_a_mask_names_the_theta_it_was_drawn_from(made):
    spec = one(made, "mask", method="RP")
    header = masks.packed_header((store.read(spec).path / "mask.safetensors").read_bytes())
    assert header["theta"] == fingerprint(weights(spec.theta))


def test_masks_on_disk_nest_and_follow_their_methods(made):
    theta = weights(one(made, "pretraining", pretraining="AT"))
    model = make.ticket(one(made, "transfer", rounds=0))
    prunable_part = imp.prunable_weights(model, theta)
    found = {
        (spec.method, spec.rounds): mask_of(record_id(spec))
        for spec in plan(made).values()
        if spec.kind == "mask"
    }
    assert {method for method, _ in found} == {"IMP-ST", "RP", "OMP"}
    for (method, rounds), m in found.items():
        if rounds > 1:
            assert all((m[name] <= found[method, rounds - 1][name]).all() for name in m)
    assert same(found["IMP-ST", 1], found["OMP", 1])
    assert same(found["OMP", 3], imp.one_shot(prunable_part, 3, 0.2))
    assert same(found["RP", 3], imp.at_random(prunable_part, 3, 0.2, 0))


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
    model = make.ticket(spec.transfer).eval()
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
    model = make.ticket(spec.transfer)
    model.load_state_dict(weights(spec.transfer))
    unseen = make._fresh(spec.surrogate, "cpu")
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
    model = make.ticket(spec.transfer)
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


# ------------------------------------------------------------------------------------------ what
# depends on what


class Caught(Exception):
    pass


def caught_fit(monkeypatch, spec):
    """What `make` hands to training.fit for this record."""
    found = {}

    def spy(model, m, train, validation, config, seed, *args, **settings):
        found.update(
            state={name: value.clone() for name, value in model.state_dict().items()},
            m=m,
            train=train,
            validation=validation,
            eval_attack=settings["eval_attack"],
            seed=seed,
        )
        raise Caught

    with monkeypatch.context() as patch:
        patch.setattr(make, "fit", spy)
        with pytest.raises(Caught):
            make._KINDS[type(spec)](spec, torch.device("cpu"), None)
    return found


def test_a_ticket_starts_from_theta_with_a_fresh_head_and_the_downstream_normalisation(
    made, monkeypatch
):
    spec = one(made, "transfer", regime="AT", rounds=2)
    row = spec.data.model_copy(update={"mean": (0.1, 0.2, 0.3), "classes": 4})
    theta = weights(spec.theta)
    model = make.ticket(spec.model_copy(update={"data": row}))
    state = model.state_dict()
    assert all(torch.equal(state[name], theta[name]) for name in theta if not name.startswith("fc"))
    assert state["fc.weight"].shape == (4, 64) and model.mean.flatten().tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )
    heads = [make.ticket(spec.model_copy(update={"seed": seed})).fc.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert all(weight.requires_grad for weight in model.parameters())


def test_subsets_follow_their_own_seed_not_that_of_training(made, monkeypatch):
    spec = one(made, "transfer", fraction=0.5, rounds=3).model_copy(update={"mask": None})
    pictures = {}
    for subset_seed in (0, 1):
        for seed in (0, 1):
            found = caught_fit(
                monkeypatch, spec.model_copy(update={"seed": seed, "subset_seed": subset_seed})
            )
            pictures[subset_seed, seed] = (
                found["train"].x,
                found["validation"].x,
                found["state"]["fc.weight"],
            )
    for subset_seed in (0, 1):
        a, b = pictures[subset_seed, 0], pictures[subset_seed, 1]
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[2], b[2])
    assert not torch.equal(pictures[0, 0][0], pictures[1, 0][0])
    assert torch.equal(pictures[0, 0][2], pictures[1, 0][2])


def test_validation_comes_out_of_the_budget_and_never_overlaps_training(made, monkeypatch):
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    found = caught_fit(monkeypatch, spec)
    train, held = (
        {image.numpy().tobytes() for image in found[part].x} for part in ("train", "validation")
    )
    assert (len(train), len(held)) == (81, 9) and not train & held  # 90 images, a tenth of them
    assert found["validation"].y.bincount().tolist() == [3, 3, 3]
    assert found["eval_attack"] is None  # ST is selected by SA
    monkeypatch.setattr(make, "ENOUGH", 10)
    found = caught_fit(monkeypatch, spec)
    assert found["validation"] is None and len(found["train"]) == 90


def test_the_authors_hold_out_the_last_5000_and_take_the_fraction_of_the_rest(made, monkeypatch):
    x = (torch.arange(6000) % 251).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    everything = batches.Images(x, torch.arange(6000) % 3, spec.data)
    monkeypatch.setattr(make, "load_images", lambda row, split, device="cpu": everything)
    recipe = spec.recipe.model_copy(update={"validation": "held_5000"})
    train, held = make._budget(spec.data, 0.1, "first_n", 0, recipe, torch.device("cpu"))
    assert torch.equal(train.x, x[:100]) and torch.equal(held.x, x[1000:])
    monkeypatch.setattr(
        make, "load_images", lambda row, split, device="cpu": everything.take(torch.arange(5000))
    )
    with pytest.raises(ValueError, match="tenth"):
        make._budget(spec.data, 0.1, "first_n", 0, recipe, torch.device("cpu"))


def test_validation_on_the_test_images_leaves_the_whole_budget_to_training(made):
    spec = one(made, "transfer", fraction=0.5, rounds=3)
    recipe = spec.recipe.model_copy(update={"validation": "test"})
    train, held = make._budget(spec.data, 0.5, "first_n", 0, recipe, torch.device("cpu"))
    test = batches.load_images(spec.data, "test")
    assert len(train) == 90 and torch.equal(held.x, test.x) and torch.equal(held.y, test.y)


def test_imp_retraining_starts_from_theta_and_heeds_the_mask_seed_alone(made, monkeypatch):
    spec = one(made, "mask", method="IMP-ST", rounds=2)
    seen, before = [], mask_of(record_id(upstream(spec)[1]))
    monkeypatch.setattr(make, "_read_mask", lambda *_: before)

    def spy(model, m, train, validation, config, seed, **settings):
        assert m is before
        rewound = same(model.state_dict(), weights(spec.theta))
        seen.append((rewound, seed, config.attack, validation))
        raise Caught

    monkeypatch.setattr(imp, "fit", spy)
    with pytest.raises(Caught):
        make._KINDS[type(spec)](spec.model_copy(update={"seed": 9}), torch.device("cpu"), None)
    assert seen == [(True, 9, None, None)]


def test_the_same_description_gives_the_same_bits_again(made, monkeypatch, tmp_path):
    spec = one(made, "transfer", regime="AT", rounds=0)
    was, files = store.read(spec), weights(spec)
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    torch.manual_seed(123)
    make.make(spec)
    now = store.read(spec)
    assert now.metrics == was.metrics and now.history == was.history and same(weights(spec), files)


def test_permuting_the_test_labels_changes_no_selected_epoch_and_no_weight(
    made, monkeypatch, tmp_path
):
    spec = one(made, "transfer", regime="AT", rounds=2)
    was, files = store.read(spec), weights(spec)
    real = batches.load_images

    def permuted(row, split, device="cpu"):
        found = real(row, split, device)
        return batches.Images(found.x, (found.y + 1) % 3, found.row) if split == "test" else found

    monkeypatch.setattr(make, "load_images", permuted)
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    make.make(spec)
    now = store.read(spec)
    assert now.metrics["epoch"] == was.metrics["epoch"] and now.history == was.history
    assert same(weights(spec), files)
    assert now.metrics["SA"] != was.metrics["SA"]
    for up in upstream(spec):
        if up.kind == "pretraining":
            assert (
                store.read(up).metrics["epoch"] is not None and store.read(up).metrics["SA"] < 0.5
            )


def test_making_leaves_torchs_global_generator_alone(made, monkeypatch, tmp_path, ticket_spec):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make.make(ticket_spec.theta)
    assert torch.equal(torch.get_rng_state(), before)


def test_out_of_time_keeps_the_checkpoint_and_the_next_time_ends_with_the_same_bits(
    made, monkeypatch, tmp_path
):
    spec = one(made, "pretraining", pretraining="AT")
    was = store.read(spec)
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))

    with monkeypatch.context() as patch:
        patch.setenv("DWLT_DEADLINE", "1")
        with pytest.raises(trainer.OutOfTime):
            make.make(spec)
    assert not store.exists(spec)

    def kill(row):
        raise Caught

    with pytest.raises(Caught):
        make.make(spec, progress=kill)
    assert len(under_way(spec)) == 1 and not store.exists(spec)
    epochs = []
    make.make(spec, progress=lambda row: epochs.append(row["epoch"]))
    assert epochs == [2] and store.read(spec).metrics == was.metrics and not under_way(spec)


def test_a_path_that_was_interrupted_is_the_same_and_each_of_its_states_was_written_once(
    made, monkeypatch, tmp_path
):
    spec = one(made, "transfer", regime="AT", rounds=2)
    was = store.read(spec)
    shutil.copytree(store.outputs(), tmp_path / "outputs")
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    shutil.rmtree(store.path_of("transfer", was.id))

    def kill(row):
        raise Caught

    with pytest.raises(Caught):
        make.make(spec, progress=kill)
    (folder,) = under_way(spec)
    assert sorted(path.name[:10] for path in folder.iterdir()) == [
        "checkpoint",
        "state-0000",
        "state-0001",
    ]
    (start,) = folder.glob("state-0000-*")
    first, stamps = start.stat().st_mtime_ns, []
    make.make(spec, progress=lambda row: stamps.append(start.stat().st_mtime_ns))
    assert store.read(spec).files == was.files and not under_way(spec) and set(stamps) == {first}
    assert (store.read(spec).path / "trajectory.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_failing_record_leaves_no_trace_of_itself(made, monkeypatch, tmp_path, ticket_spec):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))

    def fail(*_):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(make, "_tested", fail)
    with pytest.raises(FloatingPointError):
        make.make(ticket_spec.theta)
    assert not store.exists(ticket_spec.theta) and len(store.table()) == 0


def test_devices_are_named_or_refused():
    assert make.resolve("cpu") == torch.device("cpu")
    assert make.resolve("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        make.resolve("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="want cpu or auto"):
            make.resolve("cuda")


def test_a_landscapes_directions_are_two_and_follow_the_studys_seed(made):
    spec = one(made, "surface", images="clean")
    model, m = make.ticket(spec.transfer), mask_of(record_id(spec.transfer.mask))
    assert set(m) == set(prunable(model))
    d1, d2 = (
        loss_landscape.direction(model, m, trainer.generator(spec.seed, purpose))
        for purpose in ("d1", "d2")
    )
    assert not same(d1, d2)
    other = spec.model_copy(update={"seed": 1, "points": 3})
    mine, theirs = (
        make._KINDS[type(spec)](s, torch.device("cpu"), None)[2]["arrays.safetensors"]
        for s in (spec.model_copy(update={"points": 3}), other)
    )
    assert mine != theirs


def test_bf16_eval_mode_attacks_and_ra_any_are_made_as_asked_and_recorded(
    toy, outputs, monkeypatch
):
    monkeypatch.setattr(make, "ENOUGH", 8)
    study = toy(precision="bf16", attack_bn="eval", evaluation_precision="bf16", ra="any")
    found = store.read(make.make(one(study, "transfer", regime="AT", rounds=0)))
    assert (
        0 <= found.metrics["RA_any"] <= found.metrics["RA"] + 0.05
    )  # RA's attack is another, in bf16 to its end
    assert found.spec["recipe"]["precision"] == found.spec["evaluation"]["precision"] == "bf16"
    assert found.spec["recipe"]["attack"]["bn"] == "eval" and found.spec["ra"] == "any"
    assert "RA_any" in store.table("transfer") and store.verify() == []


def test_a_record_says_the_codes_version_where_there_is_no_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = make._circumstances.__wrapped__(torch.device("cpu"))
    assert found["code"] == dwlt_lib.__version__
