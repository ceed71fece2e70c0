"""Other answers in a turn of a conversation: as another speaker, from a branch, and the best of several."""

import pytest

from engine.errors import InvalidInputError
from engine.generation.best_of import generate_answers
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.session_model import SessionModel
from tests.support.conversations import SETTINGS, finish_reply
from tests.support.dialogues import ANSWERING, dialogue_model, dialogue_session_model, generated_text, say, text_of


@pytest.fixture(params=[False, True], ids=["words", "bpe"])
def session_model(request: pytest.FixtureRequest) -> SessionModel:
    return dialogue_session_model(is_open=request.param)


def test_turn_is_answered_again_as_another_speaker(conversation: Conversation, session_model: SessionModel) -> None:
    before = say(conversation, session_model, "where is frodo")
    first = say(conversation, session_model, "bilbo is", previous=before)
    second = conversation.answer_as(first, "gollum", SETTINGS, 5)
    finish_reply(conversation)
    assert second.turn.replies == [first, second]
    assert second.turn.selected_reply is second
    assert (second.speaker, second.prompt, second.turn.previous_reply) == ("GOLLUM", "bilbo is", before)
    assert second.context_ids[:-1] == first.context_ids[:-1]
    assert text_of(second) == generated_text(second)
    third = conversation.answer_as(second, None, SETTINGS, 6)
    finish_reply(conversation)
    assert third.speaker in ANSWERING
    assert third.speaker_prob is not None
    assert text_of(third) == generated_text(third)


def test_branches_of_an_answer_keep_its_speaker(conversation: Conversation, session_model: SessionModel) -> None:
    first = say(conversation, session_model, "where is frodo")
    other = conversation.answer_as(first, "GOLLUM", SETTINGS, 5)
    finish_reply(conversation)
    again = conversation.branch(other, 0, (), SETTINGS, 9)
    finish_reply(conversation)
    assert again.speaker == "GOLLUM"
    assert text_of(again) == generated_text(again, 9)
    forced = conversation.branch(other, 2, [other.tokens[2].id + 1], SETTINGS, 9)
    finish_reply(conversation)
    assert forced.speaker == "GOLLUM"
    assert [token.id for token in forced.tokens[:3]] == [
        *(token.id for token in other.tokens[:2]),
        other.tokens[2].id + 1,
    ]
    assert list(forced.context_ids) == list(other.context_ids)


def test_conversation_branches_over_turns(conversation: Conversation, session_model: SessionModel) -> None:
    first = say(conversation, session_model, "where is frodo")
    say(conversation, session_model, "bilbo is", previous=first)
    other = conversation.answer_as(first, "FRODO", SETTINGS, 5)
    finish_reply(conversation)
    reply = say(conversation, session_model, "bilbo is", "GOLLUM", previous=other)
    assert f"FRODO: {text_of(other)}\n" in reply.full_text()
    assert text_of(first) not in reply.full_text()
    assert text_of(reply) == generated_text(reply)
    conversation.select_reply(first)
    assert conversation.current_reply is not reply
    assert conversation.current_reply is not None
    assert conversation.current_reply.turn.previous_reply is first


def test_line_that_was_stopped_is_continued_and_an_ended_one_is_not(conversation: Conversation) -> None:
    session_model = SessionModel("short", "", dialogue_model(eos_bias=3.0))
    stopped = conversation.say(session_model, "where is frodo", "", "GANDALF", SamplerSettings(max_tokens=1), 1, None)
    finish_reply(conversation)
    continued = conversation.continue_reply(stopped, SETTINGS, 2)
    finish_reply(conversation)
    assert continued.tokens[0].id == stopped.tokens[0].id
    assert continued.speaker == "GANDALF"
    assert continued.has_ended_line
    with pytest.raises(InvalidInputError, match="the line has ended; go on with the next turn"):
        conversation.continue_reply(continued, SETTINGS, 3)


# The best of several answers


def test_best_answer_is_shown_and_the_others_are_branches(
    conversation: Conversation, session_model: SessionModel
) -> None:
    first = say(conversation, session_model, "where is frodo")
    reply = say(conversation, session_model, "bilbo is", "GOLLUM", previous=first, seed=40, best_of=5)
    model = session_model.model
    state = prefill(model, reply.context_ids[:-1])
    answers = generate_answers(model, state, "GOLLUM", SETTINGS, 40, 5, history=reply.context_ids[:-1])
    replies = reply.turn.replies
    assert [text_of(each).strip() for each in replies] == [answer.text for answer in answers]
    assert [each.seed for each in replies] == [answer.done.seed for answer in answers]
    assert sorted(each.seed for each in replies) == [40, 41, 42, 43, 44]
    scores = [each.score for each in replies]
    assert [score and score.rank for score in scores] == [1, 2, 3, 4, 5]
    assert [score and score.score for score in scores] == pytest.approx([answer.score for answer in answers])
    assert reply.turn.selected_reply is reply
    assert conversation.current_reply is reply
    assert "best of 5" in reply.exchange.figures
    assert f"seed {reply.seed}" in reply.exchange.figures
    for each in replies:  # every answer has the seed that gives it again
        assert text_of(each) == generated_text(each)


def test_states_of_the_best_answer_are_those_after_its_tokens(conversation: Conversation) -> None:
    session_model = dialogue_session_model()
    reply = say(conversation, session_model, "bilbo is", best_of=4)
    for index in (0, 3, len(reply.tokens)):
        state, expected = reply.decoder_state(index), prefill(session_model.model, reply.token_ids(index))
        assert state is not None
        assert state.log_probs == pytest.approx(expected.log_probs, abs=1e-4)


def test_first_word_is_that_of_the_chosen_answer(conversation: Conversation, session_model: SessionModel) -> None:
    conversation.pace = 200.0
    reply = conversation.say(session_model, "bilbo is", "", "GANDALF", SETTINGS, 3, None, 6)
    shown: list[str] = []
    while conversation.active_reply is not None:
        conversation.poll()
        shown.append(text_of(reply))
    assert all(text_of(reply).startswith(text) for text in shown)
    assert reply.score is not None
    assert reply.score.rank == 1


def test_no_answer_is_shown_if_the_choice_is_stopped(conversation: Conversation) -> None:
    session_model = dialogue_session_model()
    reply = conversation.say(
        session_model, "bilbo is", "", "GANDALF", SamplerSettings(max_tokens=5000), 3, None, best_of=64
    )
    conversation.stop()
    finish_reply(conversation)
    assert reply.done is not None
    assert reply.done.reason == "cancelled"
    assert not reply.tokens
    assert reply.turn.replies == [reply]


def test_other_answers_of_a_regenerated_turn_join_its_branches(conversation: Conversation) -> None:
    session_model = dialogue_session_model()
    first = say(conversation, session_model, "bilbo is", best_of=3)
    again = conversation.answer_as(first, "FRODO", SETTINGS, 10, best_of=3)
    finish_reply(conversation)
    replies = first.turn.replies
    assert [each.speaker for each in replies] == ["GANDALF"] * 3 + ["FRODO"] * 3
    assert replies[3] is again
    assert first.turn.selected_reply is again
    assert [each.exchange.branch_label for each in replies] == [f"branch {number} of 6" for number in range(1, 7)]
