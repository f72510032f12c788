"""Double-Win Lottery Tickets: how far can a network be pruned and still transfer, and be robust?

A module is one concept, and is imported when it is first named: `import dwlt_lib` costs nothing.

    import dwlt_lib as dwlt

    table = dwlt.records.table("transfer", study="tour_full")   # a study that comes with the code
    dwlt.winning.verdict(table)                                 # which of its tickets win twice

    m = dwlt.masks.dense_mask(model)                            # of any network's convolutions
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from dwlt_lib.analysis import double_win, loss_landscape, mask_patterns
    from dwlt_lib.attacks import pgd
    from dwlt_lib.browser import app
    from dwlt_lib.config import datasets, parameters, specs, studies
    from dwlt_lib.data import loading
    from dwlt_lib.evaluation import accuracy
    from dwlt_lib.execution import make, progress
    from dwlt_lib.models import architectures
    from dwlt_lib.plotting import captions, figures, landscapes, style
    from dwlt_lib.pruning import imp, masks, ticket_files
    from dwlt_lib.records import store
    from dwlt_lib.tour import experiments, interactive
    from dwlt_lib.training import trainer

    __version__: str

__all__ = [
    "attacks",
    "catalogue",
    "data",
    "evaluation",
    "landscape",
    "make",
    "masks",
    "models",
    "parameters",
    "planes",
    "play",
    "plots",
    "progress",
    "records",
    "specs",
    "structure",
    "studies",
    "style",
    "tickets",
    "tour",
    "training",
    "weights",
    "widgets",
    "winning",
    "words",
]


def __getattr__(name: str) -> object:
    """A public module on its first use, or __version__ ("0+unknown" where nothing is installed)."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("double-win-lottery-tickets")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"} - {"import_module", "TYPE_CHECKING"})
