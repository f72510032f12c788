"""Kernels that start at once: forked from one process, the nursery, that has imported what notebooks need.

A fresh kernel spends four seconds on imports, a forked one none. Kernels still are processes of their own with sockets
of their own; they end when their worker, the nursery or the run ends, however it ends. Without a nursery (on CUDA,
which does not survive a fork, and where there is no fork) Jupyter starts kernels in its usual way.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from dwlt_lib import records

PLACE = "DWLT_NURSERY"  # environment: the nursery's socket
NAME = "dwlt-nursery"
PATIENCE = 60.0  # seconds that a worker waits for the nursery
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1",
         "PYDEVD_DISABLE_FILE_VALIDATION": "1",
         "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # tensors in large pages: a training step gains 4 % on Linux
INLINE = "module://matplotlib_inline.backend_inline"
FIRST = ("torch", "pandas", "tqdm.auto", "IPython", "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell",
         "matplotlib_inline.backend_inline", "dwlt_lib.make", "dwlt_lib.plots")
THEN = ("sklearn.datasets", "torchvision.utils", "torchvision.transforms.functional", "ipywidgets", "dwlt_lib.words")


def die_with_parent(parent: int) -> None:
    """This process gets SIGKILL when its parent ends (Linux; elsewhere a kernel watches its parent by itself)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


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
    folder = tempfile.mkdtemp(prefix="dwlt-")  # short: a socket's path has a limit
    place = f"{folder}/nursery"
    code = f"from dwlt_lib.kernels import serve; serve({place!r}, {os.getpid()}, {str(log)!r}, {list(datasets)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               env={**os.environ, **QUIET, "MPLBACKEND": INLINE})
    try:
        yield place
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


class Pool(ProcessPoolExecutor):
    """The standard library's pool; its workers and their kernels end when this process does, however it ends.

    place: the socket of a nursery, or "". What workers and kernels say on stderr goes to `log`. Nothing is started
    before the first task.
    """

    def __init__(self, workers: int, deadline: float | None, log: Path, place: str = "") -> None:
        self.workers, self.sockets = workers, tempfile.mkdtemp(prefix="dwlt-")
        super().__init__(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin,
                         initargs=(os.getpid(), str(records.outputs()), self.sockets, str(log), deadline, place))

    def __exit__(self, *error: object) -> None:
        interrupted = error[0] is not None
        children = list((self._processes or {}).values())
        if interrupted:
            for process in children:
                process.kill()
        self.shutdown(wait=not interrupted, cancel_futures=True)
        shutil.rmtree(self.sockets, ignore_errors=True)


def _begin(parent: int, outputs: str, sockets: str, log: str, deadline: float | None, place: str) -> None:
    die_with_parent(parent)
    _say_to(log, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.environ.update(QUIET, DWLT_OUTPUTS=outputs, DWLT_SOCKETS=sockets)
    os.environ.pop("DWLT_DEADLINE", None)
    os.environ.pop(PLACE, None)
    if place:
        os.environ[PLACE] = place
    if deadline is not None:
        os.environ["DWLT_DEADLINE"] = str(deadline)


def _say_to(log: str, *channels: int) -> None:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
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


# ---------------------------------------------------------------------------------------------- in the nursery


def serve(place: str, parent: int, log: str, datasets: Sequence[str]) -> None:
    """The nursery: import, then fork a kernel for every connection, until the run ends."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in FIRST:
        importlib.import_module(name)
    from dwlt_lib import data

    def load(name: str) -> None:
        data.load(name, "train"), data.load(name, "test")

    sys.modules["torch"].set_num_threads(1)
    with suppress(Exception):
        [load(name) for name in datasets[:1]]
    later = [partial(importlib.import_module, name) for name in THEN] + [partial(load, name) for name in datasets[1:]]
    gc.collect()
    gc.freeze()  # so that collecting garbage does not copy a kernel's shared memory
    ended, wake = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place + ".new")
    listener.listen()
    os.rename(place + ".new", place)
    kernels: dict[int, socket.socket] = {}
    watch = selectors.DefaultSelector()
    watch.register(listener, selectors.EVENT_READ)
    watch.register(ended, selectors.EVENT_READ)
    while True:
        events = watch.select(0 if later else None)
        if later and not events:  # idle: a later kernel will need it, and say so itself where it fails
            with suppress(Exception):
                later.pop(0)()
        for key, _ in events:
            if key.fileobj is listener:
                line, _ = listener.accept()
                request = json.loads(line.makefile().readline() or "null")
                if request is None:
                    line.close()
                    continue
                own, pid = os.getpid(), os.fork()
                if pid == 0:
                    _become(request, own, log, [listener, line, *kernels.values()], (ended, wake))
                kernels[pid] = line
                with suppress(OSError):
                    line.sendall(str(pid).encode())
                watch.register(line, selectors.EVENT_READ, pid)
            elif key.fileobj is ended:
                os.read(ended, 4096)
            else:  # the worker has gone
                watch.unregister(key.fileobj)
                if key.data in kernels:
                    os.kill(key.data, signal.SIGKILL)
        while kernels:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            line = kernels.pop(pid)
            if line in (key.fileobj for key in watch.get_map().values()):
                watch.unregister(line)
                with suppress(OSError):
                    line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            line.close()


def _become(request: dict, nursery: int, log: str, sockets: Sequence[socket.socket], pipe: Sequence[int]) -> None:
    """This freshly forked process turns into the kernel that was asked for; it never returns."""
    status = 1
    try:
        die_with_parent(nursery)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for one in sockets:
            one.close()
        for one in pipe:
            os.close(one)
        _say_to(log, 1, 2)
        os.setsid()
        os.environ.clear()
        os.environ.update(request["env"])
        os.environ["JPY_PARENT_PID"] = str(nursery)
        os.chdir(request["cwd"])
        sys.argv = ["ipykernel_launcher", *request["arguments"]]
        sys.path[0] = ""
        from ipykernel import kernelapp
        from matplotlib_inline import backend_inline

        application = kernelapp.IPKernelApp.instance()
        application.initialize(request["arguments"])
        backend_inline.configure_inline_support(application.shell, INLINE)  # its import found no shell to tell
        application.start()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
