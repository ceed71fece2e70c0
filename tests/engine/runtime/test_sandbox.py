"""Calls in a sandbox: limits, what they cannot reach, and answers that belong to their request."""

import importlib
import sys

import pytest

from engine.errors import InvalidInputError
from engine.runtime.sandbox import Sandbox, SandboxError

ENDLESS_SECONDS = 1
PATIENT_SECONDS = 60  # more than any call takes that ends


def can_filter_system_calls():
    try:
        return importlib.import_module("pyseccomp") is not None
    except (ImportError, RuntimeError):
        return False


needs_seccomp = pytest.mark.skipif(not can_filter_system_calls(), reason="it needs libseccomp")


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox("json", max_cpu_seconds=PATIENT_SECONDS)


@pytest.mark.parametrize("code", ["sum(range(10**12))", "10**10**10"])
def test_a_call_without_end_is_stopped(code):
    with pytest.raises(SandboxError, match=r"^it takes more than 1 seconds"):
        Sandbox("json", max_cpu_seconds=ENDLESS_SECONDS).call(eval, code)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("[0] * 10**10", SandboxError, "it needs more than 1 GB of memory"),
        ("__import__('os').abort()", SandboxError, "it crashes the library that reads it"),
        ("'x' * 10**8", SandboxError, "it crashes the library that reads it"),
        ("1 / 0", SandboxError, "ZeroDivisionError: division by zero"),
        ("__import__('sys').exit()", SandboxError, "SystemExit"),
        ("__import__('engine.config').config.Config().with_values('x')", InvalidInputError, "--set 'x' is not"),
    ],
)
def test_a_call_that_fails_is_one_line_and_harms_no_other_call(code, error, message, sandbox):
    with pytest.raises(error, match=f"^{message}"):
        sandbox.call(eval, code)
    assert sandbox.call(eval, "(print('text'), [1, 'two'])[1]") == [1, "two"]


def test_no_module_of_the_working_directory_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wave.py").write_text("raise SystemExit")
    assert Sandbox("wave", max_cpu_seconds=PATIENT_SECONDS).call(eval, "1 + 1") == 2


@needs_seccomp
@pytest.mark.parametrize(
    "attack",
    [
        "__import__('socket').socket()",
        "__import__('os').fork()",
        "__import__('subprocess').run(['true'])",
        "__import__('os').kill(__import__('os').getppid(), 9)",
        "__import__('os').unlink('{path}')",
        "open('{path}', 'a')",
        "open('{path}', 'r+')",
        "open('/proc/' + str(__import__('os').getppid()) + '/fd/1', 'wb')",
    ],
)
def test_a_call_reaches_no_network_no_process_and_no_file_to_write(attack, sandbox, tmp_path):
    path = tmp_path / "kept"
    path.write_text("kept")
    with pytest.raises(SandboxError, match=r"^(PermissionError|BlockingIOError)"):
        sandbox.call(eval, attack.format(path=path))
    assert path.read_text() == "kept"
    assert sandbox.call(eval, f"open('{path}').read()") == "kept"


@needs_seccomp
def test_a_call_may_start_threads(sandbox):
    executor = "__import__('concurrent.futures').futures.ThreadPoolExecutor()"
    assert sandbox.call(eval, f"list({executor}.map(abs, [-1, 2]))") == [1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
def test_a_call_has_no_descriptor_of_other_calls(sandbox):
    names = "__import__('os').listdir('/proc/self/fd')"
    # The standard streams, the pipe of its own answer, and the folder that is listed
    assert len(sandbox.call(eval, names)) == 5
    links = sandbox.call(eval, "[__import__('os').readlink(f'/proc/self/fd/{number}') for number in range(3)]")
    assert links == ["/dev/null"] * 3


def test_an_answer_that_is_forged_ends_its_own_call_only(sandbox):
    objects = "__import__('gc').get_objects()"
    connection = f"[each for each in {objects} if type(each).__name__ == 'Connection' and each.writable][0]"
    forged = '["result", 1]' + "".join(f'\n[{number}, ["result", "forged"]]' for number in range(100))
    with pytest.raises(SandboxError, match="has ended"):
        sandbox.call(eval, f"{connection}.send_bytes({forged.encode()!r})")
    assert sandbox.call(eval, "'own'") == "own"
