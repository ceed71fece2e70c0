"""Previews of what comes next: tokens, speakers, the rest of a word, and texts that a slow model reads in a thread."""

import numpy as np
import pytest

from engine.data.scripts import Turn, encode_speaker
from engine.data.tokenizers import EOS, UNK, WordTokenizer
from engine.generation.generate import TextInProgress, next_token_probs, prefill, prefill_prompt
from engine.generation.turns import answerer_probs, begin_turn, next_speaker_probs, read_turns
from engine.models.base import predict_one_by_one
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.process import Cancellation
from lotr_tui.session import read_text
from lotr_tui.session.cast import Roles
from lotr_tui.session.comparison import Column, generate_columns
from lotr_tui.session.conversation import Conversation
from lotr_tui.session.read_text import NextTokenContext, PromptContext, TextReader, find_turn, read_next_token
from lotr_tui.session.session_model import SessionModel
from tests.support.app import VOCABULARY, make_decoder
from tests.support.conversations import SETTINGS, finish_scene, request
from tests.support.dialogues import ANSWERING, dialogue_session_model, say, text_of
from tests.support.open_models import bpe_tokenizer, character_tokenizer, open_model
from tests.support.slow_models import FakeSlowModel

OPEN_TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()])
TEXT = "Bilbo Baggins is a very old friend of mine, and I think he knows it. Where is the wiz"


def read(session_model, draft, reply_mode, previous=None, roles=None, *, conversation=None, reader=None):
    """Return the text whose next token is shown for a draft, after it was read."""
    conversation = conversation or Conversation(0)
    latest, context = conversation.current_reply, PromptContext(reply_mode, previous, roles or Roles())
    return read_next_token(reader or TextReader(), read_text.find_context(session_model, latest, draft, context))


# The next token


@OPEN_TOKENIZERS
def test_growing_draft_has_the_distribution_of_its_reply(tokenizer):
    session_model = SessionModel("open", "", open_model(tokenizer))
    reader, text = TextReader(), "Where is the wizard"
    for end in range(1, len(text) + 1):
        draft = text[:end]
        context = read(session_model, draft, "continue", reader=reader)
        expected = prefill_prompt(session_model.model, tokenizer.encode(draft).tolist())
        assert context.state.num_reread_tokens == expected.num_reread_tokens, draft
        assert np.allclose(context.state.log_probs, expected.log_probs, atol=1e-4), draft
        assert tokenizer.decode(context.ids) == draft


@OPEN_TOKENIZERS
def test_any_draft_can_be_read(tokenizer):
    session_model = SessionModel("open", "", open_model(tokenizer))
    for draft in ("", "\ud800", "a\ud800b", "\0", "\t\n", "☺"):
        context = read(session_model, draft, "continue")
        assert np.exp(context.state.log_probs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-4)


# Conversations


@pytest.fixture
def session_model():
    return dialogue_session_model()


def test_growing_draft_has_the_speakers_who_answer_it_and_only_its_end_is_read_again(conversation, session_model):
    previous = say(conversation, session_model, "where is frodo")
    before = [Turn("STRANGER", "where is frodo"), Turn("GANDALF", text_of(previous))]
    text, model, reader = "bilbo is a friend", session_model.model, TextReader()
    for end in range(1, len(text) + 1):
        speakers = read_next_token(
            reader, find_turn(session_model, text[:end], PromptContext("conversation", previous, Roles("FRODO")))
        ).speakers
        state = read_turns(model, [*before, Turn("FRODO", text[:end])])
        expected = answerer_probs(model, state, ("GANDALF", "GOLLUM"))
        assert [each.name for each in speakers] == [each.name for each in expected]
        assert [each.prob for each in speakers] == pytest.approx([each.prob for each in expected], abs=1e-6)


def test_a_slow_model_reads_a_line_in_the_same_parts_however_it_was_typed(monkeypatch, conversation, session_model):
    def predict_tokens(self, state, tokens, *, last_only=False):  # depends on the parts, as arithmetic in 8 bits does
        rows, state = predict_one_by_one(self, state, [*tokens, len(tokens)], last_only=last_only)
        return rows[-1:] if last_only else rows[1:], state

    monkeypatch.setattr(NumpyLSTM, "predict_tokens", predict_tokens)
    monkeypatch.setattr(NumpyLSTM, "is_slow", True, raising=False)
    model, context = session_model.model, PromptContext("conversation", roles=Roles("", "FRODO"))
    read_at_once = read_turns(model, [Turn("STRANGER", "where is bilbo now")], prefill(model, ()))
    expected = begin_turn(model, read_at_once, "FRODO", SETTINGS, 0).state
    for draft in ("where", "where is", "where is the", "where is bilbo now"):
        text = read_next_token(conversation.reader, find_turn(session_model, draft, context))
    assert np.array_equal(text.state.log_probs, expected.log_probs)
    reply = say(conversation, session_model, "where is bilbo now", "FRODO")
    assert reply.tokens[0].logprob == pytest.approx(float(expected.log_probs[reply.tokens[0].id]), abs=1e-6)
    column = Column("", model, SETTINGS.temperature).prepare("where is bilbo now", context, SETTINGS)
    ((_, first), *_) = generate_columns([column], 1, Cancellation())
    assert np.array_equal(first.log_probs, expected.log_probs)


def test_empty_draft_has_the_speakers_who_go_on(conversation, session_model):
    opening = read(session_model, "", "conversation").speakers
    expected = next_speaker_probs(session_model.model, prefill(session_model.model, ()), ANSWERING)
    assert [each.name for each in opening] == [each.name for each in expected]
    previous = say(conversation, session_model, "where is frodo")
    speakers = read_next_token(
        TextReader(), find_turn(session_model, "", PromptContext("conversation", previous))
    ).speakers
    conversation.go_on(None, 1, request(SETTINGS, 3, session_model, previous=previous))
    (turn,) = finish_scene(conversation)
    assert turn.speaker_prob == pytest.approx(next(each.prob for each in speakers if each.name == turn.speaker))


@pytest.mark.parametrize("speaker", ["GOLLUM", "BARLIMAN", ""])
def test_next_token_is_the_first_of_the_answer_by_the_chosen_or_likeliest_speaker(conversation, session_model, speaker):
    previous = say(conversation, session_model, "where is frodo")
    model, roles = session_model.model, Roles("FRODO", speaker)
    context = read(session_model, "bilbo is", "conversation", previous, roles, conversation=conversation)
    assert context.speaker == (speaker or context.speakers[0].name)
    reply = say(conversation, session_model, "bilbo is", context.speaker, speaking_as="FRODO", previous=previous)
    assert list(context.ids) == list(reply.context_ids)
    expected = begin_turn(model, prefill(model, reply.prompt_ids), reply.speaker, SETTINGS, 0).state
    assert np.allclose(context.state.log_probs, expected.log_probs, atol=1e-4)
    assert context.is_first_token
    text = TextInProgress(model, context.ids, SETTINGS, state=context.state, is_first_token=True)
    candidates = next_token_probs(text, 1000).candidates
    assert sum(each.model_prob for each in candidates) == pytest.approx(1, abs=1e-3)
    ends = model.tokenizer.line_end_ids.tolist()
    assert all(each.sampling_prob == 0 for each in candidates if each.ids[0] in ends)


def test_without_a_draft_the_next_token_after_an_ended_line_is_that_of_the_next_turn(conversation):
    session_model = dialogue_session_model(end_bias=8.0)
    reply = say(conversation, session_model, "where is frodo")
    assert reply.has_ended_line
    context = read(session_model, "", "conversation", reply, Roles(speaker="GOLLUM"), conversation=conversation)
    tokenizer = session_model.model.tokenizer
    head = [*tokenizer.encode("\n").tolist(), *encode_speaker(tokenizer, "GOLLUM")]
    assert list(context.ids) == [*reply.token_ids(), *head]


# The rest of a word


def complete(model, text, cancelled=lambda: False):
    return read_text.WordCompleter().complete(model, text, cancelled)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("the win", "ter"), ("The WIN", "ter"), ("a\nwin", "ter"), ("(win", "ter"), ("w", ""), ("winter", ""),
        ("winx", ""), ("win ", ""), ("win,", ""), ("☺", ""), ("", ""), ("<un", ""),
    ],
)  # fmt: skip
def test_last_word_is_completed(text, rest):
    assert complete(make_decoder(), text) == rest


def test_a_word_is_completed_before_its_forms_with_an_apostrophe():
    model = open_model(WordTokenizer((UNK, EOS, "bilbo's", "bilbo")))
    model.weights["output.bias"][2:] = 1, 0
    assert complete(model, "Bil") == "bo"
    assert complete(model, "Bilbo") == ""


@pytest.mark.parametrize("before", ["", "in the"])
def test_most_probable_word_after_the_typed_words_is_taken(before):
    model = make_decoder(5)
    log_probs = prefill(model, VOCABULARY.encode(before).tolist()).log_probs
    words = [token for token in VOCABULARY.tokens if token.startswith("th")]
    expected = max(words, key=lambda word: log_probs[VOCABULARY.token_to_id[word]])
    assert complete(model, f"{before} th") == expected[2:]


@pytest.mark.parametrize(("text", "rest"), [("The wiz", "ard"), ("The wizar", "d"), ("The wizard", ""), ("The ", "")])
def test_word_of_an_open_vocabulary_is_completed_token_by_token(text, rest):
    tokenizer = bpe_tokenizer()
    model = open_model(tokenizer)
    model.weights["output.bias"][tokenizer.tokens.index(" wizard")] = 20
    assert complete(model, text) == rest
    assert complete(open_model(character_tokenizer()), "the w") == ""
    session_model = dialogue_session_model()
    session_model.model.model.weights["output.bias"][tokenizer.tokens.index(" wizard")] = 20
    assert complete(session_model.model, text) == rest
    assert complete(model, text, lambda: True) == ""


# Texts of slow models


@pytest.fixture
def model():
    return FakeSlowModel()


def unread(model, text, *, is_chat=False, reopens=False):
    return NextTokenContext(model, model.tokenizer.encode(text).tolist(), is_chat, reopens)


def test_only_what_follows_the_common_beginning_is_read(model):
    reader = TextReader()
    for length in range(20, len(TEXT)):  # as it is typed
        reader.read(unread(model, TEXT[:length], reopens=True))
    num_tokens = len(unread(model, TEXT).ids)
    assert model.num_read < 3 * num_tokens
    model.num_read = 0
    reader.read(unread(model, TEXT, reopens=True))
    reader.read(unread(model, TEXT, reopens=True))
    assert model.num_read <= 3
    reader.read(unread(model, f"X{TEXT}"))
    assert model.num_read > num_tokens


def test_cancelled_text_is_continued_where_it_was_left(model):
    reader = TextReader()
    item = unread(model, TEXT * 10)
    assert reader.read(item, lambda: model.num_passes >= 3) is None
    assert model.num_read < len(item.ids)
    state = reader.read(item)
    assert model.num_read <= len(item.ids) + 1  # with <eos>
    assert np.allclose(state.log_probs, prefill(model, item.ids).log_probs, atol=1e-5)


@pytest.mark.parametrize("is_chat", [False, True])
def test_text_that_was_read_is_known_to_this_model_only(model, is_chat):
    reader, forms = TextReader(), {"is_chat": is_chat, "reopens": not is_chat}
    expected = reader.read(unread(model, TEXT, **forms))
    assert reader.find(unread(model, TEXT, **forms)).state is expected
    assert reader.find(unread(model, TEXT, is_chat=not is_chat, reopens=not is_chat)) is None
    assert reader.find(unread(FakeSlowModel(), TEXT, **forms)) is None
