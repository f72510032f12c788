"""A record is made once, with what it builds on, and the same description gives the same bits."""

import threading
import time

import pytest
import torch
from made_records import Caught, one, same, under_way, weights

import dwlt_lib
from dwlt_lib.config import planning
from dwlt_lib.config.planning import plan
from dwlt_lib.config.specs import record_id, upstream
from dwlt_lib.data import batches
from dwlt_lib.execution import inputs, kinds, make
from dwlt_lib.records import leases, store
from dwlt_lib.training import trainer


@pytest.fixture
def ticket_spec(toy):
    return planning.transfer(toy(), "AT", "OMP", "stripes", 1.0, "AT", 2, 0)


def test_every_planned_record_is_there_and_sound(made):
    assert store.missing("toy") == 0 and store.verify() == []
    assert len(store.table(study="toy")) == len(store.table()) == len(plan(made))


def test_making_twice_makes_nothing(made, monkeypatch):
    stamps = {path: path.stat().st_mtime_ns for path in store.outputs().glob("records/*/*/*")}
    monkeypatch.setattr(make, "MAKERS", {})
    for id, spec in plan(made).items():
        assert make.make(spec) == id
    assert stamps == {
        path: path.stat().st_mtime_ns for path in store.outputs().glob("records/*/*/*")
    }


def test_a_record_that_another_process_makes_is_left_to_it_or_waited_for(
    toy, outputs, monkeypatch, ticket_spec
):
    theta = ticket_spec.theta
    lease = leases.acquire(store.leases_root(), record_id(theta))
    for spec in (theta, ticket_spec):  # and so is what builds on it
        with pytest.raises(leases.Held, match=record_id(theta)):
            make.make(spec, wait=False)
    monkeypatch.setenv("DWLT_DEADLINE", "1")
    with pytest.raises(trainer.OutOfTime):
        make.make(theta)
    monkeypatch.delenv("DWLT_DEADLINE")

    def finish():
        time.sleep(0.2)
        with lease:
            store.write(theta, {"SA": 0.5}, [], {}, {}, lease=lease)

    other = threading.Thread(target=finish)
    other.start()
    make.make(theta)
    other.join()
    assert store.read(theta).metrics == {"SA": 0.5} and not list(store.leases_root().iterdir())


def test_a_process_that_was_paused_for_too_long_writes_no_record(outputs, monkeypatch, ticket_spec):
    theta = ticket_spec.theta

    def pause(spec, device, progress):
        root = store.leases_root()
        leases._create(root, record_id(theta), 2)  # another one has taken over
        return kinds.Result({"SA": 0.5}, [], {})

    monkeypatch.setattr(make, "MAKERS", {type(theta): pause})
    with pytest.raises(leases.LostLease, match=record_id(theta)):
        make.make(theta)
    assert not store.exists(theta)
    assert not list((store.outputs() / "records" / theta.kind).iterdir())


def test_no_checkpoint_stays_behind(made):
    assert not list((store.outputs() / "records" / ".partial").glob("*"))


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

    monkeypatch.setattr(inputs, "load_images", permuted)
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


def test_a_failing_record_leaves_no_trace_of_itself(made, monkeypatch, tmp_path, ticket_spec):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))

    def fail(*_):
        raise FloatingPointError("the loss is nan")

    monkeypatch.setattr(kinds, "_test", fail)
    with pytest.raises(FloatingPointError):
        make.make(ticket_spec.theta)
    assert not store.exists(ticket_spec.theta) and len(store.table()) == 0


def test_a_record_says_the_codes_version_where_there_is_no_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = make._environment.__wrapped__(torch.device("cpu"))
    assert found["code"] == dwlt_lib.__version__
