"""Theorems on forked kernels: they start as asked, and end when whoever asked or forked them ends."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from queue import Empty
from types import SimpleNamespace

import pytest

from dwlt_lib import kernels, runner

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def gone(pid, patience=10):
    until = time.time() + patience
    while time.time() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with kernels.nursery(tmp_path_factory.mktemp("log") / "kernels.log") as place:
        yield place


@pytest.fixture
def kernel(place, monkeypatch, tmp_path):
    """kernel(): a running kernel of the nursery, and its connection file."""
    monkeypatch.setenv(kernels.PLACE, place)

    def start(**env):
        file = tmp_path / f"{time.monotonic_ns()}.json"
        one = kernels.Kernel(["-f", str(file)], {**os.environ, **env}, str(tmp_path))
        until = time.time() + 60
        while not (file.exists() and file.read_text()) and time.time() < until:
            time.sleep(0.05)
        return one, json.loads(file.read_text())
    return start


def ask(connection, code):
    """What a kernel prints for this code."""
    from jupyter_client import BlockingKernelClient

    client = BlockingKernelClient()
    client.load_connection_info(connection)
    client.start_channels()
    client.wait_for_ready(30)
    said = []
    client.execute_interactive(code, output_hook=lambda message: said.append(message["content"].get("text", "")))
    client.stop_channels()
    return "".join(said)


def test_a_kernel_is_a_process_of_its_own_with_imports_environment_and_folder(kernel, tmp_path):
    (one, first), (other, second) = kernel(COLOUR="red"), kernel(COLOUR="blue")
    code = "import os, sys; print(os.environ['COLOUR'], os.getcwd(), os.getpid(), 'torch' in sys.modules)"
    assert ask(first, code) == f"red {tmp_path} {one.pid} True\n"
    assert ask(second, code) == f"blue {tmp_path} {other.pid} True\n"
    assert {one.pid, other.pid} <= set(kernels.mine()) and one.poll() is None
    ask(first, "import torch; torch.manual_seed(1); shared = 7")
    assert ask(second, "print('shared' in globals())") == "False\n"
    for each in (one, other):
        each.kill()
        assert each.wait(10) == -signal.SIGKILL and gone(each.pid)
    assert not {one.pid, other.pid} & set(kernels.mine())


def test_a_kernel_that_exits_is_known_to_have(kernel):
    one, connection = kernel()
    from jupyter_client import BlockingKernelClient

    client = BlockingKernelClient()
    client.load_connection_info(connection)
    client.start_channels()
    client.wait_for_ready(30)
    client.shutdown()
    assert one.wait(10) == 0
    client.stop_channels()


def test_a_kernel_ends_with_the_worker_that_asked_for_it(kernel):
    one, _ = kernel()
    one.line.close()  # all that the nursery sees of a worker's end
    assert gone(one.pid)


def test_kernels_end_with_the_nursery(tmp_path, monkeypatch):
    with kernels.nursery(tmp_path / "kernels.log") as place:
        monkeypatch.setenv(kernels.PLACE, place)
        one = kernels.Kernel(["-f", str(tmp_path / "one.json")], dict(os.environ), None)
        assert one.poll() is None
    assert gone(one.pid) and one.wait(10) == -signal.SIGKILL
    assert not Path(place).parent.exists()


def test_without_a_nursery_a_notebook_runs_in_a_kernel_of_jupyters(monkeypatch, tmp_path, outputs):
    monkeypatch.setenv(kernels.PLACE, str(tmp_path / "nobody"))
    monkeypatch.setattr(kernels, "PATIENCE", 0.2)
    monkeypatch.setenv("DWLT_SOCKETS", os.path.realpath(os.environ.get("TMPDIR", "/tmp")))
    import nbformat

    (tmp_path / "notebooks").mkdir()
    cells = [nbformat.v4.new_code_cell("study = ''", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("1")]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=about), tmp_path / "notebooks" / "one.ipynb")
    monkeypatch.setattr(runner.records, "checkout", lambda: tmp_path)
    assert runner._execute("one", {"study": "a"}, tmp_path / "one.ipynb", "")[1] == ""


def test_none_wanted_starts_nothing(tmp_path):
    with kernels.nursery(tmp_path / "kernels.log", wanted=False) as place:
        assert place == ""
    assert not (tmp_path / "kernels.log").exists()


def test_a_kernel_is_ready_once_both_channels_have_answered_the_same_question():
    answers = iter([None, 0, 1])  # the first goes unheard: IOPub is not connected yet; then both questions are answered
    asked = []

    async def shell(timeout):
        return {}

    async def iopub(timeout):
        about = next(answers)
        if about is None:
            raise Empty
        return {"parent_header": {"msg_id": asked[about]}, "content": {"execution_state": "idle"}}

    async def alive():
        return True

    def ask():
        asked.append(f"question {len(asked)}")
        return asked[-1]

    fake = SimpleNamespace(parent=SimpleNamespace(is_alive=alive), kernel_info=ask, get_shell_msg=shell,
                           get_iopub_msg=iopub)
    asyncio.run(kernels.Client.wait_for_ready(fake, timeout=5))
    assert len(asked) == 2 and next(answers, "none left") == "none left"


def test_a_kernel_that_ends_before_it_is_ready_is_an_error_at_once():
    async def dead():
        return False

    with pytest.raises(RuntimeError, match="before it was ready"):
        asyncio.run(kernels.Client.wait_for_ready(SimpleNamespace(parent=SimpleNamespace(is_alive=dead)), timeout=60))


# ------------------------------------------------------------------------------------------ workers


def meet(folder, count):
    """What this worker was told, once `count` workers have come together."""
    (folder / str(os.getpid())).touch()
    until = time.time() + 60
    while len(list(folder.iterdir())) < count and time.time() < until:
        time.sleep(0.05)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["DWLT_WORKERS"]


@pytest.mark.parametrize("gpus, wanted", [(["4", "GPU-7f"], ["4", "4", "GPU-7f"]), ([], ["", "", ""])])
def test_workers_take_gpus_in_turn_and_know_how_many_they_are(gpus, wanted, tmp_path, outputs, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "there").mkdir()
    with kernels.Pool(3, None, tmp_path / "kernels.log", gpus=gpus) as pool:
        told = [future.result() for future in [pool.submit(meet, tmp_path / "there", 3) for _ in range(3)]]
    assert sorted(told) == [(gpu, "3") for gpu in wanted]


@pytest.mark.parametrize("named, wanted", [(None, ["0", "1", "2"]), ("4,GPU-7f,2,-1", ["4", "GPU-7f", "2"])])
def test_gpus_are_named_as_the_environment_names_them(named, wanted, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert kernels.gpus() == wanted
