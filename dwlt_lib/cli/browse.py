"""The commands that open a page: lab and browse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

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
        door = servers.door(ip, port, token)
    servers.lab(door, not no_browser)


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

    with refusing((KeyError, ValueError, OSError)):
        if file is not None:
            study = study or archive.study(file.resolve())["name"]
            os.environ["DWLT_STUDY_FILE"] = str(file.resolve())
        if study is not None:
            os.environ["DWLT_STUDY"] = store.study(study)["name"]
        door = servers.door(ip, port, token)
    servers.browse(store.checkout() / "notebooks" / "20_browse.ipynb", door, not no_browser)
