"""A terminal that is closed while much is written to it holds nobody up."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

import pytest
from textual.drivers import linux_driver
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from lotr_tui.cli.launch import run_app
from lotr_tui.textual_fixes.closed_terminal_output import Writer


@pytest.fixture
def terminal() -> Iterator[tuple[int, IO[str]]]:
    """A pseudo-terminal: the side that shows, and the one that is written to."""
    shows, written = os.openpty()
    file = os.fdopen(written, "w", encoding="utf-8")
    yield shows, file
    with suppress(OSError):  # it may still hold something
        file.close()


def leave(writer: WriterThread) -> threading.Thread:
    """Write more than can wait, and stop, as the app does; in a thread, for it may wait for ever."""

    def write_and_stop() -> None:
        for _ in range(2 * MAX_QUEUED_WRITES):
            writer.write("words ")
        writer.stop()

    leaving = threading.Thread(target=write_and_stop, daemon=True)
    leaving.start()
    return leaving


def test_whoever_leaves_does_not_wait_for_a_terminal_that_is_gone(terminal: tuple[int, IO[str]]) -> None:
    shows, file = terminal
    os.close(shows)
    writer = Writer(file)
    writer.start()
    leaving = leave(writer)
    leaving.join(20)
    assert not leaving.is_alive()
    assert not writer.is_alive()


def test_a_terminal_that_is_there_shows_all(terminal: tuple[int, IO[str]]) -> None:
    shows, file = terminal
    writer = Writer(file)
    writer.start()
    leave(writer).join(20)
    expected, shown = "words " * 2 * MAX_QUEUED_WRITES, ""
    while len(shown) < len(expected):
        shown += os.read(shows, 10_000).decode()
    assert shown == expected
    os.close(shows)


def test_the_app_is_run_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_driver, "WriterThread", WriterThread)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    used: list[Any] = []

    class App:
        terminal_closed, detached, farewell = False, None, ""

        def run(self, *, mouse: bool) -> None:
            used.append(linux_driver.WriterThread)

        def outlive_terminal(self) -> None:
            pass

    run_app(App(), mouse=False)  # type: ignore[arg-type]
    assert used == [Writer]
