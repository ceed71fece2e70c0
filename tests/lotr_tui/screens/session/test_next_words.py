"""Complete words in the bars and in the inspector, for models whose tokens are parts of words."""

import re
import threading
import time
from typing import cast

import pytest
from textual.pilot import Pilot

from engine.data.tokenizers.base import Tokenizer
from engine.generation.complete_words import CompleteWordSearch
from engine.generation.generate import NUM_TOP_TOKENS
from engine.generation.preview import Candidate, next_token_probs
from engine.generation.prompt import prefill_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LogProbs, ModelState
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.app import LotrApp
from lotr_tui.commands import iter_binding_commands
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import SettingsStore
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.models import TokenByTokenModel
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model
from tests.support.pilot import MakeApp, bars_text, inspector_text, latest_reply, notices, reply_to, send, until

WIDE = (160, 45)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])


def make_open_app(make_app: MakeApp, tokenizer: Tokenizer) -> LotrApp:
    return make_app(session_model=SessionModel("open", "", open_model(tokenizer)))


def expected_words(
    model: NumpyLSTM, text: str, settings: SamplerSettings, max_words: int = 40, min_words: int = 5
) -> tuple[Candidate, ...]:
    ids = model.tokenizer.encode(text).tolist()
    search = CompleteWordSearch(model, prefill_prompt(model, ids), ids, is_first_token=True)
    *_, result = search.search(settings, max_words, 0.005, min_words)
    return result.candidates


def is_searching(app: LotrApp) -> bool:
    return bool(app.screen._next_words._task.is_running)  # type: ignore[attr-defined]


async def type_draft(pilot: Pilot[None], text: str) -> None:
    """Type a draft, and wait for the final words after it."""
    app = cast(LotrApp, pilot.app)
    app.screen.query_one(PromptInput).value = text
    await until(pilot, lambda: f'after "{text.split()[-1]}"' in bars_text(app) and not is_searching(app))
    await pilot.pause()


def rows(text: str) -> list[list[str]]:
    """Return the name and both probabilities of each bar."""
    found = re.findall(r"^ ?(?:[1-8][ ●])?(\S+) .*?([\d.]+%) +([\d.]+%) *$", text, re.MULTILINE)
    return [list(row) for row in found]


@TOKENIZERS
async def test_bars_show_complete_words(make_app: MakeApp, tokenizer: Tokenizer) -> None:
    app = make_open_app(make_app, tokenizer)
    async with app.run_test(size=WIDE) as pilot:
        await type_draft(pilot, "Where is the")
        words = expected_words(open_model(tokenizer), "Where is the", SamplerSettings())
        expected = [[word.text[:13], f"{word.sampling_prob:.1%}", f"{word.model_prob:.1%}"] for word in words]
        assert [[name.rstrip("…"), *probs] for name, *probs in rows(bars_text(app))] == [
            row for row in expected if float(row[1][:-1]) > 0
        ][: len(rows(bars_text(app)))]
        assert len(rows(bars_text(app))) >= 5
        assert bars_text(app).startswith('NEXT WORD  after "the"')
        assert "token entropy" in bars_text(app)
        assert f"of {len(tokenizer)} tokens can be sampled" in bars_text(app)


@TOKENIZERS
async def test_key_switches_to_tokens_and_back(make_app: MakeApp, tokenizer: Tokenizer) -> None:
    app = make_open_app(make_app, tokenizer)
    async with app.run_test(size=WIDE) as pilot:
        await type_draft(pilot, "Where is the")
        words = bars_text(app)
        await pilot.press("ctrl+right_square_bracket")
        await pilot.pause()
        model, ids = open_model(tokenizer), tokenizer.encode("Where is the").tolist()
        state = prefill_prompt(model, ids)
        history = ids[: len(ids) - state.num_reread_tokens]
        expected = next_token_probs(
            state.log_probs, SamplerSettings(), history, tokenizer, 5, is_first_token=True
        ).candidates
        shown = rows(bars_text(app))
        assert [row[0] for row in shown[:5]] == [each.text.replace(" ", "·") for each in expected]
        assert "NEXT TOKEN" in bars_text(app)
        assert "token entropy" not in bars_text(app)
        await pilot.press("ctrl+right_square_bracket")
        await until(pilot, lambda: bars_text(app) == words)
        await send(pilot, "/tokens")
        await until(pilot, lambda: "NEXT TOKEN" in bars_text(app))
    assert SettingsStore().current.preview_unit == "token"


async def test_switch_is_offered_only_where_tokens_are_parts_of_words(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        screen = app.screen
        await pilot.pause()
        bars = bars_text(app)
        assert "tokens" not in [command.name.partition(":")[0] for command in iter_binding_commands(app, screen)]
        await pilot.press("ctrl+right_square_bracket")
        await send(pilot, "/tokens")
        await pilot.pause()
        assert "/tokens has no effect: all tokens of this model are whole words" in notices(app)
        assert bars_text(app) == bars
        assert "NEXT WORD" in bars
        screen.set_session_model(SessionModel("open", "", open_model(bpe_tokenizer())))  # type: ignore[attr-defined]
        await until(pilot, lambda: "token entropy" in bars_text(app))
        assert "tokens" in [command.name.partition(":")[0] for command in iter_binding_commands(app, screen)]


async def test_temperature_changes_the_bars_at_once(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_open_app(make_app, bpe_tokenizer())
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press(*["f8"] * 8)
        await type_draft(pilot, "Where is the")
        monkeypatch.setattr(NumpyLSTM, "advance_batch", None)  # the model must not run any more
        monkeypatch.setattr(NumpyLSTM, "advance", None)
        for temperature in (1.15, 1.1, 1.05):
            before = bars_text(app)
            await pilot.press("f7")
            assert bars_text(app) != before
            words = expected_without_model(app, temperature)
            assert [row[1] for row in rows(bars_text(app))][:3] == [f"{word.sampling_prob:.1%}" for word in words][:3]


def expected_without_model(app: LotrApp, temperature: float) -> tuple[Candidate, ...]:
    search = app.screen._next_words._latest[1]  # type: ignore[attr-defined]
    *_, result = search.search(SamplerSettings(temperature=temperature), 40, 0.005, 5, runs_model=False)
    assert result.is_final
    candidates: tuple[Candidate, ...] = result.candidates
    return candidates


class SlowModel(TokenByTokenModel):
    """A model that takes 20 ms per token in the search of words, and counts the threads that run it."""

    def __init__(self) -> None:
        super().__init__(open_model(character_tokenizer()))
        self.threads: set[str] = set()

    def advance(self, state: ModelState, token: int) -> tuple[LogProbs, ModelState]:
        self.threads.add(threading.current_thread().name)
        if threading.current_thread().name == "next-words":
            time.sleep(0.02)
        return super().advance(state, token)


async def test_slow_search_blocks_nothing_and_ends_with_the_next_key(make_app: MakeApp) -> None:
    model = SlowModel()
    app = make_app(session_model=SessionModel("slow", "", model))
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press(*"Where is")
        started = time.monotonic()
        await pilot.press(*" the")
        assert time.monotonic() - started < 1
        assert app.screen.query_one(PromptInput).value == "Where is the"
        await until(pilot, lambda: 'after "the"' in bars_text(app))
        assert "next-words" in model.threads
        await pilot.press("ctrl+right_square_bracket")
        await until(pilot, lambda: not any(thread.name == "next-words" for thread in threading.enumerate()))
        assert "NEXT TOKEN" in bars_text(app)


async def inspect(pilot: Pilot[None], tokenizer: Tokenizer) -> None:
    """Generate a reply, and put the cursor on its fourth token."""
    reply = await reply_to(pilot, "Where is the ")
    assert len(reply.tokens) > 6
    await pilot.press("ctrl+g", "home", "right", "right", "right")
    await until(pilot, lambda: inspector_text(pilot.app).count("%") > NUM_TOP_TOKENS)


def written_word(app: LotrApp, index: int) -> str:
    """Return the text of the reply around a token, up to the next spaces or punctuation on both sides."""
    pieces = [token.piece for token in latest_reply(app).tokens]
    start = sum(map(len, pieces[:index]))
    text = "".join(pieces)
    at = start + len(pieces[index]) - len(pieces[index].lstrip(" "))
    first = at
    while first and (text[first - 1].isalnum() or text[first - 1] in "'’"):
        first -= 1
    end = at
    while end < len(text) and (text[end].isalnum() or text[end] in "'’"):
        end += 1
    return text[first:end] or text[at]


@TOKENIZERS
async def test_inspector_shows_the_word_of_a_token_and_other_words(make_app: MakeApp, tokenizer: Tokenizer) -> None:
    app = make_open_app(make_app, tokenizer)
    async with app.run_test(size=WIDE) as pilot:
        await inspect(pilot, tokenizer)
        reply = latest_reply(app)
        token, word = reply.tokens[3], written_word(app, 3)
        shown = token.text.replace(" ", "·")
        suffix = f' in "{word}"' if token.text.strip() != word else ""
        assert f'TOKEN 4 of {len(reply.tokens)}  "{shown}"{suffix}' in inspector_text(app)
        assert "branch to that word" in inspector_text(app)
        words = rows(inspector_text(app))
        assert len(words) == NUM_TOP_TOKENS
        await pilot.press("ctrl+right_square_bracket")
        await pilot.pause()
        state = reply.decoder_state(3)
        assert state is not None
        expected = next_token_probs(state.log_probs, reply.settings, reply.token_ids(3), tokenizer, NUM_TOP_TOKENS)
        assert [row[1:] for row in rows(inspector_text(app))] == [
            [f"{each.sampling_prob:.1%}", f"{each.model_prob:.1%}"] for each in expected.candidates
        ]
        assert "branch to that token" in inspector_text(app)


@TOKENIZERS
async def test_branching_to_a_word_writes_all_its_tokens(make_app: MakeApp, tokenizer: Tokenizer) -> None:
    app = make_open_app(make_app, tokenizer)
    async with app.run_test(size=WIDE) as pilot:
        await inspect(pilot, tokenizer)
        view, transcript = app.screen.query_one(ConversationView), app.screen.query_one(Transcript)
        for number in range(1, NUM_TOP_TOKENS + 1):
            inspected = view._inspected
            assert inspected is not None
            assert transcript.cursor is not None
            chosen, old = inspected.alternatives[number - 1], latest_reply(app)
            if chosen.text == inspected.written_text or not chosen.text[0].isalpha():
                continue
            await pilot.press(str(number))
            await until(pilot, lambda: view.conversation.active_reply is None)
            reply = latest_reply(app)
            assert reply is not old
            index = transcript.cursor[1]
            end = index + len(chosen.ids)
            assert [token.id for token in reply.tokens[index:end]] == list(chosen.ids)
            if len(reply.tokens) > end:
                assert tokenizer.word_starts[reply.tokens[end].id]
                assert written_word(app, index) == chosen.text
            await until(pilot, lambda: len(rows(inspector_text(app))) == NUM_TOP_TOKENS)


async def test_moved_highlight_stays_on_its_number(make_app: MakeApp) -> None:
    app = make_open_app(make_app, bpe_tokenizer())
    async with app.run_test(size=WIDE) as pilot:
        await inspect(pilot, bpe_tokenizer())
        view = app.screen.query_one(ConversationView)
        first = view.highlighted
        await pilot.press("j", "j")
        assert view.highlighted == (first + 1) % NUM_TOP_TOKENS + 1
        await pilot.press("ctrl+right_square_bracket")
        await pilot.pause()
        assert view.highlighted in (1, 2)


async def test_help_line_names_the_key(make_app: MakeApp) -> None:
    app = make_open_app(make_app, bpe_tokenizer())
    async with app.run_test(size=WIDE) as pilot:
        await type_draft(pilot, "Where is the")
        assert "ctrl+]" in app.screen.query_one(NextTokenBars).get_help_line()


async def test_bars_show_no_token_that_cannot_continue_the_word(make_app: MakeApp) -> None:
    app = make_open_app(make_app, bpe_tokenizer())
    async with app.run_test(size=WIDE) as pilot:
        await type_draft(pilot, "Where is the wiz")
        await pilot.press("ctrl+right_square_bracket")
        await until(pilot, lambda: "NEXT TOKEN" in bars_text(app))
        shown = [row[0] for row in rows(bars_text(app))]
        assert shown
        assert all(text.startswith("·wiz") for text in shown)
