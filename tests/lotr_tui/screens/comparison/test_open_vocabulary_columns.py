"""Columns of models with different tokenizers: whole words are shown and compared."""

import pytest

from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.generate import Done
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.comparison.columns import DIFFERENCE_MARK
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.session.column_output import ColumnOutput, ColumnSlot, PromptContext
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import MakeHost
from tests.support.columns import columns_text, until_columns_ended
from tests.support.open_models import RecitingModel, bpe_tokenizer, character_tokenizer, open_model
from tests.support.pilot import text_of
from tests.support.sampling import make_token_event

LINES = (
    "The wizard said: “Where is the Ring?”",
    "The wizard said: “Where is Éowyn?”",
    "the wizard said where is the ring",
)
SIZES = pytest.mark.parametrize("size", [(200, 50), (80, 24)], ids=["200x50", "80x24"])


def output(*pieces: str, noun: str = "token", reason: str | None = None) -> ColumnOutput:
    column = ColumnOutput("")
    column.noun = noun
    column.events = [make_token_event(index=i, piece=piece) for i, piece in enumerate(pieces)]
    if reason is not None:
        column.events.append(Done(reason, 0, len(pieces), 1.0))  # type: ignore[arg-type]
    return column


@pytest.mark.parametrize(
    ("column", "other", "expected"),
    [
        (output(" a", " wiz"), output(" a", " wiz", "ard", "."), ["a"]),  # it may still become "wizard."
        (output(" a", " wiz", "ard"), output(" a", " wiz"), ["a"]),
        (output(" a", " wiz", "ard"), output(" a", " wiz", reason="eos"), ["a", "wizard"]),
        (output(" a", " wiz"), output(" a", " king"), ["a", "wiz"]),
        (output(" a", " wiz"), output(" a"), ["a", "wiz"]),
        (output(" a", " wiz", reason="length"), output(" a", " wiz", "ard", " of"), ["a"]),
        (output(" a", " wiz", "ard", reason="eos"), output(" a", " wiz", "ard", "s"), ["a", "wizard", EOS]),
        (output(" a", " wiz", noun="word"), output(" a", " wizard", noun="word"), ["a", "wiz"]),
        (output(), output(" a"), []),
    ],
)
def test_word_that_is_not_complete_differs_only_from_words_that_it_cannot_become(
    column: ColumnOutput, other: ColumnOutput, expected: list[str]
) -> None:
    assert column.words_to_compare(other) == expected


def test_words_are_shown_with_the_end_of_the_prompt_and_marks_for_line_ends() -> None:
    column = output("ard", ",", " said", "\n", "\x1b", "He")
    column.continued_prompt = "The old wiz"
    assert column.shown_words == ["wizard,", "said", "¶", "�He"]
    assert output(" of", " old").shown_words == ["of", "old"]


@SIZES
async def test_words_of_models_with_different_tokenizers_are_compared(
    make_host: MakeHost, size: tuple[int, int]
) -> None:
    words = WordTokenizer((UNK, EOS, *dict.fromkeys(LINES[2].split())))
    models = [
        RecitingModel(bpe_tokenizer(), LINES[0]),
        RecitingModel(character_tokenizer(), LINES[1]),
        RecitingModel(words, LINES[2]),
    ]
    async with make_host().run_test(size=size) as pilot:
        app = pilot.app
        settings = SamplerSettings(max_tokens=60)
        screen = SideBySideScreen(SessionModel("bpe", "", models[0]), app.runs_dir, "", settings, 3, 0)  # type: ignore[attr-defined]
        await app.push_screen(screen)
        await pilot.pause()
        screen.slots += [
            ColumnSlot(ColumnOutput(name), model, 0.8) for name, model in zip("cw", models[1:], strict=True)
        ]
        screen.query_one("#prompt").value = "The wiz" if size[0] == 200 else "The wizard"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until_columns_ended(pilot, screen)
        text = columns_text(screen)
        shown = [" ".join(slot.output.shown_words) for slot in screen.slots]
        if size[0] == 200:  # the model of words reads "wiz" as <unk>
            assert shown[:2] == [line.removeprefix("The ") for line in LINES[:2]]
            assert "≠ at word 5 · 43 % differ" in text
        else:
            assert shown == [line.split(maxsplit=2)[2] for line in LINES]
            assert "≠ at word 1" in text
            assert f"{DIFFERENCE_MARK}said" in text
        assert text_of(screen.query_one("#max_tokens Label")) == "tokens"
        assert f"{DIFFERENCE_MARK}Éowyn?”" in text
        assert "end of line" in text


async def test_ladder_of_an_open_vocabulary_counts_words_and_tokens(make_host: MakeHost) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        session_model = SessionModel("bpe", "", open_model(bpe_tokenizer()))
        screen = LadderScreen(session_model, "The wiz", SamplerSettings(), 3, 0, PromptContext())
        await pilot.app.push_screen(screen)
        await until_columns_ended(pilot, screen)
        text = columns_text(screen)
        assert "stopped at 30" in text
        assert "tokens" in text
        assert "bits/word" in text
        for slot in screen.slots:
            assert "".join(event.piece for event in slot.output.token_events).split()
            assert f"{len(slot.output.shown_words)} words" in text
