"""Workers: a notebook's outputs are Jupyter's own, a death takes one task, nothing is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import BUSY
from test_end_to_end import children_of
from test_interrupts import LINE, SPECK, processes_end, start, until

from dwlt_lib.config.planning import plan
from dwlt_lib.execution import notebooks, runner, scheduling, workers
from dwlt_lib.execution.study_files import read_study
from dwlt_lib.records import store
from dwlt_lib.records.failures import WORKER_DIED

SAYS = """
import os, sys
import matplotlib.pyplot as plt
from IPython.display import Image, display
print("to stdout", file=sys.stdout)
handle = display("first", display_id=True)
handle.update("last")
plt.plot([1, 2, 3])
plt.show()
sys.stderr.write("to stderr\\n")
colour, os.path.basename(os.getcwd())
"""


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """notebook(name, *cells): the path of a notebook whose first cell is the parameters."""
    folder = tmp_path / "checkout" / "notebooks"
    folder.mkdir(parents=True)

    def write(name, *cells):
        first = nbformat.v4.new_code_cell('colour = "red"', metadata={"tags": ["parameters"]})
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [first, *map(nbformat.v4.new_code_cell, cells)]
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}),
            folder / f"{name}.ipynb",
        )
        return folder / f"{name}.ipynb"

    return write


def in_checkout(folder, name, parameters, target):
    """A task: runs a notebook of another checkout."""
    store.checkout = lambda: folder
    return notebooks.run_notebook(name, parameters, target)


@pytest.fixture
def execute(tmp_path, outputs, notebook):
    """execute(*cells, **parameters): (problem, executed notebook) of these cells in a worker."""

    def run(*cells, **parameters):
        path, target = notebook("one", *cells), tmp_path / "done" / "one.ipynb"
        with workers.Pool(1, None, tmp_path / "workers.log") as pool:
            task = pool.submit(in_checkout, path.parent.parent, "one", parameters, target)
        return task.result().error, nbformat.read(target, 4)

    return run


def outputs_of(notebook):
    """Every output, the pieces of a stream put together."""
    found = []
    for cell in notebook.cells:
        streams = {}
        for output in cell.outputs:
            if output.output_type == "stream":
                streams[output.name] = streams.get(output.name, "") + output.text
            else:
                found.append(
                    (
                        output.output_type,
                        output.get("data"),
                        output.get("ename"),
                        output.get("evalue"),
                        output.get("traceback"),
                        output.get("execution_count"),
                        output.get("metadata"),
                    )
                )
        found.append((cell.execution_count, streams))
    return found


def test_outputs_are_those_of_jupyter_execute(execute, notebook):
    problem, found = execute(SAYS, "1 / 0")
    assert problem.startswith("ZeroDivisionError: division by zero (see ") and problem.endswith(
        "one.ipynb)"
    )
    alone = notebook("alone", SAYS, "1 / 0")
    jupyter = (
        sys.executable,
        "-c",
        "from nbclient.cli import main; main()",
    )  # what jupyter execute starts
    subprocess.run(
        [*jupyter, "--inplace", "--allow-errors", str(alone)], check=True, capture_output=True
    )
    cells = [
        cell for cell in found.cells if "papermill" not in "".join(cell.metadata.get("tags", []))
    ]
    wanted = nbformat.read(alone, 4)
    found.cells = cells[:1] + [cell for cell in cells[1:] if cell.cell_type == "code"]
    assert [kind for kind, *_ in outputs_of(wanted)][1:5] == [
        "display_data",
        "display_data",
        "execute_result",
        2,
    ]
    assert "image/png" in str(outputs_of(wanted)) and "'last'" in str(outputs_of(wanted))
    strip(found), strip(wanted)
    assert outputs_of(found) == outputs_of(wanted)
    assert found.metadata["language_info"] == wanted.metadata["language_info"]


def strip(notebook):
    """A traceback's own file, which is named after a process."""
    for cell in notebook.cells:
        for output in cell.outputs:
            if output.output_type == "error":
                output.traceback = [line for line in output.traceback if "ipykernel_" not in line]


def test_parameters_arrive_and_papermill_says_which(execute):
    problem, found = execute("print(colour, size)", colour="blue", size=[1, 2])
    assert problem == "" and found.cells[-1].outputs[0].text == "blue [1, 2]\n"
    assert found.metadata["papermill"]["parameters"] == {"colour": "blue", "size": [1, 2]}
    assert found.metadata["papermill"]["exception"] is None


def test_a_cell_that_raises_is_the_problem_and_the_last_that_is_run(execute):
    problem, found = execute(
        "class OutOfPaper(Exception): pass\nraise OutOfPaper('none left')", "print('not run')"
    )
    assert problem.startswith("OutOfPaper: none left (see ") and "\n" not in problem
    assert found.cells[-1].outputs == [] and found.metadata["papermill"]["exception"] is True


def test_a_notebook_that_leaves_is_a_problem_too(execute):
    assert execute("import sys; sys.exit(3)")[0].startswith("SystemExit: 3")


def test_what_a_picture_is_updated_to_a_thousand_times_is_one_output(execute):
    code = "one = display('x', display_id=True)\nfor i in range(1000):\n    one.update(i * 'y')"
    _, found = execute("from IPython.display import display", code)
    assert len(found.cells[-1].outputs) == 1 and len(str(found)) < 10_000


# ------------------------------------------------------------------------------ processes


def die(log):
    os.write(2, b"said to stderr\n")
    os.kill(os.getpid(), signal.SIGKILL)


def survive(folder):
    """Another task, during which the first one's worker dies."""
    late = time.time() + 60
    while not (folder / "gone").exists() and time.time() < late:
        time.sleep(0.05)
    return os.getpid()


def test_a_worker_that_dies_fails_its_own_task_alone(tmp_path, outputs):
    with workers.Pool(2, None, tmp_path / "workers.log") as pool:
        other, first = pool.submit(survive, tmp_path), pool.submit(die, None)
        with pytest.raises(BrokenProcessPool):
            first.result()
        (tmp_path / "gone").touch()
        after = [pool.submit(os.getpid) for _ in range(3)]
        found = [other.result(), *(task.result() for task in after)]
    assert len(set(found)) == 4 and os.getpid() not in found, "every task has a process of its own"
    assert not any(map(psutil.pid_exists, found))
    assert "said to stderr" in (tmp_path / "workers.log").read_text()


def meet(folder, count):
    """What this worker was told, once `count` workers have come together."""
    (folder / str(os.getpid())).touch()
    until = time.time() + 60
    while len(list(folder.iterdir())) < count and time.time() < until:
        time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["DWLT_WORKERS"]


@pytest.mark.parametrize(
    "gpus, wanted", [(["4", "GPU-7f"], ["4", "4", "GPU-7f"]), ([], ["", "", ""])]
)
def test_workers_take_gpus_in_turn_and_know_how_many_they_are(
    gpus, wanted, tmp_path, outputs, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for turn in range(2):  # a GPU is free again when its task has ended
        folder = tmp_path / str(turn)
        folder.mkdir()
        with workers.Pool(3, None, tmp_path / "workers.log", gpus) as pool:
            told = [task.result() for task in [pool.submit(meet, folder, 3) for _ in range(3)]]
        assert sorted(told) == [(gpu, "3") for gpu in wanted]


def state():
    import torch

    return {
        "torch": torch.get_num_threads(),
        "cuda": torch.cuda.is_initialized(),
        "omp": os.environ["OMP_NUM_THREADS"],
        "deadline": os.environ["DWLT_DEADLINE"],
        "outputs": os.environ["DWLT_OUTPUTS"],
        "method": multiprocessing.get_start_method(),
        "tunables": b"hugetlb=1" in Path("/proc/self/environ").read_bytes(),
    }


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_a_worker_computes_with_one_thread_and_has_not_touched_cuda(tmp_path, outputs):
    with workers.Pool(1, 12.5, tmp_path / "workers.log") as pool:
        found = pool.submit(state).result()
    assert found == {
        "torch": 1,
        "cuda": False,
        "omp": "1",
        "deadline": "12.5",
        "outputs": str(outputs),
        "method": multiprocessing.get_start_method(),
        "tunables": workers.METHOD == "forkserver",
    }


def test_an_interrupt_ends_what_runs_and_what_waits(tmp_path, outputs):
    with pytest.raises(KeyboardInterrupt), workers.Pool(1, None, tmp_path / "workers.log") as pool:
        running, waiting = pool.submit(time.sleep, 600), pool.submit(time.sleep, 600)
        while not (tmp_path / "workers.log").exists():
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert waiting.cancelled() and isinstance(running.exception(), BrokenProcessPool)


# ------------------------------------------------------------------------------ a run


def workers_of(process):
    """The processes that the server of a run has forked."""
    server = [
        one
        for one in psutil.Process(process.pid).children()
        if "forkserver" in " ".join(one.cmdline())
    ]
    return [worker for one in server for worker in one.children()]


@pytest.mark.skipif(workers.METHOD != "forkserver", reason="needs a server of workers")
def test_a_worker_killed_in_the_middle_fails_its_job_by_name_and_the_others_finish(
    tmp_path, monkeypatch
):
    params, outputs = tmp_path / "long.yaml", tmp_path / "outputs"
    text = SPECK.read_text(encoding="utf-8").replace(
        "pretraining: [STD]", "pretraining: [STD, FAT]"
    )
    params.write_text(text.replace("STD: {epochs: 1,", "STD: {epochs: 3000,"), encoding="utf-8")
    process = start(outputs, tmp_path, "run", params, "--workers", 1)
    late = time.time() + 120
    while not list(outputs.rglob("records/.partial/**/*.pt")) and time.time() < late:
        time.sleep(0.05)
    for attempt in range(1 + runner.RETRIES):
        while not workers_of(process) and time.time() < late:
            time.sleep(0.05)
        (victim,) = workers_of(process)
        victim.kill()
        until(process, "retry" if attempt < runner.RETRIES else "failed")
    until(process, "drawing")  # what is there: the other tickets
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert said.count("\n") == 3, said
    first, second, last = said.splitlines(keepends=True)
    assert process.returncode == 75 and last == LINE
    assert first.startswith("failed: pretraining STD ")
    assert first.endswith(f": {WORKER_DIED}\n")
    assert second.endswith(" that build on a failed one\n")
    monkeypatch.setenv("DWLT_OUTPUTS", str(outputs))
    study = read_study(params)
    left = {spec.model_dump_json() for spec in scheduling.missing_specs(study)}
    made = [spec for spec in plan(study).values() if spec.model_dump_json() not in left]
    assert {spec.kind for spec in made} == {"pretraining", "mask", "transfer"}
    assert all("STD" in spec for spec in left)


@pytest.mark.parametrize(
    ("words", "is_worker_killed"),
    [("", False), ("records to make", False), ("  start", False), ("  start", True)],
    ids=["while it imports", "then", "at work", "at work, with a worker"],
)
def test_nothing_outlives_a_driver_that_is_killed(words, is_worker_killed, tmp_path):
    process = start(tmp_path / "outputs", tmp_path, "run", SPECK, "--workers", 2)
    if words:
        until(process, words)
    else:
        late = time.time() + 60
        while (
            len(children_of(tmp_path / "outputs")) < 3 and time.time() < late
        ):  # it, Python's tracker, and the server
            time.sleep(0.02)
    victims = [psutil.Process(process.pid)]
    while is_worker_killed and len(victims) == 1:
        victims += workers_of(process)[:1]
    for victim in reversed(victims):  # a worker ends by itself once its driver has
        victim.kill()
    process.wait()
    assert processes_end(tmp_path / "outputs", 5 * BUSY)
