"""What failed is of a kind, stands beside the study, and goes when the record is there."""

import pytest
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.config.planning import plan
from dwlt_lib.execution import kinds, make, runner
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import failures, store


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("FloatingPointError: the loss is nan (see a.ipynb)", "diverged"),
        ("torch.OutOfMemoryError: CUDA out of memory", "out of memory"),
        ("MemoryError: ", "out of memory"),
        ("ValueError: birds.npz is not there", "bad input"),
        ("FileNotFoundError: no such file", "bad input"),
        (failures.WORKER_DIED, "lost worker"),
        ("KeyError: 'x'", "error"),
    ],
)
def test_an_error_is_of_one_kind(error, kind):
    assert failures.kind_of(error) == kind


@pytest.fixture
def speck(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path))
    path = store.checkout() / "tests" / "speck.yaml"
    return read_study(path), path


def test_status_names_a_failure_until_its_record_is_there(speck, monkeypatch):
    study, path = speck

    def fails(spec, device, progress):
        raise MemoryError("12 GiB asked for")

    with monkeypatch.context() as patch:
        patch.setattr(make, "MAKERS", dict.fromkeys(kinds.MAKERS, fails))
        assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.FAILED
    found = CliRunner().invoke(app, ["status", str(path)])
    assert found.exit_code == 75
    (line,) = [line for line in found.stdout.splitlines() if "failed: " in line]
    assert "pretraining STD" in line and "out of memory" in line and "12 GiB asked for" in line

    def succeeds(spec, device, progress):
        return kinds.Result({}, [], {})

    monkeypatch.setattr(make, "MAKERS", dict.fromkeys(kinds.MAKERS, succeeds))
    assert runner.run_inline(study, runner.RunSettings("cpu")) == runner.DONE
    found = CliRunner().invoke(app, ["status", str(path), "--watch", "1s"])  # all is there: it ends
    assert found.exit_code == 0 and "failed" not in found.stdout
    assert list((store.study_dir(study.name) / "failed").iterdir()) == []


def test_a_watch_wants_a_time(speck):
    found = CliRunner().invoke(app, ["status", str(speck[1]), "--watch", "often"])
    assert found.exit_code == 2 and found.stderr.startswith("dwlt: --watch 'often': want a time")


def test_of_a_study_that_never_failed_nothing_is_noted(speck):
    study, _ = speck
    assert failures.noted(study.name, plan(study)) == []
    failures.forget(study.name, plan(study).values())
