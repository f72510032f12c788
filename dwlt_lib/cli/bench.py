"""The command `dwlt bench`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from dwlt_lib.cli.options import Device, say
from dwlt_lib.cli.refusal import refuse, refusing

app = typer.Typer()


@app.command(epilog="Example: dwlt bench --task at --task pgd20 --size 32 --json speed.json")
def bench(
    device: Annotated[Device, typer.Option(help="where to measure")] = "auto",
    task: Annotated[
        list[str],
        typer.Option(help="at, st, pgd20, prune or surface; may be repeated"),
    ] = ["at", "st", "pgd20", "prune"],
    network: Annotated[list[str], typer.Option(help="an architecture; may be repeated")] = [
        "resnet20"
    ],
    size: Annotated[
        list[int], typer.Option(min=8, max=1024, help="side of images in pixels; may be repeated")
    ] = [32],
    batch: Annotated[int, typer.Option(min=2, help="images per step")] = 128,
    seconds: Annotated[float, typer.Option(min=1, help="for each table")] = 60,
    json: Annotated[Path | None, typer.Option(help="write the tables to this file, too")] = None,
) -> None:
    """Time this code's steps beside the authors' on this machine."""
    from dwlt_lib import files
    from dwlt_lib.benchmarks import bench
    from dwlt_lib.execution.devices import resolve_device
    from dwlt_lib.models.architectures import ARCHITECTURES

    choices = {"--task": (task, bench.TASKS), "--network": (network, ARCHITECTURES)}
    for option, (asked, known) in choices.items():
        if unknown := set(asked) - set(known):
            refuse(f"{option} {unknown.pop()}: want one of {', '.join(known)}")
    if json is not None:
        with refusing(option="--json"):
            if json.exists():
                files.regular(json)
        files.check(json.absolute().parent)
    with refusing():
        tables = bench.bench(
            resolve_device(device), tuple(task), tuple(network), tuple(size), batch, seconds, say
        )
    if json is not None:
        files.write(json, dumps(tables, indent=1))
