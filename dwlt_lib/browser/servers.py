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
from typing import Any, NamedTuple

from dwlt_lib import files
from dwlt_lib.records import store

MIN_TOKEN = 16  # characters of a token that somebody chose
PORTS_TRIED = 50
TOUR = "lab/tree/notebooks/00_tour.ipynb"


class ServerAddress(NamedTuple):
    """Where a server listens, and what opens it."""

    ip: str
    """The address, in numbers."""
    port: int
    """The port, 1 to 65535."""
    token: str
    """What a visitor has to bring."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it (127.0.0.0/8 and ::1)."""
        return ipaddress.ip_address(self.ip).is_loopback

    def url(self, path: str = "") -> str:
        """The address of a page, with the token, as a browser takes it.

        Args:
            path: of the page, without a leading slash.

        Returns:
            An http URL; this host's name stands for "every interface".
        """
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        if ipaddress.ip_address(self.ip).is_unspecified:
            host = socket.gethostname()
        return f"http://{host}:{self.port}/{path}?token={self.token}"


def closed_address(ip: str, port: int, token: str | None) -> ServerAddress:
    """Where a server can listen, closed by a token: a fresh random one unless one was chosen.

    Args:
        ip: an address of this machine, in numbers.
        port: the first to try, of PORTS_TRIED; 0 takes any.
        token: the one that the user chose, if any.

    Returns:
        The address, the first free port, and the token.

    Raises:
        ValueError: one line, if the address is none, if others could reach it and no token was
            chosen, if the token is short or needs quoting, or if no port can be had.
    """
    try:
        is_loopback = ipaddress.ip_address(ip).is_loopback
    except ValueError:
        raise ValueError(f"--ip {ip!r}: want an address in numbers, such as 127.0.0.1") from None
    if token is None and not is_loopback:
        raise ValueError(
            f"--ip {ip!r}: others can reach this address, and no token was chosen; want --ip"
            f" 127.0.0.1, or --token with {MIN_TOKEN} characters or more"
        )
    if token is None:
        token = secrets.token_urlsafe(32)
    if len(token) < MIN_TOKEN or not re.fullmatch(r"[\w.~-]+", token, re.ASCII):
        raise ValueError(
            f"--token of {len(token)} characters: want {MIN_TOKEN} or more out of letters, digits"
            " and . _ ~ -, or leave it out for a random one"
        )
    return ServerAddress(ip, _free_port(ip, port), token)


def _free_port(ip: str, port: int) -> int:
    """The first port that nobody listens on."""
    family, reason = socket.AF_INET6 if ":" in ip else socket.AF_INET, ""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        try:
            with socket.create_server((ip, candidate), family=family) as trial:
                return trial.getsockname()[1]
        except OSError as error:
            reason = error.strerror
    raise ValueError(
        f"--ip {ip} --port {port}: cannot listen there ({reason}); want another port or address"
    )


def lab(address: ServerAddress, browser: bool) -> None:
    """Serve JupyterLab until it is interrupted.

    Args:
        address: of `closed_address`.
        browser: whether to open a browser on the tour.
    """
    with _no_configuration():
        from jupyterlab.labapp import LabApp
        from traitlets.config import Config

        server: Any = LabApp.initialize_server([], config=Config(lab_settings(address)))
        # called once the server listens
        server.io_loop.add_callback(_announce, address.url(TOUR), browser)
        server.start()


def newest() -> float:
    """When a record, a study or a reference last appeared.

    Returns:
        As time.time() counts; 0 if there is none.
    """
    folders = [store.outputs() / name for name in ("records", "studies", "reference")]
    entries = [entry for folder in folders for entry in folder.glob("*")]
    return max((entry.stat().st_mtime for entry in entries), default=0.0)


def browse(notebook: Path, address: ServerAddress, browser: bool) -> None:
    """Serve a notebook as a page, its code hidden, until it is interrupted.

    Args:
        notebook: what to serve.
        address: of `closed_address`.
        browser: whether to open a browser on the page.
    """
    with _no_configuration() as private:
        from traitlets.config import Config

        from dwlt_lib.browser.closed_voila import ClosedVoila

        server = ClosedVoila.instance(
            config=Config(browse_settings(address, private)),
            announce=lambda: _announce(address.url(), browser),
            newest=newest,
        )
        server.initialize([str(notebook)])
        server.start()


def _announce(url: str, browser: bool) -> None:
    """Print a URL and open it, by way of a private file: others can read a command line."""
    print(f"open {url}\n(Ctrl-C ends the server and its kernels)", flush=True)
    if browser:
        file = Path(tempfile.gettempdir()) / "open.html"
        file.write_text(f'<meta http-equiv="refresh" content="0; url={url}">', encoding="utf-8")
        threading.Thread(target=webbrowser.open, args=(file.as_uri(),), daemon=True).start()


@contextmanager
def _no_configuration() -> Iterator[str]:
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


def _settings(address: ServerAddress) -> tuple[dict[str, Any], dict[str, dict]]:
    """What both servers are told of themselves, and of their kernels, by class of traitlets.

    Kernels talk over local sockets, not ports; an hour without work ends one.
    """
    server = {"ip": address.ip, "port": address.port, "port_retries": 0, "log_level": logging.ERROR}
    transport = {"transport": "ipc"} if os.name == "posix" else {}
    kernels = {"KernelManager": transport, "MappingKernelManager": {"cull_idle_timeout": 3600}}
    return server, kernels


def lab_settings(address: ServerAddress) -> dict[str, dict]:
    """JupyterLab's configuration, whose root is the checkout, with its notebooks and outputs.

    Args:
        address: where it listens.

    Returns:
        Settings by class of traitlets.
    """
    server, kernels = _settings(address)
    server |= {
        "root_dir": str(store.checkout()),
        "open_browser": False,
        "allow_root": True,
        "allow_remote_access": not address.is_loopback,
        "allow_unauthenticated_access": False,
        "answer_yes": True,
        "jpserver_extensions": {"jupyter_server_terminals": True, "jupyter_lsp": True},
    }
    lab = {
        "default_url": f"/{TOUR}",
        "log_level": logging.ERROR,
        "news_url": None,  # nothing is fetched from the network
        "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
    }
    return {
        "ServerApp": server,
        "IdentityProvider": {"token": address.token},
        "LabApp": lab,
        **kernels,
    }


def browse_settings(address: ServerAddress, private: str) -> dict[str, dict]:
    """Voila's configuration.

    Args:
        address: where it listens.
        private: the folder for kernels' keys and sockets.

    Returns:
        Settings by class of traitlets.
    """
    server, kernels = _settings(address)
    server |= {
        "token": address.token,
        "connection_dir_root": private,
        "tornado_settings": {"allow_remote_access": not address.is_loopback},
    }
    page = {
        "show_tracebacks": False,
        "allow_template_override": "NO",
        "allow_theme_override": "NO",
        "file_allowlist": [],
        "preheat_kernel": True,
    }
    pool = {"fill_delay": 10}  # seconds: the page that opens comes first
    return {"Voila": server, "VoilaConfiguration": page, "VoilaKernelManager": pool, **kernels}
