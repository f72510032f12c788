"""Where the catalogue's data sets come from, and how they get to DWLT_DATA when a user asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import archives, downloads
from dwlt_lib.data.downloads import Progress


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set."""

    name: str
    """Of the file as it is published"""
    unpacks_to: str = ""
    """What of it is unpacked, a folder or a file; "" for a file that is used as it is"""
    url: str = ""
    """Where it is downloaded from; "" where its user must get it"""
    sha256: str = ""
    """In hexadecimal; "" where it is not known"""
    max_files: int = 0
    """The most files that it may unpack to"""
    max_bytes: int = 0
    """The most bytes that it may unpack to"""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from."""

    page: str
    """The address of its page"""
    files: tuple[SourceFile, ...] = ()
    """Its files"""
    folder: str = ""
    """Where they belong and are unpacked, relative to DWLT_DATA"""
    instructions: str = ""
    """What its user does where a person must accept its terms; {folder} stands for that folder"""


_SVHN = "http://ufldl.stanford.edu/housenumbers"
_CIFAR = "https://www.cs.toronto.edu/~kriz"
_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_GB = 10**9

SOURCES: dict[str, Source] = {
    "cifar10": Source(
        f"{_CIFAR}/cifar.html",
        (
            SourceFile(
                "cifar-10-python.tar.gz",
                "cifar-10-batches-py",
                f"{_CIFAR}/cifar-10-python.tar.gz",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                max_files=20,
                max_bytes=_GB,
            ),
        ),
    ),
    "cifar100": Source(
        f"{_CIFAR}/cifar.html",
        (
            SourceFile(
                "cifar-100-python.tar.gz",
                "cifar-100-python",
                f"{_CIFAR}/cifar-100-python.tar.gz",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                max_files=20,
                max_bytes=_GB,
            ),
        ),
    ),
    "svhn": Source(
        _SVHN,
        (
            SourceFile(
                "train_32x32.mat",
                "",
                f"{_SVHN}/train_32x32.mat",
                "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            ),
            SourceFile(
                "test_32x32.mat",
                "",
                f"{_SVHN}/test_32x32.mat",
                "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            ),
        ),
    ),
    "tiny_imagenet": Source(
        "http://cs231n.stanford.edu",
        (
            SourceFile(
                "tiny-imagenet-200.zip",
                "tiny-imagenet-200",
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
                max_files=150_000,
                max_bytes=_GB,
            ),
        ),
    ),
    "gtsrb": Source(
        "https://benchmark.ini.rub.de",
        (
            SourceFile(
                "GTSRB-Training_fixed.zip",
                "GTSRB/Training",
                f"{_GTSRB}/GTSRB-Training_fixed.zip",
                "df4144942083645bd60b594de348aa6930126c3e0e5de09e39611630abf8455a",
                max_files=50_000,
                max_bytes=_GB,
            ),
            SourceFile(
                "GTSRB_Final_Test_Images.zip",
                "GTSRB/Final_Test",
                f"{_GTSRB}/GTSRB_Final_Test_Images.zip",
                "48ba6fab7e877eb64eaf8de99035b0aaecfbc279bee23e35deca4ac1d0a837fa",
                max_files=50_000,
                max_bytes=_GB,
            ),
            SourceFile(
                "GTSRB_Final_Test_GT.zip",
                "GT-final_test.csv",
                f"{_GTSRB}/GTSRB_Final_Test_GT.zip",
                "f94e5a7614d75845c74c04ddb26b8796b9e483f43541dd95dd5b726504e16d6d",
                max_files=10,
                max_bytes=_GB,
            ),
        ),
        folder="gtsrb",
    ),
    "fashion_mnist": Source(
        "https://github.com/zalandoresearch/fashion-mnist",
        tuple(
            SourceFile(name, "", f"{_FASHION}/{name}", sha256)
            for name, sha256 in (
                (
                    "train-images-idx3-ubyte.gz",
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                (
                    "train-labels-idx1-ubyte.gz",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                (
                    "t10k-images-idx3-ubyte.gz",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                (
                    "t10k-labels-idx1-ubyte.gz",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            )
        ),
        folder="FashionMNIST/raw",
    ),
    "cub200": Source(
        "https://data.caltech.edu/records/65de6-vp158",
        (
            SourceFile(
                "CUB_200_2011.tgz",
                "CUB_200_2011",
                sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
                max_files=100_000,
                max_bytes=5 * _GB,
            ),
        ),
        instructions=(
            "put CUB_200_2011.tgz into {folder}, and run dwlt data fetch cub200, which "
            "checks and unpacks it"
        ),
    ),
    "visda17": Source(
        "http://ai.bu.edu/visda-2017",
        (
            SourceFile("train.tar", "train", max_files=200_000, max_bytes=50 * _GB),
            SourceFile("validation.tar", "validation", max_files=100_000, max_bytes=20 * _GB),
        ),
        folder="visda17",
        instructions=(
            "put train.tar and validation.tar of the classification task into {folder}, and run"
            " dwlt data fetch visda17, which unpacks them"
        ),
    ),
    "imagenet": Source(
        "https://image-net.org/download.php",
        folder="imagenet",
        instructions=(
            "ask there for ILSVRC 2012, classification, and lay its images out as "
            "{folder}/train/CLASS/*.JPEG and {folder}/val/CLASS/*.JPEG, CLASS being n01440764 and "
            "so on (extract_ILSVRC.sh of PyTorch's examples does it)"
        ),
    ),
}


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
        if file.url:
            report(f"{name}: {file.url}")
            downloads.download(file.url, path, file.sha256, progress)
        elif not path.exists():
            is_complete = False
            continue
        elif file.sha256:
            archives.check_sha256(path, file.sha256)
        if file.unpacks_to:
            archives.unpack(path, folder, file.unpacks_to, file.max_files, file.max_bytes)
        report(f"{name}: {product} is there now")
    if not is_complete:
        report(f"{name}: {advice(name, root)}")
    return is_complete
