"""What a run shows on a terminal: a bar, and a line per job at work; elsewhere plain lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import RenderableType

Say = Callable[[str], None]
"""Prints a line that stays."""


class Progress(NamedTuple):
    """How far a run has come."""

    done: int
    """Records that were made, by whoever."""
    wanted: int
    """Records that were missing when it began."""
    share: float
    """Of the arithmetic, in [0, 1]."""
    clock: str
    """Time gone and time left, in words."""
    running: list[tuple[str, str]]
    """For every job at work what it is making, and how far that is."""
    failed: list[str] = []
    """For every job that failed what it was making, and why."""


Show = Callable[[Progress], None]
"""Replaces what is shown."""


@contextmanager
def display(say: Say) -> Iterator[tuple[Say, Show | None]]:
    """On a terminal a display at the bottom, above which lines scroll; it goes with the block.

    Args:
        say: prints a line where stdout is no terminal.

    Yields:
        What prints a line, and what replaces the display; None where there is none.
    """
    if not sys.stdout.isatty():
        yield say, None
        return
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield (
            lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
            lambda progress: live.update(rendered(progress), refresh=True),
        )


def rendered(progress: Progress) -> RenderableType:
    """The display: a bar, and below it a line per job; what failed stays, in red.

    Args:
        progress: what to show.

    Returns:
        What rich prints, no wider than the terminal.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(padding=(0, 1))
    count = f"{progress.done}/{progress.wanted} records"
    bar.add_row(ProgressBar(1.0, progress.share, width=30), count, progress.clock)
    jobs = Table.grid(padding=(0, 2), expand=True)
    jobs.add_column(no_wrap=True, overflow="ellipsis", ratio=1)  # the state is short, and whole
    jobs.add_column(no_wrap=True, style="dim")
    for what, state in progress.running:
        jobs.add_row(f"  {what}", state)
    for line in progress.failed:
        jobs.add_row(Text(f"  failed: {line}", "red"))
    return Group(bar, jobs)
