"""The palette has every action, keys can be changed, and what goes wrong with the settings is said."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.segment import Segment
from rich.style import Style
from textual.actions import parse
from textual.binding import Binding
from textual.color import Color
from textual.command import CommandList
from textual.events import Click
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from lotr_tui.app import LotrApp
from lotr_tui.commands import Commands, Palette, actions, bindings_of, check_keymap
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.dialogs.help import HelpPanel, HelpScreen
from lotr_tui.screens.dialogs.new_training import NewTraining
from lotr_tui.screens.session.screen import PlayScreen
from lotr_tui.session.settings import KeptSettings
from lotr_tui.theme import Colourless
from lotr_tui.widgets.temperature_slider import TemperatureSlider
from tests.lotr_tui.screens.session.test_session_screen import until

MakeApp = Callable[..., LotrApp]


def settings_file(folder: Path, **values: object) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps({"version": 1, **values}))
    return path


def notices(app: LotrApp) -> str:
    return "\n".join(notification.message for notification in app._notifications)


def contrasts(app: LotrApp) -> Iterator[tuple[str, Style]]:
    """All that is written on the screen, as it is sent to the terminal."""
    for strip in app.screen._compositor.render_strips():
        for text, style, _ in strip:
            if style is not None and text.strip():
                yield text, style


def contrast(one: Color, other: Color) -> float:
    """As WCAG 2 defines it; 4.5 is enough for text."""

    def luminance(colour: Color) -> float:
        parts = [value / 255 for value in colour.rgb]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


async def choose(pilot: Pilot[None], text: str) -> None:
    """Open the palette, type `text` and take the best hit."""
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(pilot.app.screen, Palette))
    pilot.app.screen.query_one(Input).value = text
    await until(pilot, lambda: pilot.app.screen.query_one(CommandList).option_count)
    await pilot.pause(0.2)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(pilot.app.screen, Palette))
    await pilot.pause()


class TestPalette:
    @pytest.mark.parametrize("key", ["", "ctrl+l", "ctrl+y", "ctrl+e", "ctrl+t", "ctrl+o"])
    async def test_every_action_of_each_screen_is_there(self, make_app: MakeApp, key: str) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            if key:
                await pilot.press(key)
                await until(pilot, lambda: len(pilot.app.screen_stack) > 1)
            await pilot.pause()
            app = pilot.app
            assert isinstance(app, LotrApp)
            offered = [command.action for command in actions(app, app.screen)]
            for node in (app.screen, app):
                bindings = bindings_of(type(node))
                assert bindings
                for binding in bindings:
                    possible = node.check_action(*parse(binding.action)[1:]) is not False
                    assert offered.count(binding.action) == possible, binding

    async def test_what_the_screen_offers_is_found_and_done(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await choose(pilot, "ladder")
            await until(pilot, lambda: isinstance(pilot.app.screen, LadderScreen))

    async def test_what_a_widget_offers_is_done_from_afar(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await choose(pilot, "wildest")
            assert pilot.app.screen.query_one(TemperatureSlider).value == 2.0

    async def test_a_key_finds_its_action(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await choose(pilot, "f1")
            await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))

    async def test_the_cursor_rests(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+p")
            await until(pilot, lambda: isinstance(pilot.app.screen, Palette))
            assert not pilot.app.screen.query_one(Input).cursor_blink
            await pilot.press("ctrl+p")  # a second one is not opened
            assert len(pilot.app.screen_stack) == 2

    async def test_what_cannot_be_done_here_is_not_offered(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(160, 45)) as pilot:
            app = pilot.app
            assert isinstance(app, LotrApp)
            assert not any("another pane" in command.name for command in actions(app, app.screen))


class TestKeys:
    async def test_kept_keys_take_the_place_of_the_default_ones(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"play.ladder": "alt+l,alt+g"})
        async with make_app().run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+l")
            assert isinstance(pilot.app.screen, PlayScreen)
            await pilot.press("alt+l")
            await until(pilot, lambda: isinstance(pilot.app.screen, LadderScreen))
            app = pilot.app
            assert isinstance(app, LotrApp)
            assert [c.help for c in actions(app, app.screen_stack[0]) if c.name.startswith("ladder")] == ["alt+l alt+g"]
            assert not notices(app)

    async def test_a_key_that_another_action_has_is_told_once(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"play.ladder": "ctrl+e"})
        async with make_app().run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+e")
            await until(pilot, lambda: isinstance(pilot.app.screen, LadderScreen))
            assert isinstance(pilot.app, LotrApp)
            await pilot.press("f11", "f11")
            said = "settings.json has the key ctrl+e for play.ladder and play.lens; one of them cannot be reached by it"
            assert notices(pilot.app) == said

    async def test_keys_of_no_action_are_told_with_the_nearest(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"play.lader": "f9"})
        async with make_app().run_test(size=(80, 24)) as pilot:
            app = pilot.app
            assert isinstance(app, LotrApp)
            await until(pilot, lambda: notices(app))
            assert "'play.lader'" in notices(app)
            assert "play.ladder" in notices(app).replace("'play.lader'", "")

    @pytest.mark.parametrize(
        ("keymap", "said"),
        [
            ({}, []),
            ({"play.ladder": "ctrl+l"}, []),
            ({"play.ladder": "ctrl+e", "play.lens": "ctrl+l"}, []),  # they change places
            ({"play.ladder": "f9, ctrl+q"}, ["ctrl+q for play.ladder and app.quit"]),
            ({"app.help": "f2"}, ["f2 for play.pane and app.help"]),
            ({"sing": "f9"}, ["'sing', which is no action"]),
        ],
    )
    def test_clashes(self, keymap: dict[str, str], said: list[str]) -> None:
        lines = check_keymap(keymap)
        assert len(lines) >= len(said)
        assert bool(lines) == bool(said)
        assert all(any(part in line for line in lines) for part in said)

    async def test_a_key_that_textual_finds_lost_is_told_once(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            app = pilot.app
            assert isinstance(app, LotrApp)
            for _ in range(2):
                app.handle_bindings_clash({Binding("f9", "sing", "sing [red]")}, app.screen)
            await until(pilot, lambda: notices(app))
            assert notices(app) == "settings.json has the key f9, which 'sing [red]' has lost"


class TestThemes:
    async def test_the_theme_chosen_is_the_next_sessions_too(self, make_app: MakeApp) -> None:
        async with make_app().run_test(size=(80, 24)) as pilot:
            await choose(pilot, "theme: nord")
            assert pilot.app.theme == "nord"
        assert KeptSettings().current.theme == "nord"
        async with make_app().run_test(size=(80, 24)) as pilot:
            assert pilot.app.theme == "nord"

    async def test_the_option_is_for_one_session(self, make_app: MakeApp, tmp_path: Path) -> None:
        path = settings_file(tmp_path, theme="nord")
        before = path.read_bytes()
        app = make_app(theme="ansi-dark")
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.theme == "ansi-dark"
        assert path.read_bytes() == before
        app = make_app(theme="ansi-dark")
        async with app.run_test(size=(80, 24)):
            app.remember(pace=12.0)
        assert (KeptSettings().current.theme, KeptSettings().current.pace) == ("nord", 12.0)

    async def test_a_kept_theme_that_does_not_exist(self, make_app: MakeApp, tmp_path: Path) -> None:
        path = settings_file(tmp_path, theme="mordor")
        before = path.read_bytes()
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.theme == "shire"
            assert notices(app).startswith("unknown theme 'mordor' in ")
        assert path.read_bytes() == before

    async def test_settings_that_are_damaged(self, make_app: MakeApp, tmp_path: Path) -> None:
        (tmp_path / "settings.json").write_text("{")
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "set aside" in notices(app)

    async def test_settings_that_cannot_be_written(self, make_app: MakeApp, tmp_path: Path) -> None:
        (tmp_path / "settings.json").mkdir()
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            app._notifications.clear()
            await choose(pilot, "theme: gruvbox")
            assert app.theme == "gruvbox"
            assert "cannot be" in notices(app)
            app.remember(pace=3.0)
        assert app.farewell == ""  # it was said

    async def test_leaving_says_what_could_not_be_kept(self, make_app: MakeApp, tmp_path: Path) -> None:
        app = make_app()
        async with app.run_test(size=(80, 24)):
            app.remember(pace=3.0)
            (tmp_path / "settings.json").mkdir()
        assert "settings.json" in app.farewell

    @pytest.mark.parametrize("theme", ["shire", "shire-light", "textual-light", "ansi-light", "ansi-dark"])
    async def test_without_colour_text_can_be_read(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, theme: str
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            app.theme = theme  # also one that is chosen later
            await pilot.pause(0.1)
            written = list(contrasts(app))
            assert any("temp" in text for text, _ in written)
            for text, style in written:
                for colour in (style.color, style.bgcolor):  # grey, or the terminal's own
                    assert colour is None or colour.triplet is None or len(set(colour.triplet)) == 1, (text, style)
                    assert theme.startswith("ansi") is not bool(colour and colour.triplet), (text, style)
                if not theme.startswith("ansi"):
                    assert style.color != style.bgcolor, text

    def test_what_has_a_background_is_reversed_where_there_is_no_colour(self) -> None:
        plain, on_blue = Style.parse("green on default"), Style.parse("bold white on blue")
        reversed_ = Style.parse("reverse white on blue")
        segments = [Segment("a", plain), Segment("b", on_blue), Segment("c", reversed_), Segment("d")]
        shown = Colourless().apply(segments, Color(0, 0, 0))
        assert [segment.text for segment in shown] == ["a", "b", "c", "d"]
        assert [segment.style and bool(segment.style.reverse) for segment in shown] == [False, True, True, None]
        assert shown[1].style == Style.parse("bold reverse default on default")

    @pytest.mark.parametrize("theme", ["ansi-light", "ansi-dark"])
    async def test_a_scrollbar_shows_its_place_without_colour(
        self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, theme: str
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        async with make_app(theme=theme).run_test(size=(80, 24)) as pilot:
            await pilot.press("ctrl+p")
            await until(pilot, lambda: pilot.app.screen.query(CommandList))
            await pilot.pause(0.2)
            bar = pilot.app.screen.query_one(CommandList).vertical_scrollbar.region
            strips = pilot.app.screen._compositor.render_strips()
            column = [strips[y].crop(bar.x, bar.x + 1) for y in range(bar.y, bar.bottom)]
            looks = [
                bool(segment.style and segment.style.reverse) or bool(segment.text.strip()) for (segment,) in column
            ]
            assert looks[0]
            assert not looks[-1]

    async def test_a_light_theme_is_legible(self, make_app: MakeApp) -> None:
        app = make_app()
        async with app.run_test(size=(80, 24)):
            for name in ("shire", "shire-light"):
                theme = app.available_themes[name]
                behind = Color.parse(str(theme.background))
                for colour in (theme.foreground, theme.accent, theme.error, theme.success, theme.warning):
                    assert contrast(Color.parse(str(colour)), behind) >= 4.5, (name, colour)


class TestHelp:
    @pytest.mark.parametrize("size", [(60, 20), (200, 50), (20, 5)])
    async def test_every_key_is_told_and_can_be_read(self, make_app: MakeApp, size: tuple[int, int]) -> None:
        app = make_app()
        async with app.run_test(size=size) as pilot:
            below = app.screen
            await pilot.press("f1")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            await pilot.pause()
            told = {command.action: command.help for command in actions(app, below)}
            for node in (below, app):
                for binding in bindings_of(type(node)):
                    possible = node.check_action(*parse(binding.action)[1:]) is not False
                    assert possible == (binding.action in told)
                    if possible:
                        assert set(app.keys_of(binding).split()) <= set(told[binding.action].split())
            panel = app.screen.query_one(HelpPanel)
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

    async def test_keys_that_were_changed_are_told_as_they_are(self, make_app: MakeApp, tmp_path: Path) -> None:
        settings_file(tmp_path, keymap={"app.help": "alt+l"})
        app = make_app()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("alt+l")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            (table,) = (
                command.help for command in actions(app, app.screen_stack[0]) if "toggle_help" in command.action
            )
            assert table == "alt+l"


async def opened_palette(pilot: Pilot[None]) -> Palette:
    """The palette, once it has its list."""
    app = pilot.app
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(app.screen, Palette) and app.screen.query(CommandList))
    assert isinstance(app.screen, Palette)
    return app.screen


async def test_a_palette_that_is_closed_before_it_has_looked_for_commands(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        palette = await opened_palette(pilot)
        await palette.query("*").remove()
        palette._gather_commands("ladder")
        await app.run_action("command_list('page_down')", palette)
        palette.on_mount()
        await until(pilot, lambda: not palette.workers._workers)
        assert app._exception is None


async def test_a_palette_that_is_closed_while_it_looks_for_commands(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        palette = await opened_palette(pilot)

        async def closes(self: Commands, query: str) -> AsyncIterator[Any]:
            await palette.query("*").remove()
            for nothing in ():
                yield nothing

        monkeypatch.setattr(Commands, "search", closes)
        palette._gather_commands("ladder")
        await until(pilot, lambda: not palette.workers._workers)
        assert app._exception is None


async def test_a_palette_that_is_closed_looks_for_nothing_more(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test() as pilot:
        await pilot.press("ctrl+p", *"zzzz")
        palette = app.screen
        assert isinstance(palette, Palette)
        await until(pilot, lambda: palette._no_matches_timer is not None)
        palette.dismiss()
        assert palette._no_matches_timer is None
        assert palette._busy_timer is None
        await until(pilot, lambda: not palette.is_running)


async def test_pages_of_a_list_that_is_not_seen(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+t")
        await until(pilot, lambda: isinstance(app.screen, NewTraining))
        presets = app.screen.query_one("#preset", OptionList)
        presets.styles.height = 0
        await pilot.press("pageup", "pagedown", "escape", "ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, Palette) and app.screen.query(CommandList))
        commands = app.screen.query_one(CommandList)
        await until(pilot, lambda: commands.option_count)
        commands.styles.height = 0
        commands.styles.border = ("none", "red")
        await pilot.pause()
        await pilot.press("down", "pageup", "pagedown")
        assert app._exception is None


async def test_a_palette_above_a_screen_that_came_above_another_palette(make_app: MakeApp) -> None:
    """A key that the screen below still had to take, as ctrl+t, opens something above the palette."""
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p")
        app.push_screen(NewTraining(""))
        await until(pilot, lambda: isinstance(app.screen, NewTraining))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, Palette))
        assert [type(screen) for screen in app.screen_stack] == [PlayScreen, Palette, NewTraining, Palette]
        for expected in (NewTraining, Palette, PlayScreen):
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, expected))  # noqa: B023


async def test_a_click_beside_a_terminal_that_has_become_smaller(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, Palette) and app.screen.query(CommandList))
        palette, click = app.screen, {"delta_x": 0, "delta_y": 0, "button": 1, "shift": False, "meta": False}
        palette.post_message(Click(palette, 90, 30, **click, ctrl=False, screen_x=90, screen_y=30))
        await pilot.pause()
        assert app.screen is palette
        palette.post_message(Click(palette, 1, 23, **click, ctrl=False, screen_x=1, screen_y=23))
        await until(pilot, lambda: isinstance(app.screen, PlayScreen))
