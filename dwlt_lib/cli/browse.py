"""The commands that open a page: lab and browse."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from dwlt_lib import files
from dwlt_lib.cli.common import refusing

app = typer.Typer()

Ip = Annotated[
    str,
    typer.Option("--ip", help="the address to listen on; one that others reach needs a --token"),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")]
Token = Annotated[
    str | None,
    typer.Option(envvar="DWLT_TOKEN", help="your own token, 16 characters or more; else random"),
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="print the URL, open nothing")]


@app.command(epilog="Example: dwlt lab --no-browser")
def lab(
    ip: Ip = "127.0.0.1", port: Port = 8888, token: Token = None, no_browser: NoBrowser = False
) -> None:
    """Open JupyterLab over notebooks and outputs, on the tour.

    It listens on loopback and asks for a token.
    """
    from dwlt_lib.browser import servers

    with refusing():
        address = servers.closed_address(ip, port, token)
    servers.lab(address, not no_browser)


@app.command(epilog="Example: dwlt browse --study tour_full")
def browse(
    file: Annotated[
        Path | None,
        typer.Argument(help="a study's file, as dwlt publish writes it; else what ran here"),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="the study to open on; else the first there is")
    ] = None,
    ip: Ip = "127.0.0.1",
    port: Port = 8866,
    token: Token = None,
    no_browser: NoBrowser = False,
) -> None:
    """Open a page of sparsities, results, landscapes and images of a study.

    It listens on loopback and asks for a token.
    """
    from dwlt_lib.browser import servers
    from dwlt_lib.records import archive, store

    if file is not None:
        file = file.resolve()
        with refusing((ValueError, OSError)):
            study = study or archive.opened(file).study["name"]
    with _alone(file) if file else nullcontext():
        if study is not None:
            with refusing(KeyError):
                os.environ["DWLT_STUDY"] = store.study(study)["name"]
        with refusing():
            address = servers.closed_address(ip, port, token)
        servers.browse(store.checkout() / "notebooks" / "20_browse.ipynb", address, not no_browser)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Within the block the folder of outputs holds this study's file and nothing else."""
    with tempfile.TemporaryDirectory(prefix=f"{files.MARK}{files.owner()}-") as outputs:
        reference = Path(outputs, "reference")
        reference.mkdir()
        (reference / file.with_suffix(".zip").name).symlink_to(file)
        os.environ["DWLT_OUTPUTS"] = outputs
        yield
