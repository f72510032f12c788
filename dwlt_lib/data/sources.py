"""Where the catalogue's data sets come from, and how they get to DWLT_DATA when a user asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from dwlt_lib.config.datasets import CATALOGUE, Frozen, Sha256
from dwlt_lib.data import downloads
from dwlt_lib.data.downloads import Progress


class SourceFile(Frozen):
    """One file of a data set."""

    name: str
    """Of the file as it is published"""
    unpacks_to: str | None = None
    """What of it is unpacked, a folder or a file; None for a file that is used as it is"""
    url: str | None = None
    """Where it is downloaded from; None where its user must get it"""
    sha256: Sha256 | None = None
    """None where it is not known"""


class Source(Frozen):
    """Where a data set comes from."""

    page: str
    """The address of its page"""
    files: list[SourceFile] = []
    """Its files"""
    folder: str = ""
    """Where they belong and are unpacked, relative to DWLT_DATA"""
    instructions: str = ""
    """What its user does where a person must accept its terms; {folder} stands for that folder"""


SOURCES = {
    name: Source(**source)
    for name, source in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_bytes()).items()
}
"""By the data set's name; those of installed packages have none"""


def advice(name: str, root: Path) -> str:
    """How a data set of the catalogue gets to a folder.

    Args:
        name: of the data set.
        root: the folder for data, such as DWLT_DATA.

    Returns:
        One line.
    """
    source = SOURCES.get(name)
    if source is None:
        return "it comes with the installed packages"
    if source.instructions:
        return (
            f"its terms are for you to accept ({CATALOGUE[name].licence}) at {source.page}; "
            + source.instructions.format(folder=root / source.folder)
        )
    return f"dwlt data fetch {name} downloads it from {source.page}"


def fetch(
    name: str, root: Path, report: Callable[[str], None], progress: Progress | None = None
) -> bool:
    """Bring a data set of the catalogue to `root`: download what may be, check it, and unpack it.

    Args:
        name: of the data set.
        root: the folder for data, such as DWLT_DATA.
        report: is called with a line about each step.
        progress: as in `downloads.download`.

    Returns:
        Whether the data set is there now. It is not where a person must accept the terms and has
        not brought the files yet; then the last line reported says what to do.

    Raises:
        ValueError: one line, for a download that failed, another SHA-256 than the known one, and
            an archive that cannot be trusted.
    """
    source = SOURCES.get(name)
    if source is None or not source.files:
        report(f"{name}: {advice(name, root)}")
        return source is None
    folder, is_complete = root / source.folder, True
    for file in source.files:
        path, product = folder / file.name, folder / (file.unpacks_to or file.name)
        if product.exists():
            report(f"{name}: {product} is there; dwlt data check {name} says whether it is whole")
            continue
        if file.url is None and not path.exists():
            is_complete = False
            continue
        report(f"{name}: {file.url or path}")
        downloads.download(file.url or "", path, file.sha256, progress)
        if file.unpacks_to:
            downloads.unpack(path, folder, file.unpacks_to)
        report(f"{name}: {product} is there now")
    if not is_complete:
        report(f"{name}: {advice(name, root)}")
    return is_complete
