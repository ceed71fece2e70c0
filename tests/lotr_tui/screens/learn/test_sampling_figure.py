"""The chapter on sampling: its numbers, its task, and models of other kinds."""

import re

import numpy as np

from engine.generation.settings import SamplerSettings
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from lotr_tui.formatting import format_percent
from lotr_tui.screens.learn.figures import next_words
from lotr_tui.screens.learn.figures.next_words import SAMPLING_EXAMPLE, TEMPERATURES, TOP_KS
from lotr_tui.widgets.slider import Slider
from tests.support.learn import open_chapter, shown, until_done
from tests.support.models import distributions
from tests.support.pilot import lines_of, until
from tests.support.sampling import generate_tokens, naive_chain

MODEL = load_model(assets_dir() / "class" / "lstm").model
SLIDERS = {"temperature": TEMPERATURES, "top_k": TOP_KS, "top_p": next_words.TOP_PS, "min_p": next_words.MIN_PS}
IDS = MODEL.tokenizer.encode(SAMPLING_EXAMPLE).tolist()
RAW = distributions(MODEL, IDS)[-1]


def sampled_probs(**chain):
    settings = SamplerSettings(**{"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **chain})
    return np.array(naive_chain(np.log(RAW), settings, [], suppress_eos=False))


def entropy(probs):
    return 0.0 - float(probs[probs > 0] @ np.log2(probs[probs > 0]))


def bars(screen):
    return [line.strip() for line in lines_of(screen.query_one("#next")).splitlines() if line.strip()]


async def press_until_idle(pilot, screen, *keys):
    await pilot.press(*keys)
    await pilot.pause()
    await until(pilot, lambda: screen.is_idle)


async def test_bars_filters_and_texts_are_those_of_a_plain_computation(make_host):
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        assert " 2,248 of 2,249 words can be sampled " in bars(screen)[-1]  # never <unk>
        probs_at_one = sampled_probs()
        for chain in (
            {"temperature": 0.8},
            {"top_k": 3},
            {"top_p": 0.5},
            {"min_p": 0.1},
            {"temperature": 1.2, "top_k": 10, "top_p": 0.65, "min_p": 0.2},
            {"top_k": 1},
        ):
            for name, values in SLIDERS.items():
                value = chain.get(name, values[-1] if name == "top_p" else 1.0 if name == "temperature" else 0)
                screen.query_one(f"#{name.replace('_', '-')}", Slider).index = values.index(value)
            await press_until_idle(pilot, screen)
            sampled, [title, heading, *lines] = sampled_probs(**chain), bars(screen)
            assert title == 'NEXT WORD  after "since"'
            assert heading.startswith(f"entropy {entropy(RAW):.1f} bits")
            [cutoff] = [line for line in lines if "can be sampled" in line]
            assert f" {np.count_nonzero(sampled):,} of 2,249 words " in cutoff
            for line in lines[: min(3, lines.index(cutoff))]:
                id = MODEL.tokenizer.tokens.index(line.split()[0])
                assert re.findall(r"[\d.]+%", line) == [f"{prob:.1%}" for prob in (sampled[id], RAW[id])]
            at_one = sampled_probs(**{**chain, "temperature": 1.0}).max()
            if chain == {"temperature": 0.8}:
                ratio = f"the: {sampled.max() / probs_at_one.max():.2f} × as likely as at 1"
            elif at_one > 0.5:
                ratio = f"the: {format_percent(at_one)} at 1, cannot double"
            else:
                ratio = f"the: {sampled.max() / at_one:.2f} × by temperature alone"
            assert shown(pilot, "ratio") == f"{ratio}\nentropy {entropy(RAW):.1f} → {entropy(sampled):.1f} bits"


async def test_texts_are_those_of_the_engine_and_the_task_is_done_by_keyboard(make_host):
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "sampling")
        assert not screen.finished_parts
        base = sampled_probs().max()
        twice = next(step for step in range(1, 20) if sampled_probs(temperature=1 - step / 20).max() >= 2 * base)
        half = next(step for step in range(1, 20) if sampled_probs(temperature=1 + step / 20).max() <= base / 2)
        temperature, top_k = screen.query_one("#temperature", Slider), screen.query_one("#top-k", Slider)
        one = temperature.index
        for part, last, key in ((0, one - twice, "left"), (1, one + half, "right")):
            temperature.index = last + (1 if key == "left" else -1)
            await press_until_idle(pilot, screen)
            assert len(screen.finished_parts) == part
            await press_until_idle(pilot, screen, key)
            assert len(screen.finished_parts) == part + 1
        temperature.index, top_k.index = one, TOP_KS.index(10)
        await press_until_idle(pilot, screen, "tab")
        assert screen.finished_parts == {0, 1}
        await pilot.press("left")
        await until_done(pilot)

        top_k.index, temperature.index = TOP_KS.index(0), TEMPERATURES.index(0.5)
        await pilot.pause()
        for seed in (7, 8):
            await until(pilot, lambda: screen.is_idle)
            lines = [line for line in shown(pilot, "samples").splitlines() if "… " in line]
            for line, temperature in zip(lines, ("0.50", "0.30", "1.00", "1.50"), strict=True):
                assert f"seed {seed}, {temperature}" in line
                settings = SamplerSettings(temperature=float(temperature), max_tokens=next_words.SHORT_SAMPLE_TOKENS)
                words = " ".join(token.text for token in generate_tokens(MODEL, settings, seed, IDS)[0])
                assert words.startswith(line.split("… ")[1].split(" ¶")[0].strip(" …"))
            await press_until_idle(pilot, screen, "r")
        await press_until_idle(pilot, screen, "e", "ctrl+u")
        likeliest = MODEL.tokenizer.tokens[1 + int(np.argmax(distributions(MODEL, [])[0][1:]))]
        title, first, *_ = bars(screen)  # without headings
        assert title == "NEXT WORD  at the start"  # an empty line is the start of a text
        assert first.startswith(f"{likeliest} ")
