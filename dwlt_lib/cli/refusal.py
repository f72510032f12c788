"""Bad input, as every command answers it: one line on stderr, exit status 2, nothing started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

BAD_INPUT = 2  # exit status


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
