"""The memorization screen; passages are compared with a brute-force search of the bundled dialogues."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input

from engine.analysis.memorization import MIN_PASSAGE_LENGTH
from engine.data.tokenizers import UNK_ID, split_words
from lotr_tui.formatting import format_percent
from lotr_tui.screens.inspect.copied import CopiedScreen
from lotr_tui.screens.inspect.text_screen import marks_to_newlines, newlines_to_marks
from lotr_tui.screens.inspect.text_view import TextView, sanitize_text
from lotr_tui.session.comparison import load_training_data
from lotr_tui.session.session_model import SessionModel
from tests.support import analysis as ui
from tests.support import open_inspectors
from tests.support.open_inspectors import open_session_model, use_training_text, words_session_model
from tests.support.open_models import LINES, bpe_tokenizer
from tests.support.pilot import until


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    return words_session_model(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def training_lines(bundled):
    data = load_training_data(bundled.run)
    lines = [data.tokenizer.decode(ids) for ids in data.train_lines if 8 <= len(ids) <= 12 and UNK_ID not in ids]
    return lines[:3]


def copied_words(text, session_model):
    """Find out for each word whether it is in four consecutive words of a training line, by brute force."""
    data = load_training_data(session_model.run)
    ngrams = {
        tuple(ids[i : i + MIN_PASSAGE_LENGTH])
        for ids in map(list, data.train_lines)
        for i in range(len(ids) - MIN_PASSAGE_LENGTH + 1)
    }
    ids = [int(token) for token in data.tokenizer.encode(text)]
    copied = [False] * len(ids)
    for i in range(len(ids) - MIN_PASSAGE_LENGTH + 1):
        ngram = tuple(ids[i : i + MIN_PASSAGE_LENGTH])
        if UNK_ID not in ngram and ngram in ngrams:
            copied[i : i + MIN_PASSAGE_LENGTH] = [True] * MIN_PASSAGE_LENGTH
    return copied


def metrics(app):
    return ui.status_text(app, "#metrics")


def occurrences(app):
    return ui.static_text(app, "#lines")


@given(st.text(st.one_of(st.characters(), st.sampled_from(list("ab \n"))), max_size=60))
def test_a_text_survives_the_one_line_input(text):
    line = newlines_to_marks(text)
    assert line.isprintable()
    expected = [split_words(part) for part in sanitize_text(text).replace("<eos>", "\n").replace("¶", "\n").split("\n")]
    actual = [split_words(part) for part in marks_to_newlines(line).split("\n")]
    assert [tokens for tokens in actual if tokens] == [tokens for tokens in expected if tokens]


async def test_marks_and_figures_agree_with_a_brute_force_search_and_passages_are_browsed(
    hosted, bundled, training_lines
):
    first, second, third = training_lines
    text = f"{first} zyzzyva {second} zyzzyva pony pony pony {third}"
    async with hosted((200, 50), session_model=bundled) as (pilot, app):
        screen = await ui.open_memorization(pilot, bundled, text)
        copied, passages = copied_words(text, bundled), screen.passages
        view = app.screen.query_one(TextView)
        assert [bool(screen.passages_at(index)) for index in range(len(copied))] == copied
        assert metrics(app).startswith(f"{format_percent(copied.count(True) / len(copied))} copied, in passages of 4")
        longest = max(passage.length for passage in passages)
        counts = f"{len(copied)} words · {len(passages)} passages · longest {longest} words · 2 unknown"
        assert metrics(app).endswith(counts)

        last = len(passages) - 1
        for key, expected in [("n", 1), ("end", last), ("n", last)]:
            await pilot.press(key)
            assert screen.selected == expected, key
            assert f"passage {expected + 1} of {len(passages)} ·" in occurrences(app), key
        token = passages[1].start
        await pilot.click(TextView, offset=(view.column_of(token) + 1, view.line_of(token)))  # 1 is the padding
        assert screen.selected == 1

        part = " ".join(first.split()[2:8])
        await pilot.press("e")
        app.screen.query_one(Input).value = f"zyzzyva {part} zyzzyva <eos> {second}"
        await pilot.press("enter")
        await until(pilot, lambda: ui.is_idle(app) and "6 words" in occurrences(app))
        lines = load_training_data(bundled.run).splits.train
        found = [line for line in lines if f" {part} " in f" {' '.join(split_words(line.text))} "]
        assert f"in {'1 place' if len(found) == 1 else f'{len(found)} places'}" in occurrences(app)
        shown = next(line for line in occurrences(app).splitlines() if line.startswith(f"{found[0].speaker}  "))
        whole = f"{found[0].speaker}  {found[0].text}".replace("\n", " ")
        assert shown.replace("[", "").replace("]", "") == whole
        assert split_words(shown[shown.index("[") : shown.index("]")]) == part.split()
        assert ui.painted(view).count("¶") == 1
        await pilot.press("escape")
        assert not isinstance(app.screen, CopiedScreen)


async def test_missing_training_texts_and_odd_texts_are_reported_on_one_line(
    hosted, bundled, training_lines, loaded, tmp_path
):
    async with hosted((200, 50), session_model=bundled) as (pilot, app):
        for session_model, text, message in [
            (SessionModel("x", "", bundled.model), "the lamp", "no training text: this model has no run"),
            (SessionModel("x", "", bundled.model, run=tmp_path / "gone"), "the lamp", "no training text: "),
            (SessionModel("x", "", loaded.decoder, run=bundled.run), "the lamp", "another vocabulary than this model"),
            (bundled, "?! \x1b[ ¿…", "the text has no words"),
            (bundled, "zyzzyva " * 5, "0 % copied, in passages of 4 words or more · 5 words · 0 passages · 5 unk"),
        ]:
            screen = await ui.open_memorization(pilot, session_model, text)
            assert message in metrics(app)
            assert not screen.passages
            if "zyzzyva" in text:
                assert "nothing is copied" in occurrences(app)
            await pilot.press("escape")

        first, *rest = training_lines[0].split()
        await ui.open_memorization(pilot, bundled, f"☺ {first} мир {' '.join(rest)} ☺")
        assert ui.painted(app.screen.query_one(TextView)) == f"‹☺› 1[{first} ‹мир› {' '.join(rest)}] ‹☺›"
        assert "cannot read ☺, мир" in metrics(app)
        await pilot.press("escape")


async def test_passages_of_byte_pairs_are_whole_words_as_written(hosted, monkeypatch, tmp_path):
    tokenizer = bpe_tokenizer()
    monkeypatch.setattr(open_inspectors, "LINES", (*LINES, "He told me more than that before winter came."))
    use_training_text(monkeypatch, tokenizer)
    session_model = open_session_model(tokenizer, tmp_path)
    async with hosted((200, 50), session_model=session_model) as (pilot, app):
        await ui.open_memorization(pilot, session_model, "Now ask me more than that before noon")
        assert ui.painted(app.screen.query_one(TextView)) == "Now 1[ask 2[me more than that]1 before]2 noon"
        await pilot.press("escape")
        text = "But the wizard is older. É 😀, night with our pony,” said Frodo?\nWhere is Frodo? The lamps"
        await ui.open_memorization(pilot, session_model, text)
        shown = " ".join(ui.painted(app.screen.query_one(TextView)).split())
        marked = "But 1[the wizard is older.] É 😀, 2[night with our pony,” said] Frodo?¶ 3[Where is Frodo? The] lamps"
        assert shown == marked
        assert metrics(app).startswith("76 % copied, in passages of 4 words or more")
        assert metrics(app).endswith("17 words · 3 passages · longest 5 words")
        line = "ROSA  The wizard’s staff is old; [the wizard is older.] Éowyn smiled, and Théoden wept."
        assert occurrences(app) == f"passage 1 of 3 · 4 words · in 1 place:\n{line}"
