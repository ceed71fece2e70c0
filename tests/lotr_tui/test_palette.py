"""Tests of the command palette, the keymap, the themes, the settings and the help."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.actions import parse
from textual.binding import Binding
from textual.color import Color
from textual.command import CommandList
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Input

from lotr_tui.app import LotrApp
from lotr_tui.app_base import SAVE_DELAY
from lotr_tui.commands import AppCommandPalette, check_keymap, collect_bindings, iter_binding_commands
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.dialogs.help import HelpScreen, KeyBindingsPanel
from lotr_tui.screens.dialogs.new_training import NewTrainingDialog
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.settings import SettingsStore
from lotr_tui.theme import ColorlessFilter
from lotr_tui.widgets.line_input import MAX_LINE_CHARACTERS
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.support.pilot import MakeApp, latest_reply, notices, reply_to, until


def settings_file(folder: Path, **values: object) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps({"version": 2, **values}))
    return path


def styled_texts(app: LotrApp) -> Iterator[tuple[str, Style]]:
    """Yield every text on the screen with the style that is sent to the terminal."""
    for strip in app.screen._compositor.render_strips():
        for text, style, _ in strip:
            if style is not None and text.strip():
                yield text, style


def contrast(one: Color, other: Color) -> float:
    """Return the contrast ratio of WCAG 2, which is at least 4.5 for legible text."""

    def luminance(colour: Color) -> float:
        parts = [value / 255 for value in colour.rgb]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


async def run_command(pilot: Pilot[None], text: str) -> None:
    """Open the palette, type `text` and run the best match."""
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(pilot.app.screen, AppCommandPalette))
    pilot.app.screen.query_one(Input).value = text
    await until(pilot, lambda: pilot.app.screen.query_one(CommandList).option_count)
    await pilot.pause(0.2)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(pilot.app.screen, AppCommandPalette))
    await pilot.pause()


async def open_palette(pilot: Pilot[None]) -> AppCommandPalette:
    """Open the palette, and wait for its list."""
    await pilot.press("ctrl+p")
    await until(pilot, lambda: pilot.app.screen.query(CommandList) and palette_lines(pilot.app.screen))
    assert isinstance(pilot.app.screen, AppCommandPalette)
    return pilot.app.screen


def palette_lines(palette: Screen[Any]) -> list[str]:
    """Return the painted rows of the palette, without the space around them."""
    commands = palette.query_one(CommandList)
    return [commands.render_line(y).text.strip() for y in range(commands.size.height)]


class TestPalette:
    @pytest.mark.parametrize("key", ["", "ctrl+l", "ctrl+y", "ctrl+e", "ctrl+t", "ctrl+o"])
    async def test_palette_offers_every_action_of_a_screen(self, make_app: MakeApp, key: str) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            if key:
                await pilot.press(key)
                await until(pilot, lambda: len(pilot.app.screen_stack) > 1)
            await pilot.pause()
            app = pilot.app
            assert isinstance(app, LotrApp)
            offered = [command.action for command in iter_binding_commands(app, app.screen)]
            for node in (app.screen, app):
                bindings = collect_bindings(type(node))
                assert bindings
                for binding in bindings:
                    possible = node.check_action(*parse(binding.action)[1:]) is not False
                    assert offered.count(binding.action) == possible, binding

    async def test_palette_runs_a_screen_action(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await run_command(pilot, "ladder")
            await until(pilot, lambda: isinstance(pilot.app.screen, LadderScreen))

    async def test_palette_runs_an_action_of_an_unfocused_widget(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await run_command(pilot, "highest")
            assert pilot.app.screen.query_one(TemperatureSlider).value == 2.0

    async def test_palette_finds_an_action_by_its_key(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await run_command(pilot, "f1")
            await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))

    async def test_palette_cursor_does_not_blink(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+p")
            await until(pilot, lambda: isinstance(pilot.app.screen, AppCommandPalette))
            assert not pilot.app.screen.query_one(Input).cursor_blink
            await pilot.press("ctrl+p")  # no second palette
            assert len(pilot.app.screen_stack) == 2

    async def test_long_paste_into_the_palette_is_refused(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+p")
            await until(pilot, lambda: pilot.app.screen.query(CommandList))
            search_input = pilot.app.screen.query_one(Input)
            search_input.insert_text_at_cursor("theme")
            search_input.insert_text_at_cursor("the lamp " * 10_000)
            assert search_input.value == "theme"
            search_input.insert_text_at_cursor("x" * (MAX_LINE_CHARACTERS - len("theme")))
            assert len(search_input.value) == MAX_LINE_CHARACTERS

    @pytest.mark.parametrize("width", [60, 80, 120, 200])
    async def test_a_command_is_one_line_with_its_key_at_the_right(self, make_app: MakeApp, width: int) -> None:
        async with make_app().run_test(size=(width, 24)) as pilot:
            palette = await open_palette(pilot)
            lines = palette_lines(palette)
            assert any(line.startswith("ladder: ") and line.endswith("^l") for line in lines)
            assert len({cell_len(line) for line in lines if line}) == 1  # all keys end in the same column
            assert palette.query_one(CommandList).option_count > len(lines)

    async def test_rows_fit_the_terminal_after_a_resize(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(120, 24)) as pilot:
            palette = await open_palette(pilot)
            await pilot.resize_terminal(60, 24)
            await until(pilot, lambda: any(line.endswith("^l") for line in palette_lines(palette)))

    async def test_palette_omits_unavailable_actions(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(160, 45)) as pilot:
            app = pilot.app
            assert isinstance(app, LotrApp)
            assert not any("next pane" in command.name for command in iter_binding_commands(app, app.screen))


class TestKeys:
    async def test_keymap_replaces_the_default_keys(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"session.ladder": "alt+l,alt+g"})
        async with make_app().run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+l")
            assert isinstance(pilot.app.screen, SessionScreen)
            await pilot.press("alt+l")
            await until(pilot, lambda: isinstance(pilot.app.screen, LadderScreen))
            app = pilot.app
            assert isinstance(app, LotrApp)
            assert [c.help for c in iter_binding_commands(app, app.screen_stack[0]) if c.name.startswith("ladder")] == [
                "alt+l alt+g"
            ]
            assert not notices(app)

    async def test_key_bound_twice_is_reported_once(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"session.ladder": "ctrl+e"})
        async with make_app().run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+e")
            await until(pilot, lambda: isinstance(pilot.app.screen, LadderScreen))
            assert isinstance(pilot.app, LotrApp)
            await pilot.press("f11", "f11")
            expected = "key ctrl+e is bound to session.ladder and session.lens; choose another key for one of them"
            assert notices(pilot.app) == f"settings.json: {expected}"

    async def test_unknown_action_is_reported_with_the_nearest(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"session.lader": "f9"})
        async with make_app().run_test(size=(80, 24)) as pilot:
            app = pilot.app
            assert isinstance(app, LotrApp)
            await until(pilot, lambda: notices(app))
            assert "'session.lader'" in notices(app)
            assert "session.ladder" in notices(app).replace("'session.lader'", "")

    @pytest.mark.parametrize(
        ("keymap", "expected"),
        [
            ({}, []),
            ({"session.ladder": "ctrl+l"}, []),
            ({"session.ladder": "ctrl+e", "session.lens": "ctrl+l"}, []),  # a swap
            ({"session.ladder": "f9, ctrl+q"}, ["ctrl+q is bound to session.ladder and app.quit"]),
            ({"app.help": "f2"}, ["f2 is bound to session.pane and app.help"]),
            ({"sing": "f9"}, ["unknown action 'sing'"]),
        ],
    )
    def test_check_keymap_reports_clashes(self, keymap: dict[str, str], expected: list[str]) -> None:
        lines = check_keymap(keymap)
        assert len(lines) >= len(expected)
        assert bool(lines) == bool(expected)
        assert all(any(part in line for line in lines) for part in expected)

    async def test_key_taken_from_textual_is_reported_once(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            app = pilot.app
            assert isinstance(app, LotrApp)
            for _ in range(2):
                app.handle_bindings_clash({Binding("f9", "sing", "sing [red]")}, app.screen)
            await until(pilot, lambda: notices(app))
            assert notices(app) == "settings.json: key f9 no longer triggers 'sing [red]'; choose another key"


class TestThemes:
    async def test_chosen_theme_is_saved(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await run_command(pilot, "theme: nord")
            assert pilot.app.theme == "nord"
        assert SettingsStore().current.theme == "nord"
        async with make_app().run_test(size=(80, 24)) as pilot:
            assert pilot.app.theme == "nord"

    async def test_a_theme_is_shown_while_the_cursor_is_on_it(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            app = pilot.app
            palette = await open_palette(pilot)
            await pilot.press(*"theme")
            await until(pilot, lambda: palette_lines(palette)[0].startswith("theme: "))
            assert app.theme == "shire"  # typing alone changes nothing
            await pilot.press("down", "down")
            options = palette.query_one(CommandList)
            assert options.highlighted is not None
            shown = str(options.get_option_at_index(options.highlighted).prompt).split()[1]
            await until(pilot, lambda: app.theme == shown != "shire")
            await pilot.press("escape")
            await until(pilot, lambda: app.theme == "shire" and app.screen is not palette)
        assert SettingsStore().current.theme == "shire"
        assert not SettingsStore().path.exists()

    async def test_a_theme_that_was_looked_at_is_left_for_another_command(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            app = pilot.app
            palette = await open_palette(pilot)
            await pilot.press(*"theme")
            await until(pilot, lambda: palette_lines(palette)[0].startswith("theme: "))
            await pilot.press("down", "down")
            await until(pilot, lambda: app.theme != "shire")
            palette.query_one(Input).value = "ladder"
            await until(pilot, lambda: app.theme == "shire")

    async def test_theme_option_is_not_saved(self, make_app: MakeApp, tmp_path: Path) -> None:
        path = settings_file(tmp_path, theme="nord")
        before = path.read_bytes()
        app = make_app(theme="ansi-dark")
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.theme == "ansi-dark"
        assert path.read_bytes() == before
        app = make_app(theme="ansi-dark")
        async with app.run_test(size=(80, 24)):
            app.update_settings(pace=12.0)
        assert (SettingsStore().current.theme, SettingsStore().current.pace) == ("nord", 12.0)

    async def test_unknown_saved_theme_is_reported(self, make_app: MakeApp, tmp_path: Path) -> None:
        path = settings_file(tmp_path, theme="mordor")
        before = path.read_bytes()
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.theme == "shire"
            assert notices(app).startswith("unknown theme 'mordor' in ")
        assert path.read_bytes() == before

    async def test_damaged_settings_are_set_aside(self, make_app: MakeApp, tmp_path: Path) -> None:
        (tmp_path / "settings.json").write_text("{")
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "set aside" in notices(app)

    async def test_changed_settings_are_saved_soon_and_no_timer_is_left(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes: list[float] = []
        save = SettingsStore.save

        def count_and_save(store: SettingsStore) -> str:
            writes.append(store.current.pace)
            return save(store)

        monkeypatch.setattr(SettingsStore, "save", count_and_save)
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            for pace in range(1, 21):  # as a slider does
                app.update_settings(pace=float(pace))
            assert not writes
            await until(pilot, lambda: not app.settings_store.has_unsaved_changes, seconds=5)
            assert writes == [20]
            assert SettingsStore().current.pace == 20
            assert app._save_timer is None
        assert writes == [20]  # nothing was left to write at the exit

    async def test_a_slow_disk_does_not_stop_the_screen(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        is_ready = threading.Event()
        monkeypatch.setattr(SettingsStore, "save", lambda store: str(is_ready.wait(10)))
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            app.update_settings(pace=3.0)
            await pilot.pause(SAVE_DELAY + 0.1)
            await pilot.press("f1")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            is_ready.set()

    async def test_unwritable_settings_are_reported_once(self, make_app: MakeApp, tmp_path: Path) -> None:
        (tmp_path / "settings.json").mkdir()
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            app._notifications.clear()
            await run_command(pilot, "theme: gruvbox")
            assert app.theme == "gruvbox"
            await until(pilot, lambda: "cannot be" in notices(app))
            app.update_settings(pace=3.0)
        assert app.exit_message == ""  # already reported

    async def test_unwritable_settings_are_reported_at_exit(self, make_app: MakeApp, tmp_path: Path) -> None:
        app = make_app()
        async with app.run_test(size=(80, 24)):
            app.update_settings(pace=3.0)
            (tmp_path / "settings.json").mkdir()
        assert "settings.json" in app.exit_message

    @pytest.mark.parametrize("theme", ["shire", "shire-light", "textual-light", "ansi-light", "ansi-dark"])
    async def test_text_is_legible_without_colour(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, theme: str
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            app.theme = theme  # applies to a theme chosen later, too
            await pilot.pause(0.1)
            texts = list(styled_texts(app))
            assert any("temp" in text for text, _ in texts)
            for text, style in texts:
                for colour in (style.color, style.bgcolor):  # grey or the terminal's default
                    assert colour is None or colour.triplet is None or len(set(colour.triplet)) == 1, (text, style)
                    assert theme.startswith("ansi") is not bool(colour and colour.triplet), (text, style)
                if not theme.startswith("ansi"):
                    assert style.color != style.bgcolor, text

    def test_text_with_background_is_reversed_without_colour(self) -> None:
        plain, on_blue = Style.parse("green on default"), Style.parse("bold white on blue")
        on_blue_reversed = Style.parse("reverse white on blue")
        segments = [Segment("a", plain), Segment("b", on_blue), Segment("c", on_blue_reversed), Segment("d")]
        shown = ColorlessFilter().apply(segments, Color(0, 0, 0))
        assert [segment.text for segment in shown] == ["a", "b", "c", "d"]
        assert [segment.style and bool(segment.style.reverse) for segment in shown] == [False, True, True, None]
        assert shown[1].style == Style.parse("bold reverse default on default")

    @pytest.mark.parametrize("theme", ["ansi-light", "ansi-dark"])
    async def test_scrollbar_thumb_is_visible_without_colour(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, theme: str
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        async with make_app(theme=theme).run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+p")
            await until(pilot, lambda: pilot.app.screen.query_one(CommandList).vertical_scrollbar.region)
            bar = pilot.app.screen.query_one(CommandList).vertical_scrollbar.region
            strips = pilot.app.screen._compositor.render_strips()
            column = [strips[y].crop(bar.x, bar.x + 1) for y in range(bar.y, bar.bottom)]
            is_thumb = [
                bool(segment.style and segment.style.reverse) or bool(segment.text.strip()) for (segment,) in column
            ]
            assert is_thumb[0]
            assert not is_thumb[-1]

    @pytest.mark.parametrize("theme", ["ansi-light", "ansi-dark"])
    async def test_rules_and_secondary_text_of_ansi_themes_are_dimmer_than_replies(
        self, make_app: MakeApp, theme: str
    ) -> None:
        app = make_app(theme=theme)
        async with app.run_test(size=(120, 35)) as pilot:
            await reply_to(pilot)
            await pilot.pause()
            styles = dict(styled_texts(app))
            first_words = latest_reply(app).text().split()[:2]
            reply = next(style for text, style in styles.items() if text.split()[:2] == first_words)
            assert not reply.dim
            assert styles["perplexity "].dim
            # The rules, one accent, and the baselines of the chart; the rest has the terminal's default colour.
            rule, accent, baseline = (8, 3, 6) if theme == "ansi-dark" else (7, 4, 6)
            numbers = {text: style.color.number for text, style in styles.items() if style.color}
            assert {numbers[text] for text in numbers if set(text) <= {"─"}} - {None, accent} == {rule}
            assert set(numbers.values()) <= {None, rule, accent, baseline}

    async def test_theme_colours_have_enough_contrast(self, make_app: MakeApp) -> None:
        app = make_app()
        async with app.run_test(size=(80, 24)):
            for name in ("shire", "shire-light"):
                theme = app.available_themes[name]
                background = Color.parse(str(theme.background))
                for colour in (theme.foreground, theme.accent, theme.error, theme.success, theme.warning):
                    assert contrast(Color.parse(str(colour)), background) >= 4.5, (name, colour)


class TestHelp:
    @pytest.mark.parametrize("size", [(60, 20), (200, 50), (20, 5)])
    async def test_help_shows_every_key_at_any_size(self, make_app: MakeApp, size: tuple[int, int]) -> None:
        app = make_app()
        async with app.run_test(size=size) as pilot:
            below = app.screen
            await pilot.press("f1")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            await pilot.pause()
            keys_by_action = {command.action: command.help for command in iter_binding_commands(app, below)}
            for node in (below, app):
                for binding in collect_bindings(type(node)):
                    possible = node.check_action(*parse(binding.action)[1:]) is not False
                    assert possible == (binding.action in keys_by_action)
                    if possible:
                        assert set(app.format_binding_keys(binding).split()) <= set(
                            keys_by_action[binding.action].split()
                        )
            panel = app.screen.query_one(KeyBindingsPanel)
            assert panel.has_focus
            assert panel.max_scroll_x == 0
            await pilot.press("end")
            await pilot.pause(0.1)
            assert panel.scroll_offset.y == panel.max_scroll_y
            await pilot.press("f1")
            await until(pilot, lambda: app.screen is below)
            await pilot.press("f1")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is below)

    async def test_help_shows_changed_keys(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"app.help": "alt+l"})
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("alt+l")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            (keys,) = (
                command.help
                for command in iter_binding_commands(app, app.screen_stack[0])
                if "toggle_help" in command.action
            )
            assert keys == "alt+l"


async def test_palettes_close_in_the_order_of_the_stack(make_app: MakeApp) -> None:
    """A key that the screen below still handles, such as ctrl+t, opens a dialog above the palette."""
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p")
        app.push_screen(NewTrainingDialog(""))
        await until(pilot, lambda: isinstance(app.screen, NewTrainingDialog))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, AppCommandPalette))
        assert [type(screen) for screen in app.screen_stack] == [
            SessionScreen,
            AppCommandPalette,
            NewTrainingDialog,
            AppCommandPalette,
        ]
        for expected in (NewTrainingDialog, AppCommandPalette, SessionScreen):
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, expected))  # noqa: B023
