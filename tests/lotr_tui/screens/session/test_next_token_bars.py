"""Tests of the next-token bars."""

from collections.abc import Sequence

import numpy as np
import pytest
from rich.cells import cell_len
from rich.style import Style
from textual.app import ComposeResult

from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.preview import Candidate, NextTokenProbs, next_token_probs
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from tests.support.app import ThemedApp

WORDS = ("a", "not", "the", "going", "old", "friend")
LOG_PROBS = np.log(np.array([0.1, 0.05, 0.4, 0.2, 0.1, 0.08, 0.04, 0.03], dtype=np.float32))
VOCABULARY = WordTokenizer((UNK, EOS, *WORDS))


class HostApp(ThemedApp):
    def compose(self) -> ComposeResult:
        yield NextTokenBars()


async def drawn(
    next_words: NextTokenProbs, after: str = "is", filters: str = "", size: tuple[int, int] = (60, 14)
) -> list[str]:
    app = HostApp()
    async with app.run_test(size=size) as pilot:
        bars = app.query_one(NextTokenBars)
        bars.show(next_words, after, filters)
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
    preview = next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40, is_first_token=True)
    lines = await drawn(preview, filters=settings.describe_filters())
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


async def test_special_tokens_have_names_in_another_style() -> None:
    app = HostApp()
    async with app.run_test(size=(60, 14)) as pilot:
        bars = app.query_one(NextTokenBars)
        bars.show(next_token_probs(LOG_PROBS, SamplerSettings(temperature=1.0), [], VOCABULARY, 40), UNK, "")
        await pilot.pause()
        lines = [bars.render_line(y) for y in range(bars.size.height)]
        styles = {segment.text.strip(): segment.style or Style() for line in lines for segment in line}
        assert styles["end of line"] == styles["rare word"]
        assert styles["rare word"].italic
        assert not styles["friend"].italic
        assert lines[0].text.strip() == "NEXT WORD  after rare word"


async def test_unlikely_words_have_no_rows() -> None:
    probs = (0.6, 0.2, 0.1, 0.05, 0.0045, 0.004, 0.003)
    candidates = tuple(Candidate(f"w{n}", prob, 0 if prob == 0.1 else prob) for n, prob in enumerate(probs))
    rows = [line for line in await drawn(NextTokenProbs(candidates, 900, 1000, 2.0), size=(60, 30)) if "%" in line]
    assert first_words(rows) == ["w0", "w1", "w2", "w3", "w4"]
    flat = NextTokenProbs(tuple(Candidate(f"w{n}", 0.001, 0.001) for n in range(40)), 900, 1000, 9.9)
    assert len([line for line in await drawn(flat, size=(60, 30)) if "%" in line]) == 5


@pytest.mark.parametrize("width", [26, 38, 46, 48])
async def test_headings_and_names_are_complete_or_end_with_an_ellipsis(width: int) -> None:
    candidates = (Candidate("extraordinarily-long", 0.5, 0.5), Candidate("short", 0.5, 0.5))
    lines = await drawn(NextTokenProbs(candidates, 1045, 1047, 3.5), after="standing", size=(width, 14))
    assert lines[0].strip() == 'NEXT WORD  after "standing"'[: width - 3].strip() + ("…" if width < 29 else "")
    assert lines[1].rstrip().endswith("after sampling    raw")
    assert "3.5" in lines[1] or width < 30
    assert lines[2].startswith("extraordinari… ")
    assert "1,045 of 1,047" in lines[4]


async def test_removed_probability_is_shaded() -> None:
    settings = SamplerSettings(temperature=2.0)
    lines = await drawn(next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40, is_first_token=True))
    assert "░" in lines[2]
    assert "│" not in lines[2]
    assert "│" in lines[5]  # the probability of "going" has increased


async def test_cutoff_line_counts_tokens_without_room() -> None:
    settings = SamplerSettings(temperature=1.0)
    lines = await drawn(next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40), size=(60, 6))
    assert len([line for line in lines if percentages(line)]) < 7
    assert " 7 of 8 words can be sampled " in lines[-1]


@pytest.mark.parametrize("width", [5, 12, 20, 30, 46, 64, 200])
@pytest.mark.parametrize("height", [1, 5, 20])
async def test_lines_fill_any_size_exactly(width: int, height: int) -> None:
    candidates = tuple(
        Candidate(text, 0.2, after) for text, after in (("日本語", 0.6), ("e\u0301" * 30, 0.4), ("x", 0))
    )
    lines = await drawn(
        NextTokenProbs(candidates, 2, 10_000, 7.25), after="語" * 40, filters="greedy", size=(width, height)
    )
    assert ("…" in lines[0]) == (20 <= width < 200)
    if width >= 46 and height == 20:
        assert "7.2 bits" in lines[1]


async def test_bars_follow_every_temperature() -> None:
    app = HostApp()
    async with app.run_test(size=(60, 14)) as pilot:
        bars = app.query_one(NextTokenBars)
        seen = set()
        for step in range(1, 41):
            settings = SamplerSettings(temperature=step * 0.05)
            bars.show(next_token_probs(LOG_PROBS, settings, [], VOCABULARY, 40), "", "")
            await pilot.pause()
            line = bars.render_line(2).text
            probs = np.exp(LOG_PROBS[1:].astype(float) / settings.temperature)
            assert percentages(line)[0] == pytest.approx(probs.max() / probs.sum(), abs=0.0006)
            seen.add(line)
        assert len(seen) > 20


async def test_spaces_in_tokens_are_visible() -> None:
    candidates = (Candidate(" the", 0.5, 0.5), Candidate("<0xE2>", 0.2, 0.2), Candidate("<0x0A>", 0.2, 0.2))
    tokens = NextTokenProbs(candidates, 200, 257, 2.5, candidate_unit="token", token_unit="token")
    lines = await drawn(tokens, after=" king")
    assert lines[0].strip() == 'NEXT TOKEN  after "·king"'
    assert lines[1].startswith("entropy 2.5 bits")
    assert first_words(lines[2:5]) == ["·the", "<0xE2>", "new"]
    assert "200 of 257 tokens can be sampled" in lines[5]


@pytest.mark.parametrize(("width", "label"), [(60, "token entropy 2.5 bits"), (36, "2.5 bits")])
async def test_words_say_what_is_about_tokens(width: int, label: str) -> None:
    words = NextTokenProbs((Candidate("king", 0.5, 0.5),), 61, 2048, 2.5, candidate_unit="word", token_unit="token")
    lines = await drawn(words, after="the", filters="top-p 0.9", size=(width, 14))
    assert lines[0].strip() == 'NEXT WORD  after "the"'
    assert lines[1].startswith(label)
    assert ("top-p 0.9: 61 of 2,048 tokens can be sampled" if width > 50 else " 61 of 2,048 can be sampled ") in lines[
        3
    ]
