"""Theorems on archives: what is unpacked lies inside its folder and is whole, or it is one line."""

import hashlib
import io
import shutil
import stat
import tarfile
import zipfile
from types import SimpleNamespace

import pytest
from small_files import member, one_line, tar

from dwlt_lib.data import downloads

GOOD = member("set", tarfile.DIRTYPE), member("set/a.txt"), member("set/deep/b.txt", size=3000)


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(archive, *words):
    """The archive is refused in one line, and leaves nothing in `box/into` nor beside it."""
    folder = archive.parent / "box" / "into"
    with pytest.raises(ValueError) as error:
        downloads.unpack(archive, folder, "set")
    one_line(error, archive.name, *words)
    assert everything(archive.parent) == [archive.name, "box", "box/into"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_good_tar_is_unpacked_whole(tmp_path, mode):
    top = downloads.unpack(tar(tmp_path / "a.tar", *GOOD, mode=mode), tmp_path / "into", "set")
    assert top == tmp_path / "into" / "set"
    assert everything(tmp_path / "into") == ["set", "set/a.txt", "set/deep", "set/deep/b.txt"]
    assert (tmp_path / "into/set/deep/b.txt").read_bytes() == b"x" * 3000


HOSTILE = {
    "climbing": member("../canary"),
    "climbing deep": member("set/../../canary"),
    "a soft link": member("set/link", tarfile.SYMTYPE, link="../.."),
    "an absolute link": member("set/link", tarfile.SYMTYPE, link="/etc"),
    "a hard link": member("set/link", tarfile.LNKTYPE, link="/etc/passwd"),
    "a device": member("set/null", tarfile.CHRTYPE),
    "a disk": member("set/disk", tarfile.BLKTYPE),
    "a pipe": member("set/pipe", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_hostile_tar_writes_nothing_at_all(tmp_path, what, place):
    members = (HOSTILE[what], *GOOD) if place == "first" else (*GOOD, HOSTILE[what])
    refused(tar(tmp_path / "a.tgz", *members), "nothing was")


def test_a_link_cannot_lend_its_place_to_a_later_file(tmp_path):
    link = member("set", tarfile.SYMTYPE, link=str(tmp_path))
    refused(tar(tmp_path / "a.tar", link, member("set/canary")))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "tar"])
def test_a_bomb_is_refused_by_what_it_would_unpack_to(tmp_path, zipped, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    if zipped:
        archive = zip_file(tmp_path / "a.zip", ["set/a", "set/b"])
    else:
        archive = tar(tmp_path / "a.tgz", member("set/a", size=3000), member("set/b", size=3000))
    refused(archive, "6,000 bytes, 5,000 are free")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_a_truncated_archive_is_one_line_and_leaves_nothing(tmp_path, mode, share):
    content = hashlib.shake_128(b"noise").digest(400_000)  # does not compress
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, mode) as opened:
        for name in ("set/a.bin", "set/b.bin"):
            opened.addfile(member(name, size=len(content)), io.BytesIO(content))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    refused(archive, "get it anew")


@pytest.mark.parametrize("content", [b"hello", b"", tarfile.NUL * 10_240])
def test_what_is_no_archive_or_an_empty_one_is_one_line(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    refused(tmp_path / "archive")


def test_what_is_there_already_is_not_touched(tmp_path):
    archive = tar(tmp_path / "a.tar", *GOOD)
    (tmp_path / "into" / "set").mkdir(parents=True)
    (tmp_path / "into" / "set" / "mine").write_text("mine")
    with pytest.raises(ValueError) as error:
        downloads.unpack(archive, tmp_path / "into", "set")
    one_line(error, "is there already")
    assert everything(tmp_path / "into") == ["set", "set/mine"]


def zip_file(path, names, mode=stat.S_IFREG):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"" if name.endswith("/") else b"x" * 3000)
    return path


def test_a_good_zip_is_unpacked_as_a_tar_is_and_what_is_not_wanted_stays_in_it(tmp_path):
    archive = zip_file(tmp_path / "a.zip", ["set/", "set/a.txt", "set/deep/b.txt", "readme.txt"])
    downloads.unpack(archive, tmp_path / "into", "set")
    assert everything(tmp_path / "into") == ["set", "set/a.txt", "set/deep", "set/deep/b.txt"]
    downloads.unpack(archive, tmp_path / "part", "set/deep")
    assert everything(tmp_path / "part") == ["set", "set/deep", "set/deep/b.txt"]
    downloads.unpack(archive, tmp_path / "part", "set/a.txt")  # into a folder that is there
    assert (tmp_path / "part/set/a.txt").read_bytes() == b"x" * 3000


@pytest.mark.parametrize("name", ["../canary", "/tmp/canary-of-dwlt", "set/../../canary"])
def test_a_zip_writes_nothing_outside_its_folder(tmp_path, name):
    archive = zip_file(tmp_path / "a.zip", ["set/a", name])
    downloads.unpack(archive, tmp_path / "box" / "into", "set")
    assert set(everything(tmp_path)) <= {
        *("a.zip", "box", "box/into", "box/into/set", "box/into/set/a", "box/into/set/canary")
    }


def test_a_link_in_a_zip_is_no_link_on_the_disk(tmp_path):
    top = downloads.unpack(zip_file(tmp_path / "a.zip", ["set/a"], stat.S_IFLNK), tmp_path, "set")
    assert not (top / "a").is_symlink()


def test_another_a_truncated_or_a_damaged_zip_is_one_line_and_leaves_nothing(tmp_path):
    archive = zip_file(tmp_path / "a.zip", ["set/a", "set/b"])
    whole = archive.read_bytes()
    damaged = whole.replace(b"set/a", b"set/c", 1)  # its own header and the list differ
    for content in (whole[: len(whole) // 2], damaged, whole.replace(b"set", b"let")):
        archive.write_bytes(content)
        refused(archive, "get it anew")
