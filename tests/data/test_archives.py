"""Theorems on archives: what is unpacked lies inside its folder and is whole, or it is one line."""

import hashlib
import io
import stat
import tarfile
import zipfile

import pytest
from small_files import member, one_line, tar

from dwlt_lib.data import archives

LIMIT = ("set", 50, 10_000_000)


GOOD = member("set", tarfile.DIRTYPE), member("set/a.txt"), member("set/deep/b.txt", size=3000)


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_good_tar_is_unpacked_whole(tmp_path, mode):
    top = archives.unpack(tar(tmp_path / "a.tar", *GOOD, mode=mode), tmp_path / "into", *LIMIT)
    assert top == tmp_path / "into" / "set"
    assert everything(tmp_path / "into") == ["set", "set/a.txt", "set/deep", "set/deep/b.txt"]
    assert (tmp_path / "into/set/deep/b.txt").read_bytes() == b"x" * 3000


HOSTILE = {
    "climbing": member("../canary"),
    "climbing deep": member("set/../../canary"),
    "absolute": member("/tmp/canary-of-dwlt"),
    "a soft link": member("set/link", tarfile.SYMTYPE, link="../.."),
    "a link to inside": member("set/link", tarfile.SYMTYPE, link="a.txt"),
    "a hard link": member("set/link", tarfile.LNKTYPE, link="/etc/passwd"),
    "a device": member("set/null", tarfile.CHRTYPE),
    "a disk": member("set/disk", tarfile.BLKTYPE),
    "a pipe": member("set/pipe", tarfile.FIFOTYPE),
    "a drive": member("C:/canary"),
    "a backslash": member("..\\canary"),
    "a line break": member("set/a\nb"),
    "too large": member("big", size=10_000_001),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_hostile_tar_writes_nothing_at_all(tmp_path, what, place):
    members = (HOSTILE[what], *GOOD) if place == "first" else (*GOOD, HOSTILE[what])
    archive = tar(tmp_path / "a.tgz", *members)
    (tmp_path / "box" / "into").mkdir(parents=True)
    with pytest.raises(ValueError) as error:
        archives.unpack(archive, tmp_path / "box" / "into", *LIMIT)
    one_line(error, "a.tgz", "nothing was unpacked")
    assert everything(tmp_path) == ["a.tgz", "box", "box/into"]


def test_a_link_cannot_lend_its_place_to_a_later_file(tmp_path):
    archive = tar(
        tmp_path / "a.tar", member("set", tarfile.SYMTYPE, link=str(tmp_path)), member("set/canary")
    )
    with pytest.raises(ValueError):
        archives.unpack(archive, tmp_path / "into", *LIMIT)
    assert everything(tmp_path) == ["a.tar"]


def test_a_bomb_is_refused_by_what_it_would_unpack_to(tmp_path):
    large = tar(
        tmp_path / "large.tgz", member("set/a", size=6_000_000), member("set/b", size=6_000_000)
    )
    many = tar(tmp_path / "many.tgz", *(member(f"set/{i}") for i in range(51)))
    for archive in (large, many):
        with pytest.raises(ValueError) as error:
            archives.unpack(archive, tmp_path / "into", *LIMIT)
        one_line(error, archive.name, "more than 50 files or 10,000,000 bytes")
    assert not (tmp_path / "into").exists()


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
    with pytest.raises(ValueError) as error:
        archives.unpack(archive, tmp_path / "into", *LIMIT)
    one_line(error, archive.name, "truncated", "get it anew")
    assert not (tmp_path / "into").exists() or everything(tmp_path / "into") == []


def test_what_is_no_archive_empty_or_missing_is_one_line(tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "void").write_bytes(b"")
    tar(tmp_path / "empty.tar", mode="w")
    for name in ("text", "void", "empty.tar", "nowhere"):
        with pytest.raises(ValueError) as error:
            archives.unpack(tmp_path / name, tmp_path / "into", *LIMIT)
        one_line(error, name)
    assert not (tmp_path / "into").exists()


def test_what_is_there_already_is_not_touched(tmp_path):
    archive = tar(tmp_path / "a.tar", *GOOD)
    (tmp_path / "into" / "set").mkdir(parents=True)
    (tmp_path / "into" / "set" / "mine").write_text("mine")
    with pytest.raises(ValueError) as error:
        archives.unpack(archive, tmp_path / "into", *LIMIT)
    one_line(error, "is there already")
    assert everything(tmp_path / "into") == ["set", "set/mine"]


def zipped(path, names, mode=stat.S_IFREG):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"" if name.endswith("/") else b"x" * 3000)
    return path


def test_a_good_zip_is_unpacked_as_a_tar_is_and_what_is_not_wanted_stays_in_it(tmp_path):
    archive = zipped(tmp_path / "a.zip", ["set/", "set/a.txt", "set/deep/b.txt", "readme.txt"])
    archives.unpack(archive, tmp_path / "into", *LIMIT)
    assert everything(tmp_path / "into") == ["set", "set/a.txt", "set/deep", "set/deep/b.txt"]
    archives.unpack(archive, tmp_path / "part", "set/deep", *LIMIT[1:])
    assert everything(tmp_path / "part") == ["set", "set/deep", "set/deep/b.txt"]
    archives.unpack(
        archive, tmp_path / "part", "set/a.txt", *LIMIT[1:]
    )  # into a folder that is there
    assert (tmp_path / "part/set/a.txt").read_bytes() == b"x" * 3000


@pytest.mark.parametrize(
    "names, mode, words",
    [
        (["set/a", "../canary"], stat.S_IFREG, ("outside",)),
        (["set/a", "/tmp/canary-of-dwlt"], stat.S_IFREG, ("outside",)),
        (["set/a"], stat.S_IFLNK, ("a link",)),
        ([f"set/{i}" for i in range(51)], stat.S_IFREG, ("more than 50",)),
        (["other/a"], stat.S_IFREG, ("holds no set", "anew")),
    ],
)
def test_a_hostile_or_another_zip_writes_nothing_at_all(tmp_path, names, mode, words):
    archive = zipped(tmp_path / "a.zip", names, mode)
    with pytest.raises(ValueError) as error:
        archives.unpack(archive, tmp_path / "box" / "into", *LIMIT)
    one_line(error, "a.zip", *words)
    assert everything(tmp_path) == ["a.zip"]


def test_a_truncated_or_damaged_zip_is_one_line_and_leaves_nothing(tmp_path):
    archive = zipped(tmp_path / "a.zip", ["set/a", "set/b"])
    whole = archive.read_bytes()
    damaged = whole.replace(b"set/a", b"set/c", 1)  # its own header and the list differ
    for content in (whole[: len(whole) // 2], damaged):
        archive.write_bytes(content)
        with pytest.raises(ValueError) as error:
            archives.unpack(archive, tmp_path / "into", *LIMIT)
        one_line(error, "a.zip", "get it anew")
        assert not (tmp_path / "into").exists() or everything(tmp_path / "into") == []
