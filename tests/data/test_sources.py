"""Theorems on sources: data sets are fetched and unpacked, or a person is told what to do."""

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from layout_files import gtsrb
from small_files import member, one_line, tar
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.config.datasets import CATALOGUE
from dwlt_lib.data import checks, sources

CONTENT = hashlib.shake_128(b"a file").digest(300_000)


@pytest.fixture
def server():
    """A server of CONTENT, which hangs up early while `cut` is set."""

    class Handler(BaseHTTPRequestHandler):
        asked, cut = [], []

        def do_GET(self):
            self.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: self.cut.pop() if self.cut else None])

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


def test_every_data_set_that_is_not_installed_has_a_source():
    assert set(sources.SOURCES) == {
        name for name, row in CATALOGUE.items() if row.loader != "embedded"
    }
    for source in sources.SOURCES.values():
        assert all(bool(file.url) != bool(source.instructions) for file in source.files)
        assert all(file.sha256 for file in source.files if file.url)  # what is downloaded is pinned


def served(server, monkeypatch, tmp_path, name="cifar10"):
    """The data set's source, pointed at an archive that the test's server has."""
    archive = tar(tmp_path / "made.tgz", member("cifar-10-batches-py/test_batch")).read_bytes()
    monkeypatch.setattr("test_sources.CONTENT", archive)
    part = sources.SourceFile(
        name="cifar-10-python.tar.gz",
        unpacks_to="cifar-10-batches-py",
        url=f"{server.url}/file",
        sha256=hashlib.sha256(archive).hexdigest(),
    )
    monkeypatch.setitem(sources.SOURCES, name, sources.Source(page="a page", files=[part]))


def test_fetch_downloads_checks_unpacks_and_does_nothing_twice(server, monkeypatch, tmp_path):
    served(server, monkeypatch, tmp_path)
    for _ in range(2):
        assert sources.fetch("cifar10", tmp_path / "data", lambda line: None)
    assert (tmp_path / "data/cifar-10-batches-py/test_batch").read_bytes() == b"x" * 5 and len(
        server.asked
    ) == 1


def test_gtsrbs_three_archives_share_a_folder(monkeypatch, tmp_path):
    row, there = gtsrb(tmp_path / "made").model_copy(update={"path": "gtsrb"}), tmp_path / "there"

    def download(url, target, sha256, progress):
        product = {file.name: file.unpacks_to for file in sources.SOURCES["gtsrb"].files}
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("GTSRB/Readme-Images.txt", "about them")
            wanted = tmp_path / "made" / product[target.name]
            for path in [wanted, *wanted.rglob("*")]:
                archive.write(path, path.relative_to(tmp_path / "made"))

    monkeypatch.setattr(sources.downloads, "download", download)
    assert sources.fetch("gtsrb", there, lambda line: None)
    assert checks.check(row, there)[1] == []


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
    assert found.exit_code == 1 and found.stderr.count("\n") == 1 and "try again" in found.stderr
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
