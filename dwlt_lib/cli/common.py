"""What several commands share: arguments, bad input, lines of progress, downloads.

Bad input is answered by one line on stderr and exit status 2; nothing is started.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

BAD_INPUT = 2  # exit status

Device = Literal["auto", "cpu", "cuda"]
Params = Annotated[Path, typer.Argument(help="a study's parameter file, such as params/tour.yaml")]


def refuse(line: str) -> NoReturn:
    """Say what is wrong with the input and end the command.

    Args:
        line: the value, what was expected, the remedy.

    Raises:
        Exit: with status 2.
    """
    warn(line)
    raise typer.Exit(BAD_INPUT)


@contextmanager
def refusing(
    errors: type[Exception] | tuple[type[Exception], ...] = ValueError, option: str = ""
) -> Iterator[None]:
    """Refuse the input that the library raises an error about in this block.

    Args:
        errors: the classes of errors that are about input.
        option: the option whose value is read in the block; it is named in the line.

    Yields:
        Nothing.

    Raises:
        Exit: with status 2, if there was such an error.
    """
    try:
        yield
    except errors as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        refuse(f"{option} {message}")


def warn(line: str) -> None:
    """Print a message on stderr, as one line.

    Args:
        line: the message; breaks in it become blanks.
    """
    print(f"dwlt: {' '.join(line.split())}", file=sys.stderr)


def say(line: str) -> None:
    """Print a line at once, whoever reads it.

    Args:
        line: to print.
    """
    print(line, flush=True)


@contextmanager
def downloading(
    name: str,
) -> Iterator[tuple[Callable[[str], None], Callable[[int, int | None], None]]]:
    """A bar beside a download; one that fails ends the command in one line.

    Args:
        name: what is downloaded.

    Yields:
        A function that prints a line above the bar, and one of the bytes so far and of all bytes
        (None if they are not known) that moves it.

    Raises:
        Exit: with status 1, if the download failed.
    """
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, disable=None, desc=name) as bar:

        def advance(done: int, whole: int | None) -> None:
            bar.reset(whole)
            bar.update(done)

        try:
            yield bar.write, advance
        except (ValueError, OSError) as error:
            warn(str(error))
            raise typer.Exit(1) from error
