"""Number of answers that are drawn by default, which depends on the speed of the model."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from engine.generation.best_of import NUM_ANSWERS
from engine.models.base import LogProbs
from engine.models.dialogue import DialogueModel
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.turn_generation import AUTOMATIC, automatic_num_answers
from lotr_tui.session.session_model import SessionModel
from tests.support.dialogues import dialogue_model, say


class SlowModel(DialogueModel):
    """Dialogue model that takes 20 ms to advance several texts, so that 25 tokens take half a second."""

    def advance_batch(self, states: Sequence[Any], tokens: Sequence[int]) -> list[tuple[LogProbs, Any]]:
        time.sleep(0.02)
        return super().advance_batch(states, tokens)


@pytest.mark.parametrize(("is_slow", "expected"), [(False, NUM_ANSWERS), (True, 1)])
def test_several_answers_are_drawn_where_that_is_fast(conversation: Conversation, is_slow: bool, expected: int) -> None:
    model = dialogue_model()
    if is_slow:
        model = SlowModel(model.model, model.turn_model)
    assert automatic_num_answers(model) == expected
    reply = say(conversation, SessionModel("timed", "", model), "where is frodo", best_of=AUTOMATIC)
    assert len(reply.turn.replies) == expected
    assert (reply.score is None) == is_slow


def test_speed_of_a_model_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = dialogue_model()
    number = automatic_num_answers(model)
    monkeypatch.setattr(model, "advance_batch", lambda *_: pytest.fail("measured again"))
    assert automatic_num_answers(model) == number
