"""Slash commands in the prompt of the session."""

import threading
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.errors import InvalidInputError
from engine.runs.loading import LoadedModel
from lotr_tui.screens.session.slash_commands import parsing
from lotr_tui.screens.session.slash_commands.command_list import SlashCommandList
from lotr_tui.screens.session.slash_commands.table import SLASH_COMMANDS
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.session_file import list_sessions
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import SHIRE_LIGHT
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from lotr_tui.widgets.sampler_panel import SamplerPanel
from tests.support.bindings.observations import screen_name
from tests.support.files import write_run
from tests.support.pilot import MakeApp, conversation_of, entries, notices, reply_to, send, text_of, until
from tests.support.prompt import type_text, visible_lines


def prompt_of(pilot: Pilot[None]) -> PromptInput:
    return pilot.app.screen.query_one(PromptInput)


async def run(pilot: Pilot[None], command: str) -> None:
    """Type a command and send it."""
    prompt_of(pilot).clear()
    await send(pilot, command)
    await pilot.pause()


@pytest.mark.parametrize(
    ("command", "screen"),
    [
        ("/help", "HelpScreen"),
        ("/HELP ", "HelpScreen"),
        ("/model", "RunsScreen"),
        ("/runs", "RunsScreen"),
        ("/sessions", "SessionsScreen"),
        ("/train", "NewTrainingDialog"),
        ("/lens", "LensScreen"),
        ("/ladder", "LadderScreen"),
        ("/compare", "SideBySideScreen"),
        ("/copied", "MemorizationScreen"),
        ("/inside", "ActivationsScreen"),
        ("/theme", "AppCommandPalette"),
    ],
)
async def test_command_opens_the_screen_of_its_key(make_app: MakeApp, command: str, screen: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        prompt = prompt_of(pilot)
        await run(pilot, command)
        await until(pilot, lambda: screen_name(app) == screen)
        assert prompt.value == ""


async def test_every_command_without_argument_runs_an_action_that_exists(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)):
        for command in SLASH_COMMANDS.values():
            assert command.help
            if command.action:
                node = app if command.is_app_action else app.screen
                assert hasattr(node, f"action_{command.action.partition('(')[0]}"), command.name


async def test_commands_act_on_the_conversation_and_are_no_prompts(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot, "bilbo is")
        await run(pilot, "/mode")
        assert app.screen.reply_mode == "reply"  # type: ignore[attr-defined]
        await run(pilot, "/edit")
        assert prompt_of(pilot).value == "bilbo is"
        assert len(entries(app, Exchange)) == 1
        prompt_of(pilot).clear()
        await pilot.press("up", "up")
        assert prompt_of(pilot).value == "/mode"
        await run(pilot, "/quit")
        assert app._exit


async def test_numbers_set_the_controls(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        panel = app.screen.query_one(SamplerPanel)
        for command in ("/temperature 0.7", "/top-k 40", "/top-p .9", "/length 12", "/penalty 1.2", "/seed 7"):
            await run(pilot, command)
            assert prompt_of(pilot).value == ""
        settings = panel.settings()
        assert (settings.temperature, settings.top_k, settings.top_p) == (0.7, 40, 0.9)
        assert (settings.max_tokens, settings.repetition_penalty, panel.seed()) == (12, 1.2, 7)
        await run(pilot, "/seed")
        assert panel.seed() is None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/temperature hot", "'hot' is not a number"),
        ("/temperature 7", "temperature"),
        ("/temperature", "type /temperature NUMBER"),
        ("/seed 1.5", "'1.5' is not a whole number"),
        ("/seed -1", "seed"),
        ("/lens now", "/lens takes no argument"),
        ("/lader", "/lader is not a command; did you mean /ladder?"),
        ("/", "is not a command"),
        ("/usr/bin", "Begin with // to send it as text"),
        ("/theme mordor", "unknown theme 'mordor'"),
        ("/theme shire-lite", "did you mean shire-light?"),
        ("/model nothing", "nothing"),
    ],
)
async def test_mistake_is_explained(make_app: MakeApp, command: str, message: str) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, command)
        await until(pilot, lambda: message in notices(app))
        assert prompt_of(pilot).value == ("" if command.startswith("/model") else command)
        assert not entries(app, Exchange)


async def test_theme_is_used(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await type_text(pilot, f"/theme {SHIRE_LIGHT.name[:-2]}")
        assert prompt_of(pilot).suggestion == SHIRE_LIGHT.name[-2:]
        await pilot.press("tab", "enter")
        await pilot.pause()
        assert app.theme == SHIRE_LIGHT.name


async def test_model_of_a_run_is_used(
    make_app: MakeApp, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runs.loading.load_model_by_name", lambda name, runs_dir: loaded)
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/model moria")
        await until(pilot, lambda: app.screen.query_one(PromptInput).value == "")
        await until(pilot, lambda: "now using" in "".join(entries(app, object)))


async def test_new_begins_an_empty_session_and_keeps_the_old_one(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot, "bilbo is")
        name = conversation_of(app).name
        await run(pilot, "/new")
        assert not entries(app, Exchange)
        assert [summary.name for summary in list_sessions()] == [name]
        await reply_to(pilot, "the lamp")
        assert conversation_of(app).name != name


async def test_export_writes_this_session(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/export")
        assert "no reply yet" in notices(app)
        await reply_to(pilot, "bilbo is")
        await run(pilot, f"/export {tmp_path}/told.md")
        await until(pilot, lambda: "Exported to" in notices(app))
        assert "> bilbo is" in (tmp_path / "told.md").read_text()
        await run(pilot, f"/export {tmp_path}/told.md")
        await until(pilot, lambda: "exists already" in notices(app))
        await run(pilot, f"/export {tmp_path}/far/told.md")
        await until(pilot, lambda: "does not exist" in notices(app))
        await run(pilot, "/export")
        await until(pilot, lambda: screen_name(app) == "ExportDialog")


async def test_run_names_are_completed_without_control_characters(make_app: MakeApp, tmp_path: Path) -> None:
    for name in ("moria", "mor\x1b[31mdor"):
        write_run(tmp_path / "runs" / name)
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await type_text(pilot, "/model mori")
        assert prompt_of(pilot).suggestion == "a"
        await type_text(pilot, "\b")
        prompt_of(pilot).value = ""
        await type_text(pilot, "/model mor")
        assert "\x1b" not in prompt_of(pilot).suggestion


async def test_two_slashes_send_a_prompt_that_begins_with_a_slash(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "//help is")
        assert "❯ /help is" in entries(app, Exchange)[0]
        await until(pilot, lambda: app.screen._panes.conversation.conversation.active_reply is None)  # type: ignore[attr-defined]
        await run(pilot, " /lens is")
        assert "/lens is" in entries(app, Exchange)[1]


async def test_typed_slash_lists_the_commands_and_escape_clears_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        commands, body = app.screen.query_one(SlashCommandList), app.screen.query_one("#body").region
        assert not commands.display
        await pilot.press("slash")
        assert text_of(commands).startswith("/help")
        assert text_of(commands).endswith("/quit")
        await type_text(pilot, "m")
        assert text_of(commands).splitlines()[0].startswith("/model [RUN]")
        assert commands.region.bottom == prompt_of(pilot).region.y
        assert app.screen.query_one("#body").region == body  # nothing moves
        assert visible_lines(prompt_of(pilot))[0].startswith("/model")
        await pilot.press("tab")
        assert prompt_of(pilot).value == "/model "
        await pilot.pause()
        assert "/model [RUN]" in text_of(app.screen.query_one(HelpLine))
        await pilot.press("escape")
        assert prompt_of(pilot).value == ""
        await pilot.pause()
        assert not commands.display


async def test_click_types_a_listed_command(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await type_text(pilot, "/m")
        await pilot.click(SlashCommandList, offset=(5, 0))
        assert prompt_of(pilot).value == "/model "
        assert app.screen.query_one(SlashCommandList).region.height == 1
        await pilot.press("enter")
        await until(pilot, lambda: screen_name(app) == "RunsScreen")


async def test_bars_ignore_a_command(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 35)) as pilot:
        await type_text(pilot, "/the")
        assert app.screen._draft == ""  # type: ignore[attr-defined]


async def test_commands_that_need_no_model_work_while_it_loads(make_app: MakeApp, loaded: LoadedModel) -> None:
    release = threading.Event()

    def load() -> SessionModel:
        release.wait(10)
        return SessionModel.from_loaded(loaded)

    app = make_app(session_model=None, load_session_model=load)
    async with app.run_test(size=(120, 35)) as pilot:
        await run(pilot, "/lens")
        assert "/lens needs a model" in notices(app)
        assert prompt_of(pilot).value == "/lens"
        await pilot.press("escape")
        assert prompt_of(pilot).value == ""
        await run(pilot, "/runs")
        await until(pilot, lambda: screen_name(app) == "RunsScreen")
        release.set()


def test_arguments_are_completed_with_the_choices_of_their_command() -> None:
    completion = parsing.complete_command("/model mo", lambda command: ["bree", "moria", "mordor"])
    assert completion.rest == "ria"
    assert parsing.complete_command("/model moria", lambda command: ["moria", "moria-2"]).rest == "-2"
    assert parsing.complete_command("/model x", lambda command: ["moria"]).rest == ""
    assert parsing.complete_command("/mod", lambda command: []).rest == "el "
    assert parsing.complete_command("/mode", lambda command: []).rest == ""  # a command itself
    assert "not" not in parsing.complete_command("/mo", lambda command: []).hint
    assert "No such command" in parsing.complete_command("/zz", lambda command: []).hint


def test_command_with_a_required_argument_is_refused_without_it() -> None:
    with pytest.raises(InvalidInputError, match="type /temperature NUMBER"):
        parsing.parse_command("/temperature")
    assert parsing.parse_command("/temperature  0.7 ").argument == "0.7"
