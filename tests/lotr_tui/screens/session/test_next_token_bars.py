"""Tests of the next-token bars."""

from collections.abc import Sequence

import numpy as np
import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult

from engine.data.vocabulary import EOS, UNK, Vocabulary
from engine.generation.preview import Candidate, NextTokenProbs, next_token_probs
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.session.next_token_bars import NextTokenBars

WORDS = ("a", "not", "the", "going", "old", "friend")
LOG_PROBS = np.log(np.array([0.1, 0.05, 0.4, 0.2, 0.1, 0.08, 0.04, 0.03], dtype=np.float32))
VOCABULARY = Vocabulary((UNK, EOS, *WORDS))


class HostApp(App[None]):
    def compose(self) -> ComposeResult:
        yield NextTokenBars()


async def drawn(
    next_words: NextTokenProbs, after: str = "is", chain: str = "", size: tuple[int, int] = (60, 14)
) -> list[str]:
    app = HostApp()
    async with app.run_test(size=size) as pilot:
        bars = app.query_one(NextTokenBars)
        bars.show(next_words, after, chain)
        await pilot.pause()
        lines = [bars.render_line(y).text for y in range(bars.size.height)]
        assert all(cell_len(line) == bars.size.width for line in lines)
        return lines


def first_words(lines: Sequence[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.strip()]


def percentages(line: str) -> list[float]:
    return [round(float(part.rstrip("%")) / 100, 3) for part in line.split() if part.endswith("%")]


async def test_bars_match_probabilities_computed_by_hand() -> None:
    """Top-k 3 of the six words that can be sampled: 0.4, 0.2 and 0.1 of 0.7."""
    settings = SamplerSettings(temperature=1.0, top_k=3)
    lines = await drawn(
        next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40, is_first_token=True), chain=settings.describe()
    )
    assert lines[0].startswith('NEXT WORD  after "is" · 2.5 bits')
    assert first_words(lines[1:4]) == ["a", "not", "the"]
    assert [percentages(line) for line in lines[1:4]] == [[0.571, 0.4], [0.286, 0.2], [0.143, 0.1]]
    assert " temperature 1.00 → top-k 3 · keeps 3 of 8 " in lines[4]
    assert lines[4].startswith("─")
    assert first_words(lines[5:]) == [UNK, "going", EOS, "old", "friend"]
    assert [percentages(line) for line in lines[5:7]] == [[0.1], [0.08]]
    # The longest bar, of 57.1 %, fills the room; the mark of the raw probability is at 40/57.1 of it.
    room = 58 - 7 - 14
    bar = lines[1][7 : 7 + room]
    assert bar.index("│") == int(0.4 / (0.4 / 0.7) * room)
    assert bar.count("█") == room - 1
    assert lines[5].count("░") == round(0.1 / (0.4 / 0.7) * room)


async def test_removed_probability_is_shaded() -> None:
    settings = SamplerSettings(temperature=2.0)
    lines = await drawn(next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40, is_first_token=True))
    assert "░" in lines[1]
    assert "│" not in lines[1]
    assert "│" in lines[4]  # the probability of "going" has increased


async def test_cutoff_line_counts_tokens_without_room() -> None:
    settings = SamplerSettings(temperature=1.0)
    lines = await drawn(next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40), size=(60, 6))
    shown = len([line for line in lines if percentages(line)])
    assert f" {7 - shown} more · 7 of 8 words can be sampled " in lines[-1]


@pytest.mark.parametrize("width", [5, 12, 20, 30, 46, 64, 200])
@pytest.mark.parametrize("height", [1, 5, 20])
async def test_lines_fill_any_size_exactly(width: int, height: int) -> None:
    candidates = tuple(
        Candidate(text, 0.2, after) for text, after in (("日本語", 0.6), ("e\u0301" * 30, 0.4), ("x", 0))
    )
    lines = await drawn(
        NextTokenProbs(candidates, 2, 10_000, 7.25), after="語" * 40, chain="greedy", size=(width, height)
    )
    if width >= 46:
        assert "7.2 bits" in lines[0]
        assert ("…" in lines[0]) == (width < 200)


async def test_bars_follow_every_temperature() -> None:
    app = HostApp()
    async with app.run_test(size=(60, 14)) as pilot:
        bars = app.query_one(NextTokenBars)
        seen = set()
        for step in range(1, 41):
            settings = SamplerSettings(temperature=step * 0.05)
            bars.show(next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40), "", settings.describe())
            await pilot.pause()
            line = bars.render_line(1).text
            probs = np.exp(LOG_PROBS[1:].astype(float) / settings.temperature)
            assert percentages(line)[0] == pytest.approx(probs.max() / probs.sum(), abs=0.0006)
            seen.add(line)
        assert len(seen) > 20
