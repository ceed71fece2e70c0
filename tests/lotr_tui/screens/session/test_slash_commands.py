"""Slash commands in the prompt of the session."""

import pytest

from engine.errors import InvalidInputError
from lotr_tui.screens.session.slash_commands import parsing
from lotr_tui.screens.session.slash_commands.command_list import SlashCommandList
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_file import list_sessions
from lotr_tui.theme import SHIRE_LIGHT
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.sampler_panel import SamplerPanel
from tests.support import pilot as ui
from tests.support.files import write_run
from tests.support.prompt import type_text, visible_lines

SIZE = (120, 35)


def prompt_of(pilot):
    return pilot.app.screen.query_one(PromptInput)


async def run(pilot, command):
    prompt_of(pilot).clear()
    await ui.send(pilot, command)
    await pilot.pause()


def test_arguments_are_completed_with_the_choices_of_their_command():
    for text, choices, rest in [
        ("/model mo", ["bree", "moria", "mordor"], "ria"),
        ("/model moria", ["moria", "moria-2"], "-2"),
        ("/model x", ["moria"], ""),
        ("/mod", [], "el "),
        ("/mode", [], ""),  # a command itself
    ]:
        assert parsing.complete_command(text, lambda command, choices=choices: choices).rest == rest
    assert "No such command" in parsing.complete_command("/zz", lambda command: []).hint
    assert parsing.parse_command("/temperature  0.7 ").argument == "0.7"
    with pytest.raises(InvalidInputError, match="type /temperature NUMBER"):
        parsing.parse_command("/temperature")


async def test_commands_open_the_screens_of_their_keys(make_app):
    async with make_app().run_test(size=SIZE) as pilot:
        app = pilot.app
        for command, screen in [
            ("/HELP ", "HelpScreen"), ("/model", "RunsScreen"), ("/train", "NewTrainingDialog"),
            ("/sessions", "SessionsScreen"), ("/lens", "LensScreen"), ("/ladder", "LadderScreen"),
            ("/compare", "SideBySideScreen"), ("/copied", "CopiedScreen"), ("/inside", "ActivationsScreen"),
            ("/theme", "AppCommandPalette"),
        ]:  # fmt: skip
            await run(pilot, command)
            await ui.until(pilot, lambda screen=screen: ui.screen_name(app) == screen)
            app.pop_screen()
            await ui.until(pilot, lambda: ui.screen_name(app) == "SessionScreen")
            assert prompt_of(pilot).value == ""
        await run(pilot, "/quit")
        assert app.return_code == 0


async def test_mistakes_are_explained_and_numbers_set_the_controls(make_app):
    async with make_app().run_test(size=SIZE) as pilot:
        for command, message in [
            ("/temperature hot", "'hot' is not a number"),
            ("/temperature 7", "temperature"),
            ("/lader", "/lader is not a command; did you mean /ladder?"),
            ("/usr/bin", "Begin with // to send it as text"),
            ("/to Gollum", "train one with --mode dialogue"),
            ("/export", "no reply yet"),
        ]:
            pilot.app.clear_notifications()
            await run(pilot, command)
            await ui.until(pilot, lambda message=message: message in ui.notices(pilot.app))
            assert prompt_of(pilot).value in (command, "")
        await run(pilot, "/model nothing")
        await ui.until(pilot, lambda: "nothing" in ui.notices(pilot.app))
        assert not ui.entries(pilot.app, Reply)
        panel = pilot.app.screen.query_one(SamplerPanel)
        for command in (
            "/temperature 0.7",
            "/top-k 40",
            "/top-p .9",
            "/min-p 0.1",
            "/length 12",
            "/penalty 1.2",
            "/seed 7",
        ):
            await run(pilot, command)
            assert prompt_of(pilot).value == ""
        settings = panel.settings()
        assert (settings.temperature, settings.top_k, settings.top_p, settings.min_p) == (0.7, 40, 0.9, 0.1)
        assert (settings.max_tokens, settings.repetition_penalty, panel.seed()) == (12, 1.2, 7)
        await run(pilot, "/seed")
        assert panel.seed() is None


async def test_commands_act_on_the_conversation_and_are_no_prompts(make_app, tmp_path):
    async with make_app().run_test(size=SIZE) as pilot:
        app = pilot.app
        await ui.reply_to(pilot, "bilbo is")
        name = ui.conversation_of(app).name
        await run(pilot, "/mode")
        assert ui.text_of(app.screen.query_one("#reply-mode")) == "reply"
        await run(pilot, "/edit")
        assert prompt_of(pilot).value == "bilbo is"
        prompt_of(pilot).clear()
        await pilot.press("up", "up")
        assert prompt_of(pilot).value == "/mode"
        assert len(ui.entries(app, Reply)) == 1
        path = tmp_path / "told.md"
        for target, message in ((path, "Exported to"), (path, "exists already"), (tmp_path / "far/a.md", "not exist")):
            await run(pilot, f"/export {target}")
            await ui.until(pilot, lambda message=message: message in ui.notices(app))
        assert "bilbo is" in path.read_text()
        await run(pilot, "/export")
        await ui.until(pilot, lambda: ui.screen_name(app) == "ExportDialog")
        await pilot.press("escape")
        await run(pilot, "/new")
        assert not ui.entries(app, Reply)
        assert [summary.name for summary in list_sessions()] == [name]
        await ui.reply_to(pilot, "//help is")  # a prompt that begins with a slash
        assert "❯ /help is" in ui.entries(app, Reply)[0]
        assert ui.conversation_of(app).name != name


async def test_typed_slash_lists_the_commands_and_completes_them_by_tab_and_click(make_app, tmp_path):
    for name in ("moria", "mor\x1b[31mdor"):
        write_run(tmp_path / "runs" / name)
    async with make_app().run_test(size=SIZE) as pilot:
        app, prompt = pilot.app, prompt_of(pilot)
        commands, body = app.screen.query_one(SlashCommandList), app.screen.query_one("#body").region
        assert not commands.display
        await pilot.press("slash")
        assert ui.text_of(commands).startswith("/help")
        assert ui.text_of(commands).endswith("/quit")
        await type_text(pilot, "m")
        assert ui.text_of(commands).splitlines()[0].startswith("/model [RUN]")
        assert commands.region.bottom == prompt.region.y
        assert app.screen.query_one("#body").region == body  # nothing moves
        assert visible_lines(prompt)[0].startswith("/model")
        await pilot.press("tab")
        assert prompt.value == "/model "
        await ui.until(pilot, lambda: "/model [RUN]" in ui.text_of(app.screen.query_one(HelpLine)))
        await type_text(pilot, "mor")
        assert "\x1b" not in prompt.suggestion
        await type_text(pilot, "i")
        assert prompt.suggestion == "a"
        await pilot.press("escape")
        await ui.until(pilot, lambda: prompt.value == "" and not commands.display)
        await type_text(pilot, "/m")
        await pilot.click(SlashCommandList, offset=(5, 0))
        assert prompt.value == "/model "
        assert commands.region.height == 1
        prompt.clear()
        await type_text(pilot, f"/theme {SHIRE_LIGHT.name[:-2]}")
        assert prompt.suggestion == SHIRE_LIGHT.name[-2:]
        await pilot.press("tab", "enter")
        await ui.until(pilot, lambda: app.theme == SHIRE_LIGHT.name)
