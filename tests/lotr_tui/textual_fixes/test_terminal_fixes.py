"""Tests of the workarounds that concern the terminal: closed output and invalid input."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

import pytest
from textual.drivers import linux_driver
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from lotr_tui.cli.launch import run_app
from lotr_tui.textual_fixes.terminal.closed_terminal_output import ResilientWriterThread
from lotr_tui.textual_fixes.terminal.invalid_utf8_input import replace_undecodable_input
from tests.support.textual_defects import expect_defect


@pytest.fixture
def terminal() -> Iterator[tuple[int, IO[str]]]:
    """Pseudo-terminal: file descriptor of the terminal's side, and file that the program writes to."""
    descriptor, program_side = os.openpty()
    file = os.fdopen(program_side, "w", encoding="utf-8")
    yield descriptor, file
    with suppress(OSError):  # unwritten text
        file.close()


def write_and_stop(writer: WriterThread) -> threading.Thread:
    """Write more than the queue holds and stop the writer, in a thread because both may block."""

    def run() -> None:
        for _ in range(2 * MAX_QUEUED_WRITES):
            writer.write("words ")
        writer.stop()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("writer_type", "timeout"), [(ResilientWriterThread, 20)])
def test_exit_does_not_wait_for_a_closed_terminal(
    terminal: tuple[int, IO[str]], writer_type: type[WriterThread], timeout: float
) -> None:
    descriptor, file = terminal
    os.close(descriptor)
    writer = writer_type(file)
    writer.start()
    thread = write_and_stop(writer)
    thread.join(timeout)
    assert not thread.is_alive()
    assert not writer.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_workaround_for_a_closed_terminal_is_still_needed(terminal: tuple[int, IO[str]]) -> None:
    with expect_defect(AssertionError):
        test_exit_does_not_wait_for_a_closed_terminal(terminal, WriterThread, timeout=1)


def test_open_terminal_gets_all_output(terminal: tuple[int, IO[str]]) -> None:
    descriptor, file = terminal
    writer = ResilientWriterThread(file)
    writer.start()
    write_and_stop(writer).join(20)
    expected, shown = "words " * 2 * MAX_QUEUED_WRITES, ""
    while len(shown) < len(expected):
        shown += os.read(descriptor, 10_000).decode()
    assert shown == expected
    os.close(descriptor)


def test_run_app_installs_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_driver, "WriterThread", WriterThread)
    monkeypatch.setattr(linux_driver, "getincrementaldecoder", linux_driver.getincrementaldecoder)  # type: ignore[attr-defined]
    monkeypatch.setattr("signal.signal", lambda *_: None)
    used: list[Any] = []

    class FakeApp:
        terminal_closed, detached_run, exit_message = False, None, ""

        def run(self, *, mouse: bool) -> None:
            used.append(linux_driver.WriterThread)

        def finish_training(self) -> None:
            pass

    run_app(FakeApp(), mouse=False)  # type: ignore[arg-type]
    assert used == [ResilientWriterThread]


@pytest.mark.parametrize("install", [replace_undecodable_input])
def test_invalid_utf8_is_read_as_replacement_characters(
    monkeypatch: pytest.MonkeyPatch, install: Callable[[], None]
) -> None:
    monkeypatch.setattr(linux_driver, "getincrementaldecoder", linux_driver.getincrementaldecoder)  # type: ignore[attr-defined]
    install()
    decode = linux_driver.getincrementaldecoder("utf-8")().decode  # type: ignore[attr-defined]
    assert decode(b"a\xffb") == "a\N{REPLACEMENT CHARACTER}b"


def test_workaround_for_invalid_utf8_is_still_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    with expect_defect(UnicodeDecodeError):
        test_invalid_utf8_is_read_as_replacement_characters(monkeypatch, install=lambda: None)
