"""Theorems on archives.

What is unpacked lies inside, what is downloaded is whole, and all else is one line.
"""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import archives, sources

LIMIT = (50, 10_000_000)


def member(name, kind=tarfile.REGTYPE, size=5, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return info


def tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"x" * info.size) if info.isreg() else None)
    return path


def zipped(path, *entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, kind in entries:
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo mends some names
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, content)
    return path


GOOD = member("set", tarfile.DIRTYPE), member("set/a.txt"), member("set/deep/b.txt", size=3000)


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------
# unpacking


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_good_tar_is_unpacked_whole(tmp_path, mode):
    top = archives.unpack(tar(tmp_path / "a.tar", *GOOD, mode=mode), tmp_path / "into", *LIMIT)
    assert top == [tmp_path / "into" / "set"]
    assert everything(tmp_path / "into") == ["set", "set/a.txt", "set/deep", "set/deep/b.txt"]
    assert (tmp_path / "into/set/deep/b.txt").read_bytes() == b"x" * 3000


def test_a_good_zip_is_unpacked_whole(tmp_path):
    archives.unpack(
        zipped(tmp_path / "a.zip", ("set/a.txt", b"hello", stat.S_IFREG)), tmp_path / "into", *LIMIT
    )
    assert (tmp_path / "into/set/a.txt").read_bytes() == b"hello"


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


@pytest.mark.parametrize(
    "name, kind",
    [
        ("../canary", stat.S_IFREG),
        ("/tmp/canary-dwlt", stat.S_IFREG),
        ("set/link", stat.S_IFLNK),
        ("set/pipe", stat.S_IFIFO),
        ("..\\canary", stat.S_IFREG),
        ("C:\\canary", stat.S_IFREG),
    ],
)
def test_a_hostile_zip_writes_nothing_at_all(tmp_path, name, kind):
    archive = zipped(
        tmp_path / "a.zip", ("set/a.txt", b"hello", stat.S_IFREG), (name, b"/etc/passwd", kind)
    )
    with pytest.raises(ValueError) as error:
        archives.unpack(archive, tmp_path / "into", *LIMIT)
    one_line(error, "a.zip", "nothing was unpacked")
    assert everything(tmp_path) == ["a.zip"]


def test_a_bomb_is_refused_by_what_it_would_unpack_to(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/zeros", bytes(20_000_000))
    many = tar(tmp_path / "many.tgz", *(member(f"set/{i}") for i in range(51)))
    for archive in (tmp_path / "a.zip", many):
        with pytest.raises(ValueError) as error:
            archives.unpack(archive, tmp_path / "into", *LIMIT)
        one_line(error, archive.name, "more than 50 files or 10,000,000 bytes")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_a_truncated_archive_is_one_line_and_leaves_nothing(tmp_path, mode, share):
    content = hashlib.shake_128(b"noise").digest(400_000)  # does not compress
    if mode == "zip":
        archive = zipped(tmp_path / "a.zip", ("set/a.bin", content, stat.S_IFREG))
    else:
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


def test_a_damaged_zip_leaves_nothing(tmp_path):
    archive = zipped(tmp_path / "a.zip", ("set/a.txt", b"hello world", stat.S_IFREG))
    archive.write_bytes(archive.read_bytes().replace(b"hello", b"jello"))
    with pytest.raises(ValueError, match="a.zip"):
        archives.unpack(archive, tmp_path / "into", *LIMIT)
    assert everything(tmp_path / "into") == []


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


# ------------------------------------------------------------------------------------------
# downloading


CONTENT = hashlib.shake_128(b"a file").digest(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A server of CONTENT at /file (with ranges) and /plain (without).

    It hangs up early while `cut` is set.
    """

    class Handler(BaseHTTPRequestHandler):
        asked, cut = [], []

        def do_GET(self):
            self.asked.append(self.headers.get("Range"))
            body = {
                "/file": CONTENT,
                "/plain": CONTENT,
                "/page": b"<!DOCTYPE html><html>log in</html>",
            }.get(self.path)
            if body is None:
                return self.send_error(404)
            begin = 0
            if self.headers.get("Range") and self.path == "/file":
                begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if begin >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    return self.end_headers()
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body) - begin))
            self.end_headers()
            self.wfile.write(body[begin : begin + self.cut.pop() if self.cut else None])

        def log_message(self, *_):
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    found.url, found.asked, found.cut = (
        f"http://127.0.0.1:{found.server_port}",
        Handler.asked,
        Handler.cut,
    )
    yield found
    found.shutdown()
    found.server_close()


# ------------------------------------------------------------------------------------------ the
# catalogue's


def test_every_data_set_that_is_not_installed_has_a_source():
    assert set(sources.SOURCES) == {
        name for name, row in CATALOGUE.items() if row.loader != "embedded"
    }
    for source in sources.SOURCES.values():
        assert all(bool(file.url) != bool(source.instructions) for file in source.files)
        assert all(
            len(file.sha256) == 64 for file in source.files if file.url
        )  # what is downloaded is pinned


def served(server, monkeypatch, tmp_path, name="cifar10"):
    """The data set's source, pointed at an archive that the test's server has."""
    archive = tar(tmp_path / "made.tgz", member("cifar-10-batches-py/test_batch")).read_bytes()
    monkeypatch.setattr("test_archives.CONTENT", archive)
    part = sources.SourceFile(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        f"{server.url}/file",
        hashlib.sha256(archive).hexdigest(),
        max_files=20,
        max_bytes=10**9,
    )
    monkeypatch.setitem(sources.SOURCES, name, sources.Source("a page", (part,)))


def test_fetch_downloads_checks_unpacks_and_does_nothing_twice(server, monkeypatch, tmp_path):
    served(server, monkeypatch, tmp_path)
    for _ in range(2):
        assert sources.fetch("cifar10", tmp_path / "data", lambda line: None)
    assert (tmp_path / "data/cifar-10-batches-py/test_batch").read_bytes() == b"x" * 5 and len(
        server.asked
    ) == 1


def test_what_a_person_must_accept_is_not_fetched_but_unpacked_once_it_was_brought(
    tmp_path, monkeypatch
):
    lines = []
    assert not sources.fetch("visda17", tmp_path, lines.append)
    assert (
        "train.tar" in lines[-1] and "http" in lines[-1] and str(tmp_path / "visda17") in lines[-1]
    )
    (tmp_path / "visda17").mkdir()
    for split in ("train", "validation"):
        tar(tmp_path / "visda17" / f"{split}.tar", member(f"{split}/image_list.txt"), mode="w")
    assert sources.fetch("visda17", tmp_path, lines.append)
    assert (tmp_path / "visda17/validation/image_list.txt").exists()
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"another file")
    with pytest.raises(ValueError) as error:
        sources.fetch("cub200", tmp_path, lines.append)
    one_line(error, "CUB_200_2011.tgz", "sha256")
    assert not sources.fetch("imagenet", tmp_path, lines.append) and "n01440764" in lines[-1]


# ------------------------------------------------------------------------------------------ the
# command


@pytest.fixture
def dwlt(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path / "data"))
    return lambda *arguments: CliRunner().invoke(app, ["data", *arguments])


@pytest.mark.parametrize("name", CATALOGUE)
def test_check_exits_0_where_all_is_there_and_1_where_it_is_not(dwlt, tmp_path, name):
    found = dwlt("check", name)
    there = CATALOGUE[name].loader == "embedded"
    assert (
        found.exit_code == (0 if there else 1)
        and name in found.stdout
        and "looked in" in found.stdout
    )
    assert there or (str(tmp_path) in found.stderr and f"dwlt data fetch {name}" in found.stderr)
    assert not (tmp_path / "data").exists()


def test_an_unknown_data_set_is_refused_with_the_known_ones(dwlt):
    for command in ("check", "fetch"):
        found = dwlt(command, "cifar")
        assert found.exit_code == 2 and found.stderr.count("\n") == 1 and "cifar100" in found.stderr


def test_fetch_exits_1_with_one_line_when_it_fails(dwlt, server, monkeypatch, tmp_path):
    served(server, monkeypatch, tmp_path)
    server.cut.append(20)
    found = dwlt("fetch", "cifar10")
    assert found.exit_code == 1 and found.stderr.count("\n") == 1 and "goes on" in found.stderr
    assert dwlt("fetch", "cifar10").exit_code == 0
    assert dwlt("fetch", "imagenet").exit_code == 1 and dwlt("fetch", "digits").exit_code == 0


def test_a_study_whose_data_are_not_there_is_refused_before_it_starts(dwlt, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "s.yaml").write_text(
        "name: s\narch: resnet8\nsource: digits\npretraining: {STD: {epochs: 1, milestones:"
        " []}}\ngrid: [{pretraining: [STD], method: [OMP], dataset: [cifar10], regime: [ST],"
        " rounds: [1], seeds: [0]}]\n"
    )
    found = CliRunner().invoke(app, ["run", str(tmp_path / "s.yaml"), "--executor", "inline"])
    assert (
        found.exit_code == 2
        and "dwlt data fetch cifar10" in found.stderr
        and found.stderr.count("\n") == 1
    )
    assert not (tmp_path / "outputs").exists()
