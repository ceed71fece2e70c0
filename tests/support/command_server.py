"""Runs commands of lotr-tui, each in a forked process of its own, for the fixture `command`.

What most commands import is here already, so one takes 30 ms and not 500. Each line of standard input is an
order in JSON, each line of standard output the exit code.
"""

import contextlib
import gc
import io
import json
import os
import signal
import sys

import numpy  # noqa: F401
import pandas  # noqa: F401
import rich.table  # noqa: F401

import lotr_tui.cli.console
import lotr_tui.cli.reports  # noqa: F401
from lotr_tui.__main__ import main
from lotr_tui.cli.main import cli


def serve():
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        cli(["locate"])  # imports what the first command does
    gc.freeze()  # so that the children do not copy what is here
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(run(order))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(order):
    """Run one command in this process, as a shell would: its arguments, environment, folder and files."""
    signal.alarm(60)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(order[name], mode), number)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = ["lotr-tui", *order["arguments"]]
    try:
        main()
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    serve()
