"""The command palette, the themes, the settings file of the app, and the help."""

import json
import threading

import pytest
from textual.actions import parse
from textual.command import CommandList
from textual.geometry import Region
from textual.widgets import Input

from lotr_tui.app import collect_bindings, iter_binding_commands
from lotr_tui.screens.dialogs.new_training import NewTrainingDialog
from lotr_tui.session.settings import SettingsStore
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.slider import TemperatureSlider
from tests.support.pilot import notices, screen_name, until

SIZE = (80, 24)


def settings_file(folder, **values):
    path = folder / "settings.json"
    path.write_text(json.dumps({"version": 5, **values}))
    return path


def styled_texts(app):
    """Yield every text of the screen with the style that is sent to the terminal."""
    for widget in app.screen.query("*"):
        if widget.region.area and not widget.children:
            for strip in widget.render_lines(Region(0, 0, *widget.size)):
                for text, style, _ in strip:
                    if style is not None and text.strip():
                        yield text, style


async def open_palette(pilot):
    await pilot.press("ctrl+p")
    await until(pilot, lambda: pilot.app.screen.query(CommandList) and palette_lines(pilot.app.screen))
    return pilot.app.screen


async def run_command(pilot, text):
    palette = await open_palette(pilot)
    palette.query_one(Input).value = text
    await until(pilot, lambda: palette.query_one(CommandList).option_count)
    await pilot.pause(0.2)
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.screen is not palette)


def palette_lines(palette):
    """Return the painted rows of the palette, without the space around them."""
    commands = palette.query_one(CommandList)
    return [commands.render_line(y).text.strip() for y in range(commands.size.height)]


async def test_palette_and_help_offer_every_action_of_a_screen_once_with_its_keys(opened):
    async with opened(SIZE) as (pilot, app):
        session = app.screen
        for key in ("", "t", "c", "l", "ctrl+t", "ctrl+o"):
            if key:
                await pilot.press("ctrl+g", key)
                await until(pilot, lambda: app.screen is not session)
            await pilot.pause()
            commands = list(iter_binding_commands(app, app.screen))
            for node in (app.screen, app):
                for binding in collect_bindings(type(node)):
                    keys = [command.keys.split() for command in commands if command.action == binding.action]
                    assert len(keys) == (node.check_action(*parse(binding.action)[1:]) is not False), binding
                    own_keys = app.get_key_display(binding.with_key(binding.key)).split()
                    assert not keys or set(own_keys) <= set(keys[0])
            if key:
                app.pop_screen()
                await until(pilot, lambda: app.screen is session)
        await pilot.resize_terminal(60, 20)
        await pilot.press("f1")
        await until(pilot, lambda: screen_name(app) == "HelpScreen")
        await pilot.pause()
        panel = app.screen.query_one("VerticalScroll")
        assert panel.max_scroll_x == 0
        await pilot.press("end")
        await until(pilot, lambda: panel.scroll_offset.y == panel.max_scroll_y > 0)
        await pilot.press("f1")
        await until(pilot, lambda: app.screen is session)


async def test_palette_runs_actions_and_its_rows_fit_each_terminal(opened):
    async with opened(SIZE) as (pilot, app):
        for command, screen in (("temperatures", "LadderScreen"), ("f1", "HelpScreen")):
            await run_command(pilot, command)
            await until(pilot, lambda screen=screen: screen_name(app) == screen)
            app.pop_screen()
        await run_command(pilot, "highest")  # of a widget without the focus
        await until(pilot, lambda: app.screen.query_one(TemperatureSlider).value == 2.0)
        palette = await open_palette(pilot)
        for width in (80, 60):
            await pilot.resize_terminal(width, 24)
            await until(pilot, lambda: any(line.startswith("^r r        again: ") for line in palette_lines(palette)))
        await pilot.press("ctrl+p")
        assert len(app.screen_stack) == 2  # no second palette
        app.push_screen(NewTrainingDialog(""))
        await until(pilot, lambda: screen_name(app) == "NewTrainingDialog")
        await open_palette(pilot)
        for expected in ("NewTrainingDialog", "AppCommandPalette", "SessionScreen"):
            await pilot.press("escape")
            await until(pilot, lambda expected=expected: screen_name(app) == expected)


async def test_theme_option_is_not_saved_and_changes_of_settings_are_written_together(opened, tmp_path):
    path = settings_file(tmp_path, theme="nord")
    before = path.read_bytes()
    async with opened(SIZE, theme="ansi-dark") as (pilot, app):
        assert app.theme == "ansi-dark"
        for pace in range(1, 21):  # as a slider does
            app.state.update_settings(pace=float(pace))
        assert path.read_bytes() == before
        await until(pilot, lambda: not app.state.settings.unsaved, seconds=5)
        assert (SettingsStore().current.theme, SettingsStore().current.pace) == ("nord", 20)


async def test_an_unknown_theme_is_named(make_app, tmp_path):
    settings_file(tmp_path, theme="mordor")
    async with make_app().run_test(size=SIZE) as pilot:
        await until(pilot, lambda: notices(pilot.app).count("unknown theme 'mordor' in ") == 1)
        assert pilot.app.theme == "shire"


async def test_keys_work_while_a_slow_disk_writes_the_settings(make_app, monkeypatch):
    async with make_app().run_test(size=SIZE) as pilot:
        settings, writes, may_end = pilot.app.state.settings, threading.Event(), threading.Event()
        monkeypatch.setattr(settings, "save", lambda: (writes.set(), may_end.wait(10), "")[2])
        pilot.app.state.update_settings(pace=3.0)
        await until(pilot, writes.is_set)
        await pilot.press("h", "i")
        assert pilot.app.screen.query_one(PromptInput).value == "hi"
        may_end.set()


async def test_a_chosen_theme_is_saved_and_unwritable_settings_are_reported_once(make_app, opened, tmp_path):
    app = make_app()
    async with app.run_test(size=SIZE):
        app.state.update_settings(pace=3.0)
        (tmp_path / "settings.json").mkdir()
    assert "settings.json" in app.state.exit_message
    async with opened(SIZE) as (pilot, app):
        app.clear_notifications()
        await run_command(pilot, "theme: gruvbox")
        assert app.theme == "gruvbox"
        await until(pilot, lambda: "cannot be" in notices(app))
        app.state.update_settings(pace=3.0)
    assert app.state.exit_message == ""
    (tmp_path / "settings.json").rmdir()
    async with make_app().run_test(size=SIZE) as pilot:
        await run_command(pilot, "theme: nord")
        await until(pilot, lambda: pilot.app.theme == "nord")
    assert SettingsStore().current.theme == "nord"


# Without colour


@pytest.mark.parametrize("is_ansi", [False, True])
async def test_text_is_legible_without_colour(opened, monkeypatch, is_ansi):
    monkeypatch.setenv("NO_COLOR", "1")
    async with opened(SIZE, theme="ansi-dark" if is_ansi else None) as (pilot, app):
        for theme in ("ansi-light", "ansi-dark") if is_ansi else ("shire-light", "shire"):
            app.theme = theme  # applies to a theme chosen later, too
            await pilot.pause(0.1)
            texts = list(styled_texts(app))
            assert any("temp" in text for text, _ in texts)
            for text, style in texts:
                for colour in (style.color, style.bgcolor):  # grey or the terminal's default
                    assert colour is None or colour.triplet is None or len(set(colour.triplet)) == 1, (text, style)
                    assert is_ansi is not bool(colour and colour.triplet), (text, style)
                assert is_ansi or style.color != style.bgcolor, text
