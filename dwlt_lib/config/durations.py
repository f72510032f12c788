"""Durations as people write them: 90s, 9m, 2h."""

from __future__ import annotations

import re

UNITS = {"s": 1, "m": 60, "h": 3600}  # seconds


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
