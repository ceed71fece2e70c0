"""A process with limits on time and memory, in which files by others are read and programs in them run."""

import importlib
import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidInputError, LotrError, describe_error

if TYPE_CHECKING:
    import subprocess

MAX_SECONDS = 60  # of a call, also if it waits or other processes delay it
MAX_MEMORY_BYTES = 1 << 30  # that a call may take beyond the memory of the imported modules, where Linux limits it
MAX_ANSWER_BYTES = 50_000_000
MAX_IDLE_SECONDS = 60.0  # without a call, after which the process ends; the next call starts another one
_CODE = "import sys; sys.path[:] = sys.argv[3:]; from engine.runtime.sandbox import serve; serve(*sys.argv[1:3])"


class SandboxError(LotrError):
    """Reason why a call in a sandbox has no result: the error of a library."""


class SandboxLimitError(SandboxError):
    """Reason why a call in a sandbox has no result: a limit that it exceeds, or a crash."""


class Sandbox:
    """A process that imports modules once and forks for each call, so that no call harms this process or a later one.

    It starts with the first call, and ends with this process. Threads may share it.
    """

    def __init__(self, *modules: str, max_cpu_seconds: int) -> None:
        self._arguments = [" ".join(modules), str(max_cpu_seconds)]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        with self._lock:
            self._start()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a function of a module in the process. Arguments and result are values of JSON.

        An InvalidInputError of the function is raised as it is, and another one as a SandboxError.
        """
        request = json.dumps([function.__module__, function.__qualname__, arguments]).encode() + b"\n"
        with self._lock:
            answer = self._ask(request) or self._ask(request)  # the process may just have ended after its idle time
        kind, value = json.loads(answer or '["limit", "the process that reads it did not start"]')
        if kind == "result":
            return value
        raise {"input": InvalidInputError, "limit": SandboxLimitError}.get(kind, SandboxError)(value)

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            import subprocess  # takes 5 ms, and most sessions need no sandbox

            self._stop()
            # Without -P, modules would also be looked for in the working directory, which may be the folder of a model.
            command = [sys.executable, "-P", "-c", _CODE, *self._arguments, *map(os.path.abspath, sys.path)]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(command, start_new_session=True, **pipes)
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, request: bytes) -> bytes:
        process, answer = self._start(), b""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
                answer = process.stdout.readline()
        finally:
            if not answer:  # also after an interruption: the next answer would be the one to this request
                self._stop()
        return answer


def serve(modules: str, max_cpu_seconds: str) -> None:
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # what libraries print is dropped
        sys.stdout = sys.stderr
        for module in modules.split():
            importlib.import_module(module)
        while select.select([0], [], [], MAX_IDLE_SECONDS)[0] and (request := sys.stdin.buffer.readline()):
            answers.write(_run_in_fork(request, int(max_cpu_seconds)) + b"\n")
            answers.flush()


def _run_in_fork(request: bytes, max_cpu_seconds: int) -> bytes:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # Signals end the process also inside of libraries.
            resource.setrlimit(resource.RLIMIT_CPU, (max_cpu_seconds, max_cpu_seconds + 1))
            signal.alarm(MAX_SECONDS)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with suppress(OSError):  # macOS has no such file and no such limit
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                limit = pages * resource.getpagesize() + MAX_MEMORY_BYTES
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            with os.fdopen(writer, "wb") as file:
                file.write(_answer(request))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        content = file.read(MAX_ANSWER_BYTES + 1)
    if len(content) > MAX_ANSWER_BYTES:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status in (-signal.SIGXCPU, -signal.SIGALRM):
        return json.dumps(["limit", f"it takes more than {max_cpu_seconds} seconds"]).encode()
    if status or not content:
        return b'["limit", "it crashes the library that reads it, or needs too much memory"]'
    return content


def _answer(request: bytes) -> bytes:
    try:
        module, name, arguments = json.loads(request)
        answer = ["result", getattr(importlib.import_module(module), name)(*arguments)]
    except MemoryError:
        answer = ["limit", f"it needs more than {MAX_MEMORY_BYTES >> 30} GB of memory"]
    except BaseException as error:  # a panic of tokenizers is no `Exception`
        answer = ["input" if isinstance(error, InvalidInputError) else "library", describe_error(error)]
    return json.dumps(answer).encode()
