"""A download goes on where it stopped, is believed by its hash alone, never there by halves."""

import hashlib
import json
import random
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from dwlt_lib.cli.main import app
from dwlt_lib.data import downloads
from dwlt_lib.data.downloads import DownloadError, download
from dwlt_lib.models import pretrained

CONTENT = b"\x80\x02" + random.Random(0).randbytes(3_000_000)
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A server on loopback: `.content`, `.tag`, `.ranges`, `.breaks_after` and `.status` say how it
    behaves; `.asked` lists the Range and If-Range of every request, `.sent` counts bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            us = self.server
            asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
            us.asked.append((asked, condition))
            start = (
                int(asked.removeprefix("bytes=").removesuffix("-")) if asked and us.ranges else 0
            )
            if condition and condition != us.tag:
                start = 0
            whole = len(us.content)
            if start >= whole:
                self.send_error(416)
                return
            self.send_response(us.status if us.status != 200 else 206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            if us.tag:
                self.send_header("ETag", us.tag)
            if us.tells_length:
                self.send_header("Content-Length", str(whole - start))
            self.end_headers()
            body = us.content[start:][: us.breaks_after]
            us.sent += len(body)
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    us = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    us.content, us.tag, us.ranges, us.tells_length, us.breaks_after, us.status = (
        CONTENT,
        '"one"',
        True,
        True,
        None,
        200,
    )
    us.asked, us.sent, us.url = [], 0, f"http://127.0.0.1:{us.server_port}/file.pth"
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
    with pytest.raises(DownloadError) as refusal:
        download(*arguments)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def files(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_and_its_hash_is_noted(server, target):
    seen = []
    assert (
        download(server.url, target, None, lambda done, whole: seen.append((done, whole))) == HASH
    )
    assert target.read_bytes() == CONTENT and files(target) == ["file.pth", "hashes.json"]
    assert json.loads((target.parent / "hashes.json").read_text()) == {"file.pth": HASH}
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    server.shutdown()
    assert (
        download(server.url, target) == HASH and len(server.asked) == 1
    )  # no network for what is there


def test_a_broken_download_goes_on_where_it_stopped(server, target):
    server.breaks_after = 1_200_000
    assert "ended after 1,200,000 of" in refused(server.url, target, HASH) and not target.exists()
    server.breaks_after = None
    assert download(server.url, target, HASH) == HASH
    assert server.asked == [(None, None), ("bytes=1200000-", '"one"')] and server.sent == len(
        CONTENT
    )


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, target):
    server.breaks_after = 1_000_000
    refused(server.url, target)
    server.breaks_after, server.tag, server.content = None, '"two"', CONTENT[::-1]
    assert download(server.url, target) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert target.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("length", [2_000_000, 500_000])
def test_without_a_tag_a_file_is_fetched_anew(length, server, target):
    server.tag, server.breaks_after = None, 1_000_000
    refused(server.url, target)
    server.breaks_after, server.content = None, CONTENT[:length][::-1]
    download(server.url, target)
    assert server.asked == [(None, None)] * 2
    assert target.read_bytes() == CONTENT[:length][::-1]


@pytest.mark.parametrize("length", [2_000_000, 500_000])
def test_a_file_of_another_length_under_the_same_tag_is_dropped_and_can_be_fetched_anew(
    length, server, target
):
    server.breaks_after = 1_000_000
    refused(server.url, target)
    server.breaks_after, server.content = None, CONTENT[:length][::-1]
    refused(server.url, target)
    assert files(target) == []
    download(server.url, target)
    assert target.read_bytes() == CONTENT[:length][::-1]


def test_a_server_that_ignores_ranges_starts_over(server, target):
    server.breaks_after, server.ranges = 1_000_000, False
    refused(server.url, target)
    server.breaks_after = None
    assert download(server.url, target) == HASH and target.read_bytes() == CONTENT


def test_a_part_that_was_whole_already_needs_no_network(server, target):
    server.breaks_after = 1_000_000
    refused(server.url, target)
    target.with_name("file.pth.part").write_bytes(CONTENT)
    assert download(server.url, target, HASH) == HASH and len(server.asked) == 1


def test_a_note_that_was_cut_off_means_starting_over(server, target):
    server.breaks_after = 1_000_000
    refused(server.url, target)
    server.breaks_after = None
    target.with_name("file.pth.part.json").write_text('{"tag"')
    assert download(server.url, target, HASH) == HASH and server.asked[-1] == (None, None)


def test_a_server_that_sends_parts_unasked_is_refused(server, target):
    server.status = 206
    assert "a part of the file" in refused(server.url, target)
    server.content, server.status = b"", 200
    assert "the server says 416" in refused(server.url, target)


def test_another_hash_than_stated_is_thrown_away(server, target):
    said = refused(server.url, target, "0" * 64)
    assert (
        HASH in said
        and "0" * 64 in said
        and "the download was deleted" in said
        and files(target) == []
    )
    assert "noted" not in said


def test_the_first_hash_is_demanded_from_then_on(server, target):
    download(server.url, target)
    target.write_bytes(b"\x80changed")
    assert "delete it and fetch again" in refused(server.url, target)
    target.unlink()
    server.content = CONTENT[:-1]
    assert "hashes.json" in refused(server.url, target) and files(target) == ["hashes.json"]
    server.content = CONTENT
    assert download(server.url, target) == HASH


def test_a_web_page_is_no_file(server, target):
    server.content = b"  <!doctype html><title>Sign in</title>"
    assert "a web page" in refused(server.url, target) and files(target) == []


def test_a_length_that_the_server_does_not_tell_is_no_obstacle(server, target):
    server.tells_length = False
    assert download(server.url, target) == HASH


def test_no_network_and_a_server_that_refuses_are_one_line_each(server, target):
    server.status = 404
    assert "the server says 404" in refused(server.url, target)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "refused; try again" in refused(
            f"http://127.0.0.1:{unused.getsockname()[1]}/file.pth", target
        )
    assert not target.exists()


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
    assert done.exit_code == 0 and HASH in done.stdout and "checked from now on" in done.stdout
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


def test_what_only_a_person_can_fetch_says_where_and_is_checked_once_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DWLT_DATA", str(tmp_path))
    done = invoke("fat")
    assert (
        done.exit_code == 1 and "drive.google.com" in done.stderr and done.stderr.count("\n") == 1
    )
    target = tmp_path / "weights" / pretrained.OFFICIAL["fat"].file
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert invoke("fat").exit_code == 0
    target.write_bytes(CONTENT[:-1])
    assert "delete it and fetch again" in invoke("fat").stderr


def test_official_weights_are_named_once_by_https_with_whole_hashes():
    assert {"std", "at", "fat"} <= set(pretrained.OFFICIAL)
    assert len({found.file for found in pretrained.OFFICIAL.values()}) == len(pretrained.OFFICIAL)
    for found in pretrained.OFFICIAL.values():
        assert found.source in ("std", "at", "fat") and (found.url or found.page).startswith(
            "https://"
        )
        assert found.sha256 is None or len(bytes.fromhex(found.sha256)) == 32
    std = pretrained.OFFICIAL["std"]  # torchvision's names hold the first digits
    assert std.file.split("-")[1].removesuffix(".pth") == std.sha256[:8] and downloads.TIMEOUT


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "nonsense"])
def test_only_the_web_is_downloaded_from(url, tmp_path):
    with pytest.raises(downloads.DownloadError, match="http"):
        downloads.download(url, tmp_path / "file")
    assert not list(tmp_path.iterdir())
