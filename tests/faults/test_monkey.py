"""What of `python -m tests.faults.monkey` the pilot of `tests/lotr_tui/test_monkey.py` cannot do."""

from pathlib import Path

from lotr_tui.bench.subjects import READY, SESSION_COMMAND
from lotr_tui.bench.terminal import Terminal


def test_bytes_that_are_no_text_end_nothing(tmp_path: Path) -> None:
    with Terminal(SESSION_COMMAND, 100, 30, tmp_path).opened() as terminal:
        terminal.until(READY)
        terminal.press(b"\xff\xfe\x80 the lamp", "lamp")
        terminal.write(b"\r")
        terminal.until("words/s")
