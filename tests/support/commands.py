"""Commands in this process and in new ones, and their output."""

import json
import signal
import sys
import time
from contextlib import contextmanager
from subprocess import CompletedProcess
from unittest.mock import patch

from typer.testing import CliRunner

from lotr_tui.__main__ import run

USER_SETTINGS = dict.fromkeys(("LOTR_TUI_DEBUG", "PYTHONIOENCODING", "FORCE_COLOR"))
HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def kept_signal_handlers():
    handlers = [signal.getsignal(number) for number in HANDLED_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(HANDLED_SIGNALS, handlers, strict=True):
            signal.signal(number, handler)


def run_here(arguments, stdin=b"", **variables):
    """Run `lotr-tui` in this process, with streams and environment variables of its own."""
    arguments = list(map(str, arguments))
    environment = {**USER_SETTINGS, "COLUMNS": "120", "NO_COLOR": "1", **variables}
    with (
        CliRunner().isolation(stdin, environment) as (stdout, stderr, _),
        patch.object(sys, "argv", ["lotr-tui", *arguments]),
        kept_signal_handlers(),
    ):
        sys.stdout.reconfigure(errors="replace")
        try:
            code = run()
        except SystemExit as end:
            code = end.code
        except KeyboardInterrupt:
            code = 130
        sys.stdout.flush()
        sys.stderr.flush()
        return CompletedProcess(arguments, code, stdout.getvalue().decode(), stderr.getvalue().decode())


def refusal(process):
    assert (process.returncode, process.stdout) == (2, ""), process
    (line,) = process.stderr.splitlines()
    assert line.startswith("lotr-tui: ")
    assert "Traceback" not in line
    return line


def json_output(process):
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def wait_until(condition, seconds=120):
    """Wait until another process or thread has made `condition` true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
