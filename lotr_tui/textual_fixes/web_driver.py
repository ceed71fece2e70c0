"""The driver of a browser: a closed tab is a hang-up, as in a terminal, and the stream belongs to the driver.

With Textual's, a dead server is not noticed; the handlers of SIGINT and SIGTERM are replaced; anything that is printed
breaks the stream of packets; a lone surrogate cannot be written, and an interrupted write loses the rest of its packet.
"""

import os
import signal
import sys
from typing import Any

from textual.color import Color
from textual.drivers import web_driver

from lotr_tui.textual_fixes.terminal import get_lenient_decoder, wake_loop_at_signals

web_driver.getincrementaldecoder = get_lenient_decoder  # type: ignore[assignment, attr-defined]


class ClosableWebDriver(web_driver.WebDriver):
    """Web driver that sends SIGHUP to its process when the tab is closed or the server is gone."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.fileno = os.dup(sys.__stdout__.fileno())  # type: ignore[union-attr]
        for fd in (1, sys.__stdout__.fileno()):  # type: ignore[union-attr]
            os.dup2(sys.__stderr__.fileno(), fd)  # type: ignore[union-attr]
        self._write = self._write_bytes  # type: ignore[assignment]
        self._has_hung_up = False
        wake_loop_at_signals(self._loop)

    def write(self, data: str) -> None:
        super().write(data.encode(errors="replace").decode())

    def start_application_mode(self) -> None:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        super().start_application_mode()
        for number, handler in handlers.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)
        wake_loop_at_signals(self._loop)  # the loop has set and removed its own descriptor
        self._app.call_later(self._follow_theme)

    def stop_application_mode(self) -> None:
        super().stop_application_mode()
        os.close(self.fileno)
        self._has_hung_up = True

    def run_input_thread(self) -> None:
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._hang_up()

    def _write_bytes(self, data: bytes) -> int:
        """Write all of `data`, or nothing once the server is gone."""
        remaining = memoryview(data)
        while remaining and not self._has_hung_up:
            try:
                remaining = remaining[os.write(self.fileno, remaining) :]
            except OSError:
                self._hang_up()
        return len(data)

    def _hang_up(self) -> None:
        if not self._has_hung_up:
            self._has_hung_up = True
            os.kill(os.getpid(), signal.SIGHUP)

    def _follow_theme(self) -> None:
        self._send_background(self._app.current_theme)
        self._app.theme_changed_signal.subscribe(self._app, self._send_background)

    def _send_background(self, _: object) -> None:
        """Give the page the background of the theme, which it shows beside the last column and row."""
        name = self._app.theme_variables.get("background", "")
        if name.startswith("#"):  # an ANSI theme has the terminal's own background
            self.write(f"\x1b]11;{Color.parse(name).hex6.lower()}\x07")
