"""The command `dwlt`: thin; every line of work is a function of the library."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
import warnings
from collections import Counter
from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from dwlt_lib.cli import data, weights
from dwlt_lib.cli.refusal import refuse

INTERRUPTED = "dwlt: interrupted; the same command goes on from here"


class Commands(TyperGroup):
    """What all commands have in common.

    How they end when they are interrupted or files cannot be written.
    """

    def invoke(self, ctx: typer.Context) -> object:
        """The command's result.

        An interrupt, a full disk and the like become one line and an exit status.
        """
        from dwlt_lib import files

        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            raise typer.Exit(75) from None
        except BrokenPipeError:  # whoever read the output has gone: nothing is said, to nobody
            _nobody_reads()
            raise typer.Exit(75) from None
        except files.Unusable as error:
            refuse(str(error))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                refuse(
                    f"{error.filename}: {error.strerror}; want a shorter path (DWLT_OUTPUTS may"
                    " give one)"
                )
            if not files.is_full(error) and error.filename is None:
                raise
            from dwlt_lib.records import store

            place = error.filename or store.outputs()
            line = files.no_space(place) if files.is_full(error) else f"{place}: {error.strerror}"
            print(f"dwlt: {line}", file=sys.stderr)
            raise typer.Exit(1) from error


# an empty line between two, since help joins the lines of a paragraph
EXAMPLES = """Examples:

dwlt run params/tour.yaml --budget 9m

dwlt verdict params/tour.yaml --rule eq3

dwlt browse --study tour_full"""

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EXAMPLES,
    help="Double-win lottery tickets: run a study's parameter file, read its results.",
)
app.add_typer(weights.app, name="weights")
app.add_typer(data.app, name="data")


def _version(asked: bool) -> None:
    if asked:
        from dwlt_lib import __version__

        print(f"dwlt {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="print the version, do nothing"
        ),
    ] = False,
) -> None:
    """What stands before a command."""


Params = Annotated[Path, typer.Argument(help="a study's parameter file, such as params/tour.yaml")]


# the cores this process may use
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Executor(StrEnum):
    papermill = "papermill"
    inline = "inline"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Format(StrEnum):
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Rule(StrEnum):
    one_std = "one_std"
    eq3 = "eq3"


class Extreme(StrEnum):
    max = "max"
    prefix = "prefix"


def _study(params: Path):
    from dwlt_lib.config.parameter_file import BadStudy
    from dwlt_lib.execution.study_files import read_study

    try:
        return read_study(params)
    except BadStudy as error:
        refuse(str(error))


def _seconds(budget: str | None) -> float | None:
    if budget is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not found:
        refuse(f"--budget {budget!r}: want a time such as 90s, 9m or 2h")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@app.command()
def run(
    params: Params,
    workers: Annotated[
        int, typer.Option(min=1, help="processes; if left out, one a core or one a GPU")
    ] = None,
    budget: Annotated[str, typer.Option(help="stop cleanly after this long (90s, 9m, 2h)")] = None,
    executor: Executor = Executor.papermill,
    device: Device = Device.auto,
) -> None:
    """Make what is missing of a study, then its figures and report. 75: stopped by the budget or a
    signal; run again to go on."""
    seconds = _seconds(budget)
    study = _study(params)
    from dwlt_lib.execution import preflight, run_folders, runner
    from dwlt_lib.execution.devices import visible_gpus
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.execution.workers import Pool, start_server
    from dwlt_lib.records import store

    deadline, todo = None if seconds is None else time.time() + seconds, missing_specs(study)
    log, inline = store.study_dir(study.name) / "workers.log", executor is Executor.inline
    if todo and not inline:
        start_server()
    try:
        try:
            chosen = preflight.check_inputs(todo, device.value)
        except ValueError as error:
            refuse(str(error))
        run_folders.prepare_folders(study, workers=not inline)
        store.write_study(study, params)
        settings = runner.RunSettings(chosen, deadline, _say)
        if inline:
            raise typer.Exit(runner.run_inline(study, settings))
        gpus = visible_gpus() if chosen == "cuda" else []
        with Pool(workers or len(gpus) or CORES, deadline, log, gpus) as pool:
            status = runner.run_notebooks(study, params.resolve(), pool, settings)
        if status == runner.STOPPED:
            _say("stopped by the budget; the same command goes on from here")
        else:  # figures need no GPU, but every core
            with Pool(CORES if gpus else pool.workers, deadline, log) as pool:
                status = max(status, _report(study.name, pool))
    finally:
        run_folders.clean_folders(study)
    raise typer.Exit(status)


@app.command()
def plan(
    params: Annotated[
        list[Path], typer.Argument(help="parameter files; what they share is counted once")
    ],
    devices: Annotated[list[int], typer.Option(min=1, help="for so many; may stand again")] = (
        1,
        8,
        64,
    ),
    rates: Annotated[
        Path, typer.Option(help="speeds that dwlt bench --json wrote elsewhere")
    ] = None,
) -> None:
    """What studies make.

    Records, bytes, and hours by speeds measured here now or elsewhere before.
    """
    from dwlt_lib.benchmarks import forecast
    from dwlt_lib.config import planning
    from dwlt_lib.data import fingerprints
    from dwlt_lib.execution.devices import resolve_device
    from dwlt_lib.models import imported

    found = {path: _study(path) for path in dict.fromkeys(params)}
    plans = {str(path): planning.plan(study) for path, study in found.items()}
    for line in dict.fromkeys(
        line
        for study in found.values()
        for line in (*imported.unresolved(study), *fingerprints.unresolved(study))
    ):
        print(line)
    left = forecast.left_of(forecast.union(plans.values()))
    kinds = forecast.kinds_of(left)
    try:
        speeds = forecast.read_rates(rates) if rates else []
    except ValueError as error:
        refuse(f"--rates {error}")
    _lines(forecast.counts(plans, left), [forecast.disk(forecast.union(plans.values()))])
    if kinds:
        where = (
            f"by the speeds in {rates}"
            if rates
            else "by a few steps measured now on this machine's "
        )
        if not rates:
            device = resolve_device("auto").type
            where += "GPU" if device == "cuda" else "processor, of which a device is one thread"
            speeds = forecast.measure(kinds, device)
        _lines(
            forecast.hours(left, speeds, devices),
            [f"speeds, {where}:", *forecast.explain(speeds, kinds)],
        )


def _lines(*parts) -> None:
    for part in parts:
        print("", *part, sep="\n")


@app.command()
def status(params: Params) -> None:
    """What is there and what is left. 0: all; 75: something is left."""
    study = _study(params)
    from dwlt_lib.config import planning, specs
    from dwlt_lib.execution.scheduling import missing_specs

    todo = missing_specs(study)
    whole = planning.plan(study)
    print(f"{study.name}: {len(whole) - len(todo)} of {len(whole)} records are there")
    counts = Counter(spec.kind for spec in todo)
    for kind, count in counts.items():
        print(
            f"  {count} {kind} left, next:"
            f" {specs.label(next(spec for spec in todo if spec.kind == kind))}"
        )
    raise typer.Exit(75 if todo else 0)


@app.command()
def results(
    params: Params, format: Annotated[Format, typer.Option("--format")] = Format.csv
) -> None:
    """Every record's row, sorted, on standard output; times and hosts are not among the columns."""
    study = _study(params)
    _as_planned(study, params)
    table, whole = _table(study.name)
    table = table.drop(columns="seconds")
    if format is Format.csv:
        table.to_csv(sys.stdout, index=False)
    elif format is Format.json:
        print(table.to_json(orient="records", indent=1))
    else:
        sys.stdout.buffer.write(table.to_parquet(index=False))
    raise typer.Exit(0 if whole else 1)


@app.command()
def verdict(
    params: Params,
    rule: Rule = Rule.one_std,
    ddof: Annotated[int, typer.Option(min=0, max=1)] = 1,
    extreme: Extreme = Extreme.max,
) -> None:
    """Which tickets are double-win, and the extreme sparsity of each (pre-training, method, data
    set, fraction).
    """
    study = _study(params)
    _as_planned(study, params)
    raise typer.Exit(0 if _print_verdict(study.name, rule.value, ddof, extreme.value) else 1)


@app.command()
def report(params: Params) -> None:
    """Figures and the one-page report over what is there now."""
    study = _study(params)
    from dwlt_lib.execution import run_folders
    from dwlt_lib.execution.workers import Pool
    from dwlt_lib.records import store

    run_folders.prepare_folders(study, figures_only=True)
    try:
        store.write_study(study, params)
        with Pool(CORES, None, store.study_dir(study.name) / "workers.log") as pool:
            status = _report(study.name, pool)
    finally:
        run_folders.clean_folders(study)
    raise typer.Exit(status)


@app.command()
def publish(params: Params) -> None:
    """Write a finished study to outputs/reference, to be committed.

    NAME.zip holds its records without weights; tables, figures and the report lie beside it.
    """
    study = _study(params)
    from dwlt_lib import files
    from dwlt_lib.analysis import double_win
    from dwlt_lib.execution.run_folders import OLD_SCRATCH
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.records import store

    if todo := missing_specs(study):
        refuse(f"{study.name}: {len(todo)} records are missing; finish it first: dwlt run {params}")
    files.check(store.outputs() / "reference")
    files.collect(store.outputs() / "reference", old=OLD_SCRATCH)
    table, _ = _table(study.name)
    tables = {
        "results.csv": table.drop(columns="seconds").to_csv(index=False),
        "verdict.csv": double_win.verdict(table[table["kind"] == "transfer"]).to_csv(index=False),
    }
    page = store.study_dir(study.name) / "report.html"
    print(store.publish(study.name, tables, page if page.exists() else None))


@app.command()
def verify() -> None:
    """Check every record's files against their checksums. 1: something is wrong, a line each."""
    from dwlt_lib.records import store

    problems = store.verify()
    for line in problems:
        print(line, file=sys.stderr)
    print(f"{len(store.table(damaged=[]))} records, {len(problems)} problems")
    raise typer.Exit(1 if problems else 0)


Ip = Annotated[
    str,
    typer.Option("--ip", help="the address to listen on; one that others reach needs a --token"),
]
Token = Annotated[
    str,
    typer.Option(envvar="DWLT_TOKEN", help="your own token, 16 characters or more; else random"),
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="print the URL, open nothing")]


@app.command()
def lab(
    ip: Ip = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8888,
    token: Token = None,
    no_browser: NoBrowser = False,
) -> None:
    """JupyterLab over notebooks and outputs, opened on the tour; on loopback and behind a token."""
    from dwlt_lib.browser import servers

    servers.lab(*_door(ip, port, token), not no_browser)


@app.command()
def browse(
    file: Annotated[
        Path | None,
        typer.Argument(help="a study's file, as dwlt publish writes it; else what ran here"),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="the study to open on; else the first there is")
    ] = None,
    ip: Ip = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8866,
    token: Token = None,
    no_browser: NoBrowser = False,
) -> None:
    """Sparsities, results, landscapes and images of a study as a page.

    On loopback and behind a token.
    """
    from dwlt_lib.browser import servers
    from dwlt_lib.records import archive, store

    try:
        if file is not None:
            study = study or archive.study(file.resolve())["name"]
            os.environ["DWLT_STUDY_FILE"] = str(file.resolve())
        if study is not None:
            os.environ["DWLT_STUDY"] = store.study(study)["name"]
    except KeyError as error:
        refuse(str(error.args[0]))
    except (ValueError, OSError) as error:
        refuse(str(error))
    notebook = store.checkout() / "notebooks" / "20_browse.ipynb"
    servers.browse(notebook, *_door(ip, port, token), not no_browser)


def _door(ip: str, port: int, token: str | None) -> tuple[str, int, str]:
    from dwlt_lib.browser import servers

    try:
        chosen = servers.address(ip, token)
        return chosen, servers.free_port(chosen, port), servers.secret(token)
    except ValueError as error:
        refuse(str(error))


@app.command()
def bench(
    device: Device = Device.auto,
    task: Annotated[
        str, typer.Option(help="of at, st, pgd20, prune, surface, precision")
    ] = "at,st,pgd20,prune",
    network: Annotated[str, typer.Option(help="architectures")] = "resnet20",
    size: Annotated[str, typer.Option(help="sides of the images in pixels")] = "32",
    batch: Annotated[int, typer.Option(min=2)] = 128,
    seconds: Annotated[float, typer.Option(min=1, help="for each table")] = 60,
    json: Annotated[Path, typer.Option(help="write the tables there too")] = None,
) -> None:
    """Time this code's steps beside the authors' on this machine; task precision: bf16 against
    fp32 on trained networks."""
    from dwlt_lib import files
    from dwlt_lib.benchmarks import bench
    from dwlt_lib.execution.devices import resolve_device
    from dwlt_lib.models import architectures

    asked = {
        "--task": (task.split(","), bench.TASKS),
        "--network": (network.split(","), architectures.ARCHITECTURES),
    }
    for option, (values, known) in asked.items():
        for value in values:
            if value not in known:
                refuse(f"{option} {value}: want of {', '.join(known)}")
    sizes = size.split(",")
    if not all(one.isdigit() and 8 <= int(one) <= 1024 for one in sizes):
        refuse(f"--size {size}: want pixels such as 32,224")
    if json is not None:
        if json.exists():
            _file("--json", json)
        files.check(json.absolute().parent)
    try:
        found = bench.bench(
            resolve_device(device.value),
            task.split(","),
            network.split(","),
            [*map(int, sizes)],
            batch,
            seconds,
            _say,
        )
    except ValueError as error:
        refuse(str(error))
    if json is not None:
        files.write(json, dumps(found, indent=1))


def _file(option: str, path: Path) -> None:
    """Refuses what is there, but no file."""
    from dwlt_lib import files

    try:
        files.regular(path)
    except ValueError as error:
        refuse(f"{option} {error}")


def _table(name: str, kind: str | None = None):
    """The study's records as a table, and whether all that are there could be read.

    Of what could not, a line each.
    """
    from dwlt_lib.records import store

    damaged: list[str] = []
    try:
        if line := store.published_source(name):
            print(line, file=sys.stderr)
        found = store.table(kind, study=name, damaged=damaged)
    except KeyError as error:
        refuse(str(error.args[0]))
    for line in damaged:
        print(f"dwlt: {line}", file=sys.stderr)
    return found, not damaged


def _as_planned(study, params: Path) -> None:
    """Says so if the table of a study's records is that of its former parameters or images."""
    from dwlt_lib.records import store

    if store.has_changed(study):
        print(
            f"{study.name}: {params} or its images have changed since the study was planned, and"
            f" this is of the plan before; make what is new: dwlt run {params}",
            file=sys.stderr,
        )


def _print_verdict(name: str, rule: str, ddof: int, extreme: str) -> bool:
    """False if some of the study's records are there and cannot be read."""
    from dwlt_lib.analysis import double_win

    table, whole = _table(name, "transfer")
    try:
        with warnings.catch_warnings(action="ignore"):
            found = double_win.verdict(table, rule=rule, ddof=ddof, extreme=extreme)
        lines = double_win.chance_warnings(double_win.criteria(table, rule, ddof))
    except ValueError as error:
        refuse(str(error))
    if found.empty:
        print("no verdict yet: no ticket has been transferred under ST and AT")
        return whole
    found = found.assign(fraction=(100 * found["fraction"]).map("{:g} %".format))
    for column in ("extreme_sparsity", "ST_SA", "AT_SA", "AT_RA"):
        values = found[column].astype(float)
        found[column] = [
            "unknown" if value != value else f"{100 * value:.2f} %" for value in values
        ]
    print(f"extreme double-win sparsity (rule {rule}, ddof {ddof}, extreme {extreme})")
    print(found.drop(columns="extreme_rounds").to_string(index=False))
    for line in lines:
        print(f"warning: {line}")
    return whole


def _report(name: str, pool) -> int:
    from dwlt_lib.execution import figures
    from dwlt_lib.records import store
    from dwlt_lib.report import build

    status, drawn = figures.run_figures(name, pool, _say)
    page = store.study_dir(name) / "report.html"
    if drawn or not page.exists():
        page = build.build(name)
    whole = _print_verdict(name, "one_std", 1, "max")
    print(f"report: {page}")
    return status if whole else max(status, 1)


def _say(line: str) -> None:
    print(line, flush=True)


def _nobody_reads() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_interrupted = 0.0  # when a signal last ended the command (time.monotonic)


def _interrupt(*_: object) -> None:
    """Ends the command as Ctrl-C does.

    A second signal while it cleans up, for a few seconds, is not heard.
    """
    global _interrupted
    if time.monotonic() - _interrupted > 5:
        _interrupted = time.monotonic()
        raise KeyboardInterrupt


def main() -> None:
    """The entry point. Signals end a command alike; what it prints is UTF-8 whatever the locale."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, _interrupt)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        getattr(sys, name).reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # before or after the command itself
        print(INTERRUPTED, file=sys.stderr)
        raise SystemExit(75) from None
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _nobody_reads()
