"""The commands that make a study: run, plan, attack, status, report, publish; and bench."""

from __future__ import annotations

import time
from collections import Counter
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dwlt_lib.cli.common import Device, Params, parse_duration, refuse, refusing, say
from dwlt_lib.cli.results import print_power, print_verdict, read_study, table_of, verdict_table

if TYPE_CHECKING:
    from dwlt_lib.config.studies import Study

app = typer.Typer()


@app.command(epilog="Example: dwlt run params/tour.yaml --workers 2 --budget 9m")
def run(
    params: Params,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="processes; left out: one per core, or one per GPU"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="stop cleanly after this long, such as 90s, 9m or 2h")
    ] = None,
    executor: Annotated[
        Literal["papermill", "inline"],
        typer.Option(help="notebooks in processes, or this process without them"),
    ] = "papermill",
    device: Annotated[Device, typer.Option(help="where to train")] = "auto",
) -> None:
    """Make the missing records of a study, then its figures and report.

    Exit status 75: stopped by the budget or a signal; the same command goes on from there.
    """
    with refusing(option="--budget"):
        deadline = time.time() + parse_duration(budget) if budget else None
    study = read_study(params)
    from dwlt_lib.execution import run_folders, runner
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.execution.workers import local_pool, start_server
    from dwlt_lib.records import store

    missing, inline = missing_specs(study), executor == "inline"
    if missing and not inline:
        start_server()  # its imports run beside these
    from dwlt_lib.execution.inputs import check_inputs  # and torch with it

    with refusing():
        settings = runner.RunSettings(check_inputs(missing, device), deadline, say)
    with run_folders.opened(study, workers=not inline):
        store.write_study(study, params)
        if inline:
            raise typer.Exit(runner.run_inline(study, settings))
        with local_pool(study.name, workers, settings.device, deadline) as pool:
            status = runner.run_notebooks(study, params.resolve(), pool, settings)
        if status == runner.STOPPED:
            say("stopped by the budget; the same command goes on from here")
        else:  # figures need no GPU, but every core
            count = workers if settings.device == "cpu" else None
            status = max(status, _report(study, params, count))
    raise typer.Exit(status)


@app.command(epilog="Example: dwlt plan params/paper/fig3.yaml --devices 1 --devices 8")
def plan(
    params: Annotated[
        list[Path], typer.Argument(help="parameter files; what they share is counted once")
    ],
    devices: Annotated[
        list[int], typer.Option(min=1, help="number of devices to predict for; may be repeated")
    ] = [1, 8, 64],
    rates: Annotated[
        Path | None, typer.Option(help="speeds that dwlt bench --json wrote elsewhere")
    ] = None,
    power: Annotated[
        bool, typer.Option("--power", help="say how many seeds decide, and nothing else")
    ] = False,
) -> None:
    """Predict what studies make and take: records, bytes, hours.

    Hours are by speeds measured here now, or elsewhere before.
    """
    if power:
        for path in dict.fromkeys(params):
            print_power(read_study(path))
        return
    from dwlt_lib.benchmarks import forecast
    from dwlt_lib.config import planning
    from dwlt_lib.execution.study_files import provisional_inputs

    studies = [read_study(path) for path in params]
    for line in dict.fromkeys(line for study in studies for line in provisional_inputs(study)):
        print(line)
    whole = {id: spec for study in studies for id, spec in planning.plan(study).items()}
    with refusing(option="--rates"):
        speeds = forecast.read_speeds(rates) if rates else None
    for line in forecast.predict(whole, devices, speeds):
        say(line)


@app.command(epilog="Example: dwlt attack params/tour.yaml --tickets extreme")
def attack(
    params: Params,
    tickets: Annotated[
        list[str],
        typer.Option(help="extreme, undecided, or the id of a transfer; may be repeated"),
    ] = ["extreme"],
    device: Annotated[Device, typer.Option(help="where to attack")] = "auto",
) -> None:
    """Attack tickets of a study by its strong attacks.

    extreme: those at the verdict's extreme sparsities; undecided: those at levels that it leaves
    undecided; both with their dense networks. The results belong to the study from then on. Exit
    status 75: interrupted; the same command goes on from there.
    """
    study = read_study(params)
    from dwlt_lib.execution import run_folders, runner
    from dwlt_lib.execution.inputs import check_inputs
    from dwlt_lib.execution.strong_attacks import robustness_specs
    from dwlt_lib.records import store

    with refusing((ValueError, KeyError)):
        wanted = robustness_specs(study, tickets)
        missing = [spec for spec in wanted if not store.exists(spec)]
        settings = runner.RunSettings(check_inputs(missing, device), say=print)
    with run_folders.opened(study, workers=False):
        status = runner.make_all(missing, settings)
        store.write_study(study, params)
    print(f"{len(wanted)} tickets asked for, {len(missing)} attacked now")
    raise typer.Exit(status)


@app.command(epilog="Example: dwlt status params/tour.yaml")
def status(params: Params) -> None:
    """Count the records of a study that are there and those that are missing, and who makes which.

    Exit status 0: all are there; 75: some are missing.
    """
    study = read_study(params)
    from dwlt_lib.config import planning, specs
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.records import leases, store

    missing, total = missing_specs(study), len(planning.plan(study))
    print(f"{study.name}: {total - len(missing)} of {total} records are there")
    first = {spec.kind: spec for spec in reversed(missing)}
    for kind, count in Counter(spec.kind for spec in missing).items():
        print(f"  {count} {kind} missing, next: {specs.label(first[kind])}")
    held = leases.holders(store.leases_root())
    for spec in missing:
        if holder := held.get(specs.record_id(spec)):
            print(f"  in the making: {specs.label(spec)}, by {holder}")
    raise typer.Exit(75 if missing else 0)


@app.command(epilog="Example: dwlt report params/tour.yaml")
def report(params: Params) -> None:
    """Draw the figures and write the one-page report, over what is there now."""
    study = read_study(params)
    from dwlt_lib.execution import run_folders
    from dwlt_lib.records import store

    with run_folders.opened(study, figures_only=True):
        store.write_study(study, params)
        status = _report(study, params)
    raise typer.Exit(status)


@app.command(epilog="Example: dwlt publish params/tour_full.yaml")
def publish(params: Params) -> None:
    """Write a finished study to outputs/reference, to be committed.

    NAME.zip holds its records without weights; tables, figures and the report lie beside it.
    """
    study = read_study(params)
    from dwlt_lib import files
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.records import store

    if missing := missing_specs(study):
        refuse(
            f"{study.name}: {len(missing)} records are missing; finish it first: dwlt run {params}"
        )
    files.check(store.outputs() / "reference")
    files.collect(store.outputs() / "reference")
    with table_of(study, params) as table:
        tables = {
            "results.csv": table.drop(columns="seconds").to_csv(index=False),
            "verdict.csv": verdict_table(study, table).to_csv(index=False),
        }
    page = store.study_dir(study.name) / "report.html"
    print(store.publish(study.name, tables, page if page.exists() else None))


@app.command(epilog="Example: dwlt bench --task at --task pgd20 --size 32 --json speed.json")
def bench(
    device: Annotated[Device, typer.Option(help="where to measure")] = "auto",
    task: Annotated[
        list[str],
        typer.Option(help="at, st, pgd20, prune or surface; may be repeated"),
    ] = ["at", "st", "pgd20"],
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
        where = resolve_device(device)
    tables = bench.bench(where, task, network, size, batch, seconds, say)
    if json is not None:
        files.write(json, dumps(tables, indent=1))


def _report(study: Study, params: Path, workers: int | None = None) -> int:
    """Draw a study's figures in workers, write its report, print its verdict; the exit status."""
    from dwlt_lib import report
    from dwlt_lib.execution.figures import run_figures
    from dwlt_lib.execution.workers import local_pool
    from dwlt_lib.records import store

    with local_pool(study.name, workers) as pool:
        status, drawn = run_figures(study.name, pool, say)
    page = store.study_dir(study.name) / "report.html"
    if drawn or not page.exists():
        page = report.build(study.name)
    print(f"report: {page}")
    with table_of(study, params) as table:
        print_verdict(study, table)
    return status
