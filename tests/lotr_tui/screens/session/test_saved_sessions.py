"""Saved sessions opened from the list of sessions, and sessions of models with open vocabularies."""

from pathlib import Path

from engine.config import Config
from engine.runs.loading import LoadedModel, find_model
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_file import load_session
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt import PromptInput
from tests.support import pilot as ui
from tests.support.conversations import branch_off, only_session
from tests.support.dialogues import with_cast
from tests.support.open_models import RecitingModel, adapted_model, bpe_tokenizer

LINE = "The wizard’s staff is old; Éowyn smiled — “Where is the Ring?” 日本…"


async def open_latest_session(pilot):
    await ui.send(pilot, "/sessions")
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "SessionsScreen")
    await pilot.press("enter")
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) != "SessionsScreen")
    await pilot.pause()


async def test_resumed_session_is_shown_and_branched_as_if_never_closed_and_saved_in_its_file(opened, tmp_path):
    async with opened() as (pilot, app):
        ui.set_field(app, "max_tokens", "12")
        await pilot.click("#reply-mode")
        await ui.reply_to(pilot, "bilbo is", "1")
        await ui.reply_to(pilot, "the lamp", "2")
        await pilot.press("ctrl+g", "left", "left", "left", "enter")
        await ui.until(pilot, lambda: len(ui.conversation_of(app).replies) == 3)
        await ui.until_reply_ended(pilot)
        branch = ui.latest_reply(app)
        before = ui.entries(app, Reply)
        await pilot.press("escape", "ctrl+g", "left")
        await ui.until(pilot, lambda: f"WORD {len(branch.tokens) - 1} of" in ui.bars_text(app))
        inspected = ui.bars_text(app)
    never_closed, path = Conversation(0), only_session(tmp_path)
    never_closed.replies.update({reply.id: reply for reply in branch.turn.replies})

    async with opened() as (pilot, app):
        ui.set_field(app, "max_tokens", "12")
        await open_latest_session(pilot)
        assert ui.entries(app, Reply) == before
        assert "‹ 2/2 ›" in ui.exchange_text(app)
        assert app.screen.focused is app.screen.query_one("#prompt", PromptInput)
        await pilot.press("ctrl+g", "left")
        await ui.until(pilot, lambda: f"WORD {len(branch.tokens) - 1} of" in ui.bars_text(app))
        assert ui.bars_text(app) == inspected
        ui.set_field(app, "seed", "9")
        await pilot.press("enter")
        await ui.until(pilot, lambda: len(ui.conversation_of(app).replies) == 4)
        await ui.until_reply_ended(pilot)
        new = ui.latest_reply(app)
    assert only_session(tmp_path) == path
    session = load_session(path)
    assert [reply.parent_id for reply in session.replies.values()] == [None, 0, 1, 2]
    start = new.num_shared_tokens
    expected = branch_off(never_closed, branch, start, new.tokens[start].id, branch.settings, 9)
    never_closed.close()
    assert len(expected.tokens) > new.num_shared_tokens + 1
    assert [token.id for token in new.tokens] == [token.id for token in expected.tokens]
    own_tokens = expected.tokens[new.num_shared_tokens :]
    assert [token.text for token in session.replies[3].own_tokens] == [token.text for token in own_tokens]


async def test_opening_another_session_stops_and_saves_a_reply_and_a_damaged_one_names_its_damage(opened, tmp_path):
    async with opened(size=(100, 30)) as (pilot, app):
        await ui.reply_to(pilot, "bilbo is", "1")
        saved = ui.entries(pilot.app, Reply)
    path = only_session(tmp_path)
    async with opened(pace=20, size=(100, 30)) as (pilot, app):
        ui.set_field(app, "max_tokens", "900")
        await ui.send(pilot, "the lamp")
        await ui.until(pilot, lambda: len(ui.exchange_text(app).split()) > 6)
        generating = ui.conversation_of(app)
        await open_latest_session(pilot)
        assert ui.entries(app, Reply) == saved
        assert generating.active_reply is None
        (stopped,) = load_session(tmp_path / "sessions" / f"{generating.session.name}.jsonl").replies.values()
        assert stopped.reason == "cancelled"
        assert len(stopped.tokens) > 3
    with path.open("a") as file:
        file.write('{"reply": {"id": "[red]"}}\n')
    async with opened(size=(100, 30)) as (pilot, app):
        await open_latest_session(pilot)
        assert "1 damaged line of session 'bilbo is' left out: id: expected int, got str;" in ui.notices(app)
        assert "\n" not in ui.notices(app)  # one notice of one line
        assert len(ui.entries(app, Reply)) == 1
        assert (await ui.reply_to(pilot, "the lamp")).tokens


async def test_opening_a_session_of_another_model_brings_back_all_that_it_had(opened, monkeypatch, tmp_path):
    run = tmp_path / "runs" / "talk"
    files = f"{tmp_path}/good.txt {tmp_path}/bad.txt"
    for path, text in zip(files.split(), ("What a fine day!\n", "All is lost.\n"), strict=True):
        Path(path).write_text(text * 9)
    for name in ("talk", "romeo"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")

    def load(name, runs_dir, precision, on_progress, adapters):
        find_model(name, runs_dir)
        assert name == str(run)
        return LoadedModel("talk", run, Config(), adapted_model("talk", *adapters), with_cast=with_cast)

    monkeypatch.setattr("engine.runs.loading.load_model_by_name", load)
    talking = SessionModel.from_loaded(load(str(run), None, "auto", None, []))
    commands = ["/strength talk 0.75", "/strength good.txt 0.5", "/as Frodo", "/to Gandalf", "/temperature 0.35"]
    commands += ["/set length 5", "/set best-of 1"]
    strengths = {"talk": 0.75, "romeo": 0.25, "steer good.txt": 0.5}
    async with opened(session_model=talking) as (pilot, app):
        for command, change in (("/adapter romeo:0.25", "romeo"), (f"/steer {files}", "steer good.txt")):
            await ui.send(pilot, command)
            await ui.until(pilot, lambda change=change: change in app.screen.slot.session_model.strengths)
        for command in [*commands, "Where is Sam?"]:
            await ui.send(pilot, command)
        await ui.until_reply_ended(pilot)
        assert ui.latest_reply(app).strengths == strengths
        said = ui.exchange_text(app)
        for command in ("/as me", "/to anyone", "/temperature 1"):
            await ui.send(pilot, command)
    run.rename(tmp_path / "talk")
    async with opened() as (pilot, app):  # with another model, which knows no speakers
        await open_latest_session(pilot)
        missing = f"/model {run} brings back the model of this session"
        await ui.until(pilot, lambda: missing in " ".join(ui.transcript_text(app).split()))
        assert app.screen.slot.session_model.name == "bundled"
        (tmp_path / "talk").rename(run)
        app.screen.view.open_session(only_session(tmp_path))
        await ui.until(pilot, lambda: app.screen.slot.session_model.strengths == strengths)
        await ui.until(pilot, lambda: "as Frodo" in ui.text_of(app.screen.query_one("#as")))
        assert "to Gandalf" in ui.text_of(app.screen.query_one("#to"))
        assert app.screen.slot.sampler.settings == ui.latest_reply(app).settings
        assert app.screen.slot.settings.best_of == 1
        assert ui.exchange_text(app) == said
        assert ui.latest_reply(app).session_model.strengths == strengths
        await pilot.press("ctrl+r")
        await ui.until_reply_ended(pilot)
        assert len(ui.conversation_of(app).replies) == 2


# Models of open vocabularies


def reply_lines(app):
    """Return the painted reply, with its lines joined by spaces."""
    lines = [line.strip() for line in ui.transcript_text(app).splitlines()]
    start = next(index for index, line in enumerate(lines) if line.startswith("❯"))
    return " ".join(lines[start + 1 : lines.index("", start)])


async def test_reply_is_prose_that_continues_the_word_of_the_prompt_and_no_word_is_unknown(opened):
    model = SessionModel("open", "", RecitingModel(bpe_tokenizer(), LINE))
    async with opened(session_model=model, size=(120, 35)) as (pilot, app):
        assert ui.text_of(app.screen.query_one("#run")).endswith(" tokens")
        ui.set_field(app, "max_tokens", "90")
        reply = await ui.reply_to(pilot, "The wiz")
        assert reply.full_text() == LINE
        assert reply_lines(app) == LINE.removeprefix("The ")
        assert "end of line · " in ui.exchange_text(app)
        app.screen.query_one(PromptInput).value = "Xylophone 日本 ☺"
        await pilot.pause()
        await pilot.resize_terminal(60, 20)
        await ui.until(pilot, lambda: reply_lines(app) == LINE.removeprefix("The "))
