"""Arguments and options that several commands take, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

UNITS = {"s": 1, "m": 60, "h": 3600}  # seconds


class Device(StrEnum):
    """Where to compute; auto: on the GPU if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Params = Annotated[Path, typer.Argument(help="a study's parameter file, such as params/tour.yaml")]


def parse_duration(text: str) -> float:
    """How long a duration is.

    Args:
        text: a number and a unit, such as 90s, 9m or 2h.

    Returns:
        Seconds.

    Raises:
        ValueError: the text is no such duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ValueError(f"{text!r}: want a time such as 90s, 9m or 2h")
    return float(match[1]) * UNITS[match[2]]


def split_commas(values: Iterable[str]) -> list[str]:
    """The values of an option that is repeated (`--task at --task st`) or has commas (`at,st`).

    Args:
        values: as typer gives them.

    Returns:
        One value each, without blanks around them.
    """
    return [part.strip() for value in values for part in value.split(",")]


def check_choices(option: str, values: Iterable[str], choices: Iterable[str]) -> None:
    """Refuse a value that is not among the choices.

    Args:
        option: its name in the error, such as "--task".
        values: that were given.
        choices: that there are.

    Raises:
        ValueError: one line, which names the first value that is no choice.
    """
    choices = list(choices)
    for value in values:
        if value not in choices:
            raise ValueError(f"{option} {value}: want of {', '.join(choices)}")
