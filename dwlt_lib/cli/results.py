"""The commands that read a study: results, verdict, verify."""

from __future__ import annotations

import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dwlt_lib.cli.options import Params
from dwlt_lib.cli.refusal import refusing, warn

if TYPE_CHECKING:
    import pandas as pd

    from dwlt_lib.config.studies import Study

app = typer.Typer()


class Format(StrEnum):
    """How a table is printed."""

    csv = "csv"
    json = "json"
    parquet = "parquet"


class Rule(StrEnum):
    """one_std: within one standard deviation of dense; eq3: the paper's equation 3."""

    one_std = "one_std"
    eq3 = "eq3"


class Extreme(StrEnum):
    """max: the sparsest winning level; prefix: the last before the first that does not win."""

    max = "max"
    prefix = "prefix"


@app.command(epilog="Example: dwlt results params/tour.yaml --format json > tour.json")
def results(
    params: Params,
    format: Annotated[Format, typer.Option("--format", help="of the table")] = Format.csv,
) -> None:
    """Print one row per record of a study, sorted; times and hosts are left out."""
    study = read_study(params)
    _warn_of_changes(study, params)
    table, all_read = read_table(study.name)
    table = table.drop(columns="seconds")
    if format is Format.csv:
        table.to_csv(sys.stdout, index=False)
    elif format is Format.json:
        print(table.to_json(orient="records", indent=1))
    else:
        sys.stdout.buffer.write(table.to_parquet(index=False))
    raise typer.Exit(0 if all_read else 1)


@app.command(epilog="Example: dwlt verdict params/tour.yaml --rule eq3")
def verdict(
    params: Params,
    rule: Annotated[Rule, typer.Option(help="when a ticket matches dense")] = Rule.one_std,
    ddof: Annotated[
        int, typer.Option(min=0, max=1, help="of the standard deviation over seeds")
    ] = 1,
    extreme: Annotated[
        Extreme, typer.Option(help="the sparsest winning level, or the last without a gap")
    ] = Extreme.max,
) -> None:
    """Print which tickets are double-win, and the extreme sparsity of each.

    One row per pre-training, method, data set and fraction.
    """
    study = read_study(params)
    _warn_of_changes(study, params)
    all_read = print_verdict(study.name, rule.value, ddof, extreme.value)
    raise typer.Exit(0 if all_read else 1)


@app.command(epilog="Example: dwlt verify")
def verify() -> None:
    """Check every record's files against their checksums, its accuracies against its outcomes.

    Exit status 1: something is wrong, which is named on stderr, a line each.
    """
    from dwlt_lib.records import store

    problems = store.verify()
    for line in problems:
        print(line, file=sys.stderr)
    print(f"{len(store.table(damaged=[]))} records, {len(problems)} problems")
    raise typer.Exit(1 if problems else 0)


def read_study(params: Path) -> Study:
    """The study of a parameter file; one that cannot be read is refused.

    Args:
        params: the parameter file.

    Returns:
        The study.

    Raises:
        Exit: with status 2, if the file cannot be read.
    """
    from dwlt_lib.execution import study_files

    with refusing():
        return study_files.read_study(params)


def read_table(study_name: str, kind: str | None = None) -> tuple[pd.DataFrame, bool]:
    """A study's records as a table; what cannot be read is named on stderr, a line each.

    Args:
        study_name: of a study that was planned here or published.
        kind: only records of this kind; None for all.

    Returns:
        The table, and whether all records that are there could be read.

    Raises:
        Exit: with status 2, if there is no such study.
    """
    from dwlt_lib.records import store

    damaged: list[str] = []
    with refusing(KeyError):
        if line := store.published_source(study_name):
            print(line, file=sys.stderr)
        table = store.table(kind, study=study_name, damaged=damaged)
    for line in damaged:
        warn(line)
    return table, not damaged


def print_verdict(
    study_name: str,
    rule: Literal["one_std", "eq3"] = "one_std",
    ddof: int = 1,
    extreme: Literal["max", "prefix"] = "max",
) -> bool:
    """Print a study's verdict.

    Args:
        study_name: of a study that was planned here or published.
        rule: when a ticket matches dense.
        ddof: 1 or 0, of the standard deviation over seeds.
        extreme: the sparsest winning level, or the last without a gap.

    Returns:
        Whether all of its records that are there could be read.
    """
    from dwlt_lib.analysis import double_win

    table, all_read = read_table(study_name, "transfer")
    with refusing():
        with warnings.catch_warnings(action="ignore"):
            found = double_win.verdict(table, rule=rule, ddof=ddof, extreme=extreme)
        lines = double_win.chance_warnings(double_win.criteria(table, rule, ddof))
    if found.empty:
        print("no verdict yet: no ticket has been transferred under ST and AT")
        return all_read
    found = found.assign(fraction=(100 * found["fraction"]).map("{:g} %".format))
    for column in ("extreme_sparsity", "ST_SA", "AT_SA", "AT_RA"):
        found[column] = found[column].astype(float).map(_percent)
    print(f"extreme double-win sparsity (rule {rule}, ddof {ddof}, extreme {extreme})")
    print(found.drop(columns="extreme_rounds").to_string(index=False))
    for line in lines:
        print(f"warning: {line}")
    return all_read


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %" if value == value else "unknown"  # NaN equals nothing


def _warn_of_changes(study: Study, params: Path) -> None:
    """Say on stderr if the records are those of the study's former parameters or images."""
    from dwlt_lib.records import store

    if store.has_changed(study):
        print(
            f"{study.name}: {params} or its images have changed since the study was planned, and"
            f" this is of the plan before; make what is new: dwlt run {params}",
            file=sys.stderr,
        )
