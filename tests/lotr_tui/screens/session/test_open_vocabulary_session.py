"""The session with models of open vocabularies: prose, a cursor on parts of words, branches and saved sessions."""

import pytest

from engine.data.tokenizers.base import Tokenizer
from engine.models.base import LanguageModel
from lotr_tui.app import LotrApp
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.session.session_file import list_sessions
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.app import make_decoder
from tests.support.learn import open_class_before
from tests.support.open_models import RecitingModel, bpe_tokenizer, character_tokenizer, open_model
from tests.support.pilot import (
    MakeApp,
    conversation_of,
    exchange_text,
    inspector_text,
    latest_reply,
    lines_of,
    notices,
    reply_to,
    send,
    set_field,
    text_of,
    transcript_text,
    until,
    until_reply_ended,
)

TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
SIZES = pytest.mark.parametrize("size", [(200, 50), (80, 24), (60, 20)], ids=["200x50", "80x24", "60x20"])
LINE = "The wizard’s staff is old; Éowyn smiled — “Where is the Ring?” 日本…"


def make_open_app(make_app: MakeApp, model: LanguageModel) -> LotrApp:
    return make_app(session_model=SessionModel("open", "", model))


def reply_lines(app: LotrApp) -> str:
    """Return the painted reply, with its lines joined by spaces."""
    lines = [line.strip() for line in transcript_text(app).splitlines()]
    start = next(index for index, line in enumerate(lines) if line.startswith("❯"))
    end = next(index for index, line in enumerate(lines) if "seed " in line)
    return " ".join(lines[start + 1 : end])


def cursor_text(app: LotrApp) -> str:
    """Return the characters under the cursor, which are painted in reverse."""
    transcript = app.screen.query_one(Transcript)
    segments = [segment for y in range(transcript.size.height) for segment in transcript.render_line(y)]
    return "".join(segment.text for segment in segments if segment.style is not None and segment.style.reverse)


@SIZES
@TOKENIZERS
async def test_reply_is_prose_that_continues_the_word_of_the_prompt(
    make_app: MakeApp, tokenizer: Tokenizer, size: tuple[int, int]
) -> None:
    app = make_open_app(make_app, RecitingModel(tokenizer, LINE))
    async with app.run_test(size=size) as pilot:
        set_field(app, "max_tokens", "90")
        reply = await reply_to(pilot, "The wiz")
        assert reply.full_text() == LINE
        assert reply_lines(app) == LINE.removeprefix("The ")
        assert "end of line · " in exchange_text(app)
        assert text_of(app.screen.query_one("#max_tokens Label")) == "tokens"


async def test_cursor_is_on_each_token_and_on_the_whole_character_of_a_byte(make_app: MakeApp) -> None:
    tokenizer = character_tokenizer()
    app = make_open_app(make_app, RecitingModel(tokenizer, "The wizard日é."))
    async with app.run_test(size=(120, 35)) as pilot:
        reply = await reply_to(pilot, "The wiz")
        await pilot.press("ctrl+g")
        shown = []
        for _ in reply.tokens:
            shown.append(cursor_text(app))
            await pilot.press("left")
        assert shown == [*".éé日日日dra"]


async def test_cursor_is_on_the_part_of_a_word(make_app: MakeApp) -> None:
    app = make_open_app(make_app, RecitingModel(bpe_tokenizer(), "The wizard. I"))
    async with app.run_test(size=(120, 35)) as pilot:
        reply = await reply_to(pilot, "The wiz")
        assert [token.piece for token in reply.tokens] == ["ard", ".", " I"]
        await pilot.press("ctrl+g", "home")
        assert cursor_text(app) == "ard"
        transcript = app.screen.query_one(Transcript)
        y = next(y for y in range(transcript.size.height) if "wizard. I" in transcript.render_line(y).text)
        x = transcript.render_line(y).text.index("wizard. I")
        margin = transcript.content_region.offset - transcript.region.offset
        for offset, index in ((0, 0), (4, 0), (6, 1), (7, 1), (8, 2)):  # the lead belongs to the first token
            await pilot.click(transcript, offset=(margin.x + x + offset, margin.y + y))
            assert transcript.cursor == (transcript.entries.index(reply.exchange), index)


@TOKENIZERS
async def test_no_part_of_a_character_is_painted_while_text_is_streaming(
    make_app: MakeApp, tokenizer: Tokenizer
) -> None:
    characters = "日本…—é”" * 4
    app = make_app(session_model=SessionModel("open", "", RecitingModel(tokenizer, f"The {characters}")), pace=80)
    async with app.run_test(size=(120, 35)) as pilot:
        set_field(app, "max_tokens", "90")
        await send(pilot, "The")
        await until(pilot, lambda: conversation_of(app).active_reply)
        seen = set()
        while conversation_of(app).active_reply is not None:
            seen.add(transcript_text(app))
            await pilot.pause(0.01)
        assert len(seen) > 1
        assert not any("�" in text for text in seen)
        await until_reply_ended(pilot)
        assert reply_lines(app) == characters


@TOKENIZERS
async def test_session_is_saved_resumed_and_branched(make_app: MakeApp, tokenizer: Tokenizer) -> None:
    model = open_model(tokenizer)
    app = make_open_app(make_app, model)
    async with app.run_test(size=(120, 35)) as pilot:
        text = (await reply_to(pilot, "The wiz")).full_text()
        shown = exchange_text(app)
    (session,) = list_sessions()
    app = make_open_app(make_app, model)
    async with app.run_test(size=(120, 35)) as pilot:
        view = app.screen.query_one(ConversationView)
        assert view.open_session(session.path, app.screen.session_model)  # type: ignore[attr-defined]
        await pilot.pause()
        assert exchange_text(app) == shown
        assert latest_reply(app).full_text() == text
        await pilot.press("ctrl+g", "home", "right", "enter")
        await until_reply_ended(pilot)
        branch = latest_reply(app)
        assert not notices(app)
        assert branch.full_text(1) == latest_reply(app).parent.full_text(1)  # type: ignore[union-attr]
        assert branch.full_text() != text


async def test_model_of_words_shows_the_session_of_another_tokenizer(make_app: MakeApp) -> None:
    app = make_open_app(make_app, RecitingModel(bpe_tokenizer(), LINE))
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot, "The")
        shown = reply_lines(app)
    (session,) = list_sessions()
    app = make_open_app(make_app, make_decoder())
    async with app.run_test(size=(120, 35)) as pilot:
        view = app.screen.query_one(ConversationView)
        assert view.open_session(session.path, app.screen.session_model)  # type: ignore[attr-defined]
        await pilot.pause()
        assert shown.split("¶")[0] in transcript_text(app)
        await pilot.press("ctrl+r")
        assert "splits text into other tokens" in notices(app)


async def test_copied_text_is_the_prompt_and_the_reply(make_app: MakeApp) -> None:
    app = make_open_app(make_app, RecitingModel(bpe_tokenizer(), LINE))
    async with app.run_test(size=(120, 35)) as pilot:
        reply = await reply_to(pilot, "The wiz")
        assert reply.text() == LINE[: len(reply.text())]
        await pilot.press("ctrl+g", "y")
        assert "copied" in notices(app).lower()


@TOKENIZERS
async def test_no_word_is_unknown_to_an_open_vocabulary(make_app: MakeApp, tokenizer: Tokenizer) -> None:
    app = make_open_app(make_app, open_model(tokenizer))
    open_class_before()
    async with app.run_test(size=(120, 35)) as pilot:
        help_line = lines_of(app.screen.query_one(HelpLine))
        noun = {"bpe": "word pieces", "characters": "characters"}[tokenizer.name]
        assert f"You are talking to open ({len(tokenizer)} {noun}, any text)" in help_line
        prompt = app.screen.query_one(PromptInput)
        prompt.value = "Xylophone 日本 ☺"
        await pilot.pause()
        assert prompt.unknown_words == ()
        assert "unknown" not in lines_of(app.screen.query_one(HelpLine))
        await pilot.press("enter")
        await until_reply_ended(pilot)
        assert "does not know" not in exchange_text(app)


async def test_help_footer_and_pace_are_about_tokens(make_app: MakeApp) -> None:
    app = make_open_app(make_app, RecitingModel(bpe_tokenizer(), LINE))
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot, "The wiz")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "choose a token" in text_of(app.screen.query_one(HelpLine)))
        assert "token" in [hint.description for hint in app.screen.query_one(KeyFooter).visible_keys()]
        await pilot.press("escape", "f5")
        await until(pilot, lambda: "pace: 5 tokens per second" in notices(app))


async def test_inspector_names_no_word_for_the_space_between_two(make_app: MakeApp) -> None:
    app = make_open_app(make_app, RecitingModel(character_tokenizer(), "The wizard is old"))
    async with app.run_test(size=(120, 35)) as pilot:
        await reply_to(pilot, "The wizard")
        await pilot.press("ctrl+g", "home")
        await until(pilot, lambda: 'TOKEN 1 of 7  "·"' in inspector_text(app))
        assert inspector_text(app).splitlines()[0].rstrip() == 'TOKEN 1 of 7  "·"'
        await pilot.press("right")
        await until(pilot, lambda: 'TOKEN 2 of 7  "i" in "is"' in inspector_text(app))
