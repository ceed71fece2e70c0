"""Token frequencies of each speaker: counts, boosts and invalid values."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError
from engine.models.speaker_words import SpeakerWords
from engine.storage.schema import decode_json
from tests.support.random_dialogues import NUM_TEXT_TOKENS, SPEAKER_WORDS, TOKENIZER

FRODO, SAM = NUM_TEXT_TOKENS, NUM_TEXT_TOKENS + 1


def test_each_speaker_counts_the_tokens_and_ends_of_the_own_lines() -> None:
    ids = [5, EOS_ID, FRODO, 3, 3, EOS_ID, SAM, EOS_ID, EOS_ID, FRODO, 4, EOS_ID, 6]
    words = SpeakerWords.fit(np.array(ids, np.int32), TOKENIZER)
    assert words.counts == (((EOS_ID, 2), (3, 2), (4, 1)), ((EOS_ID, 1),), (), ())
    assert SpeakerWords.fit(np.empty(0, np.int32), TOKENIZER).counts == ((), (), (), ())


def test_boosts_match_a_hand_calculation() -> None:
    words = SpeakerWords(0.5, 10.0, (((2, 3), (3, 1)), ((3, 2),), ()))
    boosts = words.boosts(4)  # frequencies (0.5, 0.5, 3.5, 3.5) / 8
    assert [tokens.tolist() for tokens, _ in boosts] == [[2, 3], [3], []]
    assert boosts[0][1] == pytest.approx(
        [0.5 * math.log(1 + 3 / (10 * 3.5 / 8)), 0.5 * math.log(1 + 1 / (10 * 3.5 / 8))], rel=1e-6
    )
    assert boosts[1][1] == pytest.approx([0.5 * math.log(1 + 2 / (10 * 3.5 / 8))], rel=1e-6)


def test_words_survive_their_json() -> None:
    assert decode_json(SpeakerWords, json.dumps(asdict(SPEAKER_WORDS))) == SPEAKER_WORDS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-0.1, 10.0, ()), "weight -0.1"),
        ((11.0, 10.0, ()), "weight 11"),
        ((math.nan, 10.0, ()), "weight nan"),
        ((0.3, 0.0, ()), "0 prior tokens"),
        ((0.3, 10.0, (((-1, 2),),)), "token -1"),
        ((0.3, 10.0, (((1, -2),),)), "count -2"),
    ],
    ids=str,
)
def test_invalid_values_are_refused_in_one_line(values: tuple[float, float, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SpeakerWords(*values)  # type: ignore[arg-type]
