"""The two servers, JupyterLab and the browsing page, closed by default.

They listen on loopback, behind a token, and are set as here: a user's own Jupyter configuration (no
token, every interface) is not read.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import warnings
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dwlt_lib import files
from dwlt_lib.records import store

MIN_TOKEN = 16  # characters of a token that somebody chose
PORTS_TRIED = 50
# a page loads faster without
UNUSED = ["jupyterlab_pygments", "@voila-dashboards/jupyterlab-preview", "jupyterlab-plotly"]
TOUR = "lab/tree/notebooks/00_tour.ipynb"
ERRORS_ONLY = 40  # traitlets' log level


def address(ip: str, token: str | None) -> str:
    """The one address to listen on.

    Args:
        ip: an address or a host name; "" and "0.0.0.0" mean every interface.
        token: the token that the user chose, if any.

    Returns:
        The address, in numbers, of the first of its interfaces.

    Raises:
        ValueError: one line, if there is no such address, or if others could reach it and no token
            was chosen.
    """
    try:
        entries = socket.getaddrinfo(ip or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ValueError(
            f"--ip {ip!r}: no such address; want 127.0.0.1, or another address of this machine"
        ) from None
    addresses = [str(entry[4][0]) for entry in entries]
    if token is None and not all(map(is_loopback, addresses)):
        raise ValueError(
            f"--ip {ip!r}: others can reach this address, and no token was chosen; want --ip"
            f" 127.0.0.1, or --token with {MIN_TOKEN} characters or more"
        )
    return addresses[0]


def is_loopback(ip: str) -> bool:
    """Whether only this machine can reach an address.

    Args:
        ip: in numbers, of version 4 or 6.

    Returns:
        True for 127.0.0.0/8 and ::1.
    """
    return ipaddress.ip_address(ip.split("%")[0]).is_loopback


def secret(token: str | None) -> str:
    """The token: a fresh random one, or the chosen one if it is long and needs no quoting.

    Args:
        token: the one that the user chose, if any.

    Returns:
        The token, of `MIN_TOKEN` characters or more.

    Raises:
        ValueError: one line, if the chosen one is short or has other characters.
    """
    if token is None:
        return secrets.token_urlsafe(32)
    if len(token) < MIN_TOKEN or not re.fullmatch(r"[\w.~-]+", token, re.ASCII):
        raise ValueError(
            f"--token of {len(token)} characters: want {MIN_TOKEN} or more out of letters, digits"
            " and . _ ~ -, or leave it out for a random one"
        )
    return token


def free_port(ip: str, port: int) -> int:
    """The first port that nobody listens on.

    Args:
        ip: an address of this machine.
        port: the first to try, of PORTS_TRIED; 0 takes any.

    Returns:
        The port, 1 to 65535.

    Raises:
        ValueError: one line, if none can be had.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    reason = ""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((ip, candidate))
                return trial.getsockname()[1]
            except PermissionError:
                raise ValueError(f"--port {port}: not permitted; want 1024 or above") from None
            except OSError as error:
                reason = error.strerror
    raise ValueError(
        f"--ip {ip} --port {port}: cannot listen there ({reason}); want another port or address"
    )


def url(ip: str, port: int, path: str, token: str) -> str:
    """The address of a page, with the token, as a browser takes it.

    Args:
        ip: the address that the server listens on, in numbers.
        port: that it listens on.
        path: of the page, without a leading slash.
        token: of `secret`.

    Returns:
        An http URL; this host's name stands for "every interface".
    """
    host = f"[{ip}]" if ":" in ip else ip
    if ipaddress.ip_address(ip).is_unspecified:
        host = socket.gethostname()
    return f"http://{host}:{port}/{path}?token={token}"


def announce(where: str, browser: bool) -> None:
    """Print a URL and open it.

    Args:
        where: the URL, with the token.
        browser: whether to open it; by way of a private file, as other users can read a browser's
            command line.
    """
    print(f"open {where}\n(Ctrl-C ends the server and its kernels)", flush=True)
    if browser:
        file = Path(tempfile.mkstemp(prefix="dwlt-server-", suffix=".html")[1])
        file.write_text(f'<meta http-equiv="refresh" content="0; url={where}">', encoding="utf-8")
        threading.Timer(30, file.unlink, kwargs={"missing_ok": True}).start()
        threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()


@contextmanager
def no_configuration() -> Iterator[str]:
    """Within this context Jupyter finds no configuration; JupyterLab's own settings (theme) stay.

    Yields:
        A private folder for what kernels and server share: keys, sockets, connection files.
    """
    from jupyter_core.paths import jupyter_config_dir

    settings = Path(jupyter_config_dir()) / "lab"
    os.environ.setdefault("JUPYTERLAB_SETTINGS_DIR", str(settings / "user-settings"))
    os.environ.setdefault("JUPYTERLAB_WORKSPACES_DIR", str(settings / "workspaces"))
    private = str(files.private())
    try:
        for folder in files.temporary():
            files.collect(folder)
        os.environ.update(
            JUPYTER_NO_CONFIG="1",
            JUPYTER_RUNTIME_DIR=private,
            PYDEVD_DISABLE_FILE_VALIDATION="1",
            DWLT_OUTPUTS=str(store.outputs()),  # kernels start in another folder
        )
        # not a line for every request that is refused, nor for endpoints that are closed below
        logging.getLogger("tornado").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", "Extension endpoints without")
        tempfile.tempdir = private
        quiet = Path(jupyter_config_dir()) / "labconfig" / "default_setting_overrides.json"
        quiet.parent.mkdir(parents=True, exist_ok=True)
        no_news = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
        files.write(quiet, json.dumps(no_news))
        os.chdir(private)  # the working directory is searched for configuration, too
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def kernels() -> dict[str, dict]:
    """How kernels talk, and when they end.

    Returns:
        Settings by class: local sockets, not ports; an hour without work ends a kernel.
    """
    transport = {"transport": "ipc"} if os.name == "posix" else {}
    return {"KernelManager": transport, "MappingKernelManager": {"cull_idle_timeout": 3600}}


def lab_settings(ip: str, port: int, token: str) -> dict[str, dict]:
    """JupyterLab's configuration, whose root is the checkout, with its notebooks and outputs.

    Args:
        ip: the address to listen on.
        port: that it listens on.
        token: what a visitor has to bring.

    Returns:
        Settings by class of traitlets.
    """
    server = {
        "ip": ip,
        "port": port,
        "port_retries": 0,
        "root_dir": str(store.checkout()),
        "open_browser": False,
        "allow_root": True,
        "allow_remote_access": not is_loopback(ip),
        "allow_unauthenticated_access": False,
        "answer_yes": True,
        "log_level": ERRORS_ONLY,
        "jpserver_extensions": {"jupyter_server_terminals": True, "jupyter_lsp": True},
    }
    lab = {
        "default_url": f"/{TOUR}",
        "log_level": ERRORS_ONLY,
        "news_url": None,  # nothing is fetched from the network
        "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
    }
    return {"ServerApp": server, "IdentityProvider": {"token": token}, "LabApp": lab, **kernels()}


def lab(ip: str, port: int, token: str, browser: bool) -> None:
    """Serve JupyterLab until it is interrupted.

    Args:
        ip: the address to listen on, of `address`.
        port: of `free_port`.
        token: of `secret`.
        browser: whether to open a browser on the tour.
    """
    with no_configuration():
        from jupyterlab.labapp import LabApp
        from traitlets.config import Config

        server: Any = LabApp.initialize_server([], config=Config(lab_settings(ip, port, token)))
        # the line below is printed once the server listens
        server.io_loop.add_callback(announce, url(ip, port, TOUR, token), browser)
        server.start()


def browse_settings(ip: str, port: int, token: str, private: str) -> dict[str, dict]:
    """Voila's configuration.

    Args:
        ip: the address to listen on.
        port: the port.
        token: what a visitor has to bring.
        private: the folder for kernels' keys and sockets.

    Returns:
        Settings by class of traitlets.
    """
    server = {
        "ip": ip,
        "port": port,
        "port_retries": 0,
        "token": token,
        "connection_dir_root": private,
        "log_level": ERRORS_ONLY,
        "tornado_settings": {"allow_remote_access": not is_loopback(ip)},
    }
    page = {
        "show_tracebacks": False,
        "allow_template_override": "NO",
        "allow_theme_override": "NO",
        "file_allowlist": [],
        "preheat_kernel": True,
        "extension_denylist": UNUSED,
    }
    pool = {"fill_delay": 10}  # seconds: the page that opens comes first
    return {"Voila": server, "VoilaConfiguration": page, "VoilaKernelManager": pool, **kernels()}


def newest() -> float:
    """When a record, a study or a reference last appeared.

    Returns:
        As time.time() counts; 0 if there is none.
    """
    folders = [store.outputs() / name for name in ("records", "studies", "reference")]
    entries = [entry for folder in folders for entry in folder.glob("*")]
    return max((entry.stat().st_mtime for entry in entries), default=0.0)


def browse(notebook: Path, ip: str, port: int, token: str, browser: bool) -> None:
    """Serve a notebook as a page, its code hidden, until it is interrupted.

    Args:
        notebook: what to serve.
        ip: the address to listen on, of `address`.
        port: of `free_port`.
        token: of `secret`.
        browser: whether to open a browser on the page.
    """
    with no_configuration() as private:
        from traitlets.config import Config

        from dwlt_lib.browser.closed_voila import ClosedVoila

        server = ClosedVoila.instance(
            config=Config(browse_settings(ip, port, token, private)),
            announce=lambda: announce(url(ip, port, "", token), browser),
            newest=newest,
        )
        server.initialize([str(notebook)])
        server.start()
