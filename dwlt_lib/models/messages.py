"""Text of error messages about files: foreign text made printable, long lists cut short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def printable(text: str, max_length: int = 100) -> str:
    """Text out of a foreign file, fit for one line of a terminal.

    Args:
        text: anything, terminal codes included.
        max_length: of the result, in characters, before the dots that mark a cut.

    Returns:
        ASCII without line breaks.
    """
    escaped = ascii(text[: max_length + 1])[1:-1]
    return escaped if len(escaped) <= max_length else escaped[:max_length] + "..."


def first_names(names: Sequence[str]) -> str:
    """The first three names, and how many more there are.

    Args:
        names: of tensors.

    Returns:
        For example "a, b, c and 4 more".
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def describe_differences(actual: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """What tells two mappings of names to shapes apart.

    Args:
        actual: a shape by name, as a file has them.
        expected: a shape by name, as they should be.

    Returns:
        The names that are missing, extra or misshapen; empty if the mappings are equal.
    """
    differences = {
        "missing": [name for name in expected if name not in actual],
        "extra": [printable(name) for name in actual if name not in expected],
        "misshapen": [
            f"{name} {actual[name]} instead of {shape}"
            for name, shape in expected.items()
            if actual.get(name, shape) != shape
        ],
    }
    return "; ".join(
        f"{kind}: {first_names(names)}" for kind, names in differences.items() if names
    )
