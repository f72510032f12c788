"""Scratch files: whole or not at all, each its owner's, and collected when the owner is dead."""

import os
import subprocess
import sys

import pytest

from dwlt_lib import files
from dwlt_lib.records.store import checkout

LEAVE = """
import sys
from pathlib import Path
from dwlt_lib import files
path = files.scratch(Path(sys.argv[1]) / "a.json")
path.write_text("half")
(path.with_name(path.name + "-folder")).mkdir()
"""


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path):
    files.write(tmp_path / "a.txt", "älter")
    files.write(tmp_path / "a.txt", "neuer: ü")
    assert (tmp_path / "a.txt").read_bytes() == "neuer: ü".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path, monkeypatch):
    files.write(tmp_path / "a.txt", "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_what_a_dead_process_left_is_collected_and_what_a_living_one_writes_is_not(tmp_path):
    subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path)], check=True, cwd=checkout())
    mine = files.scratch(tmp_path / "b.json")
    mine.write_text("half")
    (tmp_path / ".dwlt-theirs").write_text("of no owner that can be told")
    elsewhere = tmp_path / mine.name.replace(mine.name.split("-")[1], 6 * "0")
    elsewhere.write_text("another host's")
    assert len(files.collect(tmp_path)) == 2
    left = {mine.name, ".dwlt-theirs", elsewhere.name}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert files.collect(tmp_path) == []


def test_a_process_of_another_start_of_this_host_is_not_known_to_be_dead(tmp_path):
    host, pid, start = files.owner().split("-")
    assert not files.is_dead(files.owner()) and files.is_dead(
        f"{host}-{pid}-{int(start, 16) + 1:x}"
    )
    assert files.is_dead(f"{host}-{2**22 + 1}-{start}")  # beyond the largest number of a process
    assert not files.is_dead(f"{6 * '0'}-{pid}-1")
    for text in ("", "x", "a-b-c", f"{host}-x-1", f"{host}-1"):
        assert not files.is_dead(text)


def test_what_another_host_left_goes_after_a_week(tmp_path):
    path = tmp_path / f".dwlt-{6 * '0'}-1-1-0badcafe-a.json"
    path.write_text("half")
    assert files.collect(tmp_path) == []
    os.utime(path, (1, 1))
    assert files.collect(tmp_path) == [path]


def test_no_two_scratch_names_are_the_same(tmp_path):
    assert len({files.scratch(tmp_path / "a") for _ in range(1000)}) == 1000


def test_only_a_file_or_a_link_to_one_is_opened_all_else_is_refused_in_a_line(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(file)
    assert files.regular(file) == file and files.regular(str(link)) == link
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    wrong = {
        tmp_path: "is a folder",
        tmp_path / "pipe": "is a pipe",
        "/dev/zero": "device",
        tmp_path / "none": "cannot be read",
        tmp_path / "loop": "cannot be read",
        file / "below": "cannot be read",
        "a\0b": "cannot be read",
        "x" * 5000: "cannot be read",
        0: "is a int",
        None: "is a NoneType",
    }
    for path, said in wrong.items():
        with pytest.raises(ValueError, match=f"{said}.*; want .*a file") as refusal:
            files.regular(path)
        assert "\n" not in str(refusal.value)
