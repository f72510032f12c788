"""Double-Win Lottery Tickets: how far can a network be pruned and still transfer, and be robust?

A folder is one concept, and is imported when it is first used: `import dwlt_lib` costs nothing.

    import dwlt_lib as dwlt

    table = dwlt.records.table("transfer", study="tour_full")   # a study that comes with the code
    dwlt.analysis.verdict(table)                                # which of its tickets win twice

    m = dwlt.pruning.dense_mask(model)                          # of any network's convolutions
"""

import lazy_loader

_folder, _folders, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """A folder on its first use, or __version__ ("0+unknown" where nothing is installed)."""
    if name != "__version__":
        return _folder(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("double-win-lottery-tickets")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return [*_folders(), "__version__"]
