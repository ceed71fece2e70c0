"""Prompts and replies: typed, written, stopped, refused, and shown in the transcript."""

import threading

from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.combinations import CacheSettings, Mixture, NeuralCache
from lotr_tui.screens.session.transcript import SearchBar, Transcript
from lotr_tui.session import conversation as conversation_module
from lotr_tui.session.reply import Reply
from lotr_tui.session.session_file import load_session
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.transcript import Note
from lotr_tui.widgets.prompt import PromptInput
from lotr_tui.widgets.screen_lines import StatusBar
from tests.support import pilot as ui
from tests.support.app import VOCABULARY, make_decoder
from tests.support.models import TokenByTokenModel
from tests.support.open_models import open_model
from tests.support.pretrained import FATAL_WORD, slow_tokenizer


def prompt_of(app):
    return app.screen.query_one("#prompt", PromptInput)


def generated(model, prompt, settings, seed):
    ids = VOCABULARY.encode(prompt).tolist()
    events = generate(TextInProgress(model, ids, settings, seed))
    return " ".join(event.text for event in events if isinstance(event, TokenEvent))


async def test_typed_prompt_is_continued_with_the_seed_and_the_controls_by_a_mixture_with_cache(opened):
    model = NeuralCache(Mixture([make_decoder(1), make_decoder(2)], [0.7, 0.3]), CacheSettings(weight=0.2))
    async with opened(session_model=SessionModel("mine", "0.70 one + 0.30 two", model)) as (pilot, app):
        ui.set_field(app, "seed", "7")
        ui.set_field(app, "top_k", "5")
        await pilot.press("ctrl+up", *"Bilbo", "space", *"is", "enter")
        await ui.until_reply_ended(pilot)
        shown = ui.exchange_text(app)
        assert f"top-k 5: 5 of {len(VOCABULARY)} words can be sampled" in ui.bars_text(app)
        assert "mine · 0.70 one + 0.30 two" in ui.text_of(app.screen.query_one(StatusBar))
    assert generated(model, "bilbo is", SamplerSettings(temperature=0.85, top_k=5), 7) in shown
    for text in ("❯ Bilbo is", "seed 7", "temperature 0.85", "top-k 5", "words/s"):
        assert text in shown


async def test_a_slider_that_is_moved_consumes_no_randomness(opened):
    async with opened() as (pilot, _):
        first = await ui.reply_to(pilot, seed="3")
        await pilot.press(*["ctrl+up", "ctrl+down"] * 3)
        second = await ui.reply_to(pilot, seed="3")
        assert [token.id for token in second.tokens] == [token.id for token in first.tokens]


async def test_unusual_prompts_are_plain_text_and_unreadable_ones_are_refused_and_kept(opened):
    async with opened(size=(100, 40)) as (pilot, app):
        await pilot.press("ctrl+r", "ctrl+n")  # there is no reply yet
        for prompt in ("", "   ", "xylophone"):
            app.clear_notifications()
            await ui.send(pilot, prompt)
            await ui.until(pilot, lambda: ui.notices(app))
            assert prompt_of(app).value == prompt
        assert not ui.entries(app, Reply)
        for prompt, text in [
            ("bilbo xylophone ☺", "the model does not know: xylophone, ☺"),
            ("[red]bilbo[/red] is [/", "[red]bilbo[/red] is [/"), ("bilbo \x1b]0;owned\x07 is", "❯ bilbo is\n"),
        ]:  # fmt: skip
            await ui.reply_to(pilot, prompt)
            assert text in ui.exchange_text(app)
            assert not {"\x1b", "\x07"} & set(ui.exchange_text(app))
        assert "the model does not know: xylophone, ☺" in ui.transcript_text(app)  # of an older prompt
        assert "<unk>" not in ui.transcript_text(app)


async def test_escape_and_ctrl_c_stop_a_reply_and_keep_its_words(opened):
    async with opened(pace=40, size=(80, 24)) as (pilot, app):
        ui.set_field(app, "max_tokens", "900")
        for key in ("escape", "ctrl+c"):
            await ui.send(pilot, "bilbo is")
            await ui.until(pilot, lambda: len(ui.exchange_text(app).split()) > 6)
            await ui.send(pilot, "frodo is")  # is refused while a reply is written
            assert prompt_of(app).value == "frodo is"
            await pilot.press(key)
            await ui.until(pilot, lambda: "stopped by you" in ui.exchange_text(app))
            assert len(ui.exchange_text(app).split()) > 6
        assert len(ui.entries(app, Reply)) == 2
        app.clear_notifications()
        await pilot.press("ctrl+c")
        assert ui.notices(app) == "ctrl+q quits"
        assert app.return_code is None


class FailingModel(TokenByTokenModel):
    num_calls = 0

    def advance(self, state, token):
        self.num_calls += threading.current_thread().name == "generation"
        if self.num_calls > 5:
            raise ValueError("the weights [broke]")
        return super().advance(state, token)


async def test_error_during_generation_is_shown_and_the_session_continues(opened):
    async with opened(size=(80, 24)) as (pilot, app):
        app.screen.set_session_model(SessionModel("broken", "", FailingModel(make_decoder())))
        await ui.send(pilot, "bilbo is")
        await ui.until(pilot, lambda: "failed: " in ui.exchange_text(app))
        assert "ValueError: the weights [broke]" in ui.exchange_text(app)
        app.screen.set_session_model(SessionModel("whole", "", make_decoder()))
        assert (await ui.reply_to(pilot, "frodo is")).tokens


async def test_full_conversation_is_saved_and_says_how_to_begin_a_new_one(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(conversation_module, "MAX_TOKENS", 50)
    async with opened(size=(120, 40)) as (pilot, app):
        first = ui.conversation_of(app)
        while not first.is_full:
            await ui.reply_to(pilot)
        await ui.send(pilot, "the lamp")
        await ui.until(pilot, lambda: "this session is full; /new begins another one" in ui.notices(app))
        assert app.screen.query_one("#prompt").value == "the lamp"
        saved = load_session(tmp_path / "sessions" / f"{first.session.name}.jsonl").replies.values()
        assert sum(len(reply.tokens) for reply in saved) > 50
        await ui.send(pilot, "/new")
        new = await ui.reply_to(pilot, "bilbo")
        assert new.parent is None
        assert list(ui.conversation_of(app).replies.values()) == [new]
        assert len(list((tmp_path / "sessions").glob("*.jsonl"))) == 2


# The transcript


def painted_lines(app):
    return [line.strip() for line in ui.transcript_text(app).splitlines()]


def screen_line(app, text):
    """Return the row of the first painted line that starts with `text`."""
    return next(y for y, line in enumerate(painted_lines(app)) if line.startswith(text))


async def test_nothing_moves_while_a_reply_is_written_or_a_reader_has_scrolled_away(opened):
    async with opened(size=(100, 20)) as (pilot, app):
        ui.set_field(app, "max_tokens", "6")
        for seed in range(6):  # more than fit
            await ui.reply_to(pilot, seed=str(seed))
        transcript = app.screen.query_one(Transcript)
        assert transcript.is_vertical_scroll_end
        ui.conversation_of(app).pace = 10
        for keys in ((*"frodo", "enter"), ("ctrl+r",)):  # a regenerated reply is short at first
            await pilot.press(*keys)
            await ui.until(pilot, lambda: ui.conversation_of(app).active_reply and "❯ frodo" in ui.transcript_text(app))
            await pilot.pause()
            rows = {screen_line(app, "❯ frodo")}
            while ui.conversation_of(app).active_reply is not None:
                await pilot.pause(0.005)
                rows.add(screen_line(app, "❯ frodo"))
            assert len(rows) == 1
        await pilot.press("pageup")
        await pilot.pause()
        before = transcript.scroll_offset.y
        transcript.append(Note("training finished"))
        await pilot.pause()
        assert transcript.scroll_offset.y == before


async def test_search_finds_and_cycles_through_matches_and_keeps_what_is_typed(opened):
    async with opened(size=(80, 24)) as (pilot, app):
        transcript = app.screen.query_one(Transcript)
        for number in range(30):
            transcript.append(Note(f"note {number} " + ("Needle" if number in (3, 20) else "hay")))
        await pilot.press("ctrl+f", *"needle")
        assert prompt_of(app).value == ""
        matches = app.screen.query_one("#matches")
        for key, number, note in (("", 2, "note 20"), ("enter", 1, "note 3 "), ("down", 2, "note 20")):
            await pilot.press(*[key] * bool(key))
            await ui.until(pilot, lambda number=number: ui.text_of(matches) == f"{number} of 2")
            assert note in ui.transcript_text(app)
            lines = [transcript.render_line(y) for y in range(transcript.size.height)]
            assert [s.text for line in lines for s in line if s.style and s.style.reverse] == ["Needle"]
        await pilot.press("x")
        await ui.until(pilot, lambda: ui.text_of(matches) == "no match")
        await pilot.press("escape")
        await ui.until(
            pilot,
            lambda: app.screen.focused is prompt_of(app) and not app.screen.query_one(SearchBar).has_class("-open"),
        )


async def test_a_tokenizer_by_others_that_fails_while_one_types_is_one_line_below_the_prompt(opened):
    model = SessionModel("other", "by others", open_model(slow_tokenizer()))
    async with opened(session_model=model, notifications=True) as (pilot, app):
        prompt_of(app).value = f"Bilbo {FATAL_WORD}"
        await ui.until(pilot, lambda: "the tokenizer fails for this text" in prompt_of(app).get_help_line())
        await pilot.press("enter")
        await ui.until(pilot, lambda: "retry-limit" in ui.notices(app))
        prompt_of(app).value = "Bilbo"
        await pilot.pause()
        assert "the tokenizer fails" not in prompt_of(app).get_help_line()
        await pilot.press("enter")
        await ui.until_reply_ended(pilot)
