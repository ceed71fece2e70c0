"""Bad input of `lotr-tui serve`: one clear line, and exit code 2."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")

from tests.support.browser import ServeProcess


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_a_host_that_other_machines_can_reach_needs_the_flag(host: str, command: Any) -> None:
    result = command("serve", "--host", host, "--port", "0")
    assert result.returncode == 2
    assert "can be reached from other machines; add --public to allow that" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_a_port_in_use(command: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = command("serve", "--port", port)
    assert result.returncode == 2
    assert result.stderr == (
        f"lotr-tui: port {port} of 127.0.0.1 is in use; use another one, or --port 0 for any free port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "no such host"], "is not an address of this machine"),
        (["--port", "70000"], "--port 70000 is not a whole number from 0 to 65,535"),
        (["--attach", "missing"], "run 'missing' is neither in"),
        (["--run", "missing"], "run 'missing' is neither in"),
        (["--run", "a", "--attach", "b"], "--run and --attach exclude each other"),
        (["--theme", "missing"], "missing"),
        (["--max-browsers", "0"], "--max-browsers 0 is not a whole number from 1 to 100"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(arguments: list[str], message: str, command: Any) -> None:
    result = command("serve", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_without_textual_serve_the_command_says_what_to_install(command: Any, tmp_path: Path) -> None:
    site = tmp_path / "sitecustomize"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys; sys.modules['textual_serve'] = None\n")
    result = subprocess.run(
        [sys.executable, "-m", "lotr_tui", "serve"],
        env={"PYTHONPATH": ":".join([str(site), *sys.path]), "LOTR_TUI_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr == "lotr-tui: serve needs textual-serve; pip install 'lotr-tui[serve]'\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_url_has_a_token_and_signals_end_the_server(number: signal.Signals, code: int, tmp_path: Path) -> None:
    with ServeProcess(tmp_path) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", server.url)
        port = server.url.split(":")[2].split("/")[0]
        exit_code, output = server.stop(number)
    assert exit_code == code
    assert f"ssh -L {port}:localhost:{port}" in output
    assert "Traceback" not in output
