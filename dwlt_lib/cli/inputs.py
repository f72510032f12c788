"""The commands `dwlt data ...` and `dwlt weights ...`: what studies read, brought and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dwlt_lib.cli.common import downloading, refuse, refusing, warn

data = typer.Typer(
    no_args_is_help=True, help="Data sets of the catalogue: what is there, and bringing it."
)
Row = Annotated[
    str, typer.Argument(metavar="NAME", help="a data set of the catalogue, such as cifar10")
]


@data.command(epilog="Example: dwlt data check tiny_imagenet --against cifar10")
def check(
    name: Row,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER",
            help="also count the pictures of that data set that NAME trains on, the same or nearly;"
            " of NAME itself, its test images",
        ),
    ] = None,
) -> None:
    """Check whether a data set is there and is what the catalogue says.

    Exit status 1: it is not.
    """
    row, other = _row(name), _row(against or name)
    from dwlt_lib.data import checks

    found, wrong = checks.check(row)
    if against and not wrong:
        try:
            found += checks.count_duplicates(row, other)
        except ValueError as error:
            wrong.append(str(error))
    for line in found:
        print(line)
    for line in wrong:
        warn(line)
    print("not as the catalogue says" if wrong else "as the catalogue says")
    raise typer.Exit(1 if wrong else 0)


@data.command("fetch", epilog="Example: dwlt data fetch cifar10")
def fetch_data(name: Row) -> None:
    """Download, check and unpack a data set to DWLT_DATA, or say where to get it.

    Exit status 1: it is not there yet.
    """
    _row(name)
    from dwlt_lib.config.datasets import data_root
    from dwlt_lib.data import sources

    with downloading(name) as (report, advance):
        there = sources.fetch(name, data_root(), report, advance)
    raise typer.Exit(0 if there else 1)


def _row(name: str):
    from dwlt_lib.config.datasets import CATALOGUE

    if name not in CATALOGUE:
        refuse(f"data set {name!r}: want one of {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


weights = typer.Typer(
    no_args_is_help=True, help="Official pre-trained weights: fetch them, take them in safely."
)


@weights.command(
    "import", epilog="Example: dwlt weights import resnet50.pth --as std --out std.safetensors"
)
def import_weights(
    file: Annotated[Path, typer.Argument(help="an official checkpoint; nothing in it is ever run")],
    source: Annotated[
        Literal["std", "at", "fat", "robustbench", "robustbench-raw"],
        typer.Option(
            "--as",
            help="torchvision's; MadryLab's or Microsoft's; fast_adversarial's; RobustBench's,"
            " ARES's or Singh's (-raw: networks that do not normalise images)",
        ),
    ],
    out: Annotated[Path, typer.Option(help="the safetensors file to write")],
    arch: Annotated[
        str | None,
        typer.Option(help="the network, as in a parameter file; left out: which ResNet fits best"),
    ] = None,
) -> None:
    """Write one safetensors file of theta_p out of an official checkpoint.

    It holds exactly the tensors of the network.
    """
    from dwlt_lib.models import checkpoints

    with refusing((OSError, ValueError)):
        checkpoint = checkpoints.read_checkpoint(file, source, arch)
        checkpoints.write_checkpoint(checkpoint, out)
    print(f"{out}: {checkpoints.describe(checkpoint)}")


@weights.command("fetch", epilog="Example: dwlt weights fetch std")
def fetch_weights(
    name: Annotated[
        str, typer.Argument(help="std, at, fat, or a variant (an unknown name lists them)")
    ],
) -> None:
    """Download an official checkpoint to DWLT_DATA/weights and check its hash."""
    from dwlt_lib.models import pretrained

    if name not in pretrained.OFFICIAL:
        refuse(f"weights {name!r}: want one of {', '.join(pretrained.OFFICIAL)}")
    with downloading(name) as (_, advance):
        path, found = pretrained.fetch(name, progress=advance)
    print(pretrained.describe(name, path, found))


keys = typer.Typer()


@keys.command(epilog="Example: dwlt params --explain transfer.AT.epochs")
def params(
    key: Annotated[
        str, typer.Argument(metavar="[KEY]", help="such as grid or grid.rounds; left out: all")
    ] = "",
    explain: Annotated[bool, typer.Option("--explain", help="say what each means, too")] = False,
) -> None:
    """List the keys of a parameter file: type, range and default, and what they mean."""
    from dwlt_lib.config import explanations

    with refusing(KeyError):
        found = explanations.explain(key) if key else explanations.settings()
    for setting in found:
        print(setting if explain else str(setting).partition("\n")[0])
