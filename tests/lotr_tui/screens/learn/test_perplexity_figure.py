"""Tests of the chapter on perplexity: its numbers, its task by keyboard and by mouse, and other models."""

import asyncio
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.config import DataConfig
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.base import EOS_ID
from engine.models.base import LanguageModel
from engine.models.ngram import Unigram
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.material import Cancelled, ClassModel, Loading, Material
from lotr_tui.screens.learn.figure import REST_SECONDS
from lotr_tui.screens.learn.figures.perplexity.word_bits import WordBits
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, until_done
from tests.support.pilot import MakeApp, lines_of, text_of, until

BUNDLED = Material()
"""Bundled dialogues and models, which several tests read."""


@pytest.fixture(scope="module")
def lstm() -> LanguageModel:
    """Return the small LSTM of the class."""
    return load_model(assets_dir() / "class" / "lstm").model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Return the bundled dialogues as words."""
    return load_dataset(bundled_data_config())


def step_bits(model: LanguageModel, ids: list[int]) -> list[float]:
    """Return the bits of each token after `<eos>`, one step of the model after the other."""
    state, previous, bits = model.start(), EOS_ID, []
    for token in ids:
        log_probs, state = model.advance(state, previous)
        bits.append(-float(log_probs[token]) / math.log(2))
        previous = token
    return bits


def shown(screen: ChapterScreen, id: str) -> str:
    """Return a text of the figure."""
    return text_of(screen.query_one(f"#{id}", Static))


async def type_line(pilot: Pilot[None], screen: ChapterScreen, line: str) -> None:
    """Replace the line, with the text cursor at its end, and wait until it is scored."""
    text_input = screen.query_one(Input)
    text_input.value = line
    text_input.cursor_position = len(line)
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)


# --- numbers ---


async def test_bits_of_a_line_are_those_of_single_steps(make_host: MakeApp, lstm: LanguageModel) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        await type_line(pilot, screen, "Do not tell Frodo.")
        bits = step_bits(lstm, lstm.tokenizer.encode("do not tell frodo").tolist())
        words = lines_of(screen.query_one(WordBits)).splitlines()
        assert words[0].split() == ["Do", "not", "tell", "Frodo"]
        assert words[1].split() == [f"{value:.1f}" for value in bits]
        screen.query_one(WordBits).move_cursor(1)
        await pilot.pause()
        cursor, line = shown(screen, "sums").splitlines()
        for text, part in ((cursor, bits[:2]), (line, bits)):
            mean = sum(part) / len(part)
            numbers = [float(number) for number in re.findall(r"\d+\.?\d*", text)]
            expected = [round(sum(part), 1), len(part), round(mean, 2), 2, round(mean, 2), round(2**mean, 1)]
            assert numbers == pytest.approx(expected)


async def test_expected_words_are_the_likeliest(make_host: MakeApp, lstm: LanguageModel) -> None:
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        await type_line(pilot, screen, "I do not")
        state = lstm.start()
        for token in (EOS_ID, *lstm.tokenizer.encode("i do").tolist()):
            log_probs, state = lstm.advance(state, token)
        best = np.argsort(-log_probs)[:5].tolist()
        lines = shown(screen, "word").splitlines()
        not_id = lstm.tokenizer.encode("not")[0]
        assert lines[0].startswith(f"not  {-log_probs[not_id] / math.log(2):.1f} bits")
        for line, token in zip(lines[2:], best, strict=True):
            name, percent = line.split()[:2]
            assert name == lstm.tokenizer.tokens[token]
            assert float(percent) == pytest.approx(100 * math.exp(log_probs[token]), rel=0.05)


async def test_held_out_text_has_the_perplexities_of_single_steps(
    make_host: MakeApp, lstm: LanguageModel, dataset: Dataset
) -> None:
    ids = dataset.valid.tolist()
    counts = np.bincount(dataset.train, minlength=len(dataset.tokenizer)) + 1 / len(dataset.tokenizer)
    unigram = -np.log2(counts / counts.sum())[ids]
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        heading, *rows = shown(screen, "held-out").splitlines()
    assert f"{len(ids):,} words" in heading
    values = {row[:18].strip(): (row.split("=")[0].split()[-1], row.split("2^")[1].split()[0]) for row in rows}
    assert values["uniform"] == (f"{len(dataset.tokenizer):,}", f"{math.log2(len(dataset.tokenizer)):.2f}")
    assert values["unigram"] == (f"{2 ** unigram.mean():.1f}", f"{unigram.mean():.2f}")
    mean = np.mean(step_bits(lstm, ids))
    assert values["small LSTM"] == (f"{2**mean:.1f}", f"{mean:.2f}")
    assert float(values["small LSTM"][0]) < float(values["5-gram"][0]) < float(values["unigram"][0])


async def test_window_shows_what_the_loop_of_the_notebook_prints(
    make_host: MakeApp, lstm: LanguageModel, dataset: Dataset
) -> None:
    rows = dataset.valid[: 64 * 36].reshape(64, 36)
    losses = np.zeros((64, 35))
    for row, ids in enumerate(rows.tolist()):
        state = lstm.start()
        for time in range(35):
            log_probs, state = lstm.advance(state, ids[time])
            losses[row, time] = -log_probs[ids[time + 1]]
    async with make_host().run_test(size=(120, 40)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        for window in (50, 36, 35, 30, 1):
            screen.query_one(Slider).index = window - 1
            await pilot.pause()
            width = 36 - 35 % window
            total = sum(losses[:, i : i + window].mean() * window for i in range(0, width - 1, window))
            scored = losses[:, : width - 1]
            true = f"{math.exp(scored.mean()):.3f}" if scored.size else "-"
            numbers = shown(screen, "notebook").splitlines()[0]
            printed = f"{math.exp(total / width):.3f}"
            assert re.sub(" +", " ", numbers) == (
                f"scores {scored.size:,} of 2,240 words · prints {printed} · true perplexity {true}"
            )
        assert "1.000" not in numbers


# --- the task ---


async def test_nothing_is_done_at_the_start(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        assert not screen.finished_parts
        assert "prints   1.000" in shown(screen, "notebook")


async def test_number_of_scored_words_is_explained(make_host: MakeApp, dataset: Dataset) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        slider = screen.query_one(Slider)
        slider.focus()
        await pilot.pause()
        expected = f"Reads {64 * 36:,} of {len(dataset.valid):,} words in 64 rows; predicts 35 of 36"
        assert text_of(screen.query_one(HelpLine)).strip() == expected
        await pilot.press("home")
        assert "35 × 1 = 35 words of a row, divided by 36" in shown(screen, "notebook")
        slider.index = 16
        await pilot.pause()
        assert "2 × 17 = 34 words of a row, divided by 35" in shown(screen, "notebook")
        assert screen.query_one("#notebook").region.bottom <= 22


async def test_task_is_done_by_keyboard(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        await pilot.press("right")
        assert not screen.finished_parts
        await pilot.press("right")
        await until(pilot, lambda: screen.finished_parts == {0})
        await pilot.press("tab", *["left"] * 14)
        await pilot.pause(REST_SECONDS + 0.1)
        assert not screen.is_done  # a window of 36 does not fit
        await pilot.press("left", "left")
        await pilot.pause(REST_SECONDS + 0.1)
        assert not screen.is_done  # a window of 35 fits too
        await pilot.press("right")
        await until_done(pilot)


async def test_typed_words_count_as_moves(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        await pilot.press("shift+tab")
        assert isinstance(screen.focused, Input)
        screen.query_one(Input).value = ""
        await pilot.press(*"do not", "space")
        await until(pilot, lambda: screen.is_idle)
        await pilot.press(*["left"] * 7)
        assert screen.query_one(WordBits).cursor == 0
        assert shown(screen, "word").startswith("do  ")
        await pilot.press("tab", "x")  # typed while the words have the focus
        assert screen.query_one(Input).value == "xdo not "
        await type_line(pilot, screen, "what do you")
        await until(pilot, lambda: screen.finished_parts == {0})


async def test_task_is_done_by_mouse(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(160, 45)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        words = screen.query_one(WordBits)
        await pilot.click(words, offset=(words._cells[2].x + 2, 1))
        await until(pilot, lambda: screen.finished_parts == {0})
        slider = screen.query_one(Slider)
        await pilot.click(slider, offset=(slider.size.width // 3, 0))
        while slider.index < 34:
            await pilot._post_mouse_events([events.MouseScrollUp], slider)
        assert slider.index == 34
        await until_done(pilot)
        await pilot._post_mouse_events([events.MouseScrollUp], slider)


# --- lines, models and corpora ---


async def test_any_line_can_be_typed(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: BUNDLED)
        for line in ("", "  ", "...", "zorblax", "¶ ¶", "日本語 where is", "where " * 900):
            await type_line(pilot, screen, line)
            screen.query_one(WordBits).focus()
            await pilot.press("end", "up", "down", "left", "home", "right")
            await pilot.pause()
            assert ("type a line" in shown(screen, "word")) == (not screen.query_one(WordBits)._cells)
        await type_line(pilot, screen, "where is it")
        assert lines_of(screen.query_one(WordBits)).split()[:3] == ["where", "is", "it"]


async def test_model_of_byte_pairs_scores_the_line_and_the_small_lstm_the_held_out_text(make_host: MakeApp) -> None:
    own = SessionModel.from_loaded(load_model(assets_dir() / "model"))
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: Material(session_model=own))
        assert "the small LSTM reads the held-out text" in shown(screen, "figure-message")
        assert "small LSTM 79" in shown(screen, "held-out")
        assert screen.query_one("#notebook").region.bottom <= 22
        await type_line(pilot, screen, "Where are you, Gandalf?")
        scores = screen.query_one(WordBits).scores
        assert scores is not None
        assert scores.tokenizer == own.model.tokenizer
        bits = lines_of(screen.query_one(WordBits)).splitlines()[1].split()
        assert sum(map(float, bits)) == pytest.approx(scores.bits.sum(), abs=0.5)
        assert f"÷ {len(scores.tokens):3} tokens" in shown(screen, "sums")


async def test_transformer_of_words_is_measured_itself(make_host: MakeApp) -> None:
    own = SessionModel.from_loaded(load_model(assets_dir() / "class" / "transformer"))
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: Material(session_model=own))
        assert not screen.query_one("#figure-message").display
        assert "transformer 86.1" in shown(screen, "held-out")


async def test_slow_model_scores_after_a_pause(make_host: MakeApp, lstm: LanguageModel) -> None:
    class Slow:
        is_slow, tokenizer, start = True, lstm.tokenizer, lstm.start

        def advance(self, state: Any, token: int) -> Any:
            assert not _runs_an_event_loop()
            return lstm.advance(state, token)

    own = SessionModel("slow", "a slow model", Slow())
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: Material(session_model=own))
        await pilot.press("shift+tab", *" where is")
        assert lines_of(screen.query_one(WordBits)).split("\n")[1].split()[-1] == "·"
        await until(pilot, lambda: screen.is_idle)
        assert "·" not in lines_of(screen.query_one(WordBits))


def _runs_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def test_corpus_of_the_user(make_host: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another corpus is measured with its own words; counts take the place of a model that would be trained."""

    def class_model(self: Material, name: str, cancelled: Cancelled) -> Loading[ClassModel]:
        dataset = yield from self.words()
        return ClassModel("counts", Unigram(dataset.train, dataset.tokenizer))

    monkeypatch.setattr(Material, "class_model", class_model)
    csv, rng = tmp_path / "tales.csv", np.random.default_rng(0)
    names = [f"word{index}" for index in range(30)]
    csv.write_text("dialog\n" + "\n".join(" ".join(rng.choice(names, 9)) for _ in range(400)), "utf-8")
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "perplexity", lambda: Material(DataConfig(corpus=str(csv))))
        assert "uniform 32 " in shown(screen, "held-out")
        assert f"of {400 // 10 * 10 // 36 * 35} words" in shown(screen, "notebook")
        assert "word" in lines_of(screen.query_one(WordBits))  # a line of the corpus
