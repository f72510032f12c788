"""Official checkpoints of theta_p: where they are published, with which hash, and fetching them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from dwlt_lib.config.datasets import data_root
from dwlt_lib.data.downloads import Progress, download


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A network trained on ImageNet."""

    source: str
    """For `dwlt weights import --as`."""
    file: str
    """Its name."""
    description: str
    """Who published it, its training and its accuracy, in a few words."""
    url: str | None = None
    """None if no program can fetch it."""
    sha256: str | None = None
    """None if nobody has stated it."""
    page: str | None = None
    """Where a person gets it, if no program can."""
    arch: str = "resnet50"
    """The network, as `models.build` takes it."""

    @property
    def options(self) -> str:
        """What `dwlt weights import` is to be told of it."""
        network = "" if self.arch == "resnet50" else f" --arch '{self.arch}'"
        return f"--as {self.source}{network}"


OFFICIAL = {
    name: OfficialCheckpoint(**about)
    for name, about in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_bytes()).items()
}
"""By the name that `dwlt weights fetch` takes."""


def fetch(name: str, progress: Progress | None = None) -> tuple[Path, str]:
    """An official checkpoint in DWLT_DATA/weights, downloaded if it is not there (83 to 791 MB).

    Args:
        name: one of `OFFICIAL`.
        progress: called while it is downloaded (`data.downloads`).

    Returns:
        Its path and its sha256.

    Raises:
        ValueError: one line: no network, a file that only a person can get, or another hash than
            it must have.
    """
    checkpoint = OFFICIAL[name]
    path = data_root() / "weights" / checkpoint.file
    if checkpoint.url is None and not path.exists():
        raise ValueError(
            f"weights {name}: its publishers have only a page for people, {checkpoint.page}; get"
            f" {checkpoint.file} there and put it at {path}"
        )
    return path, download(checkpoint.url or "", path, checkpoint.sha256, progress)


def commands(name: str, out: Path) -> str:
    """The shell commands that fetch an official checkpoint and import it.

    Args:
        name: one of `OFFICIAL`.
        out: the safetensors file to write.

    Returns:
        One line, joined by &&.
    """
    checkpoint = OFFICIAL[name]
    return (
        f"dwlt weights fetch {name} && dwlt weights import"
        f" {data_root() / 'weights' / checkpoint.file} {checkpoint.options} --out {out}"
    )


def describe(name: str, path: Path, sha256: str) -> str:
    """What was fetched, whether its hash was known before, and how to go on; for a terminal.

    Args:
        name: one of `OFFICIAL`.
        path: of the file.
        sha256: of the file.

    Returns:
        Three lines.
    """
    checkpoint = OFFICIAL[name]
    known = "as stated"
    if checkpoint.sha256 is None:
        known = "stated nowhere that we know"
    return (
        f"{path}: {checkpoint.description}\nsha256 {sha256} ({known})\nnext: dwlt weights import"
        f" {path} {checkpoint.options} --out {path.with_name(name)}.safetensors"
    )
