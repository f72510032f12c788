"""A training's states are written once each, and a changed one is never joined."""

import shutil

import pytest
import torch
from made_records import Caught, one, same, under_way

from dwlt_lib.execution import make, trajectory_files
from dwlt_lib.records import store


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


def test_states_are_read_as_they_were_saved_in_the_order_of_epochs(tmp_path):
    states = [{"a": torch.randn(3), "b": torch.arange(epoch)} for epoch in range(12)]
    for epoch, state in enumerate(states):
        trajectory_files.save_state(tmp_path, epoch, state)
    found = trajectory_files.load_states(trajectory_files.join_states(tmp_path, 11))
    assert len(found) == 12 and all(map(same, found, states))


def test_a_state_that_changed_on_disk_is_named_and_the_training_starts_anew(tmp_path):
    folder = tmp_path / "unfinished"
    folder.mkdir()
    for epoch in range(2):
        trajectory_files.save_state(folder, epoch, {"a": torch.zeros(3)})
    (path,) = folder.glob("state-0001-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="after epoch 1 is missing or changed"):
        trajectory_files.join_states(folder, 1)
    assert not folder.exists()
