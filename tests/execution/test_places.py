"""Places.

Outputs that cannot be used, disks that are full, parameter files that are none, locales, umasks,
TMPDIRs.
"""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import DWLT
from typer.testing import CliRunner

from dwlt_lib import files
from dwlt_lib.cli.main import app
from dwlt_lib.config.specs import record_id
from dwlt_lib.execution import runner
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

TESTS = Path(__file__).parents[1]
SPECK = TESTS / "speck.yaml"
RATES = TESTS.parent / "outputs" / "reference" / "bench" / "cpu_resnet20.json"


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(found, *words):
    assert found.exit_code == 2 and found.stdout == "", (found.stdout, found.stderr)
    assert found.stderr.count("\n") == 1 and all(word in found.stderr for word in words), (
        found.stderr
    )


@pytest.fixture
def disk(tmp_path):
    """disk(size): a folder on a disk of that size (tmpfs's words).

    Skips where none can be mounted.
    """
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        options = f"size={size}"
        done = (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)],
                capture_output=True,
                check=False,
            )
            if sys.platform == "linux" and shutil.which("mount")
            else None
        )
        if done is None or done.returncode:
            pytest.skip("no disk can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# ------------------------------------------------------------------------------------- before a
# start


COMMANDS = [("run", "--executor", "inline"), ("run",), ("report",)]


@pytest.mark.parametrize(
    "command, place",
    [
        *(
            (command, place)
            for command in COMMANDS
            for place in ("", "studies", "studies/speck/notebooks")
        ),
        *(
            (command, place)
            for command in COMMANDS[:2]
            for place in ("records", "records/transfer", "records/.partial")
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_file_where_a_folder_is_wanted_is_refused_before_a_start(
    command, place, tmp_path, monkeypatch
):
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("DWLT_OUTPUTS", str(outputs))
    (outputs / place).parent.mkdir(parents=True, exist_ok=True)
    (outputs / place).write_text("a file")
    found = invoke(*command[:1], SPECK, *command[1:])
    refused(found, str(outputs / place), "is no folder")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["a file"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("place", ["/proc/outputs", "/dev/null/outputs", f"/tmp/{300 * 'x'}"])
def test_outputs_where_nothing_can_be_made_are_refused_before_a_start(command, place, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", place)
    refused(invoke(*command[:1], SPECK, *command[1:]), place)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_refused_before_a_start(command, disk, monkeypatch):
    folder = disk("64k")
    monkeypatch.setenv("DWLT_OUTPUTS", str(folder / "outputs"))
    refused(invoke(*command[:1], SPECK, *command[1:]), f"No space left on the disk of {folder}")
    assert list(folder.iterdir()) == []


def test_shared_memory_that_is_full_is_refused_before_a_start(tmp_path):
    full = 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"'
    inside = ["unshare", "-m", "sh", "-c", full, "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no /dev/shm of its own can be mounted here")
    done = subprocess.run(
        [*inside, *DWLT, "run", str(SPECK)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "DWLT_OUTPUTS": str(tmp_path)},
    )
    wanted = (
        "dwlt: No space left on the disk of /dev/shm; free some and run the same command again\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", wanted)


def test_a_bench_whose_file_cannot_be_written_is_refused_before_it_measures(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "bench.json"):
        refused(invoke("bench", "--device", "cpu", "--task", "st", "--json", place), str(tmp_path))


def test_a_trial_makes_the_folder_and_leaves_nothing_in_it(tmp_path):
    files.check(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


# -------------------------------------------------------------------------------------- while it
# runs


def full_by_the_system(_):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_by_torch(folder):
    import torch

    torch.save({"a": torch.zeros(10**6)}, folder / "a")


def full_by_safetensors(folder):
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(10**6)}, folder / "a")


@pytest.mark.parametrize("write", [full_by_the_system, full_by_torch, full_by_safetensors])
def test_a_disk_that_becomes_full_ends_a_run_in_one_line(write, disk, tmp_path, monkeypatch):
    folder, tried = disk("100k"), []
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))

    def make(spec, device, wait):
        tried.append(spec)
        write(folder)

    monkeypatch.setattr("dwlt_lib.execution.make.make", make)
    found = invoke("run", SPECK, "--executor", "inline", "--device", "cpu")
    assert found.exit_code == 1 and len(tried) == 1
    wanted = (
        f"No space left on the disk of {tmp_path / 'outputs'}; free some and run the same command"
        " again"
    )
    assert found.stderr == f"dwlt: {wanted}\n"


def test_a_disk_that_becomes_full_under_papermill_ends_the_run_in_one_line(disk, tmp_path):
    folder = disk("1200k")  # room for a record or two
    done = subprocess.run(
        [*DWLT, "run", str(SPECK), "--workers", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "DWLT_OUTPUTS": str(folder), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1 and done.stderr.startswith("dwlt: No space left on the disk of "), (
        done.stderr
    )
    assert done.stderr.count("\n") == 1
    assert not [path for path in folder.rglob(".dwlt-*")]


def test_other_troubles_are_not_taken_for_a_full_disk():
    for error in (
        ValueError("no space"),
        OSError(errno.EACCES, "Permission denied"),
        RuntimeError(),
    ):
        assert not files.is_full(error) and not files.is_full(str(error))
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RuntimeError("could not write") from error
    except RuntimeError as error:
        assert files.is_full(error)


def test_inline_never_ends_well_while_a_record_is_missing(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    study, lost = read_study(SPECK), []

    def make(spec, device, wait):
        if spec.kind == "mask":
            lost.append(spec)  # nothing is said, and nothing is there
        else:
            store.write(spec, {}, [], {}, {})

    monkeypatch.setattr("dwlt_lib.execution.make.make", make)
    assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.FAILED
    (line,) = caplog.messages
    assert record_id(lost[0]) in line and "\n" not in line


# ------------------------------------------------------------------------------------ parameter
# files


@pytest.mark.parametrize(
    "command", ["run", "plan", "status", "results", "verdict", "report", "publish"]
)
@pytest.mark.parametrize("kind", ["folder", "pipe", "latin", "long", "device"])
def test_what_is_no_parameter_file_is_one_line_and_status_2(command, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    path = {"long": tmp_path / (300 * "x"), "device": Path("/dev/zero")}.get(kind, tmp_path / kind)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "latin":
        path.write_bytes("name: größe".encode("latin-1"))
    refused(invoke(command, path), str(path))
    assert not (tmp_path / "outputs").exists()


def test_rates_that_are_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(invoke("plan", SPECK, "--rates", tmp_path / "pipe"), "--rates")


# --------------------------------------------------------------------------- locale, umask, TMPDIR


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """(outputs, the commands that were run there) in an ASCII locale, under umask 002 and with a
    long TMPDIR.
    """
    outputs = tmp_path_factory.mktemp("outputs")
    temporary = outputs.parent / (150 * "t")
    temporary.mkdir()
    environment = {
        **os.environ,
        **ASCII,
        "DWLT_OUTPUTS": str(outputs / "here"),
        "TMPDIR": str(temporary),
    }
    found = {}
    for command in (
        ("report", SPECK),
        ("verdict", SPECK),
        ("status", SPECK),
        ("plan", SPECK, "--rates", RATES),
    ):
        found[command[0]] = subprocess.run(
            [*DWLT, *map(str, command)],
            env=environment,
            capture_output=True,
            timeout=300,
            umask=0o002,
        )
    return outputs / "here", found


def test_text_is_utf_8_whatever_the_locale(reported):
    outputs, found = reported
    assert {name: (done.returncode, done.stderr) for name, done in found.items()} == {
        "report": (0, b""),
        "verdict": (0, b""),
        "status": (75, b""),
        "plan": (0, b""),
    }
    page = (outputs / "studies" / "speck" / "report.html").read_text(encoding="utf-8")
    assert "Fleck, größer als π" in page


def test_the_umask_alone_decides_who_may_read_and_write_what_is_made(reported):
    outputs, _ = reported
    folder = outputs / "studies" / "speck"
    assert {"report.html", "study.json", "workers.log"} <= {path.name for path in folder.iterdir()}
    for path in (folder, *folder.rglob("*")):
        wanted = 0o775 if path.is_dir() else 0o664
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_long_tmpdir_is_no_obstacle_to_a_private_folder(tmp_path, monkeypatch):
    folder = tmp_path / (150 * "t")
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    private = files.private()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700 and not files.is_abandoned(private)
    assert len(str(private)) <= files.SHORT
    private.rmdir()


# -------------------------------------------------------------------------------------------
# scratch


def test_ones_own_scratch_goes_when_asked_and_nothing_else_does(tmp_path):
    mine = files.scratch(tmp_path / "a")
    mine.touch()
    (tmp_path / "kept").mkdir()
    assert files.collect(tmp_path) == []
    assert files.collect(tmp_path, own=True) == [mine]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_process_left_that_nobody_has_waited_for_is_abandoned(tmp_path):
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writes, files.scratch(tmp_path / "a").name.encode())
        os._exit(0)
    name = os.read(reads, 200).decode()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert files.is_abandoned(tmp_path / name)
    os.waitpid(pid, 0)
    os.close(reads), os.close(writes)
