"""The part of `python -m tests.faults.monkey` that needs a terminal, which `tests/lotr_tui/test_monkey.py` has not."""

from pathlib import Path

from tests.support.terminal import MODEL_READY_TEXT, SESSION_COMMAND, Terminal


def test_session_survives_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    with Terminal(SESSION_COMMAND, 100, 30, tmp_path).spawn() as terminal:
        terminal.read_until(MODEL_READY_TEXT)
        terminal.press(b"\xff\xfe\x80 the lamp", "lamp")
        terminal.write(b"\r")
        terminal.read_until("seed ")
