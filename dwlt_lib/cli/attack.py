"""The command `dwlt attack`."""

from __future__ import annotations

from typing import Annotated

import typer

from dwlt_lib.cli.options import Device, Params
from dwlt_lib.cli.refusal import refusing
from dwlt_lib.cli.results import read_study

app = typer.Typer()


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
    from dwlt_lib.execution.preflight import check_inputs
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
