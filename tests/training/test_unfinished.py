"""Trainings under way.

Each process's own, taken up when its owner is dead, and never believed when damaged.
"""

import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch

from dwlt_lib import files
from dwlt_lib.records.store import checkout
from dwlt_lib.training import unfinished

ID = 20 * "a"
CPU = torch.device("cpu")
LEAVE = """
import sys
from pathlib import Path
from dwlt_lib.training import unfinished
folder = unfinished.folder(Path(sys.argv[1]), sys.argv[2])
unfinished.save({"epoch": 3}, folder / unfinished.CHECKPOINT)
if len(sys.argv) > 3:
    print("left", flush=True)
    sys.stdin.read()
"""


def leave(root, *more, **how):
    return subprocess.Popen(
        [sys.executable, "-c", LEAVE, str(root), ID, *more],
        cwd=checkout(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **how,
    )


def epoch(folder):
    found = unfinished.load(folder / unfinished.CHECKPOINT, CPU)
    return found and found["epoch"]


def test_what_a_dead_process_left_is_taken_over(tmp_path):
    leave(tmp_path).wait()
    folder = unfinished.folder(tmp_path, ID)
    assert epoch(folder) == 3 and list(tmp_path.iterdir()) == [folder]
    assert folder.name == f"{ID}.{files.owner()}" and unfinished.folder(tmp_path, ID) == folder


def test_what_is_left_of_a_record_that_is_there_is_swept(tmp_path):
    leave(tmp_path).wait()
    unfinished.sweep(tmp_path, lambda id: False)
    assert len(list(tmp_path.iterdir())) == 1
    unfinished.sweep(tmp_path, lambda id: id == ID)
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_has_is_copied_and_stays_its_own(tmp_path):
    other = leave(tmp_path, "stay")
    try:
        assert other.stdout.readline() == "left\n"
        (theirs,) = tmp_path.iterdir()
        folder = unfinished.folder(tmp_path, ID)
        assert folder != theirs and epoch(folder) == epoch(theirs) == 3
        unfinished.save({"epoch": 4}, folder / unfinished.CHECKPOINT)
        unfinished.remove(tmp_path, ID)
        assert list(tmp_path.iterdir()) == [theirs] and epoch(theirs) == 3
    finally:
        other.kill()
        other.wait()


def test_what_another_host_left_is_copied_too(tmp_path):
    theirs = tmp_path / f"{ID}.{8 * '0'}-1-1"
    unfinished.save({"epoch": 2}, theirs / unfinished.CHECKPOINT)
    assert epoch(unfinished.folder(tmp_path, ID)) == 2 and epoch(theirs) == 2


def test_the_newest_of_several_is_taken(tmp_path):
    for start, number in ((1, 5), (2, 2)):
        path = tmp_path / f"{ID}.{8 * '0'}-{start}-1" / unfinished.CHECKPOINT
        unfinished.save({"epoch": number}, path)
        os.utime(path, (start, start))
    assert epoch(unfinished.folder(tmp_path, ID)) == 2


def test_other_records_are_left_alone(tmp_path):
    other = tmp_path / f"{20 * 'b'}.{8 * '0'}-1-1"
    unfinished.save({"epoch": 2}, other / unfinished.CHECKPOINT)
    assert epoch(unfinished.folder(tmp_path, ID)) is None
    unfinished.remove(tmp_path, ID)
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("harm", ["a flipped bit", "cut", "empty"])
def test_a_damaged_checkpoint_is_named_and_set_aside(tmp_path, harm, caplog):
    path = unfinished.folder(tmp_path, ID) / unfinished.CHECKPOINT
    unfinished.save({"epoch": 3, "model": torch.randn(50)}, path)
    data = bytearray(path.read_bytes())
    if harm == "a flipped bit":
        data[len(data) // 2] ^= 4
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b""}.get(harm, data))
    with caplog.at_level(logging.WARNING):
        assert unfinished.load(path, CPU) is None
    assert str(path) in caplog.text and len(caplog.records) == 1
    assert not path.exists() and path.with_name("damaged-checkpoint.pt").exists()


def test_a_copied_checkpoint_is_never_newer_than_the_states_beside_it(tmp_path, monkeypatch):
    theirs = tmp_path / f"{ID}.{8 * '0'}-1-1"
    unfinished.save({"epoch": 2}, theirs / unfinished.CHECKPOINT)
    copied, copy = [], shutil.copyfile
    for epoch in range(3):
        (theirs / f"state-{epoch:04d}-x").write_text("")
    monkeypatch.setattr(shutil, "copyfile", lambda a, b: copied.append(a.name) or copy(a, b))
    folder = unfinished.folder(tmp_path, ID)
    assert copied[0] == unfinished.CHECKPOINT and len(list(folder.iterdir())) == 4


def test_what_is_gone_while_it_is_copied_is_not_taken(tmp_path, monkeypatch):
    theirs = tmp_path / f"{ID}.{8 * '0'}-1-1"
    unfinished.save({"epoch": 2}, theirs / unfinished.CHECKPOINT)

    def gone(*_):
        raise FileNotFoundError

    monkeypatch.setattr(shutil, "copyfile", gone)
    folder = unfinished.folder(tmp_path, ID)
    assert folder.is_dir() and epoch(folder) is None
