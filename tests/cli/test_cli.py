"""The command's promises: exit statuses, one line on bad input, nothing written."""

import html
import re
import shutil

import pytest
import typer
import yaml
from generate import records_of
from test_parameter_file import BAD
from typer.testing import CliRunner

import dwlt_lib
from dwlt_lib import report
from dwlt_lib.benchmarks import bench
from dwlt_lib.cli import run as run_commands
from dwlt_lib.cli.main import app
from dwlt_lib.config import planning
from dwlt_lib.execution import devices, figures, inputs, runner, workers
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def empty_outputs(tmp_path, monkeypatch):
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("DWLT_OUTPUTS", str(outputs))
    return outputs


def test_the_version_is_the_packages_and_help_has_examples(empty_outputs):
    found = invoke("--version")
    assert found.exit_code == 0 and found.stdout == f"dwlt {dwlt_lib.__version__}\n"
    said = invoke("--help").stdout
    commands = [line.strip() for line in said.splitlines() if line.startswith(" dwlt ")]
    assert 2 <= len(commands) <= 3 and "--install-completion" in said
    for line in commands:  # each is one that the command understands
        assert invoke(*line.split()[1:2], "--help").exit_code == 0
        for option in re.findall(r"--\w+", line):
            assert option in invoke(*line.split()[1:2], "--help").stdout
    assert not empty_outputs.exists()


def test_a_shell_completes_commands_and_what_options_take():
    for words, at, found in (
        ("dwlt ver", 1, "verdict verify"),
        ("dwlt run --executor ", 3, "papermill inline"),
    ):
        asked = {"_DWLT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        said = CliRunner().invoke(app, prog_name="dwlt", env=asked).stdout
        assert said.split() == found.split()


def test_a_repeated_option_asks_for_each_and_its_help_says_that_it_may(monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "bench", lambda *arguments: asked.append(arguments[1:4]))
    repeated = ("--task", "st", "--task", "surface", "--size", 8, "--size", 16)
    assert invoke("bench", "--device", "cpu", *repeated).exit_code == 0
    assert asked == [(["st", "surface"], ["resnet20"], [8, 16])]
    known = typer.main.get_command(app).commands.items()
    found = {
        (name, option.name): option.help
        for name, command in known
        for option in command.params
        if getattr(option, "multiple", False)
    }
    assert {("bench", "task"), ("plan", "devices"), ("attack", "tickets")} < set(found)
    assert all(said.endswith("may be repeated") for said in found.values())


def test_every_command_has_an_example():
    making = ("run", "plan", "status", "report", "publish")
    for command in (*making, "results", "verdict", "claims", "verify", "lab", "browse", "bench"):
        assert f"Example: dwlt {command}" in invoke(command, "--help").stdout


@pytest.mark.parametrize(
    "command", ["run", "plan", "status", "results", "verdict", "claims", "report"]
)
def test_a_missing_parameter_file_is_one_line_and_status_2(command, tmp_path, empty_outputs):
    found = invoke(command, tmp_path / "none.yaml")
    assert found.exit_code == 2 and found.stderr.count("\n") == 1 and "none.yaml" in found.stderr
    assert not empty_outputs.exists()


@pytest.mark.parametrize("budget", ["9", "m", "-1m", "9 m", "1d"])
def test_a_budget_without_a_unit_is_refused(budget, tmp_path, empty_outputs):
    found = invoke("run", "tests/tiny.yaml", f"--budget={budget}")
    assert found.exit_code == 2 and "9m" in found.stderr and not empty_outputs.exists()


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(empty_outputs):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    found = invoke("run", "tests/tiny.yaml", "--device", "cuda")
    assert found.exit_code == 2 and "cuda" in found.stderr and not empty_outputs.exists()


def test_plan_counts_what_a_study_makes_and_writes_nothing(request, empty_outputs):
    found = invoke("plan", request.config.rootpath / "tests" / "tiny.yaml")
    assert found.exit_code == 0 and "in all" in found.stdout and not empty_outputs.exists()


def test_results_of_a_study_never_run_say_so(request, empty_outputs):
    found = invoke("results", request.config.rootpath / "tests" / "tiny.yaml")
    assert found.exit_code == 2 and found.stderr.count("\n") == 1 and "dwlt run" in found.stderr


@pytest.mark.parametrize("command", ["verdict", "claims", "results"])
def test_a_committed_study_that_stands_in_is_named(command, toy, tmp_path, empty_outputs):
    study = toy(
        grid=[
            {
                "pretraining": ["AT"],
                "method": ["IMP-ST"],
                "dataset": ["stripes"],
                "rounds": [1],
                "seeds": [0, 1],
            }
        ]
    )
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude_defaults=True)))
    study = read_study(file)
    records_of(study)
    assert invoke(command, file).stderr == ""
    reference = store.publish("toy", {})
    shutil.rmtree(empty_outputs / "records")
    shutil.rmtree(store.study_dir("toy"))
    found = invoke(command, file)
    count = len(planning.plan(study))
    assert found.exit_code == 0 and found.stderr == (
        f"dwlt: reading the committed study {reference}: none of its {count} records are under "
        f"{empty_outputs}\n"
    )
    assert store.published_source("toy") in html.unescape(report.build("toy").read_text())


def test_a_dense_network_at_chance_is_said_and_wins_nothing(toy, tmp_path, empty_outputs):
    study = toy(
        grid=[
            {
                "pretraining": ["AT"],
                "method": ["IMP-ST"],
                "dataset": ["stripes"],
                "rounds": [1],
                "seeds": [0, 1],
            }
        ]
    )
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude_defaults=True)))
    records_of(study, {"SA": 1 / 3, "RA": 1 / 3, "chance": 1 / 3, "test_images": 30})
    found = invoke("verdict", file)
    assert found.exit_code == 0 and "unknown" in found.stdout
    assert found.stdout.count("warning: theta_AT, stripes 100 %: dense is at chance in ") == 3
    assert report.build("toy").read_text().count("dense is at chance in ") == 3


@pytest.mark.parametrize("what", BAD)
def test_a_bad_parameter_file_is_one_line_and_status_2_and_writes_nothing(
    what, tmp_path, empty_outputs
):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD[what][0])
    found = invoke("run", path)
    assert found.exit_code == 2 and found.stderr.count("\n") == 1 and "bad.yaml" in found.stderr, (
        found.stderr
    )
    assert found.stdout == "" and not empty_outputs.exists()


def test_data_that_are_not_there_are_named_before_anything_starts(
    request, tmp_path, empty_outputs, monkeypatch
):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path / "images"))
    text = (
        (request.config.rootpath / "tests" / "tiny.yaml")
        .read_text()
        .replace("dataset: [digits]", "dataset: [mine]")
    )
    path = tmp_path / "mine.yaml"
    path.write_text(text + "data:\n  mine: {loader: folder, path: mine, classes: 3, size: 8}\n")
    found = invoke("run", path)
    assert (
        found.exit_code == 2 and found.stderr.count("\n") == 1 and "mine/train" in found.stderr
    ), found.stderr
    assert not empty_outputs.exists()


@pytest.mark.parametrize("asked, count", [((), 3), (("--workers", 5), 5)])
@pytest.mark.parametrize("ends", ["DONE", "STOPPED"])
def test_on_gpus_a_worker_each_makes_records_and_a_worker_a_core_draws_them(
    asked, count, ends, request, monkeypatch
):
    pools = []

    class Pool:
        def __init__(self, workers, deadline, log, gpus=()):
            self.workers = workers
            pools.append((workers, gpus))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(inputs, "check_inputs", lambda *_: "cuda")
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0", "1", "2"])
    monkeypatch.setattr(workers, "start_server", lambda: None)
    monkeypatch.setattr(workers, "Pool", Pool)
    monkeypatch.setattr(runner, "run_notebooks", lambda *_: getattr(runner, ends))
    monkeypatch.setattr(figures, "run_figures", lambda *_: (runner.DONE, False))
    monkeypatch.setattr("dwlt_lib.report.page.build", lambda name: name)
    monkeypatch.setattr(run_commands, "print_verdict", lambda *_: True)
    tiny = request.config.rootpath / "tests" / "tiny.yaml"
    assert invoke("run", tiny, "--device", "cuda", *asked).exit_code == getattr(runner, ends)
    drawing = [(workers.usable_cores(), [])] if ends == "DONE" else []
    assert pools == [(count, ["0", "1", "2"]), *drawing]


@pytest.fixture
def planned(toy, tmp_path):
    """A parameter file whose records are there, with invented numbers."""
    path = tmp_path / "toy.yaml"

    def write(**changes):
        path.write_text(yaml.safe_dump(toy(**changes).model_dump(mode="json", exclude_none=True)))
        return read_study(path)

    records_of(write())
    return path, write


@pytest.mark.parametrize("command", ["verdict", "claims", "results"])
def test_a_table_of_former_parameters_says_that_it_is(command, planned):
    path, write = planned
    assert "changed" not in invoke(command, path).stderr
    write(seed=9)
    found = invoke(command, path)
    assert found.exit_code == 0 and "have changed since the study was planned" in found.stderr
    assert invoke("status", path).exit_code == 75


@pytest.mark.parametrize("command", ["verdict", "claims", "results", "verify"])
def test_a_damaged_record_is_one_line_and_status_1_and_the_rest_is_shown(command, planned):
    path, _ = planned
    whole = invoke(command, path) if command != "verify" else invoke(command)
    assert whole.exit_code == 0
    file = sorted(store.outputs().glob("records/transfer/*/record.json"))[0]
    file.write_bytes(file.read_bytes()[:99])
    found = invoke(command, path) if command != "verify" else invoke(command)
    assert (
        found.exit_code == 1
        and found.stderr.count(str(file)) == 1
        and "Traceback" not in found.output
    )
    assert len(found.stdout.splitlines()) > 0
    assert invoke("status", path).exit_code == 75
