"""Server that runs `lotr-tui` commands in forked processes, for the fixture `command`.

The server has imported what most commands need, so that a command takes 30 ms in place of 500. Each line of its input
is a request in JSON, and each line of its output an exit code.
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

import engine.training.job  # noqa: F401
import lotr_tui.cli.generate
import lotr_tui.cli.runs  # noqa: F401
from lotr_tui.__main__ import main
from lotr_tui.cli.main import run_command

TIMEOUT = 60


def serve():
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        run_command(["locate"])  # imports what every command needs
    gc.freeze()  # otherwise the garbage collection of a fork would copy the memory of this process
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(run(request))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(request):
    """Run one command in this process with the arguments, environment, working directory and files of a request."""
    signal.alarm(TIMEOUT)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(request[name], mode), number)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = ["lotr-tui", *request["arguments"]]
    try:
        main()
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    serve()
