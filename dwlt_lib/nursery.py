"""The nursery: a process that has imported what notebooks need, and forks a kernel for everyone who asks."""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from dwlt_lib.kernels import INLINE, die_with_parent, hear, say_to

FIRST = ("torch", "pandas", "tqdm.auto", "IPython", "ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell",
         "matplotlib_inline.backend_inline", "dwlt_lib.make", "dwlt_lib.plots")
THEN = ("torchvision.utils", "torchvision.transforms.functional", "ipywidgets", "dwlt_lib.words")


def serve(place: str, parent: int, log: str, datasets: Sequence[str]) -> None:
    """The nursery: import, then fork a kernel for every connection, until the run ends."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hear()
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
        events = watch.select(0.3 if later else None)  # whoever waits for a kernel comes first
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
        say_to(log, 1, 2)
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
