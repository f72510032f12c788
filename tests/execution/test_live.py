"""A run on a terminal: a display while it works, whole lines above it, and nothing left behind."""

import io
import os
import pty
import signal
import subprocess
import time

import pytest
from conftest import BUSY, DWLT
from rich.console import Console
from test_interrupts import SPECK, temporary  # noqa: F401 (a fixture)

from dwlt_lib.execution import live

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


def test_the_display_fits_the_terminal_and_says_what_each_job_is_at():
    running = [("transfer AT IMP-ST 73.8 % " + "on digits " * 20, "epoch 3"), ("mask", "starting")]
    progress = live.Progress(3, 12, 0.25, "0:00:10 gone, about 0:00:30 left", running)
    console = Console(width=100, record=True, force_terminal=False, file=open(os.devnull, "w"))
    console.print(live.rendered(progress))
    lines = console.export_text().splitlines()
    assert len(lines) == 3 and all(len(line) <= 100 for line in lines)
    assert "3/12 records" in lines[0] and "0:00:30 left" in lines[0]
    assert "transfer AT IMP-ST 73.8 %" in lines[1] and "epoch 3" in lines[1]


def test_failures_stay_in_red_each_in_a_line():
    failed = ["transfer ST on digits: FloatingPointError: the loss is nan" + " and so on" * 20] * 2
    console = Console(width=80, force_terminal=True, color_system="standard", file=io.StringIO())
    console.print(live.rendered(live.Progress(1, 3, 0.5, "0:01", [("mask", "epoch 2")], failed)))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4 and "mask" in lines[1] and "\x1b[31m" not in lines[1]
    for line in lines[2:]:
        assert "\x1b[31m  failed: transfer ST on digits: FloatingPointError" in line


def test_without_a_terminal_lines_are_plain(capsys):
    said = []
    with live.display(said.append) as (say, show):
        say("[1/2] done")
    assert said == ["[1/2] done"] and show is None and capsys.readouterr().out == ""


@pytest.mark.parametrize(("interrupted", "status"), [(True, 75), (False, 0)])
def test_a_run_on_a_terminal_leaves_it_whole(interrupted, status, tmp_path, temporary):  # noqa: F811
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "DWLT_OUTPUTS": str(tmp_path / "outputs"),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
        "TERM": "xterm",
        "COLUMNS": "100",
    }
    run = subprocess.Popen(
        [*DWLT, "run", str(SPECK), "--workers", "1"],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(theirs)
    said, late = "", time.monotonic() + 240 * BUSY
    while time.monotonic() < late:
        try:
            said += os.read(ours, 65536).decode(errors="replace")
        except OSError:  # nobody holds the other side any more
            break
        if interrupted and HIDE_CURSOR in said and "starting" in said:
            run.send_signal(signal.SIGINT)
            interrupted = False
    assert run.wait(60 * BUSY) == status, said
    os.close(ours)
    assert said.rindex(SHOW_CURSOR) > said.rindex(HIDE_CURSOR)
    assert ("the same command goes on from here" in said) == (status == 75)
    assert ("report: " in said) == (status == 0)
