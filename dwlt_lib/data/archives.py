"""Archives are unpacked whole or not at all, and nothing outside the folder."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

from dwlt_lib import files


def unpack(archive: Path, folder: Path, product: str) -> Path:
    """Unpack one entry of a tar (plain, gz, bz2, xz) or zip archive into a folder.

    It is unpacked into a scratch folder, and the entry is moved from there once it is whole; what
    is in the folder already is not touched. The standard library's filters keep all inside the
    scratch folder: a tar with a link, device or name that leads out of it is refused, a zip's names
    are stripped of what does (PEP 706, `zipfile.ZipFile.extract`).

    Args:
        archive: the file.
        folder: where to unpack it; made if it does not exist.
        product: the folder or file in the archive that is wanted, as in "GTSRB/Training".

    Returns:
        `product` in the folder.

    Raises:
        ValueError: one line: it is no whole archive, holds no `product` or what has no place in
            one, or unpacks to more than the disk has room for.
    """
    wanted = folder / product
    if wanted.exists():
        raise ValueError(f"{wanted} is there already; remove it to unpack {archive.name} anew")
    folder.mkdir(parents=True, exist_ok=True)
    files.collect(folder)
    scratch = files.scratch(folder / "unpacked")
    try:
        _extract(archive, scratch)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / product, wanted)
    except Exception as error:  # damaged archives fail in many ways
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"{archive}: {product} cannot be unpacked from it ({reason}); nothing was; get it anew"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return wanted


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            _check_room(sum(member.file_size for member in opened.infolist()), folder.parent)
            opened.extractall(folder)
    else:
        with tarfile.open(archive) as opened:
            _check_room(sum(member.size for member in opened), folder.parent)
            opened.extractall(folder, filter="data")


def _check_room(size: int, folder: Path) -> None:
    """Refuse more bytes than are free where a folder is, which bounds what an archive claims."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"it unpacks to {size:,} bytes, {free:,} are free")
