"""Both servers are closed by default: loopback, a token, nothing from a user's own configuration.

Kernels end too.
"""

import http.client
import os
import re
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from typer.testing import CliRunner

from dwlt_lib.browser import servers
from dwlt_lib.cli.main import app

OPEN_TO_ALL = """
c = get_config()
c.ServerApp.ip = c.Voila.ip = "0.0.0.0"
c.ServerApp.token = c.IdentityProvider.token = c.PasswordIdentityProvider.token = c.Voila.token = ""
c.ServerApp.allow_unauthenticated_access = c.ServerApp.disable_check_xsrf = True
c.ServerApp.allow_remote_access = True
c.VoilaConfiguration.show_tracebacks = True
"""
NOWHERE = "00000000-0000-0000-0000-000000000000"
DOORS = {
    "lab": (
        "/lab",
        "/api/contents",
        "/api/kernels",
        "/api/terminals",
        "/files/README.md",
        f"/api/kernels/{NOWHERE}/channels",
    ),
    "browse": (
        "/",
        "/voila/static/voila.js",
        "/voila/templates/lab/static/voila.js",
        "/voila/files/figure.png",
        "/voila/labextensions/anywidget/package.json",
        f"/api/kernels/{NOWHERE}",
        f"/api/kernels/{NOWHERE}/channels",
        f"/voila/query/{NOWHERE}",
    ),
}


# ------------------------------------------------------------------------------------------ what is
# refused


@pytest.mark.parametrize("command", ["lab", "browse"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--ip", "0.0.0.0"],
        ["--ip", "::"],
        ["--ip", ""],
        ["--ip", "*"],
        ["--ip", "8.8.8.8"],
        ["--ip", "no such host"],
        ["--ip", "0.0.0.0", "--token", "short"],
        ["--token", "short"],
        ["--token", "sixteen char(s)!"],
        ["--token", ""],
        ["--ip", "203.0.113.7", "--token", "a-long-enough-token"],
        ["--port", "70000"],
    ],
    ids=" ".join,
)
def test_a_start_that_would_be_open_or_cannot_be_is_refused_in_one_line(
    command, arguments, monkeypatch
):
    monkeypatch.setattr(servers, command, lambda *_: pytest.fail("it was started"))
    found = CliRunner().invoke(app, [command, *arguments])
    assert found.exit_code == 2 and found.stdout == ""
    assert arguments[-1] == "70000" or found.stderr.count("\n") == 1, found.stderr


def test_a_study_that_is_not_there_is_refused(outputs):
    found = CliRunner().invoke(app, ["browse", "--study", "none"])
    assert found.exit_code == 2 and found.stderr.count("\n") == 1 and "dwlt run" in found.stderr


def test_tokens_are_fresh_and_long():
    tokens = {servers.closed_address("127.0.0.1", 0, None).token for _ in range(20)}
    assert len(tokens) == 20 and min(map(len, tokens)) >= 40


# ------------------------------------------------------------------------------------------ what is
# built


def test_loopback_keeps_the_host_check_and_a_chosen_address_gives_it_up():
    for ip, remote in (("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)):
        address = servers.ServerAddress(ip, 1, "t")
        assert servers.lab_settings(address)["ServerApp"]["allow_remote_access"] is remote
        page = servers.browse_settings(address, "")["Voila"]
        assert page["tornado_settings"]["allow_remote_access"] is remote and page["token"] == "t"


def test_the_url_names_the_door_and_the_token():
    assert servers.ServerAddress("127.0.0.1", 80, "t").url() == "http://127.0.0.1:80/?token=t"
    assert servers.ServerAddress("::1", 80, "t").url("lab") == "http://[::1]:80/lab?token=t"
    assert "0.0.0.0" not in servers.ServerAddress("0.0.0.0", 80, "t").url()


def test_the_next_free_port_is_taken():
    with servers.socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = servers.closed_address("127.0.0.1", port, None).port
        assert port < free < port + servers.PORTS_TRIED


# ------------------------------------------------------------------------------------------ what is
# served


@pytest.fixture(scope="module", params=["lab", "browse"])
def server(request, serve, tmp_path_factory):
    """(kind, URL, process) of a server started by a user whose own Jupyter configuration opens
    everything.
    """
    home = tmp_path_factory.mktemp("home")
    environment = {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home),
        "DWLT_OUTPUTS": str(home / "outputs"),
        "JUPYTER_SERVER_ALLOW_UNAUTHENTICATED_ACCESS": "true",
        "JUPYTER_TOKEN": "",
        "DWLT_TOKEN": "",
    }
    for name in (
        "jupyter_server_config.py",
        "jupyter_lab_config.py",
        "voila.py",
        "jupyter_config.py",
    ):
        (home / name).write_text(OPEN_TO_ALL)
    url, process = serve(request.param, "--no-browser", "--port", 0, **environment)
    return request.param, url, process


def ask(url, path, token="", **headers):
    """(status, where it redirects to, body)"""
    connection = http.client.HTTPConnection(urlsplit(url).hostname, urlsplit(url).port, timeout=180)
    connection.request("GET", path + (f"?token={token}" if token else ""), headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Location", ""), answer.read().decode(errors="replace")


def token_of(url):
    return re.search(r"token=(\S+)", url)[1]


def closed(answer):
    return answer[0] in (401, 403) or (answer[0] == 302 and "/login" in answer[1])


def test_the_printed_url_opens_the_page(server):
    kind, url, _ = server
    status, _, body = ask(url, urlsplit(url).path, token_of(url))
    assert status == 200 and "<html" in body and len(token_of(url)) >= 40


def test_no_door_opens_without_the_token(server):
    kind, url, _ = server
    for path in DOORS[kind]:
        for token in ("", "wrong-token-of-sixteen"):
            answer = ask(url, path, token)
            assert closed(answer), (path, token, answer[:2])
            assert "Traceback" not in answer[2]


def test_no_websocket_opens_without_the_token(server):
    kind, url, _ = server
    for path in DOORS[kind]:
        answer = ask(
            url,
            path,
            "",
            Connection="Upgrade",
            Upgrade="websocket",
            **{"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="},
        )
        assert closed(answer), (path, answer[:2])


def test_a_foreign_host_name_is_refused_even_with_the_token(server):
    kind, url, _ = server
    for path in DOORS[kind][:2]:
        assert ask(url, path, token_of(url), Host="evil.example:80")[0] in (403, 404), path


def tree(process):
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


def listening(process):
    """Its sockets that listen; none of one that has just ended."""
    try:
        return [
            connection
            for connection in process.net_connections("inet")
            if connection.status == "LISTEN"
        ]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def command(process):
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def kernel(server):
    """The server's kernel, started by asking for one where none waits yet."""
    kind, url, process = server
    if kind == "lab":
        connection = http.client.HTTPConnection(
            urlsplit(url).hostname, urlsplit(url).port, timeout=180
        )
        connection.request(
            "POST", "/api/kernels", "{}", {"Authorization": f"token {token_of(url)}"}
        )
        assert connection.getresponse().status == 201
    patience = time.time() + 120
    while time.time() < patience:
        found = [child for child in tree(process) if "ipykernel_launcher" in command(child)]
        if found and listening(found[0]):
            return found[0]
        time.sleep(0.2)
    raise AssertionError("no kernel")


def test_server_and_kernels_listen_on_loopback_only_and_end_together_even_when_killed(server):
    kind, url, process = server
    started = kernel(server)
    sockets = [socket for one in tree(process) for socket in listening(one)]
    assert urlsplit(url).port in {socket.laddr.port for socket in sockets}
    assert {socket.laddr.ip for socket in sockets} <= {"127.0.0.1", "::1"}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    started.wait(timeout=60)


def test_ctrl_c_ends_the_server_its_kernels_and_its_private_folder(serve):
    url, process = serve("lab", "--no-browser", "--port", 0)
    started = kernel(("lab", url, process))
    private = Path(started.environ()["JUPYTER_RUNTIME_DIR"])
    assert private.stat().st_mode & 0o077 == 0 and list(private.glob("*-ipc-*"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) in (0, 130)
    started.wait(timeout=60)
    assert not private.exists()


def test_the_study_that_is_asked_for_reaches_the_notebook(monkeypatch, request):
    monkeypatch.setattr(servers, "browse", lambda notebook, *_: None)
    monkeypatch.setenv("DWLT_STUDY", "")
    monkeypatch.setenv("DWLT_OUTPUTS", str(request.config.rootpath / "outputs"))
    assert CliRunner().invoke(app, ["browse", "--study", "tour_full"]).exit_code == 0
    assert os.environ["DWLT_STUDY"] == "tour_full"


def test_a_record_made_since_a_kernel_was_warmed_is_noticed(outputs):
    assert servers.newest() == 0.0
    (outputs / "records" / "mask").mkdir(parents=True)
    before = servers.newest()
    (outputs / "records" / "mask" / "0123").mkdir()
    assert servers.newest() >= before > 0
