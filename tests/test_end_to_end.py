"""One tiny study through papermill, killed on the way, against the same study made inline in one
process.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = Path(__file__).parent / "tiny.yaml"


def environment(outputs: Path) -> dict[str, str]:
    return {**os.environ, "DWLT_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}


def dwlt(outputs: Path, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", "from dwlt_lib.cli.main import main; main()", *map(str, arguments)],
        env=environment(outputs),
        capture_output=True,
        text=True,
        timeout=600,
    )


def contents(outputs: Path) -> dict[str, object]:
    """Every record without what may differ from run to run."""
    found = {}
    for path in sorted(outputs.glob("records/*/*/record.json")):
        content = json.loads(path.read_bytes())
        del content["made"], content["digest"]
        found[path.parent.name] = content
    return found


@pytest.fixture(scope="module")
def inline(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("inline")
    done = dwlt(outputs, "run", TINY, "--executor", "inline", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return outputs


@pytest.fixture(scope="module")
def papermill(tmp_path_factory) -> Path:
    """The same study under papermill.

    Everything is killed three times on the way, then it is run to its end.
    """
    outputs = tmp_path_factory.mktemp("papermill")
    for seconds in (7, 13, 20):
        driver = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from dwlt_lib.cli.main import main; main()",
                "run",
                str(TINY),
                "--workers",
                "2",
            ],
            env=environment(outputs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        patience = time.time() + 20  # workers must end by themselves
        while children_of(outputs) and time.time() < patience:
            time.sleep(0.5)
        assert children_of(outputs) == []
    done = dwlt(outputs, "run", TINY, "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return outputs


def children_of(outputs: Path) -> list[str]:
    """Processes that still work on these outputs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DWLT_OUTPUTS={outputs}".encode() in path.read_bytes():
                found.append((path.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_inline_and_papermill_make_identical_records_even_after_three_kills(inline, papermill):
    assert contents(inline) == contents(papermill)


def test_two_runs_of_one_study_at_once_make_what_one_makes_and_leave_nothing(inline, tmp_path):
    command = [
        sys.executable,
        "-c",
        "from dwlt_lib.cli.main import main; main()",
        "run",
        str(TINY),
        "--executor",
        "inline",
        "--device",
        "cpu",
    ]
    both = [
        subprocess.Popen(
            command, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [one.communicate(timeout=600)[1].decode() for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert contents(tmp_path) == contents(inline)
    assert dwlt(tmp_path, "verify").returncode == 0
    assert not list(tmp_path.glob("records/.partial/*")) and not list(tmp_path.rglob(".dwlt-*"))


def test_results_are_byte_identical_however_they_were_made(inline, papermill):
    tables = [dwlt(outputs, "results", TINY).stdout for outputs in (inline, papermill)]
    assert tables[0] == tables[1] and tables[0].count("\n") > 50
    assert "seconds" not in tables[0].splitlines()[0]


def test_a_second_run_makes_nothing(papermill):
    before = {path: path.stat().st_mtime_ns for path in papermill.rglob("*") if path.is_file()}
    done = dwlt(papermill, "run", TINY)
    after = {path: path.stat().st_mtime_ns for path in papermill.rglob("*") if path.is_file()}
    assert done.returncode == 0 and before == after, set(after) ^ set(before)


def test_every_record_verifies_and_nothing_half_made_is_left(papermill):
    assert dwlt(papermill, "verify").returncode == 0
    assert not list(papermill.glob("records/.partial/*")), (
        "checkpoints of finished trainings are gone"
    )


def test_status_says_what_is_left(papermill, tmp_path):
    assert dwlt(papermill, "status", TINY).returncode == 0
    nothing = dwlt(tmp_path, "status", TINY)
    assert nothing.returncode == 75 and "0 of" in nothing.stdout


def test_the_report_is_one_page_with_its_figures_and_asks_no_host(papermill):
    page = (papermill / "studies" / "tiny" / "report.html").read_text()
    assert page.count("data:image/") >= 8
    page = page.replace('href="https://arxiv.org/', "")  # the paper, for who asks for it
    for word in ('src="http', "src='http", 'href="http', "@import", "url(http"):
        assert word not in page
    figures = {path.name for path in (papermill / "studies" / "tiny" / "figures").glob("*")}
    assert {".pdf", ".svg", ".png"} == {Path(name).suffix for name in figures}


def test_the_executed_tour_shows_what_its_sliders_show(papermill):
    tour = json.loads((papermill / "studies" / "tiny" / "notebooks" / "00_tour.ipynb").read_text())
    for slider in ("attack_slider", "pruning_slider"):
        cell = next(cell for cell in tour["cells"] if slider in "".join(cell["source"]))
        assert any("image/png" in output.get("data", {}) for output in cell["outputs"])


def test_a_budget_stops_cleanly_and_the_next_run_goes_on(tmp_path):
    first = dwlt(tmp_path, "run", TINY, "--executor", "inline", "--budget", "0.1s")
    assert first.returncode == 75, first.stdout + first.stderr
    made = contents(tmp_path)
    again = dwlt(tmp_path, "run", TINY, "--executor", "inline", "--budget", "6s")
    assert made.items() <= contents(tmp_path).items()
    assert (
        again.returncode == 75 or dwlt(tmp_path, "status", TINY).returncode == 0
    )  # on a fast machine
