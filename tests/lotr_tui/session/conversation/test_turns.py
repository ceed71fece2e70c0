"""Turns of conversations with speakers: who answers, scenes without the user, other answers and the best of several."""

import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError, PromptError
from engine.generation.best_of import generate_answers
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import (
    Turn,
    TurnEnd,
    TurnStart,
    generate_scene,
    next_speaker_probs,
    read_turns,
    sample_speaker,
)
from lotr_tui.session.conversation.cast import answering_cast
from lotr_tui.session.session_model import SessionModel
from tests.support.conversations import SETTINGS, finish_reply
from tests.support.dialogues import (
    ANSWERING,
    dialogue_model,
    dialogue_session_model,
    finish_scene,
    generated_text,
    say,
    text_of,
)

NAMES = ("STRANGER", "GANDALF", "SAM", "KING OF THE DEAD", "URUK-HAI", "GOLLUM", "SOMEONE")
OTHERS = ("GANDALF", "SAM", "KING OF THE DEAD", "URUK-HAI", "GOLLUM")


@pytest.mark.parametrize(
    ("line", "called"),
    [
        ("Gollum, do you want the Ring?", ("GOLLUM",)),
        ("Thank you, Sam.", ("SAM",)),
        ("Good night, Sam! Good night, Gandalf!", ("GANDALF", "SAM")),
        ("Where is Mr. Gollum, Sam?", ("SAM",)),
        ("Mr. Gollum, come back!", ("GOLLUM",)),
        ("Who are you, King  of the dead?", ("KING OF THE DEAD",)),
        ("Hey uruk hai!", ("URUK-HAI",)),
        ("Do you know Gollum?", OTHERS),
        ("Samwise, come!", OTHERS),
        ("Stranger, who are you?", OTHERS),
        ("", OTHERS),
    ],
)
def test_who_is_called_by_name_answers(line, called):
    assert answering_cast(NAMES, "", line) == called


def test_the_user_does_not_answer():
    assert answering_cast(NAMES, "SAM", "Sam, I say!") == ("GANDALF", "KING OF THE DEAD", "URUK-HAI", "GOLLUM")
    assert answering_cast(("SAM", "SOMEONE"), "SAM", "Hello!") == ("SAM", "SOMEONE")


def test_names_are_no_patterns():
    cast = ("A.B", "C++", "(D", "SOMEONE")
    assert answering_cast(cast, "", "axb, come") == ("A.B", "C++", "(D")
    assert answering_cast(cast, "", "hello A.B!") == ("A.B",)


@pytest.fixture(params=[False, True], ids=["words", "bpe"])
def session_model(request):
    return dialogue_session_model(is_open=request.param)


def test_context_of_an_answer_is_every_line_with_its_speaker(conversation, session_model):
    tokenizer = session_model.model.tokenizer
    first = say(conversation, session_model, "where is frodo")
    second = say(conversation, session_model, "bilbo is", "gollum", speaking_as="FRODO", previous=first)
    expected = [
        tokenizer.speaker_id("STRANGER"), *tokenizer.encode("where is frodo").tolist(), EOS_ID,
        tokenizer.speaker_id("GANDALF"), *(token.id for token in first.tokens), EOS_ID,
        tokenizer.speaker_id("FRODO"), *tokenizer.encode("bilbo is").tolist(), EOS_ID,
        tokenizer.speaker_id("GOLLUM"),
    ]  # fmt: skip
    assert list(second.context_ids) == expected
    assert second.token_ids() == [*expected, *(token.id for token in second.tokens)]
    assert second.speaker == "GOLLUM"
    assert text_of(second) == generated_text(second)
    assert second.full_text() == (
        f"STRANGER: where is frodo\nGANDALF: {text_of(first)}\nFRODO: bilbo is\nGOLLUM: {text_of(second)}"
    )


@pytest.mark.parametrize("seed", range(3))
def test_model_chooses_who_answers_by_the_seed(conversation, session_model, seed):
    reply = say(conversation, session_model, "where is frodo", None, seed=seed)
    state = read_turns(session_model.model, [Turn("STRANGER", "where is frodo")])
    expected = sample_speaker(next_speaker_probs(session_model.model, state, ANSWERING), SETTINGS.temperature, seed)
    assert (reply.speaker, reply.speaker_prob) == (expected.name, expected.prob)
    assert text_of(reply) == generated_text(reply)
    assert reply.exchange.choice == f"{expected.name.title()} by the model, {100 * expected.prob:.0f} %"


def test_scene_is_the_one_that_the_engine_generates(conversation, session_model):
    conversation.go_on(session_model, None, 6, SETTINGS, 7, None)
    turns = finish_scene(conversation)
    events = list(generate_scene(session_model.model, ANSWERING, 6, SETTINGS, 7))
    assert [(turn.speaker, text_of(turn).strip()) for turn in turns] == [
        (event.turn.speaker, event.turn.text) for event in events if isinstance(event, TurnEnd)
    ]
    starts = [event for event in events if isinstance(event, TurnStart)]
    assert [(turn.seed, turn.speaker_prob) for turn in turns] == [(start.seed, start.prob) for start in starts]
    assert [turn.turn.previous_reply for turn in turns] == [None, *turns[:-1]]
    assert not any(turn.prompt for turn in turns)
    assert conversation.current_reply is turns[-1]


def test_unknown_names_are_refused_with_the_nearest_one(conversation, session_model):
    with pytest.raises(InvalidInputError, match="did you mean GANDALF"):
        conversation.say(session_model, "bilbo is", "", "Gandalv", SETTINGS, 1, None)
    with pytest.raises(InvalidInputError, match="did you mean GOLLUM"):
        conversation.say(session_model, "bilbo is", "Golum", None, SETTINGS, 1, None)
    with pytest.raises(InvalidInputError, match="did you mean FRODO"):
        conversation.go_on(session_model, ["Frdo"], 3, SETTINGS, 1, None)
    with pytest.raises(PromptError, match="empty"):
        conversation.say(session_model, "  ", "", None, SETTINGS, 1, None)
    reply = say(conversation, session_model, "bilbo is")
    with pytest.raises(InvalidInputError, match="did you mean GANDALF"):
        conversation.answer_as(reply, "Gandalv", SETTINGS, 1)
    assert conversation.active_reply is None
    assert list(conversation.replies_by_exchange.values()) == [reply]
    assert reply.next_turn is None


# Other answers in a turn


def test_turn_is_answered_again_as_another_speaker(conversation, session_model):
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


def test_line_that_was_stopped_is_continued_and_an_ended_one_is_not(conversation):
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


def test_best_answer_is_shown_and_the_others_are_branches(conversation, session_model):
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


def test_no_answer_is_shown_if_the_choice_is_stopped(conversation):
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
