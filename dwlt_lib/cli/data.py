"""The command `dwlt data`: thin."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dwlt_lib.cli.refusal import refuse

app = typer.Typer(
    no_args_is_help=True, help="Data sets of the catalogue: what is there, and bringing it."
)
Row = Annotated[
    str, typer.Argument(metavar="NAME", help="a data set of the catalogue, such as cifar10")
]


@app.command()
def check(name: Row) -> None:
    """Where a data set was looked for, what is there, and whether it is what the catalogue says.
    1: it is not."""
    row = _row(name)
    from dwlt_lib.data import checks

    found, wrong = checks.check(row)
    for line in found:
        print(line)
    for line in wrong:
        print(f"dwlt: {line}", file=sys.stderr)
    print("not as the catalogue says" if wrong else "as the catalogue says")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def fetch(name: Row) -> None:
    """Download, check and unpack a data set to DWLT_DATA, or say where to get it. 1: it is not
    there yet."""
    _row(name)
    from tqdm import tqdm

    from dwlt_lib.config.datasets import data_root
    from dwlt_lib.data import sources

    with tqdm(unit="B", unit_scale=True, disable=None, desc=name) as bar:
        try:
            there = sources.fetch(
                name,
                data_root(),
                bar.write,
                lambda done, whole: bar.reset(whole) or bar.update(done),
            )
        except (ValueError, OSError) as error:
            print(f"dwlt: {' '.join(str(error).split())}", file=sys.stderr)
            raise typer.Exit(1) from error
    raise typer.Exit(0 if there else 1)


def _row(name: str):
    from dwlt_lib.config.datasets import CATALOGUE

    if name not in CATALOGUE:
        refuse(f"data set {name!r}: want one of {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
