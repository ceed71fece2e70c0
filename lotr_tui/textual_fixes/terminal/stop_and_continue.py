"""A process that was stopped and continued hangs when it exits, and leaves the terminal without echo.

Seen in Textual 8.2.8. `LinuxDriver._sigcont_application` starts application mode at every SIGCONT, also while the
application mode is on (after `kill -STOP`, of which the process hears nothing) and while the app exits (systemd sends
SIGCONT after SIGTERM). A second input thread then takes keys from the first one, for which the exit waits for ever, and
the raw modes of the terminal are saved as those to restore at the exit. The handlers also interrupt the driver while it
changes the modes itself. And they run late: the system lets any thread receive SIGCONT, which does not wake the event
loop of the main thread, in which Python runs the handlers. Upstream, SIGCONT would have to start application mode only
after a suspension by the driver, and otherwise restore the modes that a shell has changed, and repaint; signals would
have to wake the event loop. No issue reports this; https://github.com/Textualize/textual/issues/6298 is about the
suspension itself.
"""

import os
import signal
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from textual import constants
from textual.app import App
from textual.driver import Driver
from textual.drivers.linux_driver import (
    KITTY_DISAMBIGUATE_ESCAPE_CODES,
    KITTY_REPORT_ALL_KEYS,
    KITTY_REPORT_ASSOCIATED_TEXT,
    LinuxDriver,
)
from textual.events import Resize
from textual.geometry import Size

from lotr_tui.textual_fixes.terminal.signal_wakeup import wake_loop_at_signals

KITTY_FLAGS = KITTY_DISAMBIGUATE_ESCAPE_CODES | KITTY_REPORT_ALL_KEYS | KITTY_REPORT_ASSOCIATED_TEXT


class StopAndContinueFix(App[None]):
    """App whose process can be stopped and continued at any time."""

    def get_driver_class(self) -> type[Driver]:
        """Return Textual's driver for this platform, or the driver of this module in place of the Linux driver."""
        driver_class = super().get_driver_class()
        return ContinuableLinuxDriver if driver_class is LinuxDriver else driver_class


class ContinuableLinuxDriver(LinuxDriver):
    """Linux driver that restores the modes of the terminal when its process is continued.

    Signals are handled on the event loop, between two steps of the app, whichever thread receives them.
    """

    _application_modes: list[Any] | None = None
    """Terminal modes of application mode; None outside of application mode."""
    _was_continued = False

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        """Initialize the driver, and let every signal with a handler wake the event loop."""
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        wake_loop_at_signals(self._loop)

    def start_application_mode(self) -> None:
        """Start application mode. In the background, wait until the process is continued in the foreground."""
        previous_writer = self._writer_thread
        self._was_continued = True
        while self._was_continued and self._writer_thread is previous_writer:
            self._was_continued = False
            super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._writer_thread is not previous_writer:
            with suppress(termios.error):  # standard input is no terminal
                self._application_modes = termios.tcgetattr(self.fileno)

    def stop_application_mode(self) -> None:
        """Stop application mode and restore the terminal."""
        self._application_modes = None
        super().stop_application_mode()

    def _sigtstp_application(self, *_: object) -> None:
        self._call_on_loop(self._suspend)

    def _sigcont_application(self, *_: object) -> None:
        self._was_continued = True
        self._call_on_loop(self._continue)

    def _call_on_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the event loop is closed: the app has ended
            callback()

    def _suspend(self) -> None:
        """Restore the terminal and stop the process."""
        if self._auto_restart and self._application_modes is not None:
            self.suspend_application_mode()
            self._must_signal_resume = True
        os.kill(os.getpid(), signal.SIGSTOP)

    def _continue(self) -> None:
        """Restore application mode, or start it again if `_suspend` has stopped it."""
        if self._application_modes is not None:
            self._restore_application_mode(self._application_modes)
        elif self._must_signal_resume and self._auto_restart:
            self.resume_application_mode()
            self._app.call_later(self._app.refresh, layout=True)

    def _restore_application_mode(self, modes: list[Any]) -> None:
        """Set everything that a shell may have changed, and repaint."""
        try:
            # In the background, this stops the process until its next SIGCONT, before it writes to the terminal.
            termios.tcsetattr(self.fileno, termios.TCSANOW, modes)
        except termios.error:
            return
        self.write("\x1b[?1049h\x1b[?25l\x1b[?1004h")  # alternate screen, no cursor, report the focus
        if not constants.DISABLE_KITTY_KEY:
            self.write(f"\x1b[<u\x1b[>{KITTY_FLAGS}u")  # replaces the entry on the terminal's stack
        self._enable_mouse_support()
        self._enable_bracketed_paste()
        self._disable_line_wrap()
        if self._mouse_pixels:
            self._enable_mouse_pixels()
        if self._in_band_window_resize:
            self._enable_in_band_window_resize()  # the terminal then reports its size
        else:
            size = Size(*self._get_terminal_size())
            self.send_message(Resize(size, size))
        self._app.call_later(self._app.refresh, layout=True)
