"""Bars of the next tokens, words and speakers; complete words where the tokens of a model are parts of words."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.style import Style

from engine.data.tokenizers import EOS, UNK, WordTokenizer
from engine.generation.complete_words import CompleteWordSearch
from engine.generation.generate import NUM_TOP_TOKENS, Candidate, NextTokenProbs, TextInProgress, next_token_probs
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.session import side
from lotr_tui.screens.session.side import TokenBars
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import SettingsStore
from lotr_tui.widgets.prompt import PromptInput
from tests.support import pilot as ui
from tests.support.app import ThemedApp
from tests.support.models import TokenByTokenModel
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model
from tests.support.sampling import text_after

LOG_PROBS = np.log(np.array([0.1, 0.05, 0.4, 0.2, 0.1, 0.08, 0.04, 0.03], dtype=np.float32))
VOCABULARY = WordTokenizer((UNK, EOS, "a", "not", "the", "going", "old", "friend"))


class BarsApp(ThemedApp):
    CSS_PATH = Path(side.__file__).with_name("session.tcss")

    def compose(self):
        yield TokenBars()


@pytest.fixture
async def drawn():
    app = BarsApp()
    async with app.run_test(size=(60, 14)) as pilot:

        async def draw(probs, after="is", filters="", size=(60, 14)):
            await pilot.resize_terminal(*size)
            bars = app.query_one(TokenBars)
            bars.set_place(after, probs.candidate_unit)
            bars.show(probs, filters)
            await pilot.pause()
            lines = [bars.render_line(y).text for y in range(bars.size.height)]
            assert all(cell_len(line) == bars.size.width for line in lines)
            return lines

        draw.bars = app.query_one(TokenBars)
        yield draw


def first_words(lines):
    return [line.split()[0] for line in lines if line.strip()]


def percentages(line):
    return [round(float(part.rstrip("%")) / 100, 3) for part in line.split() if part.endswith("%")]


async def test_bars_match_probabilities_computed_by_hand_and_follow_every_temperature(drawn):
    """Top-k 3 of the six words that can be sampled: 0.4, 0.2 and 0.1 of 0.7."""
    settings = SamplerSettings(temperature=1.0, top_k=3)
    preview = next_token_probs(text_after(LOG_PROBS, settings, [], VOCABULARY, is_first_token=True), 40)
    lines = await drawn(preview, filters=settings.describe(only_filters=True))
    assert lines[0].strip() == 'NEXT WORD  after "is"'
    assert lines[1].split() == ["entropy", "2.5", "bits", "after", "sampling", "raw"]
    assert first_words(lines[2:5]) == ["a", "not", "the"]
    assert [percentages(line) for line in lines[2:5]] == [[0.571, 0.4], [0.286, 0.2], [0.143, 0.1]]
    assert " top-k 3: 3 of 8 words can be sampled " in lines[5]
    assert lines[5].startswith("─")
    assert first_words(lines[6:]) == ["rare", "going", "end", "old", "friend"]
    assert [percentages(line) for line in lines[6:8]] == [[0.1], [0.08]]
    # The longest bar, of 57.1 %, fills the room; the mark of the raw probability is at 40/57.1 of it.
    name_width = len("end of line") + 1
    room = 58 - name_width - 14
    bar = lines[2][name_width : name_width + room]
    assert bar.index("│") == int(0.4 / (0.4 / 0.7) * room)
    assert bar.count("█") == room - 1
    assert lines[6].count("░") == round(0.1 / (0.4 / 0.7) * room)
    seen = set()
    for step in range(1, 41):
        settings = SamplerSettings(temperature=step * 0.05)
        line = (await drawn(next_token_probs(text_after(LOG_PROBS, settings, [], VOCABULARY), 40)))[2]
        probs = np.exp(LOG_PROBS[1:].astype(float) / settings.temperature)
        assert percentages(line)[0] == pytest.approx(probs.max() / probs.sum(), abs=0.0006)
        seen.add(line)
    assert len(seen) > 20
    assert "░" in line  # removed probability


async def test_special_tokens_spaces_and_units_are_named(drawn):
    await drawn(next_token_probs(text_after(LOG_PROBS, SamplerSettings(temperature=1.0), [], VOCABULARY), 40), UNK)
    lines = [drawn.bars.render_line(y) for y in range(drawn.bars.size.height)]
    styles = {segment.text.strip(): segment.style or Style() for line in lines for segment in line}
    assert styles["end of line"] == styles["rare word"]
    assert styles["rare word"].italic
    assert not styles["friend"].italic
    assert lines[0].text.strip() == "NEXT WORD  after rare word"
    candidates = (Candidate(" the", 0.5, 0.5), Candidate("<0xE2>", 0.2, 0.2), Candidate("<0x0A>", 0.2, 0.2))
    shown = await drawn(NextTokenProbs(candidates, 200, 257, 2.5, candidate_unit="token", token_unit="token"), " king")
    assert shown[0].strip() == 'NEXT TOKEN  after "·king"'
    assert shown[1].startswith("entropy 2.5 bits")
    assert first_words(shown[2:5]) == ["·the", "<0xE2>", "new"]
    assert "200 of 257 tokens can be sampled" in shown[5]


# Complete words


def expected_words(model, text, temperature=0.8):
    ids = model.tokenizer.encode(text).tolist()
    search = CompleteWordSearch(TextInProgress(model, ids, SamplerSettings()))
    *_, result = search.search(SamplerSettings(temperature=temperature), 40, 0.005, 5)
    return [[word.text[:13], f"{word.sampling_prob:.1%}", f"{word.model_prob:.1%}"] for word in result.candidates]


def rows(text):
    found = re.findall(r"^ ?(?:[1-8][ ●])?(\S+) .*?([\d.]+%) +([\d.]+%) *$", text, re.MULTILINE)
    return [[name.rstrip("…"), *probs] for name, *probs in found]


def shows_words(app, text, temperature=0.8):
    expected = [row for row in expected_words(open_model(bpe_tokenizer()), text, temperature) if row[1] != "0.0%"]
    shown = rows(ui.bars_text(app))
    return len(shown) >= 5 and shown == expected[: len(shown)]


async def test_bars_show_complete_words_and_the_key_switches_to_tokens(opened):
    tokenizer = bpe_tokenizer()
    async with opened() as (pilot, app):
        app.screen.set_session_model(SessionModel("open", "", open_model(tokenizer)))
        await pilot.press(*"Where is the")
        await ui.until(pilot, lambda: shows_words(app, "Where is the"))
        assert ui.bars_text(app).startswith('NEXT WORD  after "the"')
        assert "token entropy" in ui.bars_text(app)
        assert f"of {len(tokenizer)} tokens can be sampled" in ui.bars_text(app)
        await ui.press_letter(pilot, "u")
        await ui.until(pilot, lambda: "NEXT TOKEN" in ui.bars_text(app))
        await pilot.press("enter")
        model, ids = open_model(tokenizer), tokenizer.encode("Where is the").tolist()
        probs = next_token_probs(TextInProgress(model, ids, SamplerSettings()), 5)
        assert [row[0] for row in rows(ui.bars_text(app))[:5]] == [c.text.replace(" ", "·") for c in probs.candidates]
        await pilot.press(*" wiz")
        await pilot.pause()
        assert all(row[0].startswith("·wiz") for row in rows(ui.bars_text(app)))  # what can continue the word
    assert SettingsStore().current.preview_unit == "token"


class SlowModel(TokenByTokenModel):
    """A model that takes 20 ms per token in the search of words, and records the threads that run it."""

    def __init__(self):
        super().__init__(open_model(character_tokenizer()))
        self.threads = set()
        self.may_read = threading.Event()

    def advance(self, state, token):
        self.threads.add(threading.current_thread().name)
        if threading.current_thread().name == "next-words":
            self.may_read.wait(20)
        return super().advance(state, token)


async def test_slow_search_blocks_nothing_and_ends_with_the_next_key(opened):
    model = SlowModel()
    async with opened(session_model=SessionModel("slow", "", model)) as (pilot, app):
        await pilot.press(*"Where is")
        await ui.until(pilot, lambda: "next-words" in model.threads)
        await pilot.press(*" the")  # while the search for the words after "is" waits
        assert app.screen.query_one("#prompt", PromptInput).value == "Where is the"
        model.may_read.set()
        await ui.until(pilot, lambda: 'after "the"' in ui.bars_text(app))
        assert "next-words" in model.threads
        await ui.press_letter(pilot, "u")
        await ui.until(pilot, lambda: not any(thread.name == "next-words" for thread in threading.enumerate()))
        assert "NEXT TOKEN" in ui.bars_text(app)


def written_word(reply, index):
    """Return the text of a reply around a token, up to the next spaces or punctuation on both sides."""
    pieces = [token.piece for token in reply.tokens]
    text, start = "".join(pieces), sum(map(len, pieces[:index]))
    at = start + len(pieces[index]) - len(pieces[index].lstrip(" "))
    before, after = re.search(r"[\w'’]*$", text[:at])[0], re.match(r"[\w'’]*", text[at:])[0]
    return before + after or text[at]


async def test_inspector_shows_the_word_of_a_token_and_a_branch_to_a_word_writes_all_its_tokens(opened):
    tokenizer = bpe_tokenizer()
    async with opened(session_model=SessionModel("open", "", open_model(tokenizer))) as (pilot, app):
        reply = await ui.reply_to(pilot, "Where is the ")
        await pilot.press("ctrl+g", "home", "right", "right", "right")
        await ui.until(pilot, lambda: len(rows(ui.bars_text(app))) == NUM_TOP_TOKENS)
        token, word = reply.tokens[3], written_word(reply, 3)
        suffix = f' in "{word}"' if token.text.strip() != word else ""
        title = f'TOKEN 4 of {len(reply.tokens)}  "{token.text.replace(" ", "·")}"{suffix}'
        assert title in ui.bars_text(app)
        assert "branch to that word" in ui.bars_text(app)
        await pilot.press("u")
        await ui.until(pilot, lambda: "branch to that token" in ui.bars_text(app))
        log_probs = ui.conversation_of(app).reader.read(NextTokenContext.of_reply(reply, 3)).log_probs
        probs = next_token_probs(text_after(log_probs, reply.settings, reply.token_ids(3), tokenizer), NUM_TOP_TOKENS)
        expected = [[f"{each.sampling_prob:.1%}", f"{each.model_prob:.1%}"] for each in probs.candidates]
        assert [row[1:] for row in rows(ui.bars_text(app))] == expected
        await pilot.press("u")
        await ui.until(pilot, lambda: "branch to that word" in ui.bars_text(app))
        words = [row[0] for row in rows(ui.bars_text(app))]
        number = next(n for n, each in enumerate(words, 1) if len(each) > 1 and each.isalpha() and each != word)
        await pilot.press(str(number))
        await ui.until(pilot, lambda: ui.latest_reply(app) is not reply and not ui.latest_reply(app).is_generating)
        assert written_word(ui.latest_reply(app), 3).startswith(words[number - 1])
