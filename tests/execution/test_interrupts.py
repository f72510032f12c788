"""However a command is ended, one line says so, no process and no scratch file is left, and the
next run goes on.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from conftest import DWLT
from test_end_to_end import children_of

SPECK = Path(__file__).parents[1] / "speck.yaml"
LINE = "dwlt: interrupted; the same command goes on from here\n"
SCRATCH = re.compile(r"\.dwlt-|\.new-|\..*\.ipynb$|dwlt-|tmp.*\.json$")


@pytest.fixture
def temporary():
    """A TMPDIR of this test alone, its path short."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="t"))
    yield folder
    shutil.rmtree(folder)


def start(outputs, temporary, *arguments):
    """The command, in a process group of its own in which interrupts are heard."""
    environment = {
        **os.environ,
        "DWLT_OUTPUTS": str(outputs),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [*DWLT, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def until(process, words):
    """Reads what the command prints until it says these words."""
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(process.stderr.read())


def left_behind(*folders):
    return [path for folder in folders for path in folder.rglob("*") if SCRATCH.match(path.name)]


def processes_end(outputs, patience):
    late = time.time() + patience
    while children_of(outputs) and time.time() < late:
        time.sleep(0.1)
    return children_of(outputs) == []


@pytest.mark.parametrize(
    "number, words, arguments",
    [
        (signal.SIGINT, "  start", ("run", SPECK, "--workers", 2)),
        (signal.SIGTERM, "  start", ("run", SPECK, "--workers", 2)),
        (signal.SIGINT, "[1/", ("run", SPECK, "--executor", "inline")),
        (signal.SIGTERM, "[1/", ("run", SPECK, "--executor", "inline")),
        (signal.SIGTERM, "drawing", ("report", SPECK)),
        (signal.SIGTERM, "measuring", ("plan", SPECK)),
        (signal.SIGINT, "threads", ("bench", "--device", "cpu", "--task", "st", "--seconds", 1)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value).strip(),
)
def test_a_signal_ends_a_command_in_one_line_and_leaves_nothing(
    number, words, arguments, tmp_path, temporary
):
    process = start(tmp_path, temporary, *arguments)
    until(process, words)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (75, LINE)
    assert processes_end(tmp_path, 5)
    assert left_behind(tmp_path, temporary) == []


def test_a_training_that_is_interrupted_keeps_its_checkpoint(tmp_path, temporary):
    params = tmp_path / "long.yaml"
    params.write_text(
        SPECK.read_text(encoding="utf-8").replace("epochs: 1", "epochs: 2000"), encoding="utf-8"
    )
    process = start(tmp_path, temporary, "run", params, "--executor", "inline")
    late = time.time() + 120
    while not list(tmp_path.glob("records/.partial/*/checkpoint.pt")) and time.time() < late:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75 and left_behind(tmp_path, temporary) == []
    assert [path.name for path in tmp_path.glob("records/.partial/*/*")] == ["checkpoint.pt"]


def test_what_a_kill_left_is_collected_by_the_next_run(tmp_path, temporary):
    process = start(tmp_path, temporary, "run", SPECK, "--workers", 2)
    notebooks, late = tmp_path / "studies" / "speck" / "notebooks", time.time() + 120
    while time.time() < late:  # a scratch file lives shortly: it is looked for while nothing moves
        os.killpg(process.pid, signal.SIGSTOP)
        if left_behind(notebooks) and left_behind(temporary):
            break
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert processes_end(tmp_path, 5)
    assert left_behind(tmp_path) and left_behind(temporary)
    again = start(tmp_path, temporary, "run", SPECK, "--executor", "inline")
    assert again.wait(300) == 0, again.communicate()
    assert left_behind(tmp_path, temporary) == []
    assert start(tmp_path, temporary, "status", SPECK).wait(60) == 0


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("plan", SPECK), ("status", SPECK)],
    ids=lambda arguments: arguments[0],
)
def test_a_command_whose_reader_has_gone_ends_quietly(arguments, tmp_path, temporary):
    reads, writes = os.pipe()
    os.close(reads)
    environment = {**os.environ, "DWLT_OUTPUTS": str(tmp_path), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [*DWLT, *map(str, arguments)],
        env=environment,
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writes)
    assert done.stderr == ""
