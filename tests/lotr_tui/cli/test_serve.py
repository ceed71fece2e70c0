"""`lotr-tui serve`: what it refuses, its address with a token, and the signals that end it."""

import re
import signal
import socket
import sys

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from engine.errors import install_command
from tests.support.browser import ServeProcess


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(([f"--host={host}"], "reached from other machines; add --public to allow") for host in ("0.0.0.0", "::", "")),
        (["--host=no such host"], "is not an address of this machine"), (["--theme=missing"], "missing"),
        (["--port=70000"], "--port 70000 must be less than or equal to 65535"),
        (["--attach=missing"], "run 'missing' is neither in"), (["--run=missing"], "run 'missing' is neither in"),
        (["--attach=b", "--run=a"], "--run and --attach exclude each other"),
        *((["--api", f"{each}=4"], f"--api and {each} exclude") for each in ("--attach", "--max-browsers")),
        (["--api", "--theme=nord"], "--api and --theme exclude each other"),
        (["--api", "--run=missing"], "run 'missing' is neither in"),
        (["--max-browsers=0"], "--max-browsers 0 must be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_before_anything_starts(refused, arguments, message):
    assert message in refused("serve", *arguments)


def test_a_port_in_use_is_refused(refused):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused("serve", "--port", port)
    assert line == (
        f"lotr-tui: port {port} of 127.0.0.1 cannot be used: Address already in use; "
        "use another --host or --port; 0 is any free port"
    )


def test_without_textual_serve_the_command_says_what_to_install(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "textual_serve", None)
    # Another test may have imported the server, and the command would start it.
    monkeypatch.delitem(sys.modules, "lotr_tui.serve.server", raising=False)
    monkeypatch.delattr("lotr_tui.serve.server", raising=False)
    assert refused("serve") == f"lotr-tui: serve needs the package textual_serve; {install_command('serve')}"
    assert "run 'missing' is neither in" in refused("serve", "--api", "--run=missing")  # needs no package of browsers


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((signal.SIGTERM, 143), (signal.SIGHUP, 129))),
    ],
)
def test_the_url_has_a_token_and_signals_end_the_server(number, code, tmp_path):
    with ServeProcess(tmp_path) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", server.url)
        port = server.url.split(":")[2].split("/")[0]
        exit_code, output = server.stop(number)
    assert exit_code == code
    assert f"ssh -L {port}:localhost:{port}" in output
    assert "Traceback" not in output
