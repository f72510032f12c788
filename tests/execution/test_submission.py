"""What engines are handed: whole, and such that a run that stops is started again."""

import os
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from dwlt_lib.config.sites import read_site
from dwlt_lib.execution import submission
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store

TINY = Path(__file__).parents[1] / "tiny.yaml"
SITES = store.checkout() / "params" / "sites"


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "out puts"))
    monkeypatch.setenv("DWLT_DATA", str(tmp_path / "images"))
    return read_study(TINY)


def site_of(text, tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return read_site(path)


def stand_in(tmp_path, monkeypatch, name, text):
    """A command of this name, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_slurm_gets_an_array_that_stops_before_its_walltime(study, tmp_path):
    site = site_of(
        "{engine: slurm, tasks: 3, walltime: 2h, margin: 30m, gpus: 0, cpus: 5}", tmp_path
    )
    text = submission.script(site, study, TINY)
    assert "#SBATCH --array=0-2\n" in text and "#SBATCH --time=120\n" in text
    assert "--gpus" not in text and "--mem" not in text
    assert "--device cpu --workers 5 --budget 5400s &\n" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("status", "is_requeued"), [(0, False), (1, False), (2, False), (75, True), (137, False)]
)
def test_an_element_that_stopped_goes_back_into_the_queue_and_no_other_does(
    status, is_requeued, study, tmp_path, monkeypatch
):
    stand_in(tmp_path, monkeypatch, "scontrol", f'echo "$@" > {shlex.quote(str(tmp_path))}/asked')
    text = submission.script(read_site(SITES / "slurm.yaml"), study, TINY)
    text = text.replace("module load cuda\n", "")
    run = next(line for line in text.splitlines() if line.endswith(" &"))
    text = text.replace(run, f"bash -c 'exit {status}' &")
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    ended = subprocess.run(["bash"], input=text, text=True, env=environment, check=False)
    assert ended.returncode == status
    assert (tmp_path / "asked").exists() == is_requeued
    if is_requeued:
        assert (tmp_path / "asked").read_text(encoding="utf-8") == "requeue 7_2\n"


def test_a_preempted_element_lets_its_run_stop_and_waits_for_it(study):
    text = submission.script(read_site(SITES / "slurm.yaml"), study, TINY)
    run = next(line for line in text.splitlines() if line.endswith(" &"))
    slow = "trap 'sleep 0.3; exit 3' TERM; echo ready; sleep 30 & wait"
    text = text.replace("module load cuda\n", "").replace(run, f"bash -c {shlex.quote(slow)} &")
    process = subprocess.Popen(
        ["bash", "-c", text], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=20) == 3
    process.stdout.close()


def test_kubernetes_gets_the_parameters_and_a_job_over_shared_volumes(study):
    settings, job = yaml.safe_load_all(
        submission.script(read_site(SITES / "kubernetes.yaml"), study, TINY)
    )
    assert settings["data"] == {"tiny.yaml": TINY.read_text(encoding="utf-8")}
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completions"] == spec["parallelism"] == 4
    (container,) = pod["containers"]
    assert container["args"] == ["run", "/study/tiny.yaml", "--device", "cuda"]
    assert {one["name"] for one in container["volumeMounts"]} == {
        one["name"] for one in pod["volumes"]
    }
    ignored = [rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "Ignore"]
    assert ignored[0]["onExitCodes"]["values"] == [75]


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_manifest_fits_kubernetes_own_schema(gpus, study, tmp_path):
    validate = pytest.importorskip("kubernetes_validate")
    text = f"{{engine: kubernetes, image: dwlt, volume: v, namespace: n, gpus: {gpus}}}"
    manifest = submission.script(site_of(text, tmp_path), study, TINY)
    for document in yaml.safe_load_all(manifest):
        validate.validate(document, "1.30", strict=True)


def test_kubectl_is_given_the_manifest_and_its_status_is_the_commands(study, tmp_path, monkeypatch):
    got = shlex.quote(str(tmp_path / "got"))
    stand_in(tmp_path, monkeypatch, "kubectl", f'(echo "$@"; cat) > {got}; exit 4')
    site = read_site(SITES / "kubernetes.yaml")
    assert submission.submit(site, study, TINY, print) == 4
    first, rest = (tmp_path / "got").read_text(encoding="utf-8").split("\n", 1)
    assert first == "apply -f -" and rest == submission.script(site, study, TINY)


def test_every_host_runs_the_study_and_the_worst_status_counts(study, tmp_path, monkeypatch):
    stand_in(
        tmp_path,
        monkeypatch,
        "ssh",
        'host="${@: -2:1}"; echo "${@: -1}"; [ "$host" = good ] || exit 75',
    )
    said = []
    site = site_of("{engine: ssh, hosts: [good, other], directory: /a b, setup: [id -u]}", tmp_path)
    assert submission.submit(site, study, TINY, said.append) == 75
    assert sorted(line.partition(":")[0] for line in said) == ["good", "other"]
    for line in said:
        assert "'/a b/.venv/bin/dwlt' run" in line or "/a\\ b" in line
        assert f"export DWLT_DATA={tmp_path / 'images'} && cd '/a b' && id -u && exec" in line


def test_an_engine_that_is_not_here_is_named(study, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="^sbatch: no such command here; .* --dry-run"):
        submission.submit(read_site(SITES / "slurm.yaml"), study, TINY, print)
