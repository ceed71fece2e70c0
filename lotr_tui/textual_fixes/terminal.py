"""The driver of a terminal: suspension, invalid input, a closed terminal, and signals."""

import asyncio
import codecs
import os
import signal
import termios
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from textual import constants, events, geometry
from textual.drivers import linux_driver
from textual.drivers._writer_thread import WriterThread


def get_lenient_decoder(encoding: str) -> "partial[codecs.IncrementalDecoder]":
    return partial(codecs.getincrementaldecoder(encoding), errors="replace")


class ResilientWriterThread(WriterThread):
    """Writer thread that discards its output once the terminal is closed; Textual's ends, and the app waits for it."""

    def run(self) -> None:
        text: str | None = ""
        with suppress(OSError):
            while (text := self._queue.get()) is not None:
                self._file.write(text)
                if not self._queue.qsize():
                    self._file.flush()
            self._file.flush()
        while text is not None:  # the terminal is closed
            text = self._queue.get()


linux_driver.WriterThread = ResilientWriterThread  # type: ignore[attr-defined]
# Textual decodes strictly: https://github.com/Textualize/textual/issues/6456
linux_driver.getincrementaldecoder = get_lenient_decoder  # type: ignore[assignment, attr-defined]


def wake_loop_at_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Let every signal that has a handler wake `loop`: asyncio does so only for its own handlers, not Textual's."""
    read_end, write_end = os.pipe()  # open until the process ends
    for end in (read_end, write_end):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    loop.add_reader(read_end, os.read, read_end, 4096)


class ContinuableLinuxDriver(linux_driver.LinuxDriver):
    """Linux driver that restores the modes of the terminal when its process is continued, on the event loop.

    Textual starts application mode at every SIGCONT, also while it is on (after `kill -STOP`) and while the app exits
    (systemd sends SIGCONT after SIGTERM). A second input thread then takes keys from the first, for which the exit
    waits for ever, and raw modes are restored at the exit. https://github.com/Textualize/textual/issues/6298 is near.
    """

    _application_modes: list[Any] | None = None  # of the terminal; None outside of application mode
    _was_continued = False

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        wake_loop_at_signals(self._loop)

    def start_application_mode(self) -> None:
        previous_writer = self._writer_thread
        self._was_continued = True
        while self._was_continued and self._writer_thread is previous_writer:
            self._was_continued = False  # in the background, this waits until the process is continued
            super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._writer_thread is not previous_writer:
            with suppress(termios.error):  # standard input is no terminal
                self._application_modes = termios.tcgetattr(self.fileno)

    def stop_application_mode(self) -> None:
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
        if self._auto_restart and self._application_modes is not None:
            self.suspend_application_mode()
            self._must_signal_resume = True
        os.kill(os.getpid(), signal.SIGSTOP)

    def _continue(self) -> None:
        """Restore application mode, or start it again if `_suspend` has stopped it."""
        if self._application_modes is None:
            if self._must_signal_resume and self._auto_restart:
                self.resume_application_mode()
                self._app.call_later(self._app.refresh, layout=True)
            return
        # Set everything that a shell may have changed, and repaint.
        try:
            # In the background, this stops the process until its next SIGCONT, before it writes to the terminal.
            termios.tcsetattr(self.fileno, termios.TCSANOW, self._application_modes)
        except termios.error:
            return
        self.write("\x1b[?1049h\x1b[?25l\x1b[?1004h")  # alternate screen, no cursor, report the focus
        if not constants.DISABLE_KITTY_KEY:
            flags = linux_driver.KITTY_DISAMBIGUATE_ESCAPE_CODES | linux_driver.KITTY_REPORT_ALL_KEYS
            flags |= linux_driver.KITTY_REPORT_ASSOCIATED_TEXT
            self.write(f"\x1b[<u\x1b[>{flags}u")  # replaces the entry on the terminal's stack
        self._enable_mouse_support()
        self._enable_bracketed_paste()
        self._disable_line_wrap()
        if self._mouse_pixels:
            self._enable_mouse_pixels()
        if self._in_band_window_resize:
            self._enable_in_band_window_resize()  # the terminal then reports its size
        else:
            size = geometry.Size(*self._get_terminal_size())
            self.send_message(events.Resize(size, size))
        self._app.call_later(self._app.refresh, layout=True)
