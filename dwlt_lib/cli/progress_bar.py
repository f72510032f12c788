"""The bar of a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def advance(bar: tqdm) -> Callable[[int, int | None], None]:
    """A callback that shows a download's progress on a bar.

    Args:
        bar: in bytes.

    Returns:
        A function of the bytes so far, and of all bytes (None if they are not known).
    """

    def progress(done: int, whole: int | None) -> None:
        bar.reset(whole)
        bar.update(done)

    return progress
