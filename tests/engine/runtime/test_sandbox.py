"""Calls in a sandbox: their results, and the limits on time and memory that no call can exceed."""

import pytest

from engine.errors import InvalidInputError
from engine.runtime.process import Sandbox, SandboxError


@pytest.fixture(scope="module")
def sandbox():
    return Sandbox("json", max_cpu_seconds=1)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("sum(range(10**12))", SandboxError, "it takes more than 1 seconds"),
        ("10**10**10", SandboxError, "it takes more than 1 seconds"),
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
    assert Sandbox("wave", max_cpu_seconds=1).call(eval, "1 + 1") == 2
