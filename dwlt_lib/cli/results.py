"""The commands that read a study: results, verdict, claims, verify."""

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
    variance: Annotated[
        bool, typer.Option("--variance", help="print how much each seed moves accuracies instead")
    ] = False,
) -> None:
    """Print one row per record of a study, sorted; times and hosts are left out."""
    study = read_study(params)
    _warn_of_changes(study, params)
    if variance:
        table, all_read = read_table(study.name, "transfer")
        _print_variance(table)
        raise typer.Exit(0 if all_read else 1)
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
    markdown: Annotated[
        bool, typer.Option("--markdown", help="as a table for README, without the paper's rule")
    ] = False,
) -> None:
    """Print which tickets are double-win and how sure that is, and what the paper's rule says.

    One row per pre-training, method, data set and fraction. --rule, --ddof and --extreme are the
    paper's rule's.
    """
    study = read_study(params)
    _warn_of_changes(study, params)
    if markdown:
        from dwlt_lib.analysis import noninferiority

        table, all_read = read_table(study.name)
        with refusing():
            print(noninferiority.as_markdown(_certified(study, table)))
        raise typer.Exit(0 if all_read else 1)
    all_read = print_verdict(study, rule.value, ddof, extreme.value)
    raise typer.Exit(0 if all_read else 1)


@app.command(epilog="Example: dwlt claims params/tour_full.yaml --markdown")
def claims(
    params: Params,
    markdown: Annotated[bool, typer.Option("--markdown", help="as a table for README")] = False,
) -> None:
    """Print what a study says of the paper's claims: first what is decided, then what is not."""
    study = read_study(params)
    _warn_of_changes(study, params)
    from dwlt_lib import report
    from dwlt_lib.analysis.claims import as_markdown, as_text

    table, all_read = read_table(study.name)
    with refusing():
        found = report.judge_claims(table, study.margins)
    print(as_markdown(found) if markdown else as_text(found))
    raise typer.Exit(0 if all_read else 1)


@app.command(epilog="Example: dwlt simulate --studies 500")
def simulate(
    studies: Annotated[int, typer.Option(min=10, help="how many of each truth")] = 2000,
    figure: Annotated[Path | None, typer.Option(help="where to draw it, a PNG")] = None,
) -> None:
    """Simulate studies with a known truth: how often bounds and verdicts are right."""
    import numpy as np

    from dwlt_lib.analysis import simulation

    rng = np.random.default_rng(0)
    found = simulation.simulate(rng, studies)
    shares = found.drop(columns=["truth", "n", "n_dense"]).columns
    percent = found.assign(**{c: (100 * found[c]).map("{:.1f}".format) for c in shares})
    print(f"{studies} simulated studies of each truth; shares in %")
    print(percent.to_string(index=False))
    rate = 100 * simulation.bootstrap_coverage(rng, max(studies // 10, 1))
    print(f"\nas a check, bounds by a bootstrap over seeds and images hold it in {rate:.1f} %")
    print("\nthe paper's rule passes a ticket that is truly equal to dense:")
    for n in (2, 3, 10):
        rate = simulation.paper_pass_rate(n, rng, 100 * studies)
        print(f"  {n:2} seeds: {100 * rate:.0f} %")
    if figure is not None:
        from dwlt_lib.plotting import verdicts

        verdicts.simulated(found).savefig(figure, dpi=150, bbox_inches="tight")
        print(f"figure: {figure}")


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
    study: Study,
    rule: Literal["one_std", "eq3"] = "one_std",
    ddof: int = 1,
    extreme: Literal["max", "prefix"] = "max",
) -> bool:
    """Print a study's verdict, and that of the paper's rule.

    Args:
        study: whose records and margins count.
        rule: of the paper, as are the next two.
        ddof: of its standard deviation.
        extreme: which level it names.

    Returns:
        Whether all of the study's records that are there could be read.
    """
    from dwlt_lib.analysis import double_win

    records, all_read = read_table(study.name)
    table = records[records["kind"] == "transfer"]
    with refusing(), warnings.catch_warnings(action="ignore"):
        certified = _certified(study, records)
        paper = double_win.verdict(table, rule=rule, ddof=ddof, extreme=extreme)
        probabilities = double_win.extreme_probabilities(table, rule, ddof, extreme)
        lines = double_win.chance_warnings(double_win.criteria(table, rule, ddof))
    if paper.empty:
        print("no verdict yet: no ticket has been transferred under ST and AT")
        return all_read
    own = study.margins
    points = f"SA {100 * own.SA:g} and RA {100 * own.RA:g}"
    unit = "% of what dense reaches above chance" if own.relative else "points"
    print(f"double-win sparsity: not worse than dense by more than {points} {unit}")
    print("(one-sided bounds at 95 %, over training seeds and test images)")
    columns = ["at_least_rounds", "at_least_sparsity", "below_rounds", "below_sparsity"]
    shown = certified.drop(columns=[*columns, "shared_with_random"])
    print(_named(shown).rename(columns={"text": "verdict"}).to_string(index=False))
    print(
        f"\nby the paper's rule ({rule}, ddof {ddof}, extreme {extreme}), with the chance of each"
    )
    print("level to be the extreme if all networks were trained again (bootstrap)")
    for column in ("extreme_sparsity", "ST_SA", "AT_SA", "AT_RA"):
        paper[column] = paper[column].astype(float).map(_percent)
    paper["chances"] = double_win.chances_in_words(paper, probabilities, table)
    print(_named(paper).drop(columns="extreme_rounds").to_string(index=False))
    for line in lines:
        print(f"warning: {line}")
    return all_read


def verdict_table(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The verdict of a study, and the extremes of the paper's rule beside it.

    Args:
        study: whose margins count.
        table: its records.

    Returns:
        The columns of `noninferiority.certified`, masked_gradients (in words), and
        paper_extreme_rounds and paper_extreme_sparsity.
    """
    from dwlt_lib.analysis import double_win

    transfers = table[table["kind"] == "transfer"]
    with warnings.catch_warnings(action="ignore"):
        paper = double_win.verdict(transfers)[
            [*double_win.GROUP, "extreme_rounds", "extreme_sparsity"]
        ]
    names = {name: f"paper_{name}" for name in ("extreme_rounds", "extreme_sparsity")}
    return _certified(study, table).merge(paper.rename(columns=names), on=double_win.GROUP)


def _certified(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    from dwlt_lib.analysis import masked_gradients, noninferiority
    from dwlt_lib.records import store
    from dwlt_lib.report.evidence import attacked_networks

    transfers = table[table["kind"] == "transfer"]
    levels = noninferiority.noninferiority(transfers, store.outcomes_of(transfers), study.margins)
    found = noninferiority.certified(levels)
    seen = masked_gradients.by_curve(found, attacked_networks(table))
    return found.assign(masked_gradients=seen)


def print_power(study: Study) -> None:
    """Print how many seeds decide on a ticket that is truly equal to dense.

    Args:
        study: whose margins and, where it has records, noise count.
    """
    from dwlt_lib.analysis import power
    from dwlt_lib.records import store

    try:
        table = store.table("transfer", study=study.name)
    except KeyError:
        table = store.empty_table()
    for line in power.proposals(table, store.outcomes_of(table), study.margins):
        print(line)


def _print_variance(table: pd.DataFrame) -> None:
    """How much theta_p, mask, subset, training seed and test images move each criterion."""
    from dwlt_lib.analysis import statistics

    with refusing():
        found = statistics.variance_components(table)
    points = (100 * found["sd"]).map("{:.2f}".format).str.replace("nan", "-")
    found["sd"] = points + found["df"].map(lambda df: f" ({df} df)" if df else "")
    keys = ["dataset", "fraction", "criterion"]
    shown = found.pivot(index=keys, columns="source", values="sd")
    print("standard deviation of an accuracy, in points, by what is drawn again")
    print(_named(shown[found["source"].unique()].reset_index()).to_string(index=False))


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %" if value == value else "unknown"  # NaN equals nothing


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with fractions in percent, as people read them."""
    return table.assign(fraction=(100 * table["fraction"]).map("{:g} %".format))


def _warn_of_changes(study: Study, params: Path) -> None:
    """Say on stderr if the records are those of the study's former parameters or images."""
    from dwlt_lib.records import store

    if store.has_changed(study):
        print(
            f"{study.name}: {params} or its images have changed since the study was planned, and"
            f" this is of the plan before; make what is new: dwlt run {params}",
            file=sys.stderr,
        )
