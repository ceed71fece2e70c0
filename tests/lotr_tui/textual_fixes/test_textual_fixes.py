"""Workarounds for the app, screens, lists, the palette and the terminal.

Each test of an app fails with plain Textual 8.2.8. An app in a test raises, at its end, the exception that ended it.
"""

import asyncio
import os
import signal
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from rich.style import Style
from textual.app import App
from textual.command import CommandList, DiscoveryHit, Provider
from textual.events import Click, Key, Resize
from textual.geometry import Offset, Size
from textual.messages import Update
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets._toast import Toast

from lotr_tui.textual_fixes import app as fixes
from lotr_tui.textual_fixes.terminal import ResilientWriterThread
from tests.support.pilot import until
from tests.support.terminal import MODEL_READY_TEXT, SESSION_COMMAND, Terminal

OLD_SIZE, NEW_SIZE = Size(80, 24), Size(100, 30)


class ClosingScreen(Screen[None]):
    """Screen that is closed, and its widgets removed, while it is being mounted."""

    def __init__(self, close):
        super().__init__()
        self.close = close

    def compose(self):
        yield Static(id="text")

    async def on_mount(self):
        self.close()
        await self.query("*").remove()
        self.query_one("#text")


class Counter(Static, can_focus=True):
    def action_use_screen(self):
        assert self.screen


class TestApp:
    async def test_queued_keys_and_sizes_do_not_delay_the_exit(self):
        app, text_input = fixes.TextualFixesApp(), Input()
        async with app.run_test(size=OLD_SIZE):
            await app.mount(text_input.focus())
            for number in range(100):
                app.post_message(Key("a", "a"))
                app.post_message(Resize(Size(81 + number, 24), Size(81 + number, 24)))
            app.exit()
        assert text_input.value == ""
        assert app.size == OLD_SIZE

    @pytest.mark.parametrize("name", ["exit", "pop_screen"])
    async def test_screen_that_is_closed_while_it_is_mounted(self, name):
        app = fixes.TextualFixesApp()
        async with app.run_test():
            app.push_screen(ClosingScreen(getattr(app, name)))
            await asyncio.sleep(0.1)  # a pilot would wait for the removed widgets
            assert app.is_running == (name == "pop_screen")

    async def test_key_of_a_widget_that_is_not_there_does_nothing(self):
        app = fixes.TextualFixesApp()
        async with app.run_test() as pilot:
            counter = Counter()
            await app.mount(counter)
            assert await app.run_action("use_screen", counter)
            await counter.remove()
            await until(pilot, lambda: not counter.is_attached)
            assert not await app.run_action("use_screen", counter)


class Probe(Static):
    def on_mount(self):
        self.widths = []

    def on_resize(self, event):
        self.widths.append(event.size.width)


class FixedScreen(fixes.TextualFixesScreen, Screen[None]):
    def compose(self):
        yield Probe("text")
        yield Input()


class ScreenApp(App[None]):
    def get_default_screen(self):
        return FixedScreen()


class TestScreens:
    async def test_second_dismissal_closes_no_other_screen_and_an_early_one_waits_for_the_mount(self):
        app = ScreenApp()
        async with app.run_test() as pilot:
            base, dialog, other = app.screen, FixedScreen(), FixedScreen()
            await app.push_screen(dialog)
            await app.push_screen(other)
            dialog.dismiss(None)
            assert app.screen is other
            await app.pop_screen()
            await app.pop_screen()
            early = FixedScreen()
            app.push_screen(early)
            early.dismiss(None)
            await until(pilot, lambda: app.screen is base and not early.is_running)

    async def test_outdated_size_is_not_laid_out(self):
        app = ScreenApp()
        async with app.run_test(size=OLD_SIZE) as pilot:
            probe = app.screen.query_one(Probe)
            app.post_message(Resize(NEW_SIZE, NEW_SIZE))
            await until(pilot, lambda: probe.widths[-1:] == [NEW_SIZE.width])
            for size in (OLD_SIZE, NEW_SIZE):
                app.screen.post_message(Resize(size, size))
                app.screen.post_message(Update(app.screen.query_one(Input)))  # keeps the sizes from being merged
            await pilot.pause(0.3)
            assert probe.widths == [OLD_SIZE.width, NEW_SIZE.width]

    async def test_mouse_finds_no_removed_notification(self):
        app = ScreenApp()
        async with app.run_test(size=OLD_SIZE, notifications=True) as pilot:
            app.notify("[a notice]", markup=False)
            await until(pilot, lambda: app.screen.query(Toast) and app.screen.query_one(Toast).region.area)
            toast = app.screen.query_one(Toast)
            place = toast.region.offset + Offset(2, 1)
            assert app.screen.get_widget_and_offset_at(*place)[0] is toast
            await toast.remove()
            assert app.screen.get_widget_and_offset_at(*place)[0] is not toast


class ListApp(App[None]):
    selected = None

    def compose(self):
        yield fixes.RobustOptionList("one", "two")

    def on_option_list_option_selected(self, event):
        self.selected = event.option_index


async def test_list_ignores_clicks_on_removed_rows_and_page_keys_without_height():
    app = ListApp()
    async with app.run_test() as pilot:
        options = app.query_one(OptionList)
        for row in (2, 1):  # a row that was removed after it was painted, and one that is there
            options.post_message(Click(None, 1, row, 0, 0, 1, False, False, False, 1, row, Style(meta={"option": row})))
            await pilot.pause()
        assert app.selected == 1
        options.styles.height = 0
        options.styles.border = ("none", "red")
        await pilot.pause()
        options.action_page_down()
        options.action_page_up()
        assert options.highlighted == 1


class ClosingProvider(Provider):
    """Provider of one command, which loses its palette during a search."""

    async def discover(self):
        yield DiscoveryHit("command", lambda: None)

    async def search(self, query):
        await self.app.screen.query("*").remove()
        for hit in ():
            yield hit


class PaletteApp(App[None]):
    COMMANDS = {ClosingProvider}  # noqa: RUF012


async def open_palette(pilot):
    palette = fixes.RobustCommandPalette()
    await pilot.app.push_screen(palette)
    await until(pilot, lambda: palette.query(CommandList))
    return palette


async def test_palette_can_be_closed_during_its_search_and_then_ignores_page_keys():
    app = PaletteApp()
    async with app.run_test() as pilot:
        palette = await open_palette(pilot)
        assert palette.query_one(CommandList)
        await pilot.press("c")
        await until(pilot, lambda: not palette.query(CommandList) and not list(palette.workers))
        assert not await app.run_action("command_list('page_down')", palette)


async def test_click_outside_a_smaller_terminal():
    app = PaletteApp()
    async with app.run_test(size=(80, 24)) as pilot:
        base, palette = app.screen, await open_palette(pilot)
        for x, y in ((90, 30), (1, 23)):
            assert app.screen is palette
            palette.post_message(Click(palette, x, y, 0, 0, 1, False, False, False, screen_x=x, screen_y=y))
            await pilot.pause()
        await until(pilot, lambda: app.screen is base)


class Painted(Static):
    count = 0

    def render_line(self, y):
        self.count += 1
        return super().render_line(y)


async def test_text_is_painted_at_once_and_what_waits_for_a_place_is_painted_later():
    async with fixes.TextualFixesApp().run_test() as pilot:
        echo, late = Painted(), Painted()
        late.display = False
        await pilot.app.mount(echo, late)
        await pilot.pause()
        before, late.display = echo.count, True
        echo.update("typed", layout=False)
        fixes.paint(echo)
        assert (echo.count, late.count) == (before + 1, 0)
        await until(pilot, lambda: late.count)


MANY_WRITES = 100  # more than the queue of the writer holds
APP_SOURCE = """
import signal
import threading
from lotr_tui.textual_fixes.app import TextualFixesApp
from textual.widgets import Label

class SmallApp(TextualFixesApp):
    BINDINGS = [("ctrl+q", "quit", "quit"), ("ctrl+t", "continue_in_thread", "continue")]

    def compose(self):
        yield Label("the whole screen")

    def action_continue_in_thread(self):
        def receive_signal():
            signal.pthread_kill(threading.get_ident(), signal.SIGCONT)

        threading.Timer(0.3, receive_signal).start()

SmallApp().run()
"""
SCREEN_TEXT = "the whole screen"
CTRL_Q, CTRL_T = b"\x11", b"\x14"
ALTERNATE_SCREEN_ON, ALTERNATE_SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"


def test_exit_does_not_wait_for_a_closed_terminal():
    descriptor, program_side = os.openpty()
    file = os.fdopen(program_side, "w", encoding="utf-8")
    os.close(descriptor)
    writer = ResilientWriterThread(file)
    writer.start()

    def write_and_stop():
        for _ in range(MANY_WRITES):
            writer.write("words ")
        writer.stop()

    thread = threading.Thread(target=write_and_stop, daemon=True)  # both may block
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert not writer.is_alive()
    with suppress(OSError):  # unwritten text
        file.close()


def test_session_survives_bytes_that_are_not_utf8_and_ends_with_its_terminal(tmp_path):
    with Terminal(SESSION_COMMAND, 100, 30, tmp_path).spawn() as terminal:
        terminal.read_until(MODEL_READY_TEXT)
        terminal.press(b"\xff\xfe\x80 the lamp", "lamp")
        terminal.hang_up()
        terminal.read_until_exit(20)
        assert terminal.exit_status == 129


@pytest.fixture
def terminal(tmp_path):
    with Terminal([sys.executable, "-c", APP_SOURCE], 60, 10, tmp_path).spawn() as terminal:
        terminal.shell_modes = terminal.modes()
        terminal.read_until(SCREEN_TEXT)
        terminal.read_until_quiet(0.2, 3)
        yield terminal


def stop_process(terminal, number):
    """Send a signal that stops the process, and return the output until then."""
    os.kill(terminal.pid, number)
    status = Path(f"/proc/{terminal.pid}/status")
    return terminal.output_until(lambda _: "State:\tT" in status.read_text()) + terminal.read(0.05)


def continue_process(terminal):
    """Continue the process, and return the output until the screen is painted, with the terminal in raw mode."""
    os.kill(terminal.pid, signal.SIGCONT)
    output = terminal.output_until(lambda output: SCREEN_TEXT.encode() in output)
    assert not terminal.modes()[3] & (termios.ECHO | termios.ICANON)
    return output


def test_an_app_that_was_stopped_or_suspended_turns_on_what_a_shell_has_turned_off_and_restores_it(terminal):
    stop_process(terminal, signal.SIGSTOP)
    terminal.set_modes(terminal.shell_modes)  # as a shell with job control does
    output = continue_process(terminal)
    for sequence in (ALTERNATE_SCREEN_ON, b"\x1b[?2004h", b"\x1b[?1006h", b"\x1b[?25l"):
        assert sequence in output
    # The keyboard protocol is popped and pushed, so that one pop at the exit still removes it.
    assert output.count(b"\x1b[<u") == output.count(b"\x1b[>") == 1
    for _ in range(2):
        assert ALTERNATE_SCREEN_OFF in stop_process(terminal, signal.SIGTSTP)
        assert terminal.modes() == terminal.shell_modes
        continue_process(terminal)
    terminal.write(CTRL_Q)
    assert ALTERNATE_SCREEN_OFF in terminal.read_until_exit()
    assert terminal.exit_status == 0
    assert terminal.modes() == terminal.shell_modes


def test_a_continue_signal_wakes_the_app_through_another_thread_and_changes_nothing_during_the_exit(terminal):
    terminal.press(CTRL_T, SCREEN_TEXT)
    terminal.write(CTRL_Q)

    def has_ended(output):
        if not terminal.has_exited():
            os.kill(terminal.pid, signal.SIGCONT)
        return terminal.has_exited()

    output = terminal.output_until(has_ended) + terminal.read_until_exit()
    assert ALTERNATE_SCREEN_OFF in output
    assert b"Traceback" not in output
    assert terminal.exit_status == 0
    assert terminal.modes() == terminal.shell_modes
