"""The commands that make a study: run, submit, plan, attack, status, report, publish; bench."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dwlt_lib.cli.common import Device, Params, refuse, refusing, say
from dwlt_lib.cli.results import print_power, print_verdict, read_study, table_of, verdict_table
from dwlt_lib.config.durations import parse_duration

if TYPE_CHECKING:
    from dwlt_lib.config.sites import DaskSite, LocalSite
    from dwlt_lib.config.studies import Study
    from dwlt_lib.execution.dask_pool import DaskPool
    from dwlt_lib.execution.runner import RunSettings
    from dwlt_lib.execution.workers import Pool

app = typer.Typer()


@app.command(epilog="Example: dwlt init birds --images ~/pictures/birds")
def init(
    name: Annotated[str, typer.Argument(help="of the study: small letters, digits and _")],
    images: Annotated[
        Path,
        typer.Option(help="a folder of pictures per class, or train/ and test/ or val/ with them"),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            help="the data set to pre-train on, such as cifar10; left out: networks that come with"
            " this code, pre-trained on photographs"
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(min=8, max=512, help="side of the image that the network sees, in pixels")
    ] = 32,
    out: Annotated[Path | None, typer.Option(help="the file; left out: NAME.yaml here")] = None,
) -> None:
    """Write a commented parameter file for pictures of your own."""
    from dwlt_lib.execution import new_study

    target = out or Path(f"{name}.yaml")
    with refusing():
        row = new_study.write(name, images, source, size, target)
    say(f"{target}: {row.classes} classes, {row.train_images} + {row.test_images} pictures; next:")
    if source is not None:
        say(f"  dwlt data fetch {source}")
    say(f"  dwlt plan {target}")
    say(f"  dwlt run {target}")


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
    device: Annotated[
        Device | None, typer.Option(help="where to train; left out: the site's, or auto")
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(help="a file of params/sites, local or dask; left out: this machine"),
    ] = None,
) -> None:
    """Make the missing records of a study, then its figures and report.

    Exit status 75: stopped by the budget or a signal; the same command goes on from there. Under
    torchrun the ranks share each training that has micro_batch_size; records are all that is made.
    """
    from dwlt_lib.config import planning, sites

    with refusing(option="--site"):
        where = sites.read_site(site) if site else sites.LocalSite(engine="local")
    if not isinstance(where, sites.LocalSite | sites.DaskSite):
        refuse(f"--site {site}: {where.engine} starts runs by itself: dwlt submit {params} --site")
    ranks = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun sets it, and RANK
    inline = executor == "inline" or ranks > 1
    if isinstance(where, sites.DaskSite) and (workers or inline):
        refuse(f"--site {site}: Dask's own settings say how many workers there are")
    device = device or where.device
    from dwlt_lib.execution import live, run_folders, runner

    if ranks > 1 and os.environ.get("RANK", "0") != "0":
        with refusing():
            raise typer.Exit(runner.follow(device))
    with refusing(option="--budget"):
        deadline = time.time() + parse_duration(budget) if budget else None
    study = read_study(params)
    from dwlt_lib.execution import adaptive
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.execution.workers import start_server
    from dwlt_lib.records import store

    found = adaptive.asked(study)
    missing = missing_specs(study if not found.is_over else found.study)
    if missing and not inline:
        start_server()  # its imports run beside these
    from dwlt_lib.execution.inputs import check_inputs  # and torch with it

    with refusing():
        settings = runner.RunSettings(check_inputs(missing, device, params), deadline, say)
        if ranks > 1:
            runner.lead(missing, settings)
    with run_folders.opened(study, workers=not inline):
        with (
            nullcontext((say, None)) if inline else live.display(say) as (tell, show),
            nullcontext() if inline else _pool(where, study, workers, settings) as pool,
        ):
            settings = replace(settings, say=tell, show=show)
            while True:
                store.write_study(study, params, found.study)
                if pool is None:
                    status = runner.run_inline(found.study, settings)
                else:
                    status = runner.run_notebooks(found.study, params.resolve(), pool, settings)
                if status != runner.DONE or found.is_over:
                    break
                found = adaptive.asked(study)
                tell(f"search: {len(planning.plan(found.study))} records are asked for now")
        if inline:
            runner.dismiss()
            raise typer.Exit(status)
        if status == runner.STOPPED:
            say("stopped; the same command goes on from here")
        else:  # figures need no GPU, but every core
            count = workers if settings.device == "cpu" else None
            status = max(status, _report(study, params, count))
    raise typer.Exit(status)


def _pool(
    site: LocalSite | DaskSite, study: Study, workers: int | None, settings: RunSettings
) -> Pool | DaskPool:
    """The workers of a site, in a `with` block."""
    from dwlt_lib.config.sites import LocalSite
    from dwlt_lib.execution.workers import local_pool

    device, deadline = settings.device, settings.deadline
    if isinstance(site, LocalSite):
        return local_pool(study.name, workers or site.workers, device, deadline)
    try:
        from dwlt_lib.execution.dask_pool import DaskPool
    except ModuleNotFoundError as error:
        refuse(f"no package {error.name}; for engine dask: pip install -e '.[cluster]'")
    with refusing():
        pool = DaskPool(site, study.name, device, deadline)
    say(f"Dask's dashboard: {pool.dashboard}")
    return pool


@app.command(epilog="Example: dwlt submit params/paper/fig3.yaml --site params/sites/slurm.yaml")
def submit(
    params: Params,
    site: Annotated[Path, typer.Option(help="a file of params/sites: slurm, kubernetes or ssh")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would be handed over, and nothing else")
    ] = False,
) -> None:
    """Hand a study to Slurm, Kubernetes or ssh, which start any number of runs that share it."""
    from dwlt_lib.config import sites

    study = read_study(params)
    with refusing(option="--site"):
        where = sites.read_site(site)
    if isinstance(where, sites.LocalSite | sites.DaskSite):
        refuse(f"--site {site}: {where.engine} wants a driver: dwlt run {params} --site {site}")
    from dwlt_lib.execution import run_folders, submission

    if dry_run:
        print(submission.script(where, study, params), end="")
        return
    with refusing(), run_folders.opened(study, workers=False):
        raise typer.Exit(submission.submit(where, study, params, say))


@app.command(epilog="Example: dwlt plan params/paper/fig3.yaml --devices 1 --devices 8")
def plan(
    params: Annotated[
        list[Path], typer.Argument(help="parameter files; what they share is counted once")
    ],
    devices: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="number to predict for (left out: 1, this machine's, 8, 64); may be repeated",
        ),
    ] = None,
    rates: Annotated[
        Path | None, typer.Option(help="speeds that dwlt bench --json wrote elsewhere")
    ] = None,
    ranks: Annotated[
        int, typer.Option(min=1, help="devices that share a training's micro-batches (torchrun)")
    ] = 1,
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
    from dwlt_lib.execution.devices import visible_gpus
    from dwlt_lib.execution.study_files import provisional_inputs
    from dwlt_lib.execution.workers import usable_cores

    devices = devices or sorted({1, len(visible_gpus()) or usable_cores(), 8, 64})
    studies = [read_study(path) for path in params]
    for line in dict.fromkeys(line for study in studies for line in provisional_inputs(study)):
        print(line)
    whole = {id: spec for study in studies for id, spec in planning.plan(study).items()}
    with refusing(option="--rates"):
        speeds = forecast.read_speeds(rates) if rates else None
    for line in forecast.predict(whole, devices, speeds, ranks):
        say(line)
    for study in studies:
        if study.search == "adaptive":
            say(_predicted_search(study))


def _predicted_search(study: Study) -> str:
    """What its search is predicted to ask for, in words."""
    import numpy as np

    from dwlt_lib.execution import adaptive

    shares = 100 * np.array(adaptive.predicted_shares(study, np.random.default_rng(0)))
    low, middle, high = np.quantile(shares, [0.05, 0.5, 0.95])
    return (
        f"{study.name}: the above is its whole grid; its search is predicted to ask for"
        f" {middle:.0f} % (90 % of simulated searches: {low:.0f} to {high:.0f} %) of what the"
        " grid's masks and transfers take"
    )


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
    from dwlt_lib.execution import adaptive, run_folders, runner
    from dwlt_lib.execution.inputs import check_inputs
    from dwlt_lib.execution.strong_attacks import robustness_specs
    from dwlt_lib.records import store

    with refusing((ValueError, KeyError)):
        wanted = robustness_specs(study, tickets)
        missing = [spec for spec in wanted if not store.exists(spec)]
        settings = runner.RunSettings(check_inputs(missing, device, params), say=print)
    with run_folders.opened(study, workers=False):
        status = runner.make_all(missing, settings, study.name)
        store.write_study(study, params, adaptive.asked(study).study)
    print(f"{len(wanted)} tickets asked for, {len(missing)} attacked now")
    raise typer.Exit(status)


@app.command(epilog="Example: dwlt status params/tour.yaml --watch 5s")
def status(
    params: Params,
    watch: Annotated[
        str | None, typer.Option(help="print it again after every such time, until all are there")
    ] = None,
) -> None:
    """Count the records of a study that are there; say who makes which others, and what failed.

    Exit status 0: all are there; 75: some are missing.
    """
    with refusing(option="--watch"):
        pause = parse_duration(watch) if watch else None
    study = read_study(params)
    left = _print_status(study)
    while left and pause is not None:
        time.sleep(pause)
        if sys.stdout.isatty():
            print("\x1b[H\x1b[J", end="")  # an empty screen
        left = _print_status(study)
    raise typer.Exit(75 if left else 0)


def _print_status(study: Study) -> int:
    """Prints the lines of `dwlt status`; how many records are missing."""
    from dwlt_lib.config import planning, specs
    from dwlt_lib.execution import adaptive
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.records import failures, leases, store

    whole, found = len(planning.plan(study)), adaptive.asked(study)
    missing, total = missing_specs(found.study), len(planning.plan(found.study))
    say(f"{study.name}: {total - len(missing)} of {total} records are there")
    if study.search == "adaptive":
        ending = "has ended" if found.is_over else "goes on"
        say(f"  the search {ending}: so far it asked for {total} of its grid's {whole}")
    first = {spec.kind: spec for spec in reversed(missing)}
    for kind, count in Counter(spec.kind for spec in missing).items():
        say(f"  {count} {kind} missing, next: {specs.label(first[kind])}")
    held = leases.holders(store.leases_root())
    for spec in missing:
        if holder := held.get(specs.record_id(spec)):
            say(f"  in the making: {specs.label(spec)}, by {holder}")
    for failure in failures.noted(study.name, map(specs.record_id, missing)):
        say(f"  failed: {failure}")
    return len(missing)


@app.command(epilog="Example: dwlt report params/tour.yaml")
def report(params: Params) -> None:
    """Draw the figures and write the one-page report, over what is there now."""
    study = read_study(params)
    from dwlt_lib.execution import adaptive, run_folders
    from dwlt_lib.records import store

    with run_folders.opened(study, figures_only=True):
        store.write_study(study, params, adaptive.asked(study).study)
        status = _report(study, params)
    raise typer.Exit(status)


@app.command(epilog="Example: dwlt publish params/tour_full.yaml")
def publish(params: Params) -> None:
    """Write a finished study to outputs/reference, to be committed.

    NAME.zip holds its records without weights; tables, figures and the report lie beside it.
    """
    study = read_study(params)
    from dwlt_lib import files
    from dwlt_lib.execution import adaptive
    from dwlt_lib.execution.scheduling import missing_specs
    from dwlt_lib.records import store

    if missing := missing_specs(adaptive.asked(study).study):
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


@app.command(epilog="Example: dwlt share 0123456789abcdef0123 --out my_ticket")
def share(
    ticket: Annotated[str, typer.Argument(help="the id of a transfer whose weights were kept")],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    push: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="upload it to the Hugging Face hub, too")
    ] = None,
) -> None:
    """Write a ticket as a folder: weights and mask, and a card that says what it is."""
    from dwlt_lib.report import model_card

    with refusing((KeyError, ValueError)):
        folder = model_card.share(ticket, out, push)
        say(f"{folder}: README.md says how to load it")
        if push:
            say(model_card.push(folder, push))


@app.command(epilog="Example: dwlt bench --task at --task pgd20 --size 32 --json speed.json")
def bench(
    device: Annotated[Device, typer.Option(help="where to measure")] = "auto",
    task: Annotated[
        list[str],
        typer.Option(help="at, st, pgd20, surface, decode or inference; may be repeated"),
    ] = ["at", "st", "pgd20"],
    network: Annotated[list[str], typer.Option(help="an architecture; may be repeated")] = [
        "resnet20"
    ],
    size: Annotated[
        list[int], typer.Option(min=8, max=1024, help="side of images in pixels; may be repeated")
    ] = [32],
    batch: Annotated[int, typer.Option(min=2, help="images per step")] = 128,
    ticket: Annotated[
        list[str],
        typer.Option(
            help="of inference: as load_ticket takes it (left out: the committed one);"
            " may be repeated"
        ),
    ] = [],
    seconds: Annotated[float, typer.Option(min=1, help="for each table")] = 60,
    json: Annotated[Path | None, typer.Option(help="write the tables to this file, too")] = None,
) -> None:
    """Time this code's steps beside the authors' on this machine."""
    from dwlt_lib import files
    from dwlt_lib.benchmarks import bench, inference
    from dwlt_lib.execution.devices import resolve_device
    from dwlt_lib.models.architectures import ARCHITECTURES
    from dwlt_lib.records import store

    choices = {"--task": (task, bench.TASKS), "--network": (network, ARCHITECTURES)}
    for option, (asked, known) in choices.items():
        if unknown := set(asked) - set(known):
            refuse(f"{option} {unknown.pop()}: want one of {', '.join(known)}")
    if ticket and "inference" not in task:
        refuse(f"--ticket {ticket[0]}: nothing times it; want --task inference, too")
    if json is not None:
        with refusing(option="--json"):
            if json.exists():
                files.regular(json)
        files.check(json.absolute().parent)
    with refusing():
        where, cases = resolve_device(device), []
        if "inference" in task:
            paths = ticket or [store.checkout() / "outputs" / "reference" / "ticket"]
            cases = [inference.read_case(path, where) for path in paths]
    tables = bench.bench(where, task, network, size, batch, seconds, say, cases)
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
