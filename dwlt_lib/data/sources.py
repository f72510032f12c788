"""Where the catalogue's data sets come from, and bringing them to DWLT_DATA when someone asks for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import archives, downloads
from dwlt_lib.data.downloads import Progress


@dataclass(frozen=True)
class Part:
    """One file of a data set. makes: what is there once it is in place, "" for the file itself;
    url: "" where it is for its user to get; sha256: "" where it is not known; limit: the most files
    and bytes that it may unpack to."""

    file: str
    makes: str = ""
    url: str = ""
    sha256: str = ""
    limit: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Source:
    """page: where to get it; parts: its files; folder: where they belong and unpack, beneath
    DWLT_DATA; by_hand: what its user does, where its terms ask to be accepted by a person."""

    page: str
    parts: tuple[Part, ...] = ()
    folder: str = ""
    by_hand: str = ""


_SVHN = "http://ufldl.stanford.edu/housenumbers"
_KRIZ = "https://www.cs.toronto.edu/~kriz"
GB = 10**9

SOURCES: dict[str, Source] = {
    "cifar10": Source(
        f"{_KRIZ}/cifar.html",
        (
            Part(
                "cifar-10-python.tar.gz",
                "cifar-10-batches-py",
                f"{_KRIZ}/cifar-10-python.tar.gz",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                (20, GB),
            ),
        ),
    ),
    "cifar100": Source(
        f"{_KRIZ}/cifar.html",
        (
            Part(
                "cifar-100-python.tar.gz",
                "cifar-100-python",
                f"{_KRIZ}/cifar-100-python.tar.gz",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                (20, GB),
            ),
        ),
    ),
    "svhn": Source(
        _SVHN,
        (
            Part(
                "train_32x32.mat",
                "",
                f"{_SVHN}/train_32x32.mat",
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            ),
            Part(
                "test_32x32.mat",
                "",
                f"{_SVHN}/test_32x32.mat",
                "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            ),
        ),
    ),
    "cub200": Source(
        "https://data.caltech.edu/records/65de6-vp158",
        (
            Part(
                "CUB_200_2011.tgz",
                "CUB_200_2011",
                limit=(100_000, 5 * GB),
                sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            ),
        ),
        by_hand=(
            "put CUB_200_2011.tgz into {folder}, and run dwlt data fetch cub200, which "
            "checks and unpacks it"
        ),
    ),
    "visda17": Source(
        "http://ai.bu.edu/visda-2017",
        (
            Part("train.tar", "train", limit=(200_000, 50 * GB)),
            Part("validation.tar", "validation", limit=(100_000, 20 * GB)),
        ),
        folder="visda17",
        by_hand=(
            "put train.tar and validation.tar of the classification task into {folder}, and run"
            " dwlt data fetch visda17, which unpacks them"
        ),
    ),
    "imagenet": Source(
        "https://image-net.org/download.php",
        folder="imagenet",
        by_hand=(
            "ask there for ILSVRC 2012, classification, and lay its images out as "
            "{folder}/train/CLASS/*.JPEG and {folder}/val/CLASS/*.JPEG, CLASS being n01440764 and "
            "so on (extract_ILSVRC.sh of PyTorch's examples does it)"
        ),
    ),
}


def advice(name: str, root: Path) -> str:
    """One line: how this data set of the catalogue gets to `root`."""
    source = SOURCES.get(name)
    if source is None:
        return "it comes with the installed packages"
    if source.by_hand:
        return (
            f"its terms are for you to accept ({CATALOGUE[name].licence}) at {source.page}; "
            + source.by_hand.format(folder=root / source.folder)
        )
    return f"dwlt data fetch {name} downloads it from {source.page}"


def fetch(
    name: str, root: Path, say: Callable[[str], None] = print, progress: Progress | None = None
) -> bool:
    """Bring a data set of the catalogue to `root`: download what may be downloaded, check, unpack.

    Returns False, and says what to do, where a person must accept the terms and has not brought the
    files yet. Raises ValueError, one line, for a failed download, a wrong hash, or an archive that
    cannot be trusted.
    """
    source = SOURCES.get(name)
    if source is None or not source.parts:
        say(f"{name}: {advice(name, root)}")
        return source is None
    folder, waiting = root / source.folder, False
    for part in source.parts:
        file = folder / part.file
        made = folder / (part.makes or part.file)
        if made.exists():
            say(f"{name}: {made} is there; dwlt data check {name} says whether it is whole")
            continue
        if part.url:
            say(f"{name}: {part.url}")
            downloads.download(part.url, file, part.sha256, progress)
        elif not file.exists():
            waiting = True
            continue
        elif part.sha256:
            archives.check(file, part.sha256)
        if part.makes:
            archives.unpack(file, folder, *part.limit)
        say(f"{name}: {made} is there now")
    if waiting:
        say(f"{name}: {advice(name, root)}")
    return not waiting
