"""Hostile parameter files.

Each is refused in one line that says where, at once, and nothing is run or written.
"""

import json
import os
import subprocess
import sys

import pytest
from hostile_files import BASE, HOSTILE
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.config.parameter_file import BadStudy, parse
from dwlt_lib.data import fingerprints
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

MEASURE = """
import json, resource, sys, time
from pathlib import Path
from dwlt_lib.execution.study_files import read_study

def most():  # ru_maxrss counts what the parent had, too
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

read_study(sys.argv[1])
before, found = most(), {}
for path in sys.argv[2:]:
    began = time.process_time()
    try:
        read_study(path)
        line = None
    except ValueError as error:
        line = str(error)
    found[Path(path).name] = (line, time.process_time() - began)
print(json.dumps([found, most() - before]))
"""


def put(folder, what):
    content = HOSTILE[what][0]
    path = folder / f"{list(HOSTILE).index(what):03d}.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(scope="module")
def battery(tmp_path_factory):
    """({file name.

    (line, CPU seconds)}, bytes that the process grew by) of a process that reads them all.
    """
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "good.yaml").write_text(BASE)
    paths = [put(folder, what) for what in HOSTILE]
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, folder / "good.yaml", *paths],
        capture_output=True,
        text=True,
        cwd=store.checkout(),
        env={**os.environ, "DWLT_OUTPUTS": str(folder / "outputs")},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(folder.iterdir()) == before, "nothing is written"
    return json.loads(done.stdout)


def test_there_are_66_of_them_at_least():
    assert len(HOSTILE) >= 66


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_at_once_in_one_line_with_its_place(what, battery):
    _, at, words = HOSTILE[what]
    name = f"{list(HOSTILE).index(what):03d}.yaml"
    line, seconds = battery[0][name]
    assert line is not None, "it was taken"
    assert "\n" not in line and len(line) < 400 and line.isprintable(), line
    assert f"{name}:{at}: " in line if at else f"{name}:" in line, line
    assert all(word in line for word in words.split()), line
    assert "Traceback" not in line and "pydantic" not in line
    assert seconds < 2


def test_all_of_them_together_grow_the_process_by_less_than_200_mb(battery):
    assert 0 < battery[1] < 200e6


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    "what",
    [
        "a billion laughs",
        "a product of lists",
        "5,001 digits",
        "a key that runs code",
        "python/object",
        "UTF-16",
        "sexagesimal",
    ],
)
def test_the_command_says_so_on_stderr_with_status_2(command, what, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    done = CliRunner().invoke(app, [command, str(put(tmp_path, what))])
    assert done.exit_code == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("dwlt: ") and not (tmp_path / "outputs").exists()


def not_files(folder):
    os.mkfifo(folder / "pipe.yaml")
    (folder / "folder.yaml").mkdir()
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    return {
        "pipe": folder / "pipe.yaml",
        "folder": folder / "folder.yaml",
        "device": "/dev/zero",
        "loop": folder / "loop.yaml",
        "gone": folder / "none.yaml",
        "long": folder / ("n" * 5000),
    }


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.parametrize("what", ["pipe", "folder", "device", "loop", "gone", "long"])
def test_what_is_no_file_is_not_opened(what, tmp_path):
    path = not_files(tmp_path)[what]
    with pytest.raises(BadStudy) as error:
        read_study(path)
    assert "\n" not in str(error.value) and "want a file of parameters" in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.parametrize("what", ["pipe", "folder", "device"])
def test_a_file_of_theta_that_is_no_file_is_not_opened(what, tmp_path):
    path = not_files(tmp_path)[what]
    (tmp_path / "study.yaml").write_text(BASE + f"weights: {{STD: {path}}}\n")
    with pytest.raises(BadStudy) as error:
        read_study(tmp_path / "study.yaml")
    assert str(error.value).startswith(f"{tmp_path}/study.yaml:12: weights.STD: ") and what in str(
        error.value
    )
    assert "\n" not in str(error.value)


def test_what_looks_alike_and_is_meant_well_is_taken():
    good = parse(BASE, "a.yaml")
    assert parse("\ufeff" + BASE, "a.yaml") == good
    assert parse(BASE.replace("\n", "\r\n"), "a.yaml") == good
    assert parse(BASE.replace("[1, 2]", "[+1, 2]").replace("0.1", "1.0e-1"), "a.yaml") == good
    assert (
        parse(BASE + "title: 'no: 1:30, 010 and 2024-01-01'\n", "a.yaml").title
        == "no: 1:30, 010 and 2024-01-01"
    )
    assert parse(BASE + "title: >\n  one\n  line\n", "a.yaml").title == "one line\n"
    several = (
        BASE.replace("seeds: [0]", "seeds: &seeds [0, 1]")
        + "surrogate: {arch: resnet20}\n"
        + "transfer_attacks:\n  - {pretraining: [STD], method: [RP], dataset: [digits], rounds:"
        " [1], seeds: *seeds}\n"
    )
    assert parse(several, "a.yaml").transfer_attacks[0].seeds == (0, 1)


def test_a_mark_of_the_encoding_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert read_study(tmp_path / "a.yaml") == fingerprints.resolve_fingerprints(
        parse(BASE, "a.yaml"), {}
    )
