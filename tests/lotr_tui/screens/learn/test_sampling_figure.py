"""The chapter on sampling: its numbers, its task, and models of other kinds."""

import math
import re

import numpy as np

from engine.data.tokenizers import EOS_ID, UNK_ID
from engine.generation.generate import TextInProgress, TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.formatting import format_percent
from lotr_tui.screens.learn.figures import next_words
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, until_done
from tests.support.pilot import lines_of, text_of, until

MODEL = load_model(assets_dir() / "class" / "lstm").model
SLIDERS = {
    "temperature": next_words.TEMPERATURES,
    "top_k": next_words.TOP_KS,
    "top_p": next_words.TOP_PS,
    "min_p": next_words.MIN_PS,
}
IDS = MODEL.tokenizer.encode(next_words.SAMPLING_EXAMPLE).tolist()


def model_probs():
    """Return the model's distribution after the example, token by token."""
    log_probs, state = MODEL.advance(MODEL.start(), EOS_ID)
    for token in IDS:
        log_probs, state = MODEL.advance(state, token)
    return np.exp(log_probs.astype(np.float64))


def sampled_probs(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Apply the sampler chain word by word, without the code of the engine."""
    probs = model_probs()
    probs[UNK_ID] = 0
    probs = probs ** (1 / temperature)
    probs /= probs.sum()
    ranked = sorted(range(len(probs)), key=lambda id: -probs[id])
    kept = ranked[: top_k or None]
    total = sum(probs[id] for id in kept)
    cumulative, nucleus = 0.0, []
    for id in kept:
        if cumulative < top_p * total:
            nucleus.append(id)
        cumulative += probs[id]
    kept = [id for id in nucleus if probs[id] >= min_p * probs[ranked[0]]]
    result = np.zeros_like(probs)
    result[kept] = probs[kept]
    return result / result.sum()


def entropy(probs):
    return 0.0 - sum(p * math.log2(p) for p in probs.tolist() if p > 0)


def bars(screen):
    return [line.strip() for line in lines_of(screen.query_one("#next")).splitlines() if line.strip()]


def shown(screen, id):
    return text_of(screen.query_one(f"#{id}"))


async def press_until_idle(pilot, screen, *keys):
    await pilot.press(*keys)
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)


async def test_bars_filters_and_texts_are_those_of_a_plain_computation(make_host):
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        assert " 2,248 of 2,249 words can be sampled " in bars(screen)[-1]  # never <unk>
        raw, probs_at_one = model_probs(), sampled_probs()
        for chain in (
            {"temperature": 0.8},
            {"top_k": 3},
            {"top_p": 0.5},
            {"min_p": 0.1},
            {"temperature": 1.2, "top_k": 10, "top_p": 0.65, "min_p": 0.2},
            {"top_k": 1},
        ):
            full = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **chain}
            for name, values in SLIDERS.items():
                screen.query_one(f"#{name.replace('_', '-')}", Slider).index = values.index(full[name])
            await pilot.pause()
            await until(pilot, lambda: screen.is_idle)
            sampled, [title, heading, *lines] = sampled_probs(**chain), bars(screen)
            assert title.strip() == 'NEXT WORD  after "since"'
            assert heading.startswith(f"entropy {entropy(raw):.1f} bits")
            assert len(lines) >= 5
            for line in lines:
                if "can be sampled" in line:
                    assert f" {np.count_nonzero(sampled):,} of 2,249 words " in line
                    continue
                name, percents = line.split()[0], re.findall(r"[\d.]+%", line)
                id = MODEL.tokenizer.tokens.index(name) if name != "end" else EOS_ID
                assert percents == [f"{prob:.1%}" for prob in (sampled[id], raw[id]) if prob]
            at_one = sampled_probs(**{**chain, "temperature": 1.0}).max()
            if chain == {"temperature": 0.8}:
                ratio = f"the: {sampled.max() / probs_at_one.max():.2f} × as likely as at 1"
            elif at_one > 0.5:
                ratio = f"the: {format_percent(at_one)} at 1, cannot double"
            else:
                ratio = f"the: {sampled.max() / at_one:.2f} × by temperature alone"
            assert shown(screen, "ratio") == f"{ratio}\nentropy {entropy(raw):.1f} → {entropy(sampled):.1f} bits"


async def test_texts_are_those_of_the_engine_and_the_task_is_done_by_keyboard(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        assert not screen.finished_parts
        base = sampled_probs().max()
        twice = next(step for step in range(1, 20) if sampled_probs(1 - step / 20).max() >= 2 * base)
        half = next(step for step in range(1, 20) if sampled_probs(1 + step / 20).max() <= base / 2)
        temperature, top_k = screen.query_one("#temperature", Slider), screen.query_one("#top-k", Slider)
        one = temperature.index
        for part, last, key in ((0, one - twice, "left"), (1, one + half, "right")):
            temperature.index = last + (1 if key == "left" else -1)
            await press_until_idle(pilot, screen)
            assert len(screen.finished_parts) == part
            await press_until_idle(pilot, screen, key)
            assert len(screen.finished_parts) == part + 1
        temperature.index, top_k.index = one, next_words.TOP_KS.index(10)
        await press_until_idle(pilot, screen, "tab")
        assert screen.finished_parts == {0, 1}
        await pilot.press("left")
        await until_done(pilot)

        top_k.index, temperature.index = next_words.TOP_KS.index(0), next_words.TEMPERATURES.index(0.5)
        await pilot.pause()
        for seed in (7, 8):
            await until(pilot, lambda: screen.is_idle)
            lines = shown(screen, "samples").splitlines()
            lines = [line for line in lines if "… " in line]
            assert [line.split()[0].removeprefix("▸") for line in lines] == ["seed"] * 4
            for line, temperature in zip(lines, ("0.50", "0.30", "1.00", "1.50"), strict=True):
                assert f"seed {seed}, {temperature}" in line
                settings = SamplerSettings(temperature=float(temperature), max_tokens=next_words.SHORT_SAMPLE_TOKENS)
                events = generate(TextInProgress(MODEL, IDS, settings, seed))
                words = [event.text for event in events if isinstance(event, TokenEvent)]
                assert " ".join(words).startswith(line.split("… ")[1].split(" ¶")[0].strip(" …"))
            await press_until_idle(pilot, screen, "r")
        await press_until_idle(pilot, screen, "e", "ctrl+u")
        log_probs, _ = MODEL.advance(MODEL.start(), EOS_ID)
        likeliest = MODEL.tokenizer.tokens[int(np.argmax(np.where(np.arange(len(log_probs)) > 0, log_probs, -99)))]
        title, first, *_ = bars(screen)  # without headings
        assert title == "NEXT WORD  at the start"  # an empty line is the start of a text
        assert first.startswith(f"{likeliest} ")
