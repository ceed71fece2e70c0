"""Slash commands in the prompt of the session, and their menu."""

from types import SimpleNamespace

import pytest

from engine.errors import InvalidInputError
from lotr_tui.screens.session import keys
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_file import list_sessions
from lotr_tui.widgets.prompt import PromptInput, PromptMenu
from lotr_tui.widgets.screen_lines import HelpLine
from lotr_tui.widgets.slider import SamplerPanel
from tests.support import pilot as ui
from tests.support.dialogues import dialogue_session_model
from tests.support.files import write_run
from tests.support.networks import random_transformer
from tests.support.prompt import type_ahead, type_text, visible_lines

SIZE = (120, 35)


def prompt_of(pilot):
    return pilot.app.screen.query_one(PromptInput)


async def run(pilot, command):
    prompt_of(pilot).clear()
    await ui.send(pilot, command)
    await pilot.pause()


def test_arguments_are_completed_with_the_choices_of_their_command(tmp_path):
    for name in ("bree", "mordor", "moria", "moria-2"):
        write_run(tmp_path / name)
    for text, rest in [
        ("/model mo", "rdor"), ("/model mori", "a"), ("/model moria", "-2"), ("/model x", ""), ("/mod", "el"),
        ("/to", ""), ("/as gan", "dalf"), ("/scene 6 Frodo, GAN", "dalf"), ("/set to", "p-k"),
        ("/strength rom", "eo 0"), ("/strength film 1", ".5"), ("/steer fro", "do"), ("/steer o", "ff"),
    ]:  # fmt: skip
        model = SimpleNamespace(cast=["FRODO", "GANDALF"], chat=None, strengths={"film": 1.0, "romeo": 0.5})
        model.model, model.unsteered = random_transformer(), model
        assert keys.complete_command(text, model, tmp_path).rest == rest, text
    assert "No such command" in keys.complete_command("/zz", None).hint
    with pytest.raises(InvalidInputError, match="type /temperature NUMBER"):
        keys.parse_command("/temperature", None)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("/to gol", "/to gollum"), ("/scene 6 Frodo, gan", "/scene 6 Frodo, gandalf"), ("/inspect le", "/inspect lens"),
        ("/set top-k", ""), ("/set see", "/set seed "), ("/preset ch", "/preset chat"),
        ("/to sam", ""), ("/to g", ""), ("/to", "/to"), ("/system You", ""), ("/strength 1", ""), ("/to !gol", ""),
    ],
)  # fmt: skip
def test_enter_takes_the_only_value_that_fits(text, taken):
    cast = ["FRODO", "GANDALF", "GOLLUM", "SAM", "SAMWISE"]
    model = SimpleNamespace(
        cast=cast, chat=object() if "system" in text else None, strengths={"film": 1.0}, unsteered=None
    )
    completion = keys.complete_command(text, model)
    assert (completion.choices[completion.chosen].text if completion.chosen >= 0 else "") == taken


def test_only_commands_that_the_model_can_do_are_offered():
    bare = {"strengths": {}, "source": "", "name": "lstm", "model": None, "unsteered": None}
    for cast, chat, offered in (("SAM",), None, {"as", "to", "scene"}), ((), object(), {"system"}), ((), None, set()):
        for text in ("/", "/set "):
            choices = keys.complete_command(text, SimpleNamespace(cast=cast, chat=chat, **bare)).choices
            found = {choice.text.removeprefix(text).strip() for choice in choices}
            assert found & {"as", "to", "scene", "system"} == offered - ({"scene"} if text == "/set " else set())
            assert len(choices) <= 16
    no_chat = SimpleNamespace(cast=("SAM",), chat=None, **bare)
    assert "lstm has none" in keys.complete_command("/strength 1", no_chat).hint
    assert "needs a Transformer" in keys.complete_command("/steer Sam", no_chat).hint
    assert "needs a model with a chat template" in keys.complete_command("/system You", no_chat).hint


async def test_commands_open_the_screens_of_their_keys(opened):
    async with opened(size=SIZE) as (pilot, app):
        for command, screen in [
            ("/HELP ", "HelpScreen"), ("/model", "RunsScreen"), ("/train", "NewTrainingDialog"),
            ("/sessions", "SessionsScreen"), ("/inspect lens", "LensScreen"), ("/inspect temperatures", "LadderScreen"),
            ("/inspect compare", "SideBySideScreen"), ("/inspect copied", "CopiedScreen"),
            ("/inspect inside", "ActivationsScreen"), ("/learn", "ChapterScreen"),
        ]:  # fmt: skip
            await run(pilot, command)
            await ui.until(pilot, lambda screen=screen: ui.screen_name(app) == screen)
            app.pop_screen()
            await ui.until(pilot, lambda: ui.screen_name(app) == "SessionScreen")
            assert prompt_of(pilot).value == ""
        await run(pilot, "/quit")
        assert app.return_code == 0


async def test_mistakes_are_explained_and_values_set_the_controls(opened):
    async with opened(size=SIZE) as (pilot, app):
        for command, message in [
            ("/temperature hot", "'hot' is not a number"), ("/temperature 7", "temperature"),
            ("/temprature 1", "/temprature is not a command; did you mean /temperature?"),
            ("/usr/bin", "Begin with // to send it as text"), ("/to Gollum", "train one with --mode dialogue"),
            ("/export", "no reply yet"), ("/preset chatty", "did you mean chat?"),
            ("/set seeed 7", "did you mean seed?"), ("/set temp 5", "did you mean temperature?"),
            ("/model nope", "run 'nope' is neither in"), ("/set mode conversation", "use continue or reply"),
            ("/inspect lenses", "did you mean lens?"), ("/inspect tuning", "has no adapter; /model bundled has one"),
        ]:  # fmt: skip
            app.clear_notifications()
            await run(pilot, command)
            await ui.until(pilot, lambda message=message: message in ui.notices(app))
            assert prompt_of(pilot).value == ""
        assert not ui.entries(app, Reply)
        panel = app.screen.query_one(SamplerPanel)
        await run(pilot, "/preset chat")
        assert (panel.preset, panel.settings.min_p) == ("chat", 0.05)
        for command in (
            "/temperature 0.9", "/set top-k 40", "/set top-p .9", "/set min-p 0.1", "/set length 12",
            "/penalty 1.1", "/set seed 7", "/set pace 100",
        ):  # fmt: skip
            await run(pilot, command)
            assert prompt_of(pilot).value == ""
        settings = panel.settings
        assert (settings.temperature, settings.top_k, settings.top_p, settings.min_p) == (0.9, 40, 0.9, 0.1)
        assert (settings.max_tokens, settings.repetition_penalty, panel.seed) == (12, 1.1, 7)
        assert ui.conversation_of(app).pace == 100
        await run(pilot, "/set seed random")
        assert panel.seed is None


async def test_commands_act_on_the_conversation_and_are_no_prompts(opened, tmp_path):
    async with opened(size=SIZE) as (pilot, app):
        await ui.reply_to(pilot, "bilbo is")
        name = ui.conversation_of(app).session.name
        await run(pilot, "/set mode reply")
        assert ui.text_of(app.screen.query_one("#reply-mode")) == "reply"
        await pilot.press("up")
        assert prompt_of(pilot).value == "/set mode reply"
        prompt_of(pilot).clear()
        assert len(ui.entries(app, Reply)) == 1
        path = tmp_path / "told.md"
        for target, message in ((path, "Exported to"), (path, "exists already"), (tmp_path / "far/a.md", "not exist")):
            await run(pilot, f"/export {target}")
            await ui.until(pilot, lambda message=message: message in ui.notices(app))
        assert "bilbo is down" in path.read_text()
        await run(pilot, "/export")
        await ui.until(pilot, lambda: ui.screen_name(app) == "ExportDialog")
        await pilot.press("escape")
        await run(pilot, "/new")
        assert not ui.entries(app, Reply)
        assert [summary.name for summary in list_sessions()] == [name]
        await ui.reply_to(pilot, "//help is")  # a prompt that begins with a slash
        assert "❯ /help is" in ui.entries(app, Reply)[0]
        assert ui.conversation_of(app).session.name != name


async def test_menu_lists_the_commands_and_arrows_tab_enter_and_clicks_choose(opened, tmp_path):
    for name in ("moria", "mor\x1b[31mdor"):
        write_run(tmp_path / "runs" / name)
    async with opened(size=SIZE) as (pilot, app):
        prompt = prompt_of(pilot)
        menu, body = app.screen.query_one(PromptMenu), app.screen.query_one("#body").region
        assert not menu.display
        await pilot.press("slash")
        assert ui.text_of(menu).startswith("/new")
        assert ui.text_of(menu).splitlines()[-1].startswith("/quit")
        await type_text(pilot, "m")
        assert ui.text_of(menu).splitlines()[0].startswith("/model [NAME]")
        assert menu.region.bottom == prompt.region.y
        assert app.screen.query_one("#body").region == body  # nothing moves
        assert visible_lines(prompt)[0].startswith("/model")
        await pilot.press("tab", "space")
        assert prompt.value == "/model "
        await ui.until(pilot, lambda: "/model [NAME]" in ui.text_of(app.screen.query_one(HelpLine)))
        await type_text(pilot, "mor")
        assert "\x1b" not in prompt.suggestion
        await type_text(pilot, "i")
        assert prompt.suggestion == "a"
        await pilot.press("escape")
        await ui.until(pilot, lambda: prompt.value == "" and not menu.display)
        await type_text(pilot, "/pre")
        await pilot.press("enter")  # which needs an argument
        assert prompt.value == "/preset "
        await pilot.press("backspace", "enter")
        assert prompt.value == "/preset "
        await pilot.press("down", "down", "enter")
        await ui.until(pilot, lambda: app.screen.query_one(SamplerPanel).preset == "careful")
        assert prompt.value == ""
        await type_text(pilot, "/te")
        await pilot.click(PromptMenu, offset=(5, 0))
        assert prompt.value == "/temperature "
        prompt.clear()
        await type_text(pilot, "/")
        await pilot.press("up", "up", "enter")  # from the last command on
        await ui.until(pilot, lambda: ui.screen_name(app) == "HelpScreen")
        await pilot.press("escape")
        await pilot.resize_terminal(80, 12)
        rows = ["8 more below", "3 more above, 5 more below", "8 more above", "8 more above"]
        for key, shown in zip(["slash", *3 * ["pagedown"]], rows, strict=True):
            await pilot.press(key)
            assert ui.text_of(menu).splitlines()[-1] == shown
        assert menu.choice.text == "/quit"


async def test_keys_that_are_typed_while_a_line_is_handled_are_neither_lost_nor_joined_to_it(opened, tmp_path):
    write_run(tmp_path / "runs" / "moria")
    async with opened(session_model=dialogue_session_model(), size=SIZE) as (pilot, app):
        await type_ahead(pilot, "/to goll", "the lamp")
        await ui.until_reply_ended(pilot)
        assert (ui.latest_reply(app).prompt, ui.latest_reply(app).speaker) == ("the lamp", "GOLLUM")
        await type_ahead(pilot, "/model moria", "bilbo is", "/temperature 1.5")
        await ui.until(pilot, lambda: "moria" in ui.text_of(app.screen.query_one("#status")))
        await ui.until_reply_ended(pilot)
        assert ui.latest_reply(app).prompt == "bilbo is"
        await type_ahead(pilot, "the lamp", "/new", "/nothing", "/temperature 0.5")
        await ui.until(pilot, lambda: "/nothing is not a command" in ui.notices(app))
        assert app.screen.query_one(SamplerPanel).settings.temperature == 0.5
        assert not ui.entries(app, Reply)
        assert prompt_of(pilot).value == ""
        await pilot.press("up", "up")
        assert prompt_of(pilot).value == "/nothing"
        prompt_of(pilot).clear()
        ui.conversation_of(app).pace = 5
        await type_ahead(pilot, "the lamp", "bilbo is")
        await ui.until(pilot, lambda: "still generating" in ui.notices(app))
        assert prompt_of(pilot).value == "bilbo is"  # a prompt that is refused is put back
