"""An app in a browser treats a closed tab as a request to quit, and a dead server not at all.

Seen in Textual 8.2.8, in `WebDriver`. Upstream, the driver would have to report a closed tab, and to own its stream.

- A closed tab quits the app as ctrl+q would, which stops a training. In a terminal, a hang-up lets it continue.
- When the server dies, the input thread ends and the app runs on for ever; its next output is a `BrokenPipeError`.
- The driver replaces the handlers of SIGINT and SIGTERM, so that the app neither saves nor sets its exit code.
- Anything printed while the app runs, or after it, breaks the stream of packets. No issue reports these.
- Text with a lone surrogate cannot be written, and an interrupted write loses the rest of its packet.
- The page does not know the background of the theme, which it needs beside the last column and below the last row.
"""

import os
import signal
import sys
from functools import partial
from typing import Any

from textual.app import App
from textual.color import Color
from textual.drivers.web_driver import WebDriver
from textual.theme import Theme

from lotr_tui.textual_fixes.terminal.signal_wakeup import wake_loop_at_signals

NOTICE_SECONDS = 10.0
"""Seconds for which a message of the server is shown."""


class ClosableWebDriver(WebDriver):
    """Web driver that sends SIGHUP to its process when the tab is closed or the server is gone, as a terminal does.

    Standard output belongs to the driver; what the process prints goes to standard error.
    """

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        """Initialize the driver, and take standard output from the process."""
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self.fileno = os.dup(sys.__stdout__.fileno())  # type: ignore[union-attr]
        for fd in (1, sys.__stdout__.fileno()):  # type: ignore[union-attr]
            os.dup2(sys.__stderr__.fileno(), fd)  # type: ignore[union-attr]
        self._write = self._write_bytes  # type: ignore[assignment]
        self._has_hung_up = False
        wake_loop_at_signals(self._loop)

    def write(self, data: str) -> None:
        """Send text to the terminal in the page."""
        super().write(data.encode(errors="replace").decode())

    def start_application_mode(self) -> None:
        """Start application mode, and leave the handlers of signals as they are."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        super().start_application_mode()
        for number, handler in handlers.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)
        wake_loop_at_signals(self._loop)  # the loop has set and removed its own descriptor
        self._app.call_later(self._follow_theme)

    def stop_application_mode(self) -> None:
        """Stop application mode, and end the stream."""
        super().stop_application_mode()
        os.close(self.fileno)
        self._has_hung_up = True

    def run_input_thread(self) -> None:
        """Dispatch input until the app ends. The end of the input before that is a hang-up."""
        super().run_input_thread()
        if not self.exit_event.is_set():
            self._hang_up()

    def on_meta(self, packet_type: str, payload: dict[str, object]) -> None:
        """Handle a message of the server: a closed tab, a notice, or one that Textual knows."""
        if packet_type == "quit":
            self._hang_up()
        elif packet_type == "notice":
            show = partial(self._app.notify, severity="warning", timeout=NOTICE_SECONDS, markup=False)
            self._app.call_later(show, str(payload.get("text", "")))
        else:
            super().on_meta(packet_type, payload)

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
        """Send SIGHUP to this process, once."""
        if not self._has_hung_up:
            self._has_hung_up = True
            os.kill(os.getpid(), signal.SIGHUP)

    def _follow_theme(self) -> None:
        self._send_background(self._app.current_theme)
        self._app.theme_changed_signal.subscribe(self._app, self._send_background)

    def _send_background(self, _: Theme) -> None:
        """Give the terminal in the page the background colour of the theme."""
        name = self._app.theme_variables.get("background", "")
        if name.startswith("#"):  # an ANSI theme has the terminal's own background
            self.write(f"\x1b]11;{Color.parse(name).hex6.lower()}\x07")
