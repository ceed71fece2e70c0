"""Preview in a conversation: who answers the draft, and the first word of the answer."""

import numpy as np
import pytest

from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.generation.prompt import prefill
from engine.generation.turns import Turn, begin_turn, next_speaker_probs, read_turns
from engine.models.base import LogProbs
from lotr_tui.session.column_output import PromptContext
from lotr_tui.session.conversation.cast import Roles
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.next_tokens import NextTokenPreview
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.word_completion import WordCompleter
from tests.support.app import make_decoder
from tests.support.conversations import SETTINGS, finish_reply
from tests.support.dialogues import (
    ANSWERING,
    CAST,
    count_tokens,
    dialogue_model,
    dialogue_session_model,
    finish_scene,
    say,
    text_of,
)
from tests.support.open_models import character_tokenizer


@pytest.fixture(params=[False, True], ids=["words", "bpe"])
def session_model(request: pytest.FixtureRequest) -> SessionModel:
    return dialogue_session_model(is_open=request.param)


def test_growing_draft_has_the_speakers_who_answer_it(conversation: Conversation, session_model: SessionModel) -> None:
    previous = say(conversation, session_model, "where is frodo")
    before = [Turn("STRANGER", "where is frodo"), Turn("GANDALF", text_of(previous))]
    preview, text, model = NextTokenPreview(session_model), "bilbo is a friend", session_model.model
    for end in range(1, len(text) + 1):
        speakers = preview.read_speakers(session_model, text[:end], "FRODO", previous)
        if not model.tokenizer.is_open:  # random bytes are encoded in another way than they were generated
            state = read_turns(model, [*before, Turn("FRODO", text[:end])])
            expected = next_speaker_probs(model, state, ("GANDALF", "GOLLUM"))
            assert [each.name for each in speakers] == [each.name for each in expected]
            assert [each.prob for each in speakers] == pytest.approx([each.prob for each in expected], abs=1e-6)
        assert {each.name for each in speakers} == {"GANDALF", "GOLLUM"}
        assert sum(each.prob for each in speakers) == pytest.approx(1)


def test_speaker_of_the_preview_is_the_one_that_answers(
    conversation: Conversation, session_model: SessionModel
) -> None:
    previous = say(conversation, session_model, "where is frodo")
    speakers = NextTokenPreview(session_model).read_speakers(session_model, "bilbo is", "", previous)
    reply = say(conversation, session_model, "bilbo is", None, previous=previous)
    assert reply.speaker_prob == pytest.approx(next(each.prob for each in speakers if each.name == reply.speaker))


def test_empty_draft_has_the_speakers_who_go_on(conversation: Conversation, session_model: SessionModel) -> None:
    preview = NextTokenPreview(session_model)
    opening = preview.read_speakers(session_model, "", "", None)
    assert [each.name for each in opening] == [
        each.name for each in next_speaker_probs(session_model.model, prefill(session_model.model, ()), ANSWERING)
    ]
    previous = say(conversation, session_model, "where is frodo")
    speakers = preview.read_speakers(session_model, " ", "", previous)
    conversation.go_on(session_model, None, 1, SETTINGS, 3, previous)
    (turn,) = finish_scene(conversation)
    assert turn.speaker_prob == pytest.approx(next(each.prob for each in speakers if each.name == turn.speaker))


def test_a_typed_character_reads_few_tokens(
    conversation: Conversation, session_model: SessionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    previous = say(conversation, session_model, "where is frodo")
    preview, text = NextTokenPreview(session_model), "bilbo is a very old friend of mine and"
    preview.read_speakers(session_model, text[:20], "", previous)
    tokens = count_tokens(session_model, monkeypatch)
    for end in range(21, len(text) + 1):
        tokens.clear()
        preview.read_speakers(session_model, text[:end], "", previous)
        preview.read(session_model, conversation, text[:end], "conversation", previous)
        assert len(tokens) <= 5  # the pieces of a word that has grown, `<eos>` and the speaker


@pytest.mark.parametrize("speaker", ["GOLLUM", ""])
def test_next_token_is_the_first_of_the_answer(
    conversation: Conversation, session_model: SessionModel, speaker: str
) -> None:
    previous = say(conversation, session_model, "where is frodo")
    preview, model = NextTokenPreview(session_model), session_model.model
    context = preview.read(session_model, conversation, "bilbo is", "conversation", previous, Roles("FRODO", speaker))
    likeliest = preview.read_speakers(session_model, "bilbo is", "FRODO", previous)[0].name
    reply = say(conversation, session_model, "bilbo is", speaker or likeliest, speaking_as="FRODO", previous=previous)
    assert list(context.ids) == list(reply.context_ids)
    expected = begin_turn(model, prefill(model, reply.context_ids[:-1]), reply.speaker)
    assert np.allclose(context.state.log_probs, expected.log_probs, atol=1e-4)
    assert context.is_first_token
    assert context.last_text("token") == f"{reply.speaker}: "
    assert sum(each.model_prob for each in context.token_probs(SETTINGS, 1000).candidates) == pytest.approx(1, abs=1e-3)


def test_without_a_draft_the_next_token_is_that_of_the_last_reply(
    conversation: Conversation, session_model: SessionModel
) -> None:
    preview = NextTokenPreview(session_model)
    opening = preview.read(session_model, conversation, "", "conversation", None, Roles(speaker="FRODO"))
    assert list(opening.ids) == [session_model.model.tokenizer.speaker_id("FRODO")]
    reply = say(conversation, session_model, "where is frodo")
    context = preview.read(session_model, conversation, "", "conversation", reply)
    assert list(context.ids) == reply.token_ids()


def test_without_a_draft_the_next_token_after_an_ended_line_is_that_of_the_next_turn(
    conversation: Conversation,
) -> None:
    session_model = SessionModel("short", "", dialogue_model(eos_bias=3.0))
    reply = say(conversation, session_model, "where is frodo")
    assert reply.has_ended_line
    preview = NextTokenPreview(session_model)
    context = preview.read(session_model, conversation, "", "conversation", reply, Roles(speaker="GOLLUM"))
    assert list(context.ids) == [*reply.token_ids(), EOS_ID, session_model.model.tokenizer.speaker_id("GOLLUM")]


def test_word_of_a_draft_is_completed_in_a_conversation(conversation: Conversation) -> None:
    session_model = dialogue_session_model()
    preview = NextTokenPreview(session_model)
    preview.read(session_model, conversation, "the lamp was li", "conversation", None)
    assert WordCompleter(preview).complete(session_model.model, "the lamp was li") == "t"


class StrangersWord:
    """Model that knows one word, and only as the beginning of a stranger's line."""

    def __init__(self, tokenizer: Tokenizer, word: str) -> None:
        self.tokenizer = tokenizer
        self._line = (EOS_ID, tokenizer.speaker_id("STRANGER"), *tokenizer.encode(word).tolist(), EOS_ID)

    def start(self) -> tuple[int, ...]:
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[LogProbs, tuple[int, ...]]:
        state = (*state, token)
        log_probs = np.full(len(self.tokenizer), -20.0, np.float32)
        is_known = self._line[: len(state)] == state and len(state) < len(self._line)
        log_probs[self._line[len(state)] if is_known else EOS_ID] = 0
        return log_probs, state


def test_first_word_of_a_draft_is_completed_as_a_line_of_a_stranger() -> None:
    model = StrangersWord(character_tokenizer().with_cast(CAST), "wizard")
    completer = WordCompleter(NextTokenPreview(SessionModel("characters", "", model)))
    assert completer.complete(model, "wiz") == "ard"


def test_columns_read_the_line_as_different_characters(conversation: Conversation, session_model: SessionModel) -> None:
    tokenizer = session_model.model.tokenizer
    previous = say(conversation, session_model, "where is frodo")
    context = PromptContext("conversation", previous, Roles("FRODO", "GANDALF"))
    before = [
        *previous.token_ids(), EOS_ID, tokenizer.speaker_id("FRODO"), *tokenizer.encode("bilbo is").tolist(), EOS_ID,
    ]  # fmt: skip
    assert list(context.token_ids("bilbo is", tokenizer)) == [*before, tokenizer.speaker_id("GANDALF")]
    assert list(context.token_ids("bilbo is", tokenizer, "GOLLUM")) == [*before, tokenizer.speaker_id("GOLLUM")]
    without_roles = PromptContext("conversation", previous)
    assert without_roles.token_ids("bilbo is", tokenizer)[-1] == tokenizer.speaker_id("SOMEONE")


def test_columns_of_a_model_without_speakers_read_the_lines(conversation: Conversation) -> None:
    session_model, plain = dialogue_session_model(), make_decoder()
    previous = say(conversation, session_model, "where is frodo")
    ids = PromptContext("conversation", previous, Roles("", "GOLLUM")).token_ids("bilbo is", plain.tokenizer)
    assert plain.tokenizer.decode(ids) == f"where is frodo\n{text_of(previous)}\nbilbo is\n"
    conversation.submit_prompt(session_model, "bilbo", "continue", SETTINGS, 1, None)
    continued = finish_reply(conversation)
    ids = PromptContext("reply", continued).token_ids("bilbo is", plain.tokenizer)
    assert plain.tokenizer.decode(ids) == f"bilbo{text_of(continued)}\nbilbo is\n"
