"""Kernels that start at once: forked from one process, the nursery, that has imported what notebooks need.

A fresh kernel spends four seconds on imports, a forked one none. Kernels still are processes of their own with sockets
of their own; they end when their worker, the nursery or the run ends, however it ends. Without a nursery (on CUDA,
which does not survive a fork, and where there is no fork) Jupyter starts kernels in its usual way.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from queue import Empty

import psutil
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from dwlt_lib import files, records

PLACE = "DWLT_NURSERY"  # environment: the nursery's socket
NAME = "dwlt-nursery"
PATIENCE = 60.0  # seconds that a worker waits for the nursery
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1",
         "PYDEVD_DISABLE_FILE_VALIDATION": "1",
         "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # tensors in large pages: a training step gains 4 % on Linux
INLINE = "module://matplotlib_inline.backend_inline"
# what ends a command
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def die_with_parent(parent: int) -> None:
    """This process gets SIGKILL when its parent ends (Linux; elsewhere a kernel watches its parent by itself)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A process is started in here: a signal waits until that is done, and the process hears none before `hear`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in heard}
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    try:
        yield
    finally:
        hear()
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def hear() -> None:
    """From now on signals reach this process."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


# ---------------------------------------------------------------------------------------------- in the run


@contextmanager
def nursery(log: Path, wanted: bool = True, datasets: Sequence[str] = ()) -> Iterator[str]:
    """The socket of a nursery that lives as long as this context; "" if none is wanted or processes cannot be forked.

    It is at its imports for some seconds, while the caller goes on. log: where its kernels' output goes; datasets: what
    comes with the packages and is to be in its kernels' memory, the first from the first kernel on.
    """
    if not wanted or not hasattr(os, "fork") or sys.platform == "darwin":  # Apple's libraries do not survive a fork
        yield ""
        return
    folder = files.private()
    place = f"{folder}/nursery"
    code = f"from dwlt_lib.nursery import serve; serve({place!r}, {os.getpid()}, {str(log)!r}, {list(datasets)!r})"
    process = None
    try:
        with undisturbed():
            process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, env={**os.environ, **QUIET, "MPLBACKEND": INLINE,
                                                                       "TMPDIR": str(folder)})
        yield place
    finally:
        if process is not None:
            end([process.pid])
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


class Pool(ProcessPoolExecutor):
    """The standard library's pool; its workers and their kernels end when this process does, however it ends.

    place: the socket of a nursery, or "". gpus: of `gpus`; each worker and its kernels see one of them, in turn. What
    workers and kernels say on stderr goes to `log`. Nothing is started before the first task.
    """

    def __init__(self, workers: int, deadline: float | None, log: Path, place: str = "", gpus: Sequence[str] = ()
                 ) -> None:
        _lighten()
        self.workers, self.sockets = workers, str(files.private())
        context = multiprocessing.get_context("spawn")
        turns = context.SimpleQueue() if gpus else None
        for worker in range(workers if gpus else 0):
            turns.put(gpus[worker % len(gpus)])
        super().__init__(workers, mp_context=context, initializer=_begin, initargs=(
            os.getpid(), str(records.outputs()), self.sockets, str(log), deadline, place, workers, turns))

    def submit(self, *task: object, **options: object) -> Future:
        with undisturbed():  # it may start a worker
            return super().submit(*task, **options)

    def __exit__(self, *error: object) -> None:
        interrupted = error[0] is not None
        try:
            if interrupted:
                end(list(self._processes or {}))
            self.shutdown(wait=not interrupted, cancel_futures=True)
        finally:
            shutil.rmtree(self.sockets, ignore_errors=True)


def end(pids: Iterable[int]) -> None:
    """Kills these processes and all that they started; they are gone when this returns."""
    found = []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    until = time.monotonic() + 5
    while any(map(_runs, found)) and time.monotonic() < until:
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def gpus() -> list[str]:
    """The GPUs that there are for this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _begin(parent: int, outputs: str, sockets: str, log: str, deadline: float | None, place: str, workers: int,
           turns: SimpleQueue | None) -> None:
    die_with_parent(parent)
    _lighten()
    say_to(log, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    hear()
    os.environ.update(QUIET, DWLT_OUTPUTS=outputs, DWLT_SOCKETS=sockets, DWLT_WORKERS=str(workers), TMPDIR=sockets)
    os.environ.pop("DWLT_DEADLINE", None)
    os.environ.pop(PLACE, None)
    if place:
        os.environ[PLACE] = place
    if deadline is not None:
        os.environ["DWLT_DEADLINE"] = str(deadline)
    if turns is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = turns.get()


def _lighten() -> None:
    """Notebooks are checked by jsonschema, which would first compile a grammar of IRIs, for 0.9 s: none has any."""
    sys.modules.setdefault("rfc3987_syntax", None)


def say_to(log: str, *channels: int) -> None:
    """What goes to these channels (1: stdout, 2: stderr) of this process is added to the file `log`."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for channel in channels:
        os.dup2(file, channel)
    os.close(file)


# ---------------------------------------------------------------------------------------------- in a worker


_MINE: set[Kernel] = set()


class Kernel(subprocess.Popen):
    """A kernel that the nursery forked for this process, as if this process had started it.

    The connection that asked for it lasts as long as it does: whoever of the two ends first, the other learns of it.
    """

    def __init__(self, arguments: Sequence[str], env: dict[str, str], cwd: str | None) -> None:
        self.stdin = self.stdout = self.stderr = self.returncode = None
        self.lock, self.line = threading.Lock(), _connect(os.environ[PLACE])
        request = {"arguments": list(arguments), "env": env, "cwd": cwd or os.getcwd()}
        self.line.sendall(json.dumps(request).encode() + b"\n")
        self.pid = int(self.line.recv(64) or -1)
        if self.pid < 0:
            raise ConnectionError("the nursery of kernels has ended")
        self.line.setblocking(False)
        _MINE.add(self)

    def poll(self) -> int | None:
        with self.lock:  # the watchdog asks too
            if self.returncode is None:
                try:
                    said = self.line.recv(64)
                except BlockingIOError:
                    return None
                except OSError:
                    said = b""
                self.returncode = int(said or -signal.SIGKILL)
                self.line.close()
                _MINE.discard(self)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("kernel", timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


class Provisioner(LocalProvisioner):
    """Jupyter's own, but for where the process comes from."""

    async def launch_kernel(self, cmd: list[str], **kwargs: object) -> dict[str, object]:
        if PLACE not in os.environ or "ipykernel_launcher" not in cmd:
            return await super().launch_kernel(cmd, **kwargs)
        arguments = cmd[cmd.index("ipykernel_launcher") + 1:]
        try:
            self.process = Kernel(arguments, dict(kwargs.get("env") or os.environ), kwargs.get("cwd"))
        except OSError as error:
            print(f"{error}; this kernel is started anew", file=sys.stderr, flush=True)
            del os.environ[PLACE]
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid
        return self.connection_info

    async def shutdown_requested(self, restart: bool = False) -> None:
        """A kernel ends within milliseconds of being asked to, and Jupyter would look only every tenth of a second."""
        for _ in range(100):
            if await self.poll() is not None:
                return
            await asyncio.sleep(0.005)


class Client(AsyncKernelClient):
    """Jupyter's own, but a kernel is ready once it has answered on both channels, without a fifth of a second of
    silence after that: a third of what a short notebook costs beside its cells."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        until = time.monotonic() + (PATIENCE if timeout is None else timeout)
        while time.monotonic() < until and await self.parent.is_alive():
            asked, about, content = self.kernel_info(), {}, {}
            with suppress(Empty):
                await self.get_shell_msg(timeout=1)
                while about.get("msg_id") != asked or content.get("execution_state") != "idle":
                    said = await self.get_iopub_msg(timeout=0.05)  # not connected yet, if none comes: ask again
                    about, content = said["parent_header"], said["content"]
                return
        raise RuntimeError("the kernel ended, or did not answer in time, before it was ready")


def mine() -> list[int]:
    """The kernels that run for this process now: their process ids."""
    return [kernel.pid for kernel in list(_MINE) if kernel.poll() is None]


def from_nursery() -> None:
    """Kernels that this process starts come from the nursery, if there is one."""
    group = KernelProvisionerFactory.GROUP_NAME
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[NAME] = EntryPoint(NAME, f"{__name__}:Provisioner", group)
    factory.default_provisioner_name = NAME if PLACE in os.environ else "local-provisioner"


def _connect(place: str) -> socket.socket:
    """The nursery may still be at its imports: its socket appears when it is ready."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(place)
            return line
        except (FileNotFoundError, ConnectionRefusedError):
            line.close()
            time.sleep(0.02)
    raise ConnectionError("the nursery of kernels does not answer")
