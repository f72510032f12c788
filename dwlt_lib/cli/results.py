"""The commands that read a study: results, verdict, claims, verify."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dwlt_lib.cli.common import Params, refusing, warn

if TYPE_CHECKING:
    import pandas as pd

    from dwlt_lib.config.studies import Study

app = typer.Typer()


@app.command(epilog="Example: dwlt results params/tour.yaml > tour.csv")
def results(
    params: Params,
    format: Annotated[Literal["csv", "json"], typer.Option(help="of the table")] = "csv",
    variance: Annotated[
        bool, typer.Option("--variance", help="print how much each seed moves accuracies instead")
    ] = False,
    means: Annotated[
        bool, typer.Option("--means", help="print means over seeds as a Markdown table instead")
    ] = False,
) -> None:
    """Print one row per record of a study, sorted; times and hosts are left out."""
    study = read_study(params)
    with table_of(study, params) as table:
        if variance:
            _print_variance(table)
            return
        if means:
            from dwlt_lib.analysis import statistics

            print(statistics.means_as_markdown(table[table["kind"] == "transfer"]))
            return
        table = table.drop(columns="seconds")
        if format == "csv":
            table.to_csv(sys.stdout, index=False)
        else:
            print(table.to_json(orient="records", indent=1))


@app.command(epilog="Example: dwlt verdict params/tour.yaml --rule eq3")
def verdict(  # noqa: PLR0913 (a command's options)
    params: Params,
    rule: Annotated[
        Literal["one_std", "eq3"],
        typer.Option(help="of the paper: within one standard deviation of dense, or equation 3"),
    ] = "one_std",
    ddof: Annotated[
        int, typer.Option(min=0, max=1, help="of the standard deviation over seeds")
    ] = 1,
    extreme: Annotated[
        Literal["max", "prefix"],
        typer.Option(help="the sparsest winning level, or the last without a gap"),
    ] = "max",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="as a table for README, without the paper's rule")
    ] = False,
) -> None:
    """Print which tickets are double-win and how sure that is, and what the paper's rule says.

    One row per pre-training, method, data set and fraction. --rule, --ddof and --extreme are the
    paper's rule's.
    """
    study = read_study(params)
    from dwlt_lib.analysis import noninferiority

    with table_of(study, params) as table:
        if markdown:
            print(noninferiority.as_markdown(_certified(study, table)))
        else:
            print_verdict(study, table, rule=rule, ddof=ddof, extreme=extreme)


@app.command(epilog="Example: dwlt claims params/tour_full.yaml --markdown")
def claims(
    params: Params,
    markdown: Annotated[bool, typer.Option("--markdown", help="as a table for README")] = False,
) -> None:
    """Print what a study says of the paper's claims: first what is decided, then what is not."""
    study = read_study(params)
    from dwlt_lib import report
    from dwlt_lib.analysis.claims import as_markdown, as_text

    with table_of(study, params) as table:
        found = report.judge_claims(table, study.margins)
        print(as_markdown(found) if markdown else as_text(found))


@app.command(epilog="Example: dwlt search params/tour_full.yaml")
def search(params: Params) -> None:
    """Print which levels an adaptive search asks for, why, and what came out.

    Of a study whose whole grid was made: what a search would have asked for, and what it would have
    found beside what the grid did.
    """
    study = read_study(params)
    from dwlt_lib.analysis.tables import GROUP
    from dwlt_lib.config.planning import plan
    from dwlt_lib.execution import adaptive

    with table_of(study, params) as table:
        transfers = table[table["kind"] == "transfer"]
        found = adaptive.follow(study, transfers)
        for line in adaptive.steps(found):
            print(line)
        share = adaptive.share_of_grid(found, study)
        ending = "nothing more is worth it" if found.is_over else "the search goes on"
        print(f"\n{100 * share:.0f} % of what the grid's masks and transfers take; {ending}")
        tried = table[table["id"].isin(plan(found.study))]
        own = _certified(study, tried, "adaptive")[[*GROUP, "text"]]
        own = own.rename(columns={"text": "search"})
        if study.search == "grid":
            whole = _certified(study, table)[[*GROUP, "text"]]
            own = whole.rename(columns={"text": "grid"}).merge(own, on=GROUP, how="left")
        print(_named(own).to_string(index=False))


@app.command(epilog="Example: dwlt simulate --studies 500")
def simulate(
    studies: Annotated[int, typer.Option(min=10, help="how many of each truth")] = 2000,
    figure: Annotated[Path | None, typer.Option(help="where to draw it, a PNG")] = None,
    searches: Annotated[
        bool, typer.Option("--searches", help="of adaptive searches instead of single levels")
    ] = False,
) -> None:
    """Simulate studies with a known truth: how often bounds and verdicts are right."""
    import numpy as np

    from dwlt_lib.analysis import simulation

    if searches:
        _simulate_searches(studies, figure)
        return

    rng = np.random.default_rng(0)
    found = simulation.simulate(rng, studies)
    percent = 100 * found.set_index(["truth", "n", "n_dense"])
    print(f"{studies} simulated studies of each truth; shares in %")
    print(percent.to_string(float_format="{:.1f}".format))
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


def _simulate_searches(studies: int, figure: Path | None) -> None:
    """Prints how adaptive searches do beside whole grids, and draws what they cost."""
    import numpy as np

    from dwlt_lib.analysis import simulated_searches
    from dwlt_lib.plotting import verdicts

    found = simulated_searches.simulate(np.random.default_rng(0), studies)
    print(f"{studies} simulated curves of each truth; shares in %, bounds in levels of the ladder")
    rates = simulated_searches.rates(found)
    print(rates.to_string(index=False, float_format="{:.1f}".format))
    if figure is not None:
        verdicts.searched(found).savefig(figure, dpi=150, bbox_inches="tight")
        print(f"figure: {figure}")


@app.command(epilog="Example: dwlt verify")
def verify(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="set damaged records aside, with all that builds on them, to be remade"
        ),
    ] = False,
) -> None:
    """Check every record's files against their checksums, its accuracies against its outcomes.

    Exit status 1: something is wrong, which is named on stderr, a line each.
    """
    from dwlt_lib.records import store

    for path in store.repair() if repair else []:
        print(f"set aside as {path}; dwlt run makes it again")
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


@contextmanager
def table_of(study: Study, params: Path) -> Iterator[pd.DataFrame]:
    """A study's records as a table, of which the block prints something.

    On stderr it says where they are read from if not here, whether they are of former parameters,
    and, a line each, what cannot be read.

    Args:
        study: what was planned here, or published.
        params: its parameter file.

    Yields:
        The table.

    Raises:
        Exit: with status 2, if there is no such study or the block finds its table wanting; after
            the block with status 1, if a record could not be read.
    """
    from dwlt_lib.records import store

    damaged: list[str] = []
    with refusing(KeyError):
        if store.has_changed(study):
            warn(
                f"{study.name}: {params} or its images have changed since the study was planned,"
                f" and this is of the plan before; make what is new: dwlt run {params}"
            )
        if line := store.published_source(study.name):
            warn(line)
        table = store.table(study=study.name, damaged=damaged)
    for line in damaged:
        warn(line)
    with refusing():
        yield table
    if damaged:
        raise typer.Exit(1)


def print_verdict(study: Study, records: pd.DataFrame, **reading: Any) -> None:
    """Print a study's verdict, and that of the paper's rule.

    Args:
        study: whose margins count.
        records: its table.
        **reading: of the rule: rule, ddof and extreme of `double_win.verdict`.
    """
    from dwlt_lib.analysis import double_win

    table = records[records["kind"] == "transfer"]
    found = verdict_table(study, records, **reading)
    if found.empty:
        print("no verdict yet: no ticket has been transferred under ST and AT")
        return
    own = study.margins
    points = f"SA {100 * own.SA:g} and RA {100 * own.RA:g}"
    unit = "% of what dense reaches above chance" if own.relative else "points"
    print(f"double-win sparsity: not worse than dense by more than {points} {unit}")
    print("(one-sided bounds at 95 %, over training seeds and test images); beside it that of the")
    print("paper's rule, with the chance of each level to be it if all networks were trained again")
    with warnings.catch_warnings(action="ignore"):
        probabilities = double_win.extreme_probabilities(table, **reading)
        lines = double_win.chance_warnings(double_win.criteria(table))
    found["paper's rule"] = found["paper_extreme_sparsity"].astype(float).map(_percent)
    found["its chances"] = double_win.chances_in_words(found, probabilities, table)
    columns = [*double_win.GROUP, "text", "masked_gradients", "paper's rule", "its chances"]
    print(_named(found)[columns].rename(columns={"text": "verdict"}).to_string(index=False))
    for line in lines:
        print(f"warning: {line}")


def verdict_table(study: Study, table: pd.DataFrame, **reading: Any) -> pd.DataFrame:
    """The verdict of a study, and the extremes of the paper's rule beside it.

    Args:
        study: whose margins count.
        table: its records.
        **reading: of the rule: rule, ddof and extreme of `double_win.verdict`.

    Returns:
        The columns of `noninferiority.certified`, masked_gradients (in words), and
        paper_extreme_rounds and paper_extreme_sparsity.
    """
    from dwlt_lib.analysis import double_win

    transfers = table[table["kind"] == "transfer"]
    with warnings.catch_warnings(action="ignore"):
        paper = double_win.verdict(transfers, **reading)[
            [*double_win.GROUP, "extreme_rounds", "extreme_sparsity"]
        ]
    names = {name: f"paper_{name}" for name in ("extreme_rounds", "extreme_sparsity")}
    found = _certified(study, table)
    if found.empty:
        return found
    return found.merge(paper.rename(columns=names), on=double_win.GROUP)


def _certified(study: Study, table: pd.DataFrame, search: str = "") -> pd.DataFrame:
    """Bounds of a study's curves; search: how levels were chosen, if not as the study says."""
    from dwlt_lib.analysis import masked_gradients, noninferiority
    from dwlt_lib.records import store
    from dwlt_lib.report.evidence import attacked_networks

    transfers = table[table["kind"] == "transfer"]
    outcomes, confidence = (
        store.outcomes_of(transfers),
        noninferiority.confidence_of(search or study.search),
    )
    levels = noninferiority.noninferiority(transfers, outcomes, study.margins, confidence)
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

    found = statistics.variance_components(table[table["kind"] == "transfer"])
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
