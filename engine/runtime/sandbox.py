"""Calls of libraries that read files by others, in processes with few rights and with limits."""

import errno
import importlib
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import InvalidInputError, LotrError, describe_error

MAX_SECONDS = 60  # of a call, also if it waits or other processes delay it
MAX_MEMORY_BYTES = 1 << 30  # that a call may take beyond the memory of the imported modules, where Linux limits it
MAX_ANSWER_BYTES = 50_000_000
CLONE_THREAD = 0x10000  # flag of `clone` for a thread, which libraries start for large inputs
# System calls by which a process would leave its limits: a connection, another process, or a change of a file.
DENIED_CALLS = (
    "socket", "fork", "vfork", "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open",
    "kill", "tkill", "mount", "creat", "truncate", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2",
    "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "chmod", "fchmodat", "chown",
    "lchown", "fchownat",
)  # fmt: skip
# Their flags are in memory, where a filter cannot look; who calls them tries the older ones next.
HIDDEN_FLAG_CALLS = ("clone3", "openat2", "io_uring_setup")
WRITING_FLAGS = (os.O_WRONLY, os.O_RDWR, os.O_CREAT)
_CODE = "import sys; sys.path[:] = sys.argv[3:]; from engine.runtime.sandbox import serve; serve(*sys.argv[1:3])"


class SandboxError(LotrError):
    """Error of a library in a sandbox, or of a call that exceeds a limit or crashes."""


class Sandbox:
    """A process that imports modules once and forks for each call, so that none harms this process or a later one."""

    def __init__(self, *modules: str, max_cpu_seconds: int) -> None:
        self._arguments = [" ".join(modules), str(max_cpu_seconds)]
        self._process: Any = None
        self._lock = threading.RLock()
        self._numbers = itertools.count()

    def start(self) -> None:
        with self._lock:
            if self._process is None:
                from subprocess import DEVNULL, PIPE, Popen  # takes 5 ms, and most sessions need no sandbox

                # Without -P, modules would also be looked for in the working directory: it may be the folder of a model
                command = [sys.executable, "-P", "-c", _CODE, *self._arguments, *map(os.path.abspath, sys.path)]
                self._process = Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True)

    def stop(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.communicate()
                self._process = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a function of a module in the process. Arguments and result are values of JSON.

        An InvalidInputError of the function is raised as it is, and another one as a SandboxError.
        """
        with self._lock:
            self.start()
            number = next(self._numbers)
            request = [number, function.__module__, function.__qualname__, arguments]
            answered = None
            try:
                with suppress(BrokenPipeError, ValueError, RecursionError):
                    self._process.stdin.write(json.dumps(request).encode() + b"\n")
                    self._process.stdin.flush()
                    answered, (kind, value) = json.loads(self._process.stdout.readline())
            finally:
                if answered != number:  # also after an interruption: the next answer would be the one to this request
                    self.stop()
        if answered != number:
            raise SandboxError("the process that reads it has ended; try again")
        if kind == "result":
            return value
        raise InvalidInputError(value) if kind == "input" else SandboxError(value)


def serve(modules: str, max_cpu_seconds: str) -> None:
    """Answer the requests on stdin, one line each, until it ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # drops the output of libraries
    for module in modules.split():
        importlib.import_module(module)
    seccomp = _find_seccomp()
    context = multiprocessing.get_context("fork")
    for line in sys.stdin.buffer:
        number, *request = json.loads(line)
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_answer, args=(request, int(max_cpu_seconds), sender, seccomp))
        child.start()
        sender.close()
        content = b""
        with receiver, suppress(EOFError, OSError):  # no answer, or one that is too long
            content = receiver.recv_bytes(MAX_ANSWER_BYTES)
        child.kill()
        child.join()
        if not content:
            is_slow = child.exitcode in (-signal.SIGXCPU, -signal.SIGALRM)
            crash = "it crashes the library that reads it, or needs too much memory"
            problem = f"it takes more than {max_cpu_seconds} seconds" if is_slow else crash
            content = json.dumps(["error", problem]).encode()
        # Always one line with the number of its request; the content comes from the child.
        answers.write(b"[%d, %b]\n" % (number, content.replace(b"\n", b" ")))


def _find_seccomp() -> Any:
    # The library that filters system calls, or None: macOS and small Linux systems have no libseccomp.
    with suppress(ImportError, OSError, RuntimeError):
        return importlib.import_module("pyseccomp")
    return None


def _answer(request: list[Any], max_cpu_seconds: int, sender: Any, seccomp: Any) -> None:
    _limit_resources(max_cpu_seconds)
    _close_descriptors(sender.fileno())
    if seccomp is not None:
        _deny_system_calls(seccomp)
    module, name, arguments = request
    try:
        answer = ["result", getattr(importlib.import_module(module), name)(*arguments)]
    except MemoryError:
        answer = ["error", f"it needs more than {MAX_MEMORY_BYTES >> 30} GB of memory"]
    except BaseException as error:  # a panic of tokenizers is no `Exception`
        answer = ["input" if isinstance(error, InvalidInputError) else "error", describe_error(error)]
    sender.send_bytes(json.dumps(answer).encode())


def _limit_resources(max_cpu_seconds: int) -> None:
    # Signals end the process also inside of libraries.
    resource.setrlimit(resource.RLIMIT_CPU, (max_cpu_seconds, max_cpu_seconds + 1))
    signal.alarm(MAX_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with suppress(OSError):  # macOS has no such file and no such limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MAX_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _close_descriptors(kept: int) -> None:
    # They include the pipes of requests and answers. Descriptors 1 and 2 are the null device already.
    null_device = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null_device, 0)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _deny_system_calls(seccomp: Any) -> None:
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    denied = seccomp.ERRNO(errno.EPERM)
    for name in DENIED_CALLS:
        _add_rule(rules, denied, name)
    for name in HIDDEN_FLAG_CALLS:
        _add_rule(rules, seccomp.ERRNO(errno.ENOSYS), name)
    _add_rule(rules, denied, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, 0))
    for flag in WRITING_FLAGS:
        _add_rule(rules, denied, "open", seccomp.Arg(1, seccomp.MASKED_EQ, flag, flag))
        _add_rule(rules, denied, "openat", seccomp.Arg(2, seccomp.MASKED_EQ, flag, flag))
    with suppress(OSError):  # of a kernel without filters
        rules.load()


def _add_rule(rules: Any, action: int, name: str, *conditions: Any) -> None:
    with suppress(OSError):  # a system call of other processors or of later kernels
        rules.add_rule(action, name, *conditions)
