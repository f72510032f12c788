"""Official checkpoints of theta_p: where they are published, with which hash, and fetching them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dwlt_lib.config.datasets import data_root
from dwlt_lib.data.downloads import DownloadError, Progress, download

_MICROSOFT = (
    "https://huggingface.co/madrylab/robust-imagenet-models/resolve/main/resnet50_linf_eps{}.ckpt"
)
_MADRY = "https://www.dropbox.com/s/{}?dl=1"
_DRIVE = "https://drive.google.com/open?id=1W2zGHyxTPgHhWln1kpHK5h-HY9kwfKfl"


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A ResNet-50 trained on ImageNet."""

    source: str
    """For `dwlt weights import --as`."""
    file: str
    """Its name."""
    description: str
    """Who published it, its training and its accuracy, in a few words."""
    url: str | None = None
    """None if no program can fetch it."""
    sha256: str | None = None
    """None if nobody has stated it; it is recorded at the first download."""
    page: str | None = None
    """Where a person gets it, if no program can."""


# Microsoft's hashes are those of its mirror's pages; torchvision states the first 8 digits of its
# own in the file's name, and several who have the file state the rest alike. Neither MadryLab nor
# fast_adversarial states any.
OFFICIAL: dict[str, OfficialCheckpoint] = {
    "std": OfficialCheckpoint(
        "std",
        "resnet50-0676ba61.pth",
        "torchvision IMAGENET1K_V1, top-1 76.13 %",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    "at": OfficialCheckpoint(
        "at",
        "imagenet_linf_8.pt",
        "MadryLab, eps 8/255, the paper's footnote 5, top-1 47.91 %",
        _MADRY.format("yxn15a9zklz3s8q/imagenet_linf_8.pt"),
    ),
    "at-madry-linf4": OfficialCheckpoint(
        "at",
        "imagenet_linf_4.pt",
        "MadryLab, eps 4/255, top-1 62.42 %",
        _MADRY.format("axfuary2w1cnyrg/imagenet_linf_4.pt"),
    ),
    **{
        f"at-ms-eps{eps}": OfficialCheckpoint(
            "at",
            f"resnet50_linf_eps{eps}.0.ckpt".replace("0.5.0", "0.5"),
            f"Microsoft, eps {eps}/255, top-1 {top} %",
            _MICROSOFT.format(f"{float(eps):.1f}"),
            sha256,
        )
        for eps, top, sha256 in (
            ("0.5", "73.73", "9612d8096ef5378b4a32746072f72fedcb02c7ff4b747bc7163274f7ec2f0fd8"),
            ("1", "72.05", None),
            ("2", "69.10", "59f28de783a049cb4d91ba1c0a09c314db2cc4bb1e859566e023f842b02772ac"),
            ("4", "63.86", "9e62216975c111b8081481533b6142dec34be69abe5d90b54d7f860015c263db"),
            ("8", "54.53", "b907957f8e3ce209816813d8811c682e965a1b0f48455def828d35a4cc2953dc"),
        )
    },
    "fat": OfficialCheckpoint(
        "fat",
        "imagenet_model_weights_4px.pth.tar",
        "fast_adversarial, 4/255, top-1 55.62 %",
        page=_DRIVE,
    ),
    "fat-2px": OfficialCheckpoint(
        "fat", "imagenet_model_weights_2px.pth.tar", "fast_adversarial, 2/255", page=_DRIVE
    ),
}


def fetch(
    name: str, folder: Path | None = None, progress: Progress | None = None
) -> tuple[Path, str]:
    """An official checkpoint on the disk, downloaded if it is not there yet (98 to 205 MB).

    Args:
        name: one of `OFFICIAL`.
        folder: where it belongs; left out, DWLT_DATA/weights.
        progress: called while it is downloaded (`data.downloads`).

    Returns:
        Its path and its sha256.

    Raises:
        DownloadError: one line: no network, a file that only a person can get, or another hash than
            it must have.
    """
    checkpoint = OFFICIAL[name]
    path = (folder or data_root() / "weights") / checkpoint.file
    if checkpoint.url is None and not path.exists():
        raise DownloadError(
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
        f" {data_root() / 'weights' / checkpoint.file} --as {checkpoint.source} --out {out}"
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
        known = "stated nowhere that we know: noted now, checked from now on"
    return (
        f"{path}: {checkpoint.description}\nsha256 {sha256} ({known})\nnext: dwlt weights import"
        f" {path} --as {checkpoint.source} --out {path.with_name(name)}.safetensors"
    )
