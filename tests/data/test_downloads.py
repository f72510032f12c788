"""A download is believed by its hash alone, and never there by halves."""

import hashlib
import random
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.config import network_names
from dwlt_lib.data import downloads
from dwlt_lib.data.downloads import download
from dwlt_lib.models import checkpoints, pretrained

CONTENT = b"\x80\x02" + random.Random(0).randbytes(3_000_000)
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A server on loopback: `.content`, `.type`, `.tells_length`, `.breaks_after` and `.status` say
    how it behaves, `.asked` counts requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            us = self.server
            us.asked += 1
            self.send_response(us.status)
            self.send_header("Content-Type", us.type)
            if us.tells_length:
                self.send_header("Content-Length", str(len(us.content)))
            self.end_headers()
            self.wfile.write(us.content[: us.breaks_after])

        def log_message(self, *arguments):
            pass

    us = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    us.content, us.type, us.tells_length = CONTENT, "application/octet-stream", True
    us.breaks_after, us.status, us.asked = None, 200, 0
    us.url = f"http://127.0.0.1:{us.server_port}/file.pth"
    thread = threading.Thread(target=us.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield us
    us.shutdown()
    thread.join()
    us.server_close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "weights" / "file.pth"


def refused(*arguments):
    with pytest.raises(ValueError) as refusal:
        download(*arguments)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def files(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, target):
    seen = []
    assert download(server.url, target, HASH, lambda *of: seen.append(of)) == HASH
    assert target.read_bytes() == CONTENT and files(target) == ["file.pth"]
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    assert download(server.url, target) == HASH and server.asked == 1


@pytest.mark.parametrize("sha256", [HASH, None])
def test_a_broken_download_leaves_nothing_and_can_be_tried_again(server, target, sha256):
    server.breaks_after = 1_200_000
    assert "ended after 1,200,000 of 3,000,002 bytes; try again" in refused(
        server.url, target, sha256
    )
    assert files(target) == []
    server.breaks_after = None
    assert download(server.url, target, sha256) == HASH


def test_another_hash_than_stated_is_thrown_away(server, target):
    said = refused(server.url, target, "0" * 64)
    assert HASH in said and "0" * 64 in said and files(target) == []
    target.write_bytes(b"changed")
    assert "remove it and get it anew" in refused(server.url, target, HASH)
    assert target.read_bytes() == b"changed" and server.asked == 1


def test_a_web_page_is_no_file(server, target):
    server.type = "text/html; charset=utf-8"
    assert "a web page" in refused(server.url, target) and files(target) == []


def test_a_length_that_the_server_does_not_tell_is_no_obstacle(server, target):
    server.tells_length = False
    assert download(server.url, target) == HASH


def test_no_network_and_a_server_that_refuses_are_one_line_each(server, target):
    server.status = 404
    assert "404" in refused(server.url, target)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/file.pth"
        assert "refused" in refused(address, target)
    assert files(target) == []


# ---------------------------------------------------------------------------------------------- the
# official ones


def invoke(*arguments):
    return CliRunner().invoke(app, ["weights", "fetch", *arguments])


def test_the_command_fetches_checks_and_says_how_to_go_on(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    official = {
        "known": pretrained.OfficialCheckpoint("std", "file.pth", "a test", server.url, HASH),
        "new": pretrained.OfficialCheckpoint("at", "other.pt", "a test", server.url),
        "wrong": pretrained.OfficialCheckpoint("at", "wrong.pt", "a test", server.url, "1" * 64),
    }
    monkeypatch.setattr(pretrained, "OFFICIAL", official)
    done = invoke("known")
    assert done.exit_code == 0 and HASH in done.stdout and "(as stated)" in done.stdout, done.output
    assert f"dwlt weights import {tmp_path}/weights/file.pth --as std" in done.stdout
    done = invoke("new")
    assert done.exit_code == 0 and HASH in done.stdout and "stated nowhere" in done.stdout
    done = invoke("wrong")
    assert (
        done.exit_code == 1
        and done.stdout == ""
        and "1" * 64 in done.stderr
        and done.stderr.count("\n") == 1
    )
    done = invoke("unknown")
    assert (
        done.exit_code == 2 and "known, new, wrong" in done.stderr and done.stderr.count("\n") == 1
    )


def test_what_only_a_person_can_fetch_says_where_and_is_taken_once_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    done = invoke("fat")
    assert (
        done.exit_code == 1 and "drive.google.com" in done.stderr and done.stderr.count("\n") == 1
    )
    target = tmp_path / "weights" / pretrained.OFFICIAL["fat"].file
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    done = invoke("fat")
    assert done.exit_code == 0 and HASH in done.stdout


def test_official_weights_are_named_once_by_https_with_whole_hashes():
    assert {"std", "at", "fat"} <= set(pretrained.OFFICIAL)
    assert len({found.file for found in pretrained.OFFICIAL.values()}) == len(pretrained.OFFICIAL)
    for found in pretrained.OFFICIAL.values():
        assert found.source in checkpoints.SOURCES and (found.url or found.page).startswith(
            "https://"
        )
        assert found.sha256 is None or len(bytes.fromhex(found.sha256)) == 32
        assert network_names.canonical(found.arch) == found.arch
    std = pretrained.OFFICIAL["std"]  # torchvision's names hold the first digits
    assert std.file.split("-")[1].removesuffix(".pth") == std.sha256[:8] and downloads.TIMEOUT
