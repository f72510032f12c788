"""The commands `dwlt data ...`: data sets of the catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from dwlt_lib.cli.options import downloading
from dwlt_lib.cli.refusal import refuse, warn

app = typer.Typer(
    no_args_is_help=True, help="Data sets of the catalogue: what is there, and bringing it."
)
Row = Annotated[
    str, typer.Argument(metavar="NAME", help="a data set of the catalogue, such as cifar10")
]


@app.command(epilog="Example: dwlt data check tiny_imagenet --against cifar10")
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


@app.command(epilog="Example: dwlt data fetch cifar10")
def fetch(name: Row) -> None:
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
