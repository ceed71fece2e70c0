"""Tests of the chapter on sampling: its numbers, and its task by keyboard and by mouse."""

import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Static

from engine.data.tokenizers.base import EOS_ID, UNK_ID
from engine.generation.generate import TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.formatting import format_percent
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figures.sampling.figure import EXAMPLE, SamplingFigure
from lotr_tui.screens.learn.figures.sampling.sliders import SAMPLE_TOKENS
from lotr_tui.screens.learn.sample_rows import SampleRows
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.screens.learn.word_bars import WordBars
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, until_done
from tests.support.pilot import MakeApp, text_of, until

MODEL = load_model(assets_dir() / "class" / "lstm").model
IDS = MODEL.tokenizer.encode(EXAMPLE).tolist()


def model_probs() -> npt.NDArray[np.float64]:
    """Return the model's distribution after the example, token by token."""
    log_probs, state = MODEL.advance(MODEL.start(), EOS_ID)
    for token in IDS:
        log_probs, state = MODEL.advance(state, token)
    return np.exp(log_probs.astype(np.float64))


def sampled_probs(
    temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> npt.NDArray[np.float64]:
    """Apply the sampler chain word by word, without the code of the engine."""
    probs = model_probs()
    probs[UNK_ID] = 0
    probs = probs ** (1 / temperature)
    probs /= probs.sum()
    ranked = sorted(range(len(probs)), key=lambda id: -probs[id])
    kept = ranked[: top_k or None]
    total = sum(probs[id] for id in kept)
    cumulative = 0.0
    nucleus = []
    for id in kept:
        if cumulative < top_p * total:
            nucleus.append(id)
        cumulative += probs[id]
    kept = [id for id in nucleus if probs[id] >= min_p * probs[ranked[0]]]
    result = np.zeros_like(probs)
    result[kept] = probs[kept]
    return result / result.sum()


def entropy(probs: npt.NDArray[np.float64]) -> float:
    return -sum(p * math.log2(p) for p in probs.tolist() if p > 0)


def kept_line(screen: ChapterScreen) -> str:
    return text_of(screen.query_one("#kept", Static))


async def press_until_idle(pilot: Pilot[None], screen: ChapterScreen, *keys: str) -> None:
    await pilot.press(*keys)
    await until(pilot, lambda: screen.is_idle)


def assert_bars(screen: ChapterScreen, sampled: npt.NDArray[np.float64]) -> None:
    raw = model_probs()
    lines = text_of(screen.query_one(WordBars)).splitlines()[1:]
    assert len(lines) >= 5
    for line in lines:
        name = line[1:].split()[0]
        id = MODEL.tokenizer.tokens.index(name) if name != "end" else EOS_ID
        *_, model_percent, percent = re.findall(r"<?[\d.]+ %|-$", line)
        assert model_percent == format_percent(raw[id])
        assert percent == (format_percent(sampled[id]) if sampled[id] else "-")


async def test_bars_and_numbers_are_those_of_a_plain_computation(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        await press_until_idle(pilot, screen, "tab", *["left"] * 4)  # temperature 0.8
        sampled = sampled_probs(0.8)
        assert_bars(screen, sampled)
        bits = f"{entropy(model_probs()):.1f} → {entropy(sampled):.1f} bits"
        assert kept_line(screen) == f"keeps {np.count_nonzero(sampled):,} · entropy {bits}"
        ratio = sampled.max() / sampled_probs().max()
        assert text_of(screen.query_one("#ratio", Static)) == f"the: {ratio:.2f} × as likely as at 1"


@pytest.mark.parametrize(
    ("keys", "chain"),
    [
        (["tab", "tab", "home", *["right"] * 2], {"top_k": 3}),
        (["tab"] * 3 + ["home", *["right"] * 9], {"top_p": 0.5}),
        (["tab"] * 4 + ["right"] * 6, {"min_p": 0.1}),
        (
            ["tab", *["right"] * 4, "tab", *["left"] * 8, "tab", *["left"] * 9, "tab", *["right"] * 8],
            {"temperature": 1.2, "top_k": 10, "top_p": 0.65, "min_p": 0.2},
        ),
    ],
)
async def test_filters_keep_the_words_of_a_plain_computation(
    make_host: MakeApp, keys: list[str], chain: dict[str, float]
) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        await press_until_idle(pilot, screen, *keys)
        figure = screen.query_one(SamplingFigure)
        assert figure.settings == SamplerSettings(**{"temperature": 1.0, "max_tokens": SAMPLE_TOKENS, **chain})
        sampled = sampled_probs(**chain)
        assert_bars(screen, sampled)
        assert f"keeps {np.count_nonzero(sampled)} of 2,249 words" in kept_line(screen)
        assert f"→ {entropy(sampled):.1f} bits" in kept_line(screen)
        at_one = sampled_probs(**{**chain, "temperature": 1.0}).max()
        cannot_double = f"the: {format_percent(at_one)} at 1, cannot double"
        expected = f"the: {sampled.max() / at_one:.2f} × by temperature alone" if at_one <= 0.5 else cannot_double
        assert text_of(screen.query_one("#ratio", Static)) == expected


async def test_texts_are_those_of_the_engine_with_the_same_seed(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        await press_until_idle(pilot, screen, "tab", *["left"] * 10)
        for seed in (7, 8):
            samples = screen.query_one(SampleRows)
            assert f"seed {seed} " in text_of(samples)
            for temperature, sample in zip((0.5, 0.3, 0.7, 1.0, 1.5), samples.samples, strict=True):
                settings = SamplerSettings(temperature=temperature, max_tokens=SAMPLE_TOKENS)
                generated = generate(MODEL, IDS, settings, seed)
                words = [event.text for event in generated if isinstance(event, TokenEvent)]
                assert sample.text.removeprefix("… ").split(" ¶")[0] == " ".join(words)
                assert sample.label == f"{temperature:.2f}"
            await press_until_idle(pilot, screen, "f8")


async def test_task_is_done_by_keyboard(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        assert not screen.finished_parts
        base = sampled_probs().max()
        twice = next(step for step in range(1, 20) if sampled_probs(1 - step / 20).max() >= 2 * base)
        half = next(step for step in range(1, 20) if sampled_probs(1 + step / 20).max() <= base / 2)
        await press_until_idle(pilot, screen, "tab", *["left"] * (twice - 1))
        assert not screen.finished_parts
        await press_until_idle(pilot, screen, "left")
        assert screen.finished_parts == {0}
        await press_until_idle(pilot, screen, *["right"] * (twice + half))
        assert screen.finished_parts == {0, 1}
        await press_until_idle(pilot, screen, *["left"] * half, "tab", *["left"] * 8)  # top-k 10
        assert screen.finished_parts == {0, 1}
        await pilot.press("left")
        await until_done(pilot)


async def test_task_is_done_by_mouse(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        temperature, top_k = screen.query_one("#temperature", Slider), screen.query_one("#top-k", Slider)
        middle = temperature.size.width // 2
        await pilot.click(temperature, offset=(middle - 4, 0))
        await until(pilot, lambda: screen.finished_parts == {0})
        await pilot.click(temperature, offset=(temperature.size.width - 8, 0))
        await until(pilot, lambda: screen.finished_parts == {0, 1})
        while temperature.index > 20:
            await pilot._post_mouse_events([events.MouseScrollDown], temperature)
        await pilot.click(top_k, offset=(14, 0))
        await until_done(pilot)


async def test_a_likely_word_cannot_double(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        await press_until_idle(pilot, screen, "tab", "tab", "home")
        assert text_of(screen.query_one("#ratio", Static)) == "the: 100 % at 1, cannot double"
        assert kept_line(screen).endswith("→ 0.0 bits")


async def test_word_that_no_sampler_picks_is_named(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        assert "keeps 2,248 of 2,249 words (never <unk>)" in kept_line(screen)


@pytest.mark.parametrize("run", ["model", "class/transformer"])
async def test_runs_of_other_kinds_are_sampled(make_host: MakeApp, run: str) -> None:
    session_model = SessionModel.from_loaded(load_model(assets_dir() / Path(run)))
    async with make_host().run_test(size=(60, 20)) as pilot:
        screen = await open_chapter(pilot, "sampling", lambda: Material(session_model=session_model))
        await press_until_idle(pilot, screen, "f5", *" the wiz")
        await press_until_idle(pilot, screen, "tab", *["left"] * 10)
        assert all(len(sample.text) > 5 for sample in screen.query_one(SampleRows).samples)
        if session_model.model.tokenizer.is_open:  # the last word is continued
            assert text_of(screen.query_one(WordBars)).splitlines()[1].startswith("▸ard ")
        kept = int(kept_line(screen).split()[1].replace(",", ""))
        assert 0 < kept <= len(session_model.model.tokenizer)


async def test_an_empty_line_is_the_start_of_a_text(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        await press_until_idle(pilot, screen, "ctrl+u")
        log_probs, _ = MODEL.advance(MODEL.start(), EOS_ID)
        likeliest = MODEL.tokenizer.tokens[int(np.argmax(np.where(np.arange(len(log_probs)) > 0, log_probs, -99)))]
        assert f"▸{likeliest} " in text_of(screen.query_one(WordBars))
