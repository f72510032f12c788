"""Where the official checkpoints of theta_p lie, and their hashes where their publishers or others
have stated them.
"""

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

# Microsoft's hashes are those of its mirror's pages; torchvision states the first 8 digits of its
# own, in the file's
# name, and several who have the file state the rest alike. Neither MadryLab nor fast_adversarial
# states any.


@dataclass(frozen=True)
class Official:
    """A ResNet-50 on ImageNet. source: for --as; page.

    Where a person gets it, if no program can.
    """

    source: str
    file: str
    says: str
    url: str | None = None
    sha256: str | None = None  # None: not stated anywhere we know; noted at the first download
    page: str | None = None


OFFICIAL: dict[str, Official] = {
    "std": Official(
        "std",
        "resnet50-0676ba61.pth",
        "torchvision IMAGENET1K_V1, top-1 76.13 %",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    "at": Official(
        "at",
        "imagenet_linf_8.pt",
        "MadryLab, eps 8/255, the paper's footnote 5, top-1 47.91 %",
        _MADRY.format("yxn15a9zklz3s8q/imagenet_linf_8.pt"),
    ),
    "at-madry-linf4": Official(
        "at",
        "imagenet_linf_4.pt",
        "MadryLab, eps 4/255, top-1 62.42 %",
        _MADRY.format("axfuary2w1cnyrg/imagenet_linf_4.pt"),
    ),
    **{
        f"at-ms-eps{eps}": Official(
            "at",
            f"resnet50_linf_eps{eps}.0.ckpt".replace("0.5.0", "0.5"),
            f"Microsoft, eps {eps}/255, top-1 {top} %",
            _MICROSOFT.format(f"{float(eps):.1f}"),
            pin,
        )
        for eps, top, pin in (
            ("0.5", "73.73", "9612d8096ef5378b4a32746072f72fedcb02c7ff4b747bc7163274f7ec2f0fd8"),
            ("1", "72.05", None),
            ("2", "69.10", "59f28de783a049cb4d91ba1c0a09c314db2cc4bb1e859566e023f842b02772ac"),
            ("4", "63.86", "9e62216975c111b8081481533b6142dec34be69abe5d90b54d7f860015c263db"),
            ("8", "54.53", "b907957f8e3ce209816813d8811c682e965a1b0f48455def828d35a4cc2953dc"),
        )
    },
    "fat": Official(
        "fat",
        "imagenet_model_weights_4px.pth.tar",
        "fast_adversarial, 4/255, top-1 55.62 %",
        page=_DRIVE,
    ),
    "fat-2px": Official(
        "fat", "imagenet_model_weights_2px.pth.tar", "fast_adversarial, 2/255", page=_DRIVE
    ),
}


def fetch(
    name: str, folder: Path | None = None, progress: Progress | None = None
) -> tuple[Path, str]:
    """The official checkpoint of that name on disk, and its sha256; fetched if it is not there (98
    to 205 MB).

    folder: default weights/ under DWLT_DATA. Raises DownloadError, one line: no network, a file
    that only a person can get, or another hash than it must have.
    """
    found = OFFICIAL[name]
    target = (folder or data_root() / "weights") / found.file
    if found.url is None and not target.exists():
        raise DownloadError(
            f"weights {name}: its publishers have only a page for people, {found.page}; get"
            f" {found.file} there and put it at {target}"
        )
    return target, download(found.url or "", target, found.sha256, progress)


def remedy(name: str, out: Path) -> str:
    """The commands that bring an official checkpoint as the file `out`."""
    found = OFFICIAL[name]
    return (
        f"run: dwlt weights fetch {name} && dwlt weights import"
        f" {data_root() / 'weights' / found.file} --as {found.source} --out {out}"
    )


def describe(name: str, path: Path, sha256: str) -> str:
    """What was fetched, whether its hash was known beforehand, and how to go on; for a terminal."""
    found = OFFICIAL[name]
    known = (
        "as stated"
        if found.sha256
        else "stated nowhere that we know: noted now, checked from now on"
    )
    return (
        f"{path}: {found.says}\nsha256 {sha256} ({known})\nnext: dwlt weights import {path} --as"
        f" {found.source} --out {path.with_name(name)}.safetensors"
    )
