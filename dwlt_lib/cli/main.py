"""The command `dwlt`: its commands, how it ends, and what it prints on."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dwlt_lib.cli import browse, inputs, results, run
from dwlt_lib.cli.common import refuse, warn

INTERRUPTED = "interrupted; the same command goes on from here"
RESUMABLE = 75  # exit status: stopped by a signal or the budget
DEAF = 5.0  # seconds after an interrupt during which another is ignored, so that it can clean up

# an empty line between two, since help joins the lines of a paragraph
EXAMPLES = """Examples:

dwlt run params/tour.yaml --budget 9m

dwlt verdict params/tour.yaml

dwlt browse --study tour_full"""


class Commands(TyperGroup):
    """All commands; an interrupt, a full disk and the like end each in one line."""

    def invoke(self, ctx: Any) -> object:  # a Context of the click inside typer
        """Run the command.

        Args:
            ctx: the call's context, of the click inside typer.

        Returns:
            What the command returned, mostly None.

        Raises:
            Exit: with status 75 after an interrupt, 2 where a place cannot be used, 1 where files
                could not be written.
        """
        from dwlt_lib import files

        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            warn(INTERRUPTED)
            raise typer.Exit(RESUMABLE) from None
        except BrokenPipeError:  # whoever read the output has gone, so nothing is said
            _discard_output()
            raise typer.Exit(RESUMABLE) from None
        except files.Unusable as error:
            refuse(str(error))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                refuse(f"{error.filename}: {error.strerror}; want a shorter path")
            full = files.is_full(error)
            if not full and error.filename is None:
                raise
            from dwlt_lib.records import store

            place = error.filename or store.outputs()
            warn(files.no_space(place) if full else f"{place}: {error.strerror}")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EXAMPLES,
    help="Double-win lottery tickets: run a study's parameter file, read its results.",
)
for commands in (run.app, results.app, inputs.keys, browse.app):
    app.add_typer(commands)
app.add_typer(inputs.weights, name="weights")
app.add_typer(inputs.data, name="data")


def _print_version(asked: bool) -> None:
    if asked:
        from dwlt_lib import __version__

        print(f"dwlt {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    """Options before a command."""


def main() -> None:
    """The entry point: all signals end a command alike, and it prints UTF-8 in every locale.

    Raises:
        SystemExit: with the command's exit status; 75 after an interrupt.
    """
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, _interrupt)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # before or after the command itself
        warn(INTERRUPTED)
        raise SystemExit(RESUMABLE) from None
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()


_last_interrupt = -DEAF  # time.monotonic()


def _interrupt(*_: object) -> None:
    """End the command as Ctrl-C does, but not again while it cleans up."""
    global _last_interrupt
    if time.monotonic() - _last_interrupt > DEAF:
        _last_interrupt = time.monotonic()
        raise KeyboardInterrupt


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
