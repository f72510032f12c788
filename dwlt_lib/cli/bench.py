"""The command `dwlt bench`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from dwlt_lib.cli.options import Device, check_choices, split_commas
from dwlt_lib.cli.refusal import refusing

app = typer.Typer()
TASKS, NETWORKS, SIZES = ["at", "st", "pgd20", "prune"], ["resnet20"], ["32"]  # unless asked


@app.command(epilog="Example: dwlt bench --task at --task pgd20 --size 32 --json speed.json")
def bench(  # noqa: PLR0913 - each is an option
    device: Annotated[Device, typer.Option(help="where to measure")] = Device.auto,
    task: Annotated[
        list[str],
        typer.Option(help="of at, st, pgd20, prune, surface; repeated, or with commas"),
    ] = TASKS,
    network: Annotated[
        list[str], typer.Option(help="architectures; repeated, or with commas")
    ] = NETWORKS,
    size: Annotated[
        list[str], typer.Option(help="sides of images in pixels; repeated, or with commas")
    ] = SIZES,
    batch: Annotated[int, typer.Option(min=2, help="images per step")] = 128,
    seconds: Annotated[float, typer.Option(min=1, help="for each table")] = 60,
    json: Annotated[Path | None, typer.Option(help="write the tables to this file, too")] = None,
) -> None:
    """Time this code's steps beside the authors' on this machine."""
    from dwlt_lib import files
    from dwlt_lib.benchmarks import bench
    from dwlt_lib.execution.devices import resolve_device
    from dwlt_lib.models import architectures

    tasks, networks, sizes = split_commas(task), split_commas(network), split_commas(size)
    with refusing():
        check_choices("--task", tasks, bench.TASKS)
        check_choices("--network", networks, architectures.ARCHITECTURES)
        if not all(text.isdecimal() and 8 <= int(text) <= 1024 for text in sizes):
            raise ValueError(f"--size {','.join(sizes)}: want pixels such as 32,224")
    if json is not None:
        with refusing(option="--json"):
            if json.exists():
                files.regular(json)
        files.check(json.absolute().parent)
    with refusing():
        tables = bench.bench(
            resolve_device(device.value),
            tuple(tasks),
            tuple(networks),
            tuple(map(int, sizes)),
            batch,
            seconds,
            _say,
        )
    if json is not None:
        files.write(json, dumps(tables, indent=1))


def _say(line: str) -> None:
    print(line, flush=True)
