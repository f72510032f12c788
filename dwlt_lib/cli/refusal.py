"""Bad input, as every command answers it."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer


def refuse(line: str) -> NoReturn:
    """Bad input: one line, exit status 2, nothing started."""
    print(f"dwlt: {' '.join(line.split())}", file=sys.stderr)
    raise typer.Exit(2)
