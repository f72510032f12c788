"""The two servers, JupyterLab and the browsing page, closed by default: on loopback, behind a
token, and as set here.

Whatever a user's own Jupyter configuration says (no token, every interface), it is not read.
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

from dwlt_lib import files
from dwlt_lib.records import store

SHORTEST = 16  # characters of a token that somebody chose
TRIES = 50  # ports
# a page loads faster without
UNUSED = ["jupyterlab_pygments", "@voila-dashboards/jupyterlab-preview", "jupyterlab-plotly"]
TOUR = "lab/tree/notebooks/00_tour.ipynb"


def address(ip: str, token: str | None) -> str:
    """The one address to listen on, resolved from an address or a host name.

    Raises ValueError, one line, if there is none, or if others could reach it and no token was
    chosen.
    """
    try:
        found = [
            entry[4][0]
            for entry in socket.getaddrinfo(ip or "0.0.0.0", None, type=socket.SOCK_STREAM)
        ]
    except (OSError, UnicodeError):
        raise ValueError(
            f"--ip {ip!r}: no such address; want 127.0.0.1, or another address of this machine"
        ) from None
    if token is None and not all(map(is_loopback, found)):
        raise ValueError(
            f"--ip {ip!r}: others can reach this address, and no token was chosen; want --ip"
            f" 127.0.0.1, or --token with {SHORTEST} characters or more"
        )
    return found[0]


def is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip.split("%")[0]).is_loopback


def secret(token: str | None) -> str:
    """The token: a fresh random one, or the chosen one if it is long and needs no quoting.

    Else ValueError.
    """
    if token is None:
        return secrets.token_urlsafe(32)
    if len(token) < SHORTEST or not re.fullmatch(r"[\w.~-]+", token, re.ASCII):
        raise ValueError(
            f"--token of {len(token)} characters: want {SHORTEST} or more out of letters, digits"
            " and . _ ~ -, or leave it out for a random one"
        )
    return token


def free_port(ip: str, port: int) -> int:
    """The first port from `port` on that nobody listens on; 0 takes any.

    ValueError if it cannot be had at all.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    for candidate in range(port, min(port + TRIES, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((ip, candidate))
                return trial.getsockname()[1]
            except PermissionError:
                raise ValueError(f"--port {port}: not permitted; want 1024 or above") from None
            except OSError as error:
                problem = error.strerror
    raise ValueError(
        f"--ip {ip} --port {port}: cannot listen there ({problem}); want another port or address"
    )


def url(ip: str, port: int, path: str, token: str) -> str:
    """Where to look: the one line that is printed."""
    host = (
        socket.gethostname()
        if ipaddress.ip_address(ip).is_unspecified
        else f"[{ip}]"
        if ":" in ip
        else ip
    )
    return f"http://{host}:{port}/{path}?token={token}"


def announce(where: str, browser: bool) -> None:
    """Print the URL and open it, by way of a private file.

    Other users can read a browser's command line.
    """
    print(f"open {where}\n(Ctrl-C ends the server and its kernels)", flush=True)
    if browser:
        file = Path(tempfile.mkstemp(prefix="dwlt-server-", suffix=".html")[1])
        file.write_text(f'<meta http-equiv="refresh" content="0; url={where}">', encoding="utf-8")
        threading.Timer(30, file.unlink, kwargs={"missing_ok": True}).start()
        threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()


@contextmanager
def no_configuration() -> Iterator[str]:
    """Jupyter finds no configuration (JupyterLab's own settings, such as its theme, stay); yields a
    private folder for what kernels and server share: keys, sockets, connection files."""
    from jupyter_core.paths import jupyter_config_dir

    mine = Path(jupyter_config_dir()) / "lab"
    os.environ.setdefault("JUPYTERLAB_SETTINGS_DIR", str(mine / "user-settings"))
    os.environ.setdefault("JUPYTERLAB_WORKSPACES_DIR", str(mine / "workspaces"))
    private = str(files.private())
    try:
        for folder in files.temporary():
            files.collect(folder)
        os.environ.update(
            JUPYTER_NO_CONFIG="1",
            JUPYTER_RUNTIME_DIR=private,
            PYDEVD_DISABLE_FILE_VALIDATION="1",
            DWLT_OUTPUTS=str(store.outputs()),
        )  # kernels start in another folder
        logging.getLogger("tornado").setLevel(
            logging.ERROR
        )  # not a line for every request that is refused
        warnings.filterwarnings(
            "ignore", "Extension endpoints without"
        )  # these are closed by a setting below
        tempfile.tempdir = private
        quiet = Path(jupyter_config_dir()) / "labconfig" / "default_setting_overrides.json"
        quiet.parent.mkdir(parents=True, exist_ok=True)
        files.write(
            quiet,
            json.dumps({"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}),
        )
        os.chdir(private)  # the working directory is searched for configuration, too
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def kernels() -> dict[str, dict]:
    """Kernels talk through local sockets, not ports; those that nobody has used for an hour end."""
    transport = {"transport": "ipc"} if os.name == "posix" else {}
    return {"KernelManager": transport, "MappingKernelManager": {"cull_idle_timeout": 3600}}


def lab_settings(ip: str, port: int, token: str) -> dict[str, dict]:
    """JupyterLab's configuration.

    Its root is the checkout, so that notebooks and outputs can be opened.
    """
    return {
        "ServerApp": {
            "ip": ip,
            "port": port,
            "port_retries": 0,
            "root_dir": str(store.checkout()),
            "open_browser": False,
            "allow_root": True,
            "allow_remote_access": not is_loopback(ip),
            "allow_unauthenticated_access": False,
            "answer_yes": True,
            "log_level": 40,
            "jpserver_extensions": {"jupyter_server_terminals": True, "jupyter_lsp": True},
        },
        "IdentityProvider": {"token": token},
        "LabApp": {
            "default_url": f"/{TOUR}",
            "log_level": 40,
            "news_url": None,  # nothing is fetched from the network
            "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        },
        **kernels(),
    }


def lab(ip: str, port: int, token: str, browser: bool) -> None:
    """Serve JupyterLab until it is interrupted."""
    with no_configuration():
        from jupyterlab.labapp import LabApp
        from traitlets.config import Config

        server = LabApp.initialize_server([], config=Config(lab_settings(ip, port, token)))
        server.io_loop.add_callback(
            announce, url(ip, port, TOUR, token), browser
        )  # once it listens
        server.start()


def browse_settings(ip: str, port: int, token: str, private: str) -> dict[str, dict]:
    """Voila's configuration; `private`: the folder for kernels' keys and sockets."""
    return {
        "Voila": {
            "ip": ip,
            "port": port,
            "port_retries": 0,
            "token": token,
            "connection_dir_root": private,
            "log_level": 40,
            "tornado_settings": {"allow_remote_access": not is_loopback(ip)},
        },
        "VoilaConfiguration": {
            "show_tracebacks": False,
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "file_allowlist": [],
            "preheat_kernel": True,
            "extension_denylist": UNUSED,
        },
        "VoilaKernelManager": {"fill_delay": 10},  # seconds: the page that opens comes first
        **kernels(),
    }


def newest() -> float:
    """When a record, a study or a reference last appeared (time.time()); 0 if there is none."""
    places = [
        place
        for kind in ("records", "studies", "reference")
        for place in store.outputs().glob(f"{kind}/*")
    ]
    return max((place.stat().st_mtime for place in places), default=0.0)


def browse(notebook: Path, ip: str, port: int, token: str, browser: bool) -> None:
    """Serve a notebook as a page, its code hidden, until it is interrupted."""
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
