"""A study whose records several ranks of torchrun train is that of one process, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DWLT, STARTING
from test_end_to_end import children_of

STUDY = """
name: shared
arch: resnet8
source: digits
pretraining:
  STD: {epochs: 4, batch: 128, micro_batch_size: 48, lr: 0.1, schedule: one_cycle}
retraining:
  IMP-ST: {epochs: 1, batch: 128, micro_batch_size: 48, lr: 0.02}
transfer:
  AT: {epochs: 1, batch: 64, micro_batch_size: 24, lr: 0.1, schedule: one_cycle, steps: 1}
evaluation_steps: 1
grid:
  - {pretraining: [STD], method: [IMP-ST], dataset: [digits], fraction: [0.1], regime: [AT],
     rounds: [2], seeds: [0]}
"""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python")
ALONE = "1 of 5 records to make have no training in micro-batches: rank 0 makes them alone"


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "shared.yaml"
    path.write_text(STUDY)
    return path


def start(outputs, *command):
    environment = {**os.environ, "DWLT_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*map(str, command)], env=environment, **pipes)


def on_ranks(outputs, number, *arguments):
    return start(outputs, *TORCHRUN, "--nproc-per-node", number, *DWLT, "run", *arguments)


def results(outputs):
    paths = outputs.glob("records/[a-z]*/*/record.json")
    return {path.parent.name: json.loads(path.read_text())["result"] for path in paths}


@pytest.fixture(scope="module")
def alone(params, tmp_path_factory):
    """The results that one process makes."""
    outputs = tmp_path_factory.mktemp("alone")
    process = start(outputs, *DWLT, "run", params, "--executor", "inline")
    assert process.wait(STARTING) == 0
    assert len(results(outputs)) == 5
    return results(outputs)


def until_checkpoint(outputs):
    late = time.time() + STARTING
    while not list(outputs.glob("records/.partial/*/checkpoint.pt")) and time.time() < late:
        time.sleep(0.01)


def rank_process(torchrun, rank):
    """The process id of a rank, by its environment."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    wanted = f"\0RANK={rank}\0".encode()
    return next(int(id) for id in children if wanted in Path(f"/proc/{id}/environ").read_bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_others_and_the_next_run_goes_on(rank, params, alone, tmp_path):
    process = on_ranks(tmp_path, 2, params)
    until_checkpoint(tmp_path)
    os.kill(rank_process(process, rank), signal.SIGKILL)
    output, errors = process.communicate(timeout=STARTING)
    assert process.returncode != 0 and children_of(tmp_path) == []
    assert output.splitlines() == [ALONE]
    again = on_ranks(tmp_path, 3 - rank, params)
    output, errors = again.communicate(timeout=STARTING)
    assert again.returncode == 0, errors
    assert results(tmp_path) == alone


def test_rank_0_ends_with_the_status_of_a_run_and_bad_input_is_named_once(params, tmp_path):
    process = on_ranks(tmp_path, 2, params, "--budget", "0s")
    output, errors = process.communicate(timeout=STARTING)
    assert process.returncode != 0 and "(exitcode: 75) local_rank: 0" in errors
    assert output.splitlines() == [ALONE] and results(tmp_path) == {}
    process = on_ranks(tmp_path, 2, params, "--budget", "soon")
    output, errors = process.communicate(timeout=STARTING)
    assert errors.count("dwlt: --budget 'soon'") == 1 and "(exitcode: 2) local_rank: 0" in errors
