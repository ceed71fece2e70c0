"""Turns of conversations with speakers: who answers, scenes without the user, other answers and the best of several."""

import re

import pytest

from engine.data.scripts import Turn, encode_speaker, encode_turns
from engine.errors import InvalidInputError, PromptError
from engine.generation import turns as engine_turns
from engine.generation.generate import prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import begin_turn
from lotr_tui.session.cast import Roles, answering_cast, describe_unknown_name, read_name
from lotr_tui.session.transcript import reply_figures
from tests.support.conversations import SETTINGS, finish_reply, finish_scene, request, written
from tests.support.dialogues import ANSWERING, dialogue_session_model, generated_text, say, text_of
from tests.support.sampling import script_of

NAMES = ("STRANGER", "GANDALF", "SAM", "KING OF THE DEAD", "URUK-HAI", "GOLLUM", "SOMEONE")
OTHERS = ("GANDALF", "SAM", "KING OF THE DEAD", "URUK-HAI", "GOLLUM")


@pytest.mark.parametrize(
    ("line", "called"),
    [
        ("Gollum, do you want the Ring?", ("GOLLUM",)), ("Thank you, Sam.", ("SAM",)),
        ("Good night, Sam! Good night, Gandalf!", ("GANDALF", "SAM")), ("Where is Mr. Gollum, Sam?", ("SAM",)),
        ("Mr. Gollum, come back!", ("GOLLUM",)), ("Who are you, King  of the dead?", ("KING OF THE DEAD",)),
        ("Hey uruk hai!", ("URUK-HAI",)), ("Do you know Gollum?", OTHERS), ("Samwise, come!", OTHERS),
        ("Stranger, who are you?", OTHERS), ("", OTHERS),
    ],
)  # fmt: skip
def test_who_is_called_by_name_answers(line, called):
    assert answering_cast(NAMES, "", line) == called


def test_the_user_does_not_answer_and_names_are_no_patterns():
    assert answering_cast(NAMES, "SAM", "Sam, I say!") == ("GANDALF", "KING OF THE DEAD", "URUK-HAI", "GOLLUM")
    assert answering_cast(("SAM", "SOMEONE"), "SAM", "Hello!") == ("SAM", "SOMEONE")
    cast = ("A.B", "C++", "(D", "SOMEONE")
    assert answering_cast(cast, "", "axb, come") == ("A.B", "C++", "(D")
    assert answering_cast(cast, "", "hello A.B!") == ("A.B",)


@pytest.fixture
def session_model():
    return dialogue_session_model()


@pytest.mark.parametrize("speaker", ["GOLLUM", "TOM BOMBADIL"])
def test_context_of_an_answer_is_the_script_up_to_the_name_of_its_speaker(conversation, session_model, speaker):
    tokenizer = session_model.model.tokenizer
    first = say(conversation, session_model, "where is frodo")
    second = say(conversation, session_model, "bilbo is", speaker, speaking_as="BARLIMAN", previous=first)
    expected = [
        *encode_turns(tokenizer, [Turn("STRANGER", "where is frodo")]),
        *encode_speaker(tokenizer, "GANDALF"), *(token.id for token in first.tokens), *tokenizer.encode("\n").tolist(),
        *encode_turns(tokenizer, [Turn("BARLIMAN", "bilbo is")]), *encode_speaker(tokenizer, speaker),
    ]  # fmt: skip
    assert list(second.context_ids) == expected
    assert second.token_ids() == [*expected, *(token.id for token in second.tokens)]
    assert second.speaker == speaker
    assert text_of(second) == generated_text(second)
    assert second.full_text() == tokenizer.decode(second.token_ids())
    assert second.full_text() == (
        f"Stranger: where is frodo\nGandalf:{text_of(first)}\nBarliman: bilbo is\n{speaker.title()}:{text_of(second)}"
    )


@pytest.mark.parametrize("seed", range(3))
def test_model_chooses_who_answers_by_the_seed(conversation, session_model, seed):
    reply = say(conversation, session_model, "where is frodo", "", seed=seed)
    model = session_model.model
    state = engine_turns.read_turns(model, [Turn("STRANGER", "where is frodo")])
    probs = engine_turns.answerer_probs(model, state, ANSWERING)
    expected = engine_turns.sample_speaker(probs, model.cast, 1.0, seed)
    assert (reply.speaker, reply.speaker_prob) == (expected.name, expected.prob)
    assert reply.speaker_probs == probs
    assert text_of(reply) == generated_text(reply)
    assert f" · {expected.name.title()} by the model, {100 * expected.prob:.0f} % · " in reply_figures(reply)


def test_scene_is_the_one_that_the_engine_generates(conversation, session_model):
    conversation.go_on(None, 6, request(SETTINGS, 7, session_model))
    turns = finish_scene(conversation)
    events = list(engine_turns.generate_scene(session_model.model, ANSWERING, 6, SETTINGS, 7))
    assert [Turn(turn.speaker, text_of(turn).strip()) for turn in turns] == script_of(events)
    starts = [event for event in events if isinstance(event, engine_turns.TurnStart)]
    assert [(turn.seed, turn.speaker_prob) for turn in turns] == [(start.seed, start.prob) for start in starts]
    assert [turn.turn.previous_reply for turn in turns] == [None, *turns[:-1]]
    assert not any(turn.prompt for turn in turns)
    assert conversation.current_reply is turns[-1]


@pytest.mark.parametrize(
    ("relation", "typed", "name"),
    [
        ("to", "gollum", "GOLLUM"), ("to", " Uruk hai ", "URUK-HAI"), ("to", "anyone", ""), ("to", "!Goll", "GOLL"),
        ("to", "! tom  bombadil", "TOM BOMBADIL"), ("to", "!gollum", "GOLLUM"), ("as", "Barliman", "BARLIMAN"),
        ("as", "!Golum", "GOLUM"), ("as", "me", ""),
    ],
)  # fmt: skip
def test_a_name_outside_the_cast_is_the_users_or_is_said_on_purpose(relation, typed, name):
    assert read_name(relation, typed, NAMES) == name
    assert bool(describe_unknown_name(name, NAMES)) == (name not in ("", *NAMES))


@pytest.mark.parametrize(
    ("relation", "typed", "message"),
    [
        ("to", "Goll", "Goll is not in the cast; did you mean Gollum? For a speaker outside the cast, write !Goll"),
        ("as", "GANDLF", "did you mean Gandalf?"), ("to", "Barliman", "Barliman is not in the cast. For a speaker"),
        ("to", "...", "is not a name"), ("as", "!", "is not a name"),
    ],
)  # fmt: skip
def test_a_misspelled_name_is_refused_with_the_nearest_one(relation, typed, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        read_name(relation, typed, NAMES)


def test_an_empty_line_is_refused_and_changes_nothing(conversation, session_model):
    with pytest.raises(PromptError, match="empty"):
        conversation.say("  ", request(SETTINGS, 1, session_model, "conversation"))
    assert conversation.active_reply is None
    assert not conversation.replies


def test_a_line_of_a_speaker_is_continued_up_to_its_end_and_then_on_the_next_line(conversation):
    session_model = dialogue_session_model(end_bias=8.0)
    roles = Roles(speaker="GOLLUM")
    line = written(conversation.say, "we wants", request(SETTINGS, 1, session_model, roles=roles))
    tokenizer = session_model.model.tokenizer
    assert line.token_ids(0) == [*encode_speaker(tokenizer, "GOLLUM"), *tokenizer.encode(" we wants").tolist()]
    assert line.has_ended_line
    assert "\n" not in text_of(line)
    script = written(conversation.continue_reply, line, request(SETTINGS, 2))
    assert script.full_text().startswith(f"Gollum: we wants{text_of(line)}\n")
    assert script.full_text() == tokenizer.decode(script.token_ids())


# Other answers in a turn


def test_turn_is_answered_again_as_another_speaker(conversation, session_model):
    before = say(conversation, session_model, "where is frodo")
    first = say(conversation, session_model, "bilbo is", previous=before)
    second = written(conversation.answer_as, first, "GOLLUM", request(SETTINGS, 5))
    assert second.turn.replies == [first, second]
    assert second.turn.selected_reply is second
    assert (second.speaker, second.prompt, second.turn.previous_reply) == ("GOLLUM", "bilbo is", before)
    assert second.prompt_ids == first.prompt_ids
    assert text_of(second) == generated_text(second)
    third = written(conversation.answer_as, second, "", request(SETTINGS, 6))
    assert third.speaker in ANSWERING
    assert third.speaker_prob is not None
    assert text_of(third) == generated_text(third)


def test_line_that_was_stopped_is_continued_and_an_ended_one_is_not(conversation):
    session_model = dialogue_session_model(end_bias=8.0)
    asked = request(SamplerSettings(max_tokens=1), 1, session_model, "conversation", roles=Roles("", "GANDALF"))
    stopped = written(conversation.say, "where is frodo", asked)
    continued = written(conversation.continue_reply, stopped, request(SETTINGS, 2))
    assert continued.tokens[0].id == stopped.tokens[0].id
    assert continued.speaker == "GANDALF"
    assert continued.has_ended_line
    with pytest.raises(InvalidInputError, match="the line has ended; go on with the next turn"):
        conversation.continue_reply(continued, request(SETTINGS, 3))


# The best of several answers


def test_best_answer_is_shown_and_the_others_are_branches(conversation, session_model):
    first = say(conversation, session_model, "where is frodo")
    reply = say(conversation, session_model, "bilbo is", "GOLLUM", previous=first, seed=40, best_of=5)
    model, lines = session_model.model, reply.prompt_ids
    *_, answers = engine_turns.stream_answers(
        begin_turn(model, prefill(model, lines), "GOLLUM", SETTINGS, 40, lines), 5
    )
    replies = reply.turn.replies
    assert [text_of(each).strip() for each in replies] == [answer.text for answer in answers]
    assert [each.seed for each in replies] == [answer.done.seed for answer in answers]
    assert sorted(each.seed for each in replies) == [40, 41, 42, 43, 44]
    scores = [each.score for each in replies]
    figures = [engine_turns.answer_score(each.log_prob - each.log_prob_alone, each.num_tokens) for each in scores]
    assert [score and score.rank for score in scores] == [1, 2, 3, 4, 5]
    assert figures == pytest.approx([answer.score for answer in answers])
    assert reply.turn.selected_reply is reply
    assert conversation.current_reply is reply
    assert reply_figures(reply).startswith(f"‹ 1/5 › · seed {reply.seed} · T 0.80 · best of 5 from seed 40 (")
    assert reply_figures(replies[2]).startswith(
        f"‹ 3/5 › · seed {replies[2].seed} · T 0.80 · rank 3 of 5 from seed 40 ("
    )
    for each in replies:  # every answer has the seed that gives it again
        assert text_of(each) == generated_text(each)


def test_no_answer_is_shown_if_the_choice_is_stopped(conversation, session_model):
    settings, roles = SamplerSettings(max_tokens=5000), Roles("", "GANDALF")
    reply = conversation.say("bilbo is", request(settings, 3, session_model, "conversation", None, roles, 64))
    conversation.stop()
    finish_reply(conversation)
    assert reply.reason == "cancelled"
    assert not reply.tokens
    assert reply.turn.replies == [reply]
