"""Turns of conversations with speakers: their contexts, who answers, scenes without the user, and other answers."""

import threading
from collections.abc import Sequence

import pytest

from engine.data.tokenizers.base import EOS_ID
from engine.errors import InvalidInputError, PromptError
from engine.generation.generate import TokenEvent
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.generation.turns import (
    Turn,
    TurnEnd,
    TurnStart,
    encode_turns,
    generate_scene,
    next_speaker_probs,
    read_turns,
    sample_speaker,
)
from engine.models.base import LogProbs, ModelState
from engine.models.dialogue import DialogueModel
from lotr_tui.session.conversation import state_cache
from lotr_tui.session.conversation.cast import Roles
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.conversation.state_cache import count_array_bytes
from lotr_tui.session.session_model import SessionModel
from tests.support.app import make_decoder
from tests.support.conversations import SETTINGS, finish_reply
from tests.support.dialogues import (
    ANSWERING,
    count_tokens,
    dialogue_session_model,
    finish_scene,
    generated_text,
    say,
    text_of,
)


@pytest.fixture(params=[False, True], ids=["words", "bpe"])
def session_model(request: pytest.FixtureRequest) -> SessionModel:
    return dialogue_session_model(is_open=request.param)


def test_context_of_an_answer_is_every_line_with_its_speaker(
    conversation: Conversation, session_model: SessionModel
) -> None:
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


def test_a_line_is_answered_from_the_cached_state(
    conversation: Conversation, session_model: SessionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = say(conversation, session_model, "where is frodo")
    tokens = count_tokens(session_model, monkeypatch)
    second = say(conversation, session_model, "bilbo is", previous=first)
    num_context = len(second.context_ids) - len(first.token_ids())
    assert len(tokens) == num_context + len(second.tokens)
    tokens.clear()
    other = conversation.answer_as(second, "FRODO", SETTINGS, 3)
    finish_reply(conversation)
    assert len(tokens) == num_context + len(other.tokens)


@pytest.mark.parametrize("seed", range(5))
def test_model_chooses_who_answers_by_the_seed(
    conversation: Conversation, session_model: SessionModel, seed: int
) -> None:
    reply = say(conversation, session_model, "where is frodo", None, seed=seed)
    state = read_turns(session_model.model, [Turn("STRANGER", "where is frodo")])
    expected = sample_speaker(next_speaker_probs(session_model.model, state, ANSWERING), SETTINGS.temperature, seed)
    assert (reply.speaker, reply.speaker_prob) == (expected.name, expected.prob)
    assert text_of(reply) == generated_text(reply)
    assert reply.exchange.choice == f"{expected.name.title()} by the model, {100 * expected.prob:.0f} %"


def test_users_and_someone_are_not_chosen_to_answer(conversation: Conversation, session_model: SessionModel) -> None:
    speakers = {
        say(conversation, session_model, "where is frodo", None, speaking_as="GANDALF", seed=seed).speaker
        for seed in range(40)
    }
    assert speakers == {"FRODO", "GOLLUM"}


def test_scene_is_the_one_that_the_engine_generates(conversation: Conversation, session_model: SessionModel) -> None:
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


def test_scene_continues_a_conversation_with_a_chosen_cast(
    conversation: Conversation, session_model: SessionModel
) -> None:
    first = say(conversation, session_model, "where is frodo")
    conversation.go_on(session_model, ["frodo", "Gollum"], 5, SETTINGS, 3, first)
    turns = finish_scene(conversation)
    assert len(turns) == 5
    assert {turn.speaker for turn in turns} == {"FRODO", "GOLLUM"}
    for turn in turns:
        assert text_of(turn) == generated_text(turn)


@pytest.mark.parametrize(("num_turns", "num_tokens"), [(1, 0), (1, 3), (2, 1), (3, 5)])
def test_scene_stops_at_any_token(
    conversation: Conversation, session_model: SessionModel, num_turns: int, num_tokens: int
) -> None:
    conversation.pace = 400.0
    settings = SamplerSettings(max_tokens=30)
    conversation.go_on(session_model, None, 20, settings, 7, None)
    started: list[Reply] = []

    def interrupt(reply: Reply) -> bool:
        if reply not in started:
            started.append(reply)
        return len(started) >= num_turns and len(started[num_turns - 1].tokens) >= num_tokens

    turns = finish_scene(conversation, interrupt)
    assert len(turns) in (num_turns, num_turns + 1)  # a turn of few tokens may have ended meanwhile
    assert turns[-1].done is not None
    assert turns[-1].done.reason == "cancelled"
    expected = list(generate_scene(session_model.model, ANSWERING, 20, settings, 7))
    texts = [event.turn.text for event in expected if isinstance(event, TurnEnd)]
    assert [text_of(turn).strip() for turn in turns[:-1]] == texts[: len(turns) - 1]
    assert texts[len(turns) - 1].startswith(text_of(turns[-1]).strip())


def test_answer_stopped_before_its_first_word_is_left_out_of_the_context(
    conversation: Conversation, session_model: SessionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, stopped = session_model.model, threading.Event()
    assert isinstance(model, DialogueModel)
    advance_tokens = model.advance_tokens

    def advance_after_stop(state: ModelState, tokens: Sequence[int]) -> tuple[LogProbs, ModelState]:
        assert stopped.wait(10)
        return advance_tokens(state, tokens)

    monkeypatch.setattr(model, "advance_tokens", advance_after_stop)
    first = conversation.say(session_model, "where is frodo", "", None, SETTINGS, 1, None)
    conversation.stop()
    stopped.set()
    finish_reply(conversation)
    assert not first.tokens
    second = say(conversation, session_model, "bilbo is", previous=first)
    assert second.text().startswith("STRANGER: bilbo is\nGANDALF: ")
    turns = [Turn("STRANGER", "where is frodo"), Turn("STRANGER", "bilbo is")]
    tokenizer = model.tokenizer
    assert list(second.context_ids) == [*encode_turns(tokenizer, turns), tokenizer.speaker_id("GANDALF")]


# Errors and limits


def test_unknown_names_are_refused_with_the_nearest_one(
    conversation: Conversation, session_model: SessionModel
) -> None:
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


def test_model_without_speakers_is_refused(conversation: Conversation) -> None:
    plain = SessionModel("plain", "", make_decoder())
    with pytest.raises(InvalidInputError, match="plain knows no speakers; use a model that was trained with --mode"):
        conversation.say(plain, "bilbo is", "", None, SETTINGS, 1, None)
    with pytest.raises(InvalidInputError, match="plain knows no speakers"):
        conversation.go_on(plain, None, 3, SETTINGS, 1, None)
    assert not conversation.replies_by_exchange


def test_one_turn_is_generated_at_a_time(conversation: Conversation, session_model: SessionModel) -> None:
    conversation.pace = 20.0
    reply = conversation.go_on(session_model, None, 3, SETTINGS, 1, None)
    with pytest.raises(InvalidInputError, match="still generating"):
        conversation.say(session_model, "bilbo is", "", None, SETTINGS, 1, None)
    with pytest.raises(InvalidInputError, match="still generating"):
        conversation.go_on(session_model, None, 1, SETTINGS, 1, None)
    with pytest.raises(InvalidInputError, match="still generating"):
        conversation.answer_as(reply, "FRODO", SETTINGS, 1)
    conversation.stop()
    finish_scene(conversation)
    assert list(conversation.replies_by_exchange.values()) == [reply]


def test_scene_of_200_lines_keeps_a_limited_number_of_states(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_model = dialogue_session_model()
    settings = SamplerSettings(max_tokens=4)
    monkeypatch.setattr(state_cache, "MAX_CACHE_BYTES", 50 * count_array_bytes(prefill(session_model.model, ())))
    conversation.go_on(session_model, None, 200, settings, 2, None)
    turns = finish_scene(conversation)
    assert len(turns) == 200
    assert sum(state is not None for turn in turns for state in turn.decoder_states) <= 50
    expected = list(generate_scene(session_model.model, ANSWERING, 200, settings, 2))
    assert [token.id for turn in turns for token in turn.tokens] == [
        event.id for event in expected if isinstance(event, TokenEvent)
    ]
    again = conversation.answer_as(turns[20], "GANDALF", settings, 5)  # no state of the beginning is left
    finish_reply(conversation)
    assert text_of(again) == generated_text(again)


def test_model_with_speakers_continues_a_text_as_one_of_them(
    conversation: Conversation, session_model: SessionModel
) -> None:
    tokenizer = session_model.model.tokenizer
    for speaker, expected in (("GOLLUM", "GOLLUM"), ("", "SOMEONE")):
        reply = conversation.submit_prompt(
            session_model, "the lamp ", "continue", SETTINGS, 1, None, Roles(speaker=speaker)
        )
        finish_reply(conversation)
        assert reply.speaker == expected
        assert reply.token_ids(0)[0] == tokenizer.speaker_id(expected)
        assert tokenizer.decode(reply.token_ids(0)[1:]).strip() == "the lamp"
        assert tokenizer.decode(reply.token_ids()) == reply.full_text()
        assert reply.text().startswith(f"{expected}: the lamp ")
